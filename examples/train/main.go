// Command train fine-tunes a classifier that tells whether a post shows a
// diagnostic criterion, and records the run in MLflow. It is configured the
// Hydra way, with the groups of conf/:
//
//	go run ./examples/train model=tiny data=sample train=tiny
//	go run ./examples/train train.learning_rate=3e-5 model.head.hidden_dims=[512]
//
// The output directory, outputs/DATE/TIME, receives the log, the best model and
// the reports. The exit code is 0 for success, 1 for a failure and 130 after
// Ctrl-C, which ends the run in order; a second Ctrl-C ends it at once. However
// a run has ended,
//
//	go run ./examples/train --resume outputs/DATE/TIME
//
// goes on from its last checkpoint, with the configuration in its .hydra.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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
	resumeDir, args, err := splitResume(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "train:", err)
		return 2
	}
	app := hydra.App{
		Name: "train", ConfigFS: conf.FS, ConfigName: "config", ConfigLabel: "conf",
		Help: "Fine-tune a DeBERTaV3 classifier of (post, criterion) pairs.\n" +
			"--resume DIR goes on with the run whose output directory is DIR.",
	}
	exitCode = app.Run(ctx, args, func(ctx context.Context, job *hydra.Job) error { return train(ctx, job, resumeDir) })
	if ctx.Err() != nil {
		return 130
	}
	return exitCode
}

// splitResume takes --resume DIR out of args. The configuration then is the one
// that the run was started with, and .hydra stays as it is.
func splitResume(args []string) (dir string, rest []string, err error) {
	for i := 0; i < len(args); i++ {
		name, value, hasValue := strings.Cut(args[i], "=")
		if name != "--resume" {
			rest = append(rest, args[i])
			continue
		}
		if !hasValue && i+1 < len(args) {
			i++
			value = args[i]
		}
		if value == "" || dir != "" {
			return "", nil, errors.New("--resume wants one folder: the output directory of the run to go on with")
		}
		dir = value
	}
	if dir == "" {
		return "", args, nil
	}
	saved, err := filepath.Abs(filepath.Join(dir, ".hydra"))
	if err != nil {
		return "", nil, err
	}
	if _, err := os.Stat(filepath.Join(saved, "config_resolved.yaml")); err != nil {
		return "", nil, fmt.Errorf("--resume %s: this is not the output directory of a run: %w", dir, err)
	}
	return dir, append([]string{
		"--config-path", saved, "--config-name", "config_resolved", "hydra.run.dir=" + quote(dir), "hydra.output_subdir=null",
	}, rest...), nil
}

// quote makes one value of an override out of any text.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// resumeCommand is what the user has to type to go on with a run.
func resumeCommand(dir string) string {
	program := os.Args[0]
	if strings.Contains(program, "go-build") { // of go run, which is gone by then
		program = "go run ./examples/train"
	}
	return program + " --resume '" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
}

func train(ctx context.Context, job *hydra.Job, resumeDir string) (err error) {
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
	place := criteria.WithOutputDir(job.OutputDir)
	if resumeDir != "" {
		place = criteria.WithResume(resumeDir)
	}
	trainer, err := criteria.NewTrainer(
		criteria.WithConfig(config),
		place,
		criteria.WithMLflow(),
		criteria.WithLogger(log),
		criteria.WithHooks(criteria.ProgressBar(os.Stderr)),
	)
	if err != nil {
		return err
	}
	log.Info("configuration:\n" + string(config.Redacted().YAML()))
	result, err := trainer.Run(ctx)
	if interrupted := (*criteria.InterruptedError)(nil); errors.As(err, &interrupted) {
		log.Warn(err.Error())
		if interrupted.Checkpoint != "" {
			log.Warn("to go on from " + interrupted.Checkpoint + ":\n  " + resumeCommand(interrupted.Dir))
		}
		return nil // what the user asked for is no failure; main knows the exit code
	}
	if err != nil {
		return err
	}
	log.Info(fmt.Sprintf("done: %s after %d epochs, test macro-F1 %.4f", result.Stop, result.Epochs, result.Test.MacroF1),
		"model", result.ModelDir(), "run_id", result.RunID)
	return nil
}
