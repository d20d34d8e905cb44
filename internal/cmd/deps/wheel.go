//go:build unix

package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// wheelPart is a shared library that comes inside a Python wheel: the one
// place that carries ONNX Runtime and OpenBLAS built for every platform under
// a stable name and version. No Python code of it is used.
type wheelPart struct {
	distribution string // name of the Python distribution
	version      string
	abi          string           // Python ABI of the wheel; empty: any
	wheels       map[string]wheel // by GOOS/GOARCH
}

// wheel is the file for one platform.
type wheel struct {
	tag    string // platform tag
	sha256 string // of the wheel
	member string // the library's path inside it
}

// The ABI of the onnxruntime wheel says nothing about the Python on this
// machine; it only picks one of several wheels that hold the same library, so
// that one checksum per platform can be pinned.
var onnxruntime = wheelPart{
	distribution: "onnxruntime",
	version:      "1.32.0",
	abi:          "cp312",
	wheels: map[string]wheel{
		"linux/amd64": {"manylinux_2_28_x86_64", "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
			"onnxruntime/capi/libonnxruntime.so.1.32.0"},
		"linux/arm64": {"manylinux_2_28_aarch64", "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
			"onnxruntime/capi/libonnxruntime.so.1.32.0"},
		"darwin/arm64": {"macosx_14_0_arm64", "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
			"onnxruntime/capi/libonnxruntime.1.32.0.dylib"},
	},
}

var openblas = wheelPart{
	distribution: "scipy-openblas32",
	version:      "0.3.34.481.3",
	wheels: map[string]wheel{
		"linux/amd64": {"manylinux_2_28_x86_64", "0595f94cd58c1f8a0d90c975621f4587337a003916b1979e834ebdf2cb5d9504",
			"scipy_openblas32/lib/libscipy_openblas.so"},
		"linux/arm64": {"manylinux_2_28_aarch64", "e085dddbc5b9aa130f83def515d31c440e69f387a90c7e63b154a5575b4466bc",
			"scipy_openblas32/lib/libscipy_openblas.so"},
		"darwin/arm64": {"macosx_11_0_arm64", "813bb8101da2f64555c4a5e71c3714539d92b0b4f1841ec12b80d50e56cde46c",
			"scipy_openblas32/lib/libscipy_openblas.dylib"},
	},
}

// fetcher returns the function that downloads the part's wheel and installs
// its library at a path.
func (c *cache) fetcher(p wheelPart) func(context.Context, string) error {
	return func(ctx context.Context, path string) error {
		w, ok := p.wheels[platform()]
		if !ok {
			return fmt.Errorf("no wheel is pinned for %s: install libonnxruntime 1.24 or newer yourself and set CRITERIA_ORT_LIB to its path", platform())
		}
		return c.download(ctx, p, w.tag, func(file string) error { return c.unpack(file, w, path) })
	}
}

// download fetches the part's wheel for a platform tag and hands the file, which
// is removed afterwards, to use.
func (c *cache) download(ctx context.Context, p wheelPart, tag string, use func(file string) error) error {
	tmp, err := os.MkdirTemp(c.dir, "tmp-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	py, err := findPip()
	if err != nil {
		return err
	}
	args := []string{"-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
		"--dest", tmp, "--platform", tag, "--python-version", "3.12"}
	if p.abi != "" {
		args = append(args, "--implementation", "cp", "--abi", p.abi)
	}
	if err := c.command(ctx, tmp, py, append(args, p.distribution+"=="+p.version)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("pip left %d wheels, want 1", len(files))
	}
	return use(files[0])
}

// unpack installs the library inside a wheel after checking that it is the
// pinned wheel.
func (c *cache) unpack(file string, w wheel, path string) error {
	return c.unpackAll(file, w.sha256, map[string]string{w.member: path})
}

// unpackAll installs members of a wheel at the paths they are mapped to, after
// checking that it is the pinned wheel.
func (c *cache) unpackAll(file, want string, members map[string]string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, want %s: a package index served other bytes than the pinned ones (try PIP_NO_CACHE_DIR=1)", filepath.Base(file), got, want)
	}
	archive, err := zip.NewReader(f, size)
	if err != nil {
		return err
	}
	for _, member := range slices.Sorted(maps.Keys(members)) {
		lib, err := archive.Open(member)
		if err != nil {
			return err
		}
		err = c.install(members[member], lib)
		lib.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
