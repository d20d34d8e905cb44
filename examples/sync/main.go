// Command sync delivers to MLflow what trainings could not send while the
// store was away, and marks runs whose process was killed as KILLED. It looks
// for both in a folder and everything below it:
//
//	go run ./examples/sync outputs
//	go run ./examples/sync outputs/DATE/TIME --tracking_uri http://host:5000
//
// Without --tracking_uri each run goes to the store that it was started in. The
// exit code is 0 if nothing is left to deliver and 1 otherwise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sync:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("sync DIR", flag.ContinueOnError)
	uri := flags.String("tracking_uri", "", "deliver to this `store`, not to the one that a run was started in")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir := flags.Arg(0)
	if flags.NArg() > 0 { // flags may follow the folder, too
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return err
		}
	}
	if dir == "" || flags.NArg() > 0 {
		return errors.New("want one folder: sync DIR [--tracking_uri URI]")
	}
	log := slog.New(slog.NewTextHandler(out, nil))
	ids, err := criteria.SyncTracking(ctx, dir, criteria.WithTrackingURI(*uri), criteria.WithLogger(log))
	fmt.Fprintf(out, "runs delivered: %d\n", len(ids))
	return err
}
