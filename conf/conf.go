// Package conf holds the default configuration of the example programs as
// Hydra config groups: config.yaml with its defaults list, and a folder for
// each group. The files are embedded, so the programs run from anywhere; with
// --config-path they read a folder of yours instead.
package conf

import "embed"

// FS is the configuration, with config.yaml at its root.
//
//go:embed *.yaml */*.yaml
var FS embed.FS
