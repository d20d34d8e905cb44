//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

const tokenizersModule = "github.com/daulet/tokenizers"

// tokenizersVersion is the version that go.mod requires (a test compares
// them): the Rust half of the module and its Go half must be of one version,
// or linking fails.
const tokenizersVersion = "v1.22.2"

// tokenizers returns where the library lies, and builds it first if it is missing.
func (c *cache) tokenizers(ctx context.Context) (string, error) {
	path := filepath.Join(c.part("tokenizers", tokenizersVersion), "libtokenizers.a")
	return path, c.provideAll(ctx, []step{
		{"tokenizers " + tokenizersVersion, path, []tool{cargo, cc, cxx}, c.buildTokenizers},
	})
}

// buildTokenizers compiles the Rust half of the module in a writable copy of
// its source. The copy stays until the build succeeds, so that an interrupted
// build goes on where it stopped.
func (c *cache) buildTokenizers(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", tokenizersModule+"@"+tokenizersVersion)
	cmd.Stderr = c.stderr
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); jsonErr != nil || module.Dir == "" {
		return fmt.Errorf("go mod download %s: %v %s", tokenizersModule, err, module.Error)
	}
	build := filepath.Join(filepath.Dir(path), "build")
	if err := c.copyTree(build, module.Dir); err != nil {
		return err
	}
	fmt.Fprintln(c.stderr, "deps: compiling the tokenizers library, once; this takes 2 to 5 minutes")
	if err := c.command(ctx, build, "cargo", "build", "--release", "--locked", "--target-dir", filepath.Join(build, "target")); err != nil {
		return err
	}
	lib, err := os.Open(filepath.Join(build, "target", "release", "libtokenizers.a"))
	if err != nil {
		return err
	}
	defer lib.Close()
	if err := c.install(path, lib); err != nil {
		return err
	}
	return os.RemoveAll(build) // some 250 MB
}

// copyTree copies a source tree, with permission to write: the module cache
// grants none, and cargo needs it. Files that an earlier, interrupted build has
// copied keep their time stamps, or cargo would compile everything again.
func (c *cache) copyTree(dst, src string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		target := filepath.Join(dst, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case !d.Type().IsRegular() || exists(target):
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return c.install(target, f)
	})
}
