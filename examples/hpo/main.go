// Command hpo searches for the hyperparameters with the best macro-F1 on the
// validation split, as a study that Optuna's tools read too, and records it in
// MLflow. It is configured the Hydra way, with the groups of conf/:
//
//	go run ./examples/hpo model=tiny data=sample hpo.n_trials=8
//	go run ./examples/hpo hpo.study_name=night hpo.storage=postgresql://optuna@db/optuna
//
// The same command again continues the study; several at the same time share it.
// The output directory, outputs/DATE/TIME, receives the log, the pictures and
// best_trial_config.yaml, with which the best trial is trained again, in full:
//
//	go run ./examples/train --config-path outputs/DATE/TIME --config-name best_trial_config
//
// The exit code is 0 for success, 1 for a failure and 130 after Ctrl-C, which ends
// the search in order; a second Ctrl-C ends it at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/conf"
	"github.com/criteria-go/criteria/internal/hydra"
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore) // the second signal does what signals do: it kills
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) (exitCode int) {
	app := hydra.App{
		Name: "hpo", ConfigFS: conf.FS, ConfigName: "config", ConfigLabel: "conf",
		Help: "Search for the hyperparameters of a DeBERTaV3 classifier of (post, criterion) pairs.\n" +
			"The same command again continues the study; several at the same time share it.",
	}
	exitCode = app.Run(ctx, args, func(ctx context.Context, job *hydra.Job) error { return search(ctx, job, args) })
	if ctx.Err() != nil {
		return 130
	}
	return exitCode
}

func search(ctx context.Context, job *hydra.Job, args []string) (err error) {
	log, file, err := job.OpenLog(os.Stdout)
	if err != nil {
		return err
	}
	defer file.Close()
	defer func() {
		if err != nil {
			log.Error(err.Error())
		}
	}()
	text, err := job.Config.ResolvedYAML()
	if err != nil {
		return err
	}
	config, err := criteria.ParseConfig(text)
	if err != nil {
		return err
	}
	study, err := criteria.NewStudy(
		criteria.WithConfig(config),
		criteria.WithOutputDir(job.OutputDir),
		criteria.WithMLflow(),
		criteria.WithLogger(log),
		criteria.WithHooks(criteria.ProgressBar(os.Stderr)),
	)
	if err != nil {
		return err
	}
	log.Info("configuration:\n" + string(config.Redacted().YAML()))
	result, err := study.Run(ctx)
	if result != nil {
		log.Info(fmt.Sprintf("study %s:\n%s", result.Study, result))
	}
	if interrupted := (*criteria.InterruptedError)(nil); errors.As(err, &interrupted) {
		log.Warn(err.Error())
		log.Warn("to continue the study:\n  " + command(args))
		return nil // what the user asked for is no failure; main knows the exit code
	}
	if err != nil {
		return err
	}
	log.Info("done", "dir", result.Dir, "run_id", result.RunID)
	log.Info("to train the best trial in full:\n  go run ./examples/train --config-path " + quote(result.Dir) + " --config-name best_trial_config")
	return nil
}

// password finds the one in a URL.
var password = regexp.MustCompile(`(://[^:/@\s]*):[^@/\s]*@`)

// command is what the user has to type to go on, without passwords.
func command(args []string) string {
	program := os.Args[0]
	if strings.Contains(program, "go-build") { // of go run, which is gone by then
		program = "go run ./examples/" + filepath.Base(program)
	}
	for _, arg := range args {
		program += " " + quote(password.ReplaceAllString(arg, "$1:***@"))
	}
	return program
}

// quote makes one word for the shell of any text.
func quote(text string) string {
	if regexp.MustCompile(`^[\w@%+=:,./-]+$`).MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
