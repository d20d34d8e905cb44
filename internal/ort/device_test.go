package ort_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// openCUDA opens the runtime and its GPU, or the stand-in for one.
func openCUDA(t *testing.T) (*ort.Runtime, *ort.Device) {
	t.Helper()
	rt, err := ort.Acquire(ort.Options{CUDA: true, BLAS: ort.NoBLAS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, rt.Close) })
	d, err := rt.OpenCUDA(ort.CUDAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, d.Close) })
	return rt, d
}

func closed(t *testing.T, f func() error) {
	t.Helper()
	if err := f(); err != nil {
		t.Error(err)
	}
}

// TestDevice does the same on the host and, under the stand-in, on a GPU: bytes
// go there and back, and a model that computes nothing moves them.
func TestDevice(t *testing.T) {
	t.Run("host", func(t *testing.T) {
		rt, err := ort.Acquire(ort.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, rt.Close)
		testDevice(t, rt, ort.HostDevice())
	})
	t.Run("cuda", func(t *testing.T) {
		if fakecuda.Run(t) {
			rt, d := openCUDA(t)
			testDevice(t, rt, d)
		}
	})
}

func testDevice(t *testing.T, rt *ort.Runtime, d *ort.Device) {
	const n = 1000
	buffers := make([]ort.Tensor, 4)
	for i := range buffers {
		make := d.NewStaging
		if i >= 2 {
			make = d.NewBuffer
		}
		b, err := make(4 * n)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed(t, b.Free) })
		if buffers[i], err = b.Tensor(ort.Float32, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	there, back, device, moved := buffers[0], buffers[1], buffers[2], buffers[3]
	for i := range there.Float32() {
		there.Float32()[i] = float32(i)
	}
	g := graph.New("move", nil)
	x := g.Input("x", graph.Float32, n)
	g.Output("y", g.Identity(g.Reshape(x, n/2, 2)))
	s, err := rt.NewSession(g.Encode(), ort.SessionOptions{Device: d, Optimization: ort.OptimizeNone})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, s.Close) })
	b, err := s.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	y, err := moved.Buffer().Tensor(ort.Float32, 0, n/2, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		d.Copy(device, there), b.BindInput("x", device), b.BindOutput("y", y), b.Run(t.Context()), d.Copy(back, moved), d.Wait(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(back.Float32(), there.Float32()) {
		t.Errorf("came back as %v…", back.Float32()[:8])
	}
	for _, err := range []error{d.Clear(device), d.Copy(back, device), d.Wait()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(back.Float32(), make([]float32, n)) {
		t.Errorf("cleared memory came back as %v…", back.Float32()[:8])
	}
	if d.Copy(back, y) == nil && d.Copy(back, tensorOf(t, moved.Buffer(), n-1)) == nil {
		t.Error("tensors of different size were copied")
	}
	if d.IsHost() {
		return
	}
	placed, err := s.Placement()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]int{"CUDAExecutionProvider": {"Reshape": 1, "Identity": 1}}
	if diff := cmp.Diff(want, placed); diff != "" {
		t.Errorf("placement (-want +got):\n%s", diff)
	}
}

func tensorOf(t *testing.T, b *ort.Buffer, n int) ort.Tensor {
	t.Helper()
	x, err := b.Tensor(ort.Float32, 0, n)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestMissingGPU: what is missing is named, together with what helps.
func TestMissingGPU(t *testing.T) {
	for _, test := range []struct {
		name     string
		variable string
		prepare  func(t *testing.T) // in the process with the stand-in
		ordinal  int
		want     []string
	}{
		{name: "old driver", variable: "FAKECUDA_DRIVER=12080", want: []string{"driver for CUDA 13", "for CUDA 12.8", "580"}},
		{name: "no driver", variable: "FAKECUDA_DRIVER=0", want: []string{"driver for CUDA 13", "got none", "580"}},
		{name: "no GPU", variable: "FAKECUDA_DEVICES=0", want: []string{"GPU number 0", "0 GPUs", "nvidia-smi"}},
		{name: "no such GPU", ordinal: 3, want: []string{"GPU number 3", "1 GPUs"}},
		{name: "no folder", want: []string{ort.EnvCUDA, "gone"}, prepare: func(t *testing.T) {
			t.Setenv(ort.EnvCUDA, os.Getenv(ort.EnvCUDA)+"/gone")
		}},
		{name: "no libcuda", want: []string{"libcuda.so.1", "NVIDIA driver"}, prepare: remove("libcuda.so.1")},
		{name: "no cuBLAS", want: []string{"libcublas.so.13", "make deps-cuda"}, prepare: remove("libcublas.so.13")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !fakecuda.Run(t, test.variable) {
				return
			}
			if test.prepare != nil {
				test.prepare(t)
			}
			rt, err := ort.Acquire(ort.Options{CUDA: true})
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, rt.Close)
			_, err = rt.OpenCUDA(ort.CUDAOptions{Ordinal: test.ordinal})
			checkMissing(t, err, append(test.want, "device=cpu"))
		})
	}
	t.Run("no provider", func(t *testing.T) {
		rt, err := ort.Acquire(ort.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, rt.Close)
		_, err = rt.OpenCUDA(ort.CUDAOptions{})
		checkMissing(t, err, []string{"CUDA provider", "CPUExecutionProvider", "make deps-cuda", "device=cpu"})
	})
}

func remove(name string) func(t *testing.T) {
	return func(t *testing.T) {
		if err := os.Remove(os.Getenv(ort.EnvCUDA) + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
}

func checkMissing(t *testing.T, err error, want []string) {
	t.Helper()
	var missing *ort.RuntimeError
	if !errors.As(err, &missing) {
		t.Fatalf("error %v, want a RuntimeError", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the message lacks %q: %v", w, err)
		}
	}
}

// TestDeviceMemory: an allocation that the device cannot make says so, whether
// it was ours or ONNX Runtime's.
func TestDeviceMemory(t *testing.T) {
	if !fakecuda.Run(t, "FAKECUDA_MEMORY=8000000") {
		return
	}
	rt, d := openCUDA(t)
	check := func(err error, wanted int) {
		t.Helper()
		var out *ort.OutOfMemoryError
		if !errors.As(err, &out) {
			t.Fatalf("error %v, want an OutOfMemoryError", err)
		}
		if out.Total != 8000000 || out.Free > out.Total || out.Wanted < wanted {
			t.Errorf("got %+v, want at least %d bytes of 8000000", out, wanted)
		}
	}
	_, err := d.NewBuffer(9000000)
	check(err, 9000000)

	const n = 1000
	b, err := d.NewBuffer(4 * n)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, b.Free)
	g := graph.New("large", nil)
	x := g.Input("x", graph.Float32, n, 1)
	g.Output("y", g.ReduceSum(g.Expand(x, n, 3*n), false, 1)) // 12 MB between the two
	s, err := rt.NewSession(g.Encode(), ort.SessionOptions{Device: d})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s.Close)
	binding, err := s.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{binding.BindInput("x", must(t, b, n, 1)), binding.BindOutput("y", must(t, b, n))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(binding.Run(t.Context()), 12*n*n)
}

func must(t *testing.T, b *ort.Buffer, shape ...int) ort.Tensor {
	t.Helper()
	x, err := b.Tensor(ort.Float32, 0, shape...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}
