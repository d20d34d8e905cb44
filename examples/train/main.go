// Command train fine-tunes a classifier that tells whether a post shows a
// diagnostic criterion, and records the run in MLflow. It is configured the
// Hydra way, with the groups of conf/:
//
//	go run ./examples/train model=tiny data=sample train=tiny
//	go run ./examples/train train.learning_rate=3e-5 model.head.hidden_dims=[512]
//
// The output directory, outputs/DATE/TIME, receives the log, the best model and
// the reports. The exit code is 0 for success, 1 for a failure and 130 after
// Ctrl-C, which ends the run in order; a second Ctrl-C ends it at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
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
		Name: "train", ConfigFS: conf.FS, ConfigName: "config", ConfigLabel: "conf",
		Help: "Fine-tune a DeBERTaV3 classifier of (post, criterion) pairs.",
	}
	exitCode = app.Run(ctx, args, train)
	if ctx.Err() != nil {
		return 130
	}
	return exitCode
}

func train(ctx context.Context, job *hydra.Job) (err error) {
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
	tracker, err := criteria.NewMLflowTracker(config.MLflow.TrackingURI, config.MLflow.ExperimentName, criteria.WithTrackerLogger(log))
	if err != nil {
		return err
	}
	trainer, err := criteria.NewTrainer(
		criteria.WithConfig(config),
		criteria.WithOutputDir(job.OutputDir),
		criteria.WithTracker(tracker),
		criteria.WithLogger(log),
		criteria.WithHooks(criteria.ProgressBar(os.Stderr)),
	)
	if err != nil {
		return err
	}
	log.Info("configuration:\n" + string(config.YAML()))
	result, err := trainer.Run(ctx)
	if errors.Is(err, context.Canceled) {
		log.Warn(err.Error())
		return nil // what the user asked for is no failure; main knows the exit code
	}
	if err != nil {
		return err
	}
	log.Info(fmt.Sprintf("done: %s after %d epochs, test macro-F1 %.4f", result.Stop, result.Epochs, result.Test.MacroF1),
		"model", result.ModelDir(), "run_id", result.RunID)
	return nil
}
