// Command reproduce repeats a run that is recorded in MLflow, from its stored
// configuration and model, and compares the metrics of the test split:
//
//	go run ./examples/reproduce --run_id RUN_ID
//	go run ./examples/reproduce --run_id RUN_ID --mode train --tolerance 0.01
//
// The exit code is 0 if all metrics are within the tolerance, 1 if they are not
// or something failed, 2 for a command line that cannot be parsed, and 130 after
// Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore) // the second signal does what signals do: it kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (exitCode int) {
	flags := flag.NewFlagSet("reproduce", flag.ContinueOnError)
	flags.SetOutput(stderr)
	runID := flags.String("run_id", "", "MLflow run ID to reproduce (required)")
	uri := flags.String("tracking_uri", "sqlite:///mlflow.db", "MLflow tracking URI")
	experiment := flags.String("experiment", "debertav3-criteria", "MLflow experiment name of the new run")
	tolerance := flags.Float64("tolerance", 0.005, "metric tolerance (0.005 is 0.5 pp)")
	mode := flags.String("mode", "eval", "eval (test the stored model) or train (retrain in full)")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || *runID == "":
		fmt.Fprintln(stderr, "reproduce: want --run_id RUN_ID and flags only")
		flags.Usage()
		return 2
	}
	result, err := criteria.Reproduce(ctx, *runID,
		criteria.WithTrackingURI(*uri), criteria.WithExperiment(*experiment),
		criteria.WithTolerance(*tolerance),
		criteria.WithMode(criteria.ReproduceMode(*mode)),
		criteria.WithOutputDir(filepath.Join("outputs", time.Now().Format("2006-01-02/15-04-05"))),
		criteria.WithLogger(slog.New(slog.NewTextHandler(stderr, nil))),
		criteria.WithHooks(criteria.ProgressBar(os.Stderr)),
	)
	if err != nil {
		fmt.Fprintln(stderr, err)
		if ctx.Err() != nil {
			return 130
		}
		return 1
	}
	fmt.Fprint(stdout, result)
	if !result.Passed {
		return 1
	}
	return 0
}
