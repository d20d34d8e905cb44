//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// printEnv prints the lines a shell evaluates so that plain go commands link
// find the native parts, and tests find what they are named: Python environments,
// "cuda" for ONNX Runtime with its CUDA provider, without NVIDIA's libraries, for
// which tests have a stand-in, or "oracle" for the Rust library that go commands
// link with the build tag daulet.
func (c *cache) printEnv(ctx context.Context, extras []string, w io.Writer) error {
	p, err := c.nativeParts(ctx)
	if err != nil {
		return err
	}
	lines := []string{
		export("CRITERIA_ORT_LIB", p.onnxruntime),
	}
	if p.openblas != "" {
		lines = append(lines, export("CRITERIA_BLAS_LIB", p.openblas))
	}
	for _, name := range extras {
		if name == "oracle" {
			library, err := c.tokenizers(ctx)
			if err != nil {
				return err
			}
			flags := withSearchPath(os.Getenv("CGO_LDFLAGS"), filepath.Dir(library))
			lines = append(lines, export("CGO_LDFLAGS", flags))
			continue
		}
		if name == "cuda" {
			if !hasCUDA() {
				continue // the tests that want it skip
			}
			parts, err := c.cuda(ctx, false)
			if err != nil {
				return err
			}
			lines = append(lines, export("CRITERIA_CUDA_ORT_LIB", parts.onnxruntime))
			continue
		}
		python, err := c.venv(ctx, name)
		if err != nil {
			return err
		}
		for _, variable := range environments[name].variables {
			lines = append(lines, export(variable, python))
		}
	}
	// All or nothing: a shell must not evaluate half of it.
	_, err = fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// withSearchPath adds dir to the folders the linker searches, once.
func withSearchPath(flags, dir string) string {
	flag := "-L" + dir
	if strings.ContainsAny(flag, " \t") {
		flag = "'" + flag + "'" // the go command splits CGO_LDFLAGS like a shell
	}
	switch {
	case strings.Contains(flags, flag):
		return flags
	case flags == "":
		return flag
	}
	return flag + " " + flags
}

// export returns a line of POSIX shell.
func export(name, value string) string {
	return "export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}
