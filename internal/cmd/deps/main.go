//go:build unix

// Command deps provides the native parts that criteria is built from and runs
// on, in the user's cache folder, where they are fetched or built once:
//
//	criteria/onnxruntime/<version>-<os>-<arch>/libonnxruntime.so     loaded at run time
//	criteria/openblas/<version>-<os>-<arch>/libscipy_openblas.so     loaded at run time, optional
//	criteria/tokenizers/<version>-<os>-<arch>/libtokenizers.a        to compare with, see oracle
//
// Usage:
//
//	deps                  provide the native parts and say where they are
//	deps env [EXTRA...]   the same, then print the export lines a build needs; an
//	                      EXTRA is the name of a Python environment, cuda or oracle
//	deps oracle           build the Rust tokenizers library, once, and say where it is:
//	                      what the tokenizer in Go is compared with
//	deps cuda             provide what a GPU needs, once, and say where it is:
//	                      criteria-cuda/onnxruntime-<version>-…/libonnxruntime.so
//	                      and NVIDIA's libraries beside that folder
//	deps venv NAME        provide a Python environment and print its interpreter
//
// It may be interrupted, repeated and run twice at once: nothing appears under
// its final name before it is whole. A run that finds everything touches no
// network.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "deps:", err)
		os.Exit(1)
	}
}

const usage = "usage: deps [env [EXTRA...] | venv NAME | cuda | oracle]"

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := openCache(stderr)
	if err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		paths, err := c.nativeParts(ctx)
		if err != nil {
			return err
		}
		for _, part := range []struct{ name, path string }{
			{"onnxruntime", paths.onnxruntime},
			{"openblas", paths.openblas},
		} {
			if part.path == "" {
				part.path = "none for this platform (optional)"
			}
			fmt.Fprintf(stdout, "%-12s %s\n", part.name, part.path)
		}
		return nil
	case args[0] == "env":
		return c.printEnv(ctx, args[1:], stdout)
	case args[0] == "oracle" && len(args) == 1:
		library, err := c.tokenizers(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%-12s %s\n", "tokenizers", library)
		return nil
	case args[0] == "cuda" && len(args) == 1:
		parts, err := c.cuda(ctx, true)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%-12s %s\n%-12s %s\n", "onnxruntime", parts.onnxruntime, "nvidia", parts.nvidia)
		return nil
	case args[0] == "venv" && len(args) == 2:
		python, err := c.venv(ctx, args[1])
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, python)
		return nil
	}
	return errors.New(usage)
}
