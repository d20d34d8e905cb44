// Command loadtest measures and torments examples/serve over loopback:
//
//	go run ./internal/cmd/loadtest bench -python PYTHON   compare with a minimal Python server
//	go run ./internal/cmd/loadtest soak -duration 10m     all that clients do wrong, for a while
//
// It makes a model with random weights of the shape that is asked for, builds
// the server and starts it. bench gives the same requests to peer.py beside it,
// a FastAPI application that asks the same model through transformers, and
// alternates between the two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadtest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	if len(args) == 0 || args[0] != "bench" && args[0] != "soak" {
		return errors.New("want bench or soak, and -help after it for the flags")
	}
	flags := flag.NewFlagSet("loadtest "+args[0], flag.ContinueOnError)
	var (
		shape    = flags.String("shape", "tiny", "tiny or base: the size of the model")
		model    = flags.String("model", "", "best_model `folder` to use instead of one with random weights")
		server   = flags.String("server", "", "`file` of a built examples/serve; empty: build it")
		flagList = flags.String("serve", "", "more flags for the server, separated by blanks")
		duration = flags.Duration("duration", 10*time.Second, "of the load, or of each part of the comparison")
		python   = flags.String("python", "", "bench: Python with fastapi, uvicorn, torch and transformers; empty: no comparison")
		clients  = flags.String("clients", "1,8,64", "bench: numbers of clients")
		rounds   = flags.Int("rounds", 3, "bench: how often both servers take turns; the median counts")
		tokens   = flags.Int("words", 40, "words of the longest post")
	)
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	dir, err := os.MkdirTemp("", "loadtest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if *model == "" {
		if *model, err = randomModel(dir, *shape); err != nil {
			return err
		}
	}
	if *server == "" {
		if *server, err = buildServer(ctx, dir); err != nil {
			return err
		}
	}
	requests := questions(*tokens)
	if args[0] == "soak" {
		return soak(ctx, out, soakSpec{
			server: *server, model: *model, flags: strings.Fields(*flagList), duration: *duration, requests: requests,
		})
	}
	spec := benchSpec{
		server: *server, model: *model, flags: strings.Fields(*flagList), python: *python,
		duration: *duration, rounds: *rounds, requests: requests,
	}
	for number := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients %s: want numbers from 1, separated by commas", *clients)
		}
		spec.clients = append(spec.clients, n)
	}
	return bench(ctx, out, spec)
}
