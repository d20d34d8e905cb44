//go:build unix

package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed mlflow.txt
var mlflowRequirements string

//go:embed kernels.txt
var kernelsRequirements string

//go:embed peer.txt
var peerRequirements string

// environment is a Python environment with Python's own clients: never part of
// what criteria is, only a judge of what it writes.
type environment struct {
	requirements string   // a pip requirements file that pins every package by hashes; see make pins
	variables    []string // that tests read its interpreter from
	size         string   // on disk, roughly
}

var environments = map[string]environment{
	"kernels": {kernelsRequirements, []string{"CRITERIA_KERNELS_PYTHON"}, "1 GB"},
	"mlflow":  {mlflowRequirements, []string{"CRITERIA_MLFLOW_PYTHON", "CRITERIA_ONNX_PYTHON"}, "1 GB"},
	"peer":    {peerRequirements, []string{"CRITERIA_PEER_PYTHON"}, "6 GB"},
}

// venv returns the interpreter of an environment, and makes the environment
// first if need be.
func (c *cache) venv(ctx context.Context, name string) (string, error) {
	env, ok := environments[name]
	if !ok {
		return "", fmt.Errorf("no Python environment is called %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(environments)), ", "))
	}
	// Other requirements are another environment. It lies beside the cache,
	// not in it: programs look for libonnxruntime there and should not have to
	// walk through 20,000 files of Python.
	sum := sha256.Sum256([]byte(env.requirements))
	dir := filepath.Join(c.dir+"-python", name+"-"+hex.EncodeToString(sum[:4]))
	interpreter := filepath.Join(dir, "bin", "python")
	complete := filepath.Join(dir, "complete")
	// The interpreter is a link into the Python it was made from, which may
	// have gone since.
	whole := func() bool { return exists(complete) && exists(interpreter) }
	if whole() {
		return interpreter, nil
	}
	if err := checkTools([]tool{python, venv}); err != nil {
		return "", err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if whole() {
		return interpreter, nil
	}
	fmt.Fprintf(c.stderr, "deps: making the Python environment %s, once (about %s)\n", name, env.size)
	py, err := findPython()
	if err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := c.command(ctx, c.dir, py, "-m", "venv", dir); err != nil {
		return "", err
	}
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, []byte(env.requirements), 0o644); err != nil {
		return "", err
	}
	// Wheels only: what is built from sources needs tools that nothing pins.
	err = c.command(ctx, c.dir, interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"--require-hashes", "--only-binary=:all:", "--requirement", requirements)
	if err != nil {
		return "", err
	}
	return interpreter, os.WriteFile(complete, nil, 0o644)
}
