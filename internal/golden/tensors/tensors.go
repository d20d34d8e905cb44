// Package tensors reads golden tensors from safetensors files. A tensor that is
// missing ends the test.
package tensors

import (
	"strconv"
	"testing"

	"github.com/criteria-go/criteria/internal/weights"
)

// File is an open file of golden tensors.
type File struct {
	t    testing.TB
	file *weights.File
}

// Open opens the file, or the checkpoint in the folder, for the time of the test.
func Open(t testing.TB, path string) File {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return File{t, f}
}

// For returns the file for a subtest, which a missing tensor will end.
func (f File) For(t testing.TB) File { return File{t, f.file} }

// Names lists the tensors.
func (f File) Names() []string { return f.file.Names() }

// Has reports whether the file has a tensor.
func (f File) Has(name string) bool {
	_, ok := f.file.Info(name)
	return ok
}

// Info describes a tensor.
func (f File) Info(name string) weights.Tensor {
	f.t.Helper()
	info, ok := f.file.Info(name)
	if !ok {
		f.t.Fatalf("no %s in %s", name, f.file.Path())
	}
	return info
}

// Shape returns the dimensions of a tensor.
func (f File) Shape(name string) []int {
	f.t.Helper()
	var shape []int
	for _, d := range f.Info(name).Shape {
		shape = append(shape, int(d))
	}
	return shape
}

// Floats returns the elements of a tensor of floating type.
func (f File) Floats(name string) []float32 {
	f.t.Helper()
	x := make([]float32, f.Info(name).Elements())
	if err := f.file.ReadFloat32(name, x); err != nil {
		f.t.Fatal(err)
	}
	return x
}

// Ints returns the elements of a tensor of integer type.
func (f File) Ints(name string) []int64 {
	f.t.Helper()
	x := make([]int64, f.Info(name).Elements())
	if err := f.file.ReadInt64(name, x); err != nil {
		f.t.Fatal(err)
	}
	return x
}

// Metadata returns a text of the file's metadata, "" if there is none.
func (f File) Metadata(key string) string { return f.file.Metadata()[key] }

// Number returns a number of the file's metadata.
func (f File) Number(key string) float64 {
	f.t.Helper()
	x, err := strconv.ParseFloat(f.Metadata(key), 64)
	if err != nil {
		f.t.Fatalf("%s: metadata %s is %q", f.file.Path(), key, f.Metadata(key))
	}
	return x
}
