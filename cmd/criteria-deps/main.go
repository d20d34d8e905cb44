// Command criteria-deps fetches the two shared libraries that a program of this
// module loads at run time, ONNX Runtime and OpenBLAS:
//
//	go run github.com/criteria-go/criteria/cmd/criteria-deps            # for all programs of this user
//	go run github.com/criteria-go/criteria/cmd/criteria-deps -o DIR     # to be deployed beside a program
//
// A program finds them in its own folder, in "lib" there, or in the user's cache
// folder, without a variable. They come out of the Python wheels onnxruntime and
// scipy-openblas32, whose SHA-256 is pinned; neither Python nor pip is needed. The
// variable PIP_INDEX_URL names another package index.
//
// -platform GOOS/GOARCH fetches for another machine (linux/amd64, linux/arm64,
// darwin/arm64). What is in the cache folder already is left as it is; what is in
// DIR is replaced, since nothing there says of which version it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/criteria-go/criteria/internal/wheel"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "criteria-deps:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("criteria-deps", flag.ContinueOnError)
	flags.SetOutput(stderr)
	out := flags.String("o", "", "folder to put the libraries in (default: the user's cache folder)")
	platform := flags.String("platform", runtime.GOOS+"/"+runtime.GOARCH, "GOOS/GOARCH of the machine they are for")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("found the argument %q, want flags only", flags.Arg(0))
	}
	ort, ok := wheel.ONNXRuntime(*platform)
	if !ok {
		return fmt.Errorf("no ONNX Runtime is pinned for %s, but for linux/amd64, linux/arm64 and darwin/arm64; install libonnxruntime 1.24 or newer yourself and set CRITERIA_ORT_LIB to its path", *platform)
	}
	blas, _ := wheel.OpenBLAS(*platform)
	for _, part := range []struct {
		folder string // in the cache
		wheel  wheel.Wheel
	}{{"onnxruntime", ort}, {"openblas", blas}} {
		dir := *out
		if dir == "" {
			cache, err := os.UserCacheDir()
			if err != nil {
				return fmt.Errorf("no cache folder: %w; name a folder with -o", err)
			}
			version := part.wheel.Version + "-" + strings.ReplaceAll(*platform, "/", "-")
			dir = filepath.Join(cache, "criteria", part.folder, version)
		}
		if err := provide(ctx, part.wheel, dir, *out != "", stdout, stderr); err != nil {
			return err
		}
	}
	return nil
}

// provide installs the library of a wheel in dir, unless it is there and need not
// be replaced, and prints its path.
func provide(ctx context.Context, w wheel.Wheel, dir string, replace bool, stdout, stderr io.Writer) error {
	for _, name := range w.Members {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil || replace {
			fmt.Fprintf(stderr, "criteria-deps: fetching %s %s\n", w.Distribution, w.Version)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := w.Fetch(ctx, dir); err != nil {
				return err
			}
		}
		fmt.Fprintln(stdout, path)
	}
	return nil
}
