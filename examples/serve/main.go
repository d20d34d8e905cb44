// Command serve answers questions about pairs over HTTP:
//
//	go run ./examples/serve outputs/DATE/TIME/best_model
//	curl localhost:8080/v1/predict -H 'Content-Type: application/json' -d '{"post": "I lie awake all night.", "criterion": "Insomnia."}'
//
// It answers probes from the start, and questions as soon as the model is loaded.
// docs/serving.md describes requests, answers, metrics and flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/serve"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var (
		limits  serve.Limits
		addr    = flags.String("addr", "localhost:8080", "`address` to listen on")
		threads = flags.Int("threads", 0, "threads that compute; 0: one per physical core")
		batch   = flags.Int("max-batch", 32, "most pairs computed at once")
		delay   = flags.Duration("max-delay", 0, "how long a pair waits for others while nothing is computed")
		queue   = flags.Int("max-queue", 256, "waiting pairs from which on requests are refused with 429")
		drain   = flags.Duration("drain", 0, "time between /readyz saying no and the end, for load balancers to notice")
		tuned   = flags.Bool("tuned", false, "label by the threshold that was best on the validation split")
		calib   = flags.Bool("calibrated", false, "answer calibrated probabilities")
		uri     = flags.String("tracking-uri", "", "where MLflow is, for runs:/RUN_ID/model")
	)
	flags.Int64Var(&limits.Body, "max-body", 1<<20, "most bytes of a request")
	flags.IntVar(&limits.Pairs, "max-pairs", 128, "most pairs of a request")
	flags.IntVar(&limits.Text, "max-text", 64<<10, "most bytes of a text")
	flags.DurationVar(&limits.Timeout, "timeout", 30*time.Second, "time for an answer")
	flags.DurationVar(&limits.Read, "read-timeout", 15*time.Second, "time for a request to arrive")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("want one argument after the flags: a best_model folder, or runs:/RUN_ID/model")
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	options := []criteria.LoadOption{
		criteria.WithLogger(log), criteria.WithThreads(*threads), criteria.WithBatchSize(*batch), criteria.WithMaxDelay(*delay),
		criteria.WithMaxQueue(*queue), criteria.WithTrackingURI(*uri), criteria.WithWarmup(),
	}
	if *tuned {
		options = append(options, criteria.WithTunedThreshold())
	}
	if *calib {
		options = append(options, criteria.WithCalibration())
	}
	server, err := serve.New(serve.WithLimits(limits), serve.WithLogger(log))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	log.Info("listening", "address", listener.Addr().String())
	return serveWhileLoading(ctx, server, listener, *drain, func(ctx context.Context) (*criteria.Classifier, error) {
		return criteria.Load(ctx, flags.Arg(0), options...)
	})
}

// serveWhileLoading answers probes from the start, and questions as soon as the
// model is loaded. It returns when ctx ends, or the model cannot be loaded.
func serveWhileLoading(
	ctx context.Context, server *serve.Server, listener net.Listener, drain time.Duration,
	load func(context.Context) (*criteria.Classifier, error),
) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	group, running := errgroup.WithContext(running)
	var classifier *criteria.Classifier
	group.Go(func() (err error) {
		if classifier, err = load(running); err != nil {
			return err
		}
		return server.SetModel(serve.DefaultModel, classifier)
	})
	served := server.Serve(running, listener, drain)
	cancel()
	loaded := group.Wait()
	if classifier != nil {
		return errors.Join(served, loaded, classifier.Close())
	}
	if ctx.Err() != nil {
		return served // a signal came before the model
	}
	return errors.Join(served, loaded)
}
