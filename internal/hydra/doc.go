// Package hydra gives a Go program the command line and the configuration
// files of a Hydra application: config groups, defaults lists, the override
// grammar, lazy interpolation, output directories and parameter sweeps, with
// Hydra's semantics, messages and file formats, so that the users of such a
// program need not learn anything new.
//
// The behaviour followed is that of hydra-core 1.3 with version_base "1.3" and
// of omegaconf 2.3. The way of a command line through the package:
//
//	flags.go          --cfg, --multirun, … and the overrides between them
//	lexer.go          characters of an override to tokens, in two modes
//	parser.go         tokens to an override; functions.go evaluates int(…), choice(…), …
//	repository.go     the search path: which config, which group lies where
//	defaults.go       the defaults lists, expanded to the configs to merge, in order
//	compose.go        the merge, struct mode, the value overrides
//	interpolation.go  the grammar of ${…}
//	resolve.go        what ${…} stands for, when it is read
//	app.go            the output directory, its .hydra folder and the call of the task
//	multirun.go       the jobs of a sweep, which sweep.go enumerates
//	log.go            the job's log
//
// Underneath lie node.go and merge.go (the configuration tree), schema.go
// (typed nodes), scalar.go and read.go (YAML as OmegaConf reads it) and dump.go
// (YAML as PyYAML writes it).
//
// Left out are shell completion, plugins, callbacks, hydra.job.chdir and
// --experimental-rerun: asking for one of them is answered by an error that
// says so. The working directory is never changed.
package hydra
