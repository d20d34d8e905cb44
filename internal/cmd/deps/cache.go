//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/criteria-go/criteria/internal/wheel"
)

// cache is the folder that holds the native parts.
type cache struct {
	dir    string    // <user cache folder>/criteria
	stderr io.Writer // progress, and the output of the tools that are run
}

// openCache names the cache folder; it creates nothing.
func openCache(stderr io.Writer) (*cache, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no cache folder: %w; set XDG_CACHE_HOME to a folder you can write to", err)
	}
	return &cache{dir: filepath.Join(dir, "criteria"), stderr: stderr}, nil
}

// part returns the folder of one version of a native part on this platform, so
// that a home folder shared by different machines serves each of them.
func (c *cache) part(name, version string) string {
	return filepath.Join(c.dir, name, version+"-"+runtime.GOOS+"-"+runtime.GOARCH)
}

// libraryName is what the platform calls the shared library of that name.
func libraryName(name string) string { return wheel.LibraryName(platform(), name) }

// fetching is the step that takes a library out of a wheel.
func fetching(name string, w wheel.Wheel, path string) step {
	return step{name + " " + w.Version, path, nil, func(ctx context.Context, path string) error {
		return w.Fetch(ctx, filepath.Dir(path))
	}}
}

// paths says where the native parts lie.
type paths struct {
	onnxruntime, openblas string
}

// nativeParts returns where the parts lie, and provides the missing ones first.
func (c *cache) nativeParts(ctx context.Context) (paths, error) {
	p := paths{
		onnxruntime: os.Getenv("CRITERIA_ORT_LIB"),
		openblas:    os.Getenv("CRITERIA_BLAS_LIB"),
	}
	var steps []step
	if p.onnxruntime == "" {
		p.onnxruntime = filepath.Join(c.part("onnxruntime", wheel.ONNXRuntimeVersion), libraryName("onnxruntime"))
		w, ok := wheel.ONNXRuntime(platform())
		if !ok {
			return p, fmt.Errorf("no wheel is pinned for %s: install libonnxruntime 1.24 or newer yourself and set CRITERIA_ORT_LIB to its path", platform())
		}
		steps = append(steps, fetching("onnxruntime", w, p.onnxruntime))
	} else if !named(p.onnxruntime) {
		return p, fmt.Errorf("CRITERIA_ORT_LIB=%s does not exist; correct it, or unset it to have libonnxruntime %s fetched", p.onnxruntime, wheel.ONNXRuntimeVersion)
	}
	if p.openblas == "" {
		if w, ok := wheel.OpenBLAS(platform()); ok {
			p.openblas = filepath.Join(c.part("openblas", w.Version), libraryName("scipy_openblas"))
			steps = append(steps, fetching("openblas", w, p.openblas))
		}
	} else if !named(p.openblas) {
		return p, fmt.Errorf("CRITERIA_BLAS_LIB=%s does not exist; correct it, or unset it to have OpenBLAS %s fetched", p.openblas, wheel.OpenBLASVersion)
	}
	return p, c.provideAll(ctx, steps)
}

// step is a part, and what provides it.
type step struct {
	name    string
	path    string
	needs   []tool
	provide func(context.Context, string) error
}

// provideAll provides the parts that are missing.
func (c *cache) provideAll(ctx context.Context, steps []step) error {
	var absent []step
	var needs []tool
	for _, s := range steps {
		if !exists(s.path) {
			absent = append(absent, s)
			needs = append(needs, s.needs...)
		}
	}
	if len(absent) == 0 {
		return nil
	}
	// All that this machine lacks is said at once, before any time is spent.
	if err := checkTools(needs); err != nil {
		return err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, s := range absent {
		if exists(s.path) {
			continue // provided by another process while this one waited for the lock
		}
		fmt.Fprintf(c.stderr, "deps: providing %s\n", s.name)
		if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
			return err
		}
		if err := s.provide(ctx, s.path); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted while providing %s; run it again to go on", s.name)
			}
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// lock makes this process the only one that writes to the cache and removes
// what a killed one left behind. The lock dies with its process.
func (c *cache) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("cache folder: %w; set XDG_CACHE_HOME to a folder you can write to", err)
	}
	l := flock.New(filepath.Join(c.dir, "deps.lock"))
	ok, err := l.TryLock()
	if err == nil && !ok {
		fmt.Fprintln(c.stderr, "deps: waiting for another process that provides the native parts")
		_, err = l.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("locking %s: %w", l.Path(), err)
	}
	stale, _ := filepath.Glob(filepath.Join(c.dir, "tmp-*"))
	for _, dir := range stale {
		os.RemoveAll(dir)
	}
	return func() { l.Close() }, nil
}

// install puts the bytes of r under their final name in one step.
func (c *cache) install(path string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = io.Copy(f, r); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// command runs a tool in dir with its output on stderr.
func (c *cache) command(ctx context.Context, dir string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = c.stderr, c.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w (its output is above)", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// named reports whether a library that the user chose can be there: a bare name
// is the system loader's to find, or the word none.
func named(library string) bool {
	return !strings.ContainsRune(library, filepath.Separator) || exists(library)
}

func platform() string { return runtime.GOOS + "/" + runtime.GOARCH }
