package ort_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	binding "github.com/yalue/onnxruntime_go"

	"github.com/criteria-go/criteria/internal/ort"
)

func TestRun(t *testing.T) {
	r := acquire(t)
	s := session(t, r, affine(), ort.SessionOptions{})
	if diff := cmp.Diff([]ort.ValueInfo{
		{Name: "x", DType: ort.Float32, Shape: []int{2, 3}},
		{Name: "w", DType: ort.Float32, Shape: []int{3, 4}},
	}, s.Inputs()); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]ort.ValueInfo{
		{Name: "y", DType: ort.Float32, Shape: []int{2, 4}},
		{Name: "loss", DType: ort.Float32, Shape: []int{}},
	}, s.Outputs()); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}

	// Parameters are views into one buffer, as they are in training.
	flat, err := ort.NewBuffer((6 + 12) * 4)
	if err != nil {
		t.Fatal(err)
	}
	defer flat.Free()
	for i := range flat.Float32() {
		flat.Float32()[i] = float32(i)
	}
	b, tensors := bind(t, s)
	for _, v := range []struct {
		name   string
		offset int
		shape  []int
	}{{"x", 0, []int{2, 3}}, {"w", 6, []int{3, 4}}} {
		x, err := flat.Tensor(ort.Float32, v.offset, v.shape...)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.BindInput(v.name, x); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		runtime.GC() // must not take anything that the binding uses
		if err := b.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		want := []float32{39, 42, 45, 48, 129, 141, 153, 165}
		if diff := cmp.Diff(want, tensors["y"].Float32()); diff != "" {
			t.Fatalf("y (-want +got):\n%s", diff)
		}
		if got := tensors["loss"].Float32()[0]; got != 762 {
			t.Fatalf("loss = %v, want 762", got)
		}
	}
	// A change of the memory is seen by the next run: nothing was copied.
	clear(flat.Float32())
	if err := b.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := tensors["loss"].Float32()[0]; got != 8 {
		t.Errorf("loss of zeros = %v, want 8", got)
	}
}

func TestInfo(t *testing.T) {
	info := acquire(t).Info()
	if info.Borrowed {
		t.Error("Borrowed is set, but the test did not initialise the environment")
	}
	if _, err := os.Stat(info.Library); err != nil {
		t.Errorf("Library: %v", err)
	}
	if !strings.HasPrefix(info.Version, "1.") {
		t.Errorf("Version = %q", info.Version)
	}
	if len(info.Providers) == 0 || info.Providers[len(info.Providers)-1] != "CPUExecutionProvider" {
		t.Errorf("Providers = %q, want CPUExecutionProvider at the end", info.Providers)
	}
	if len(info.Tried) == 0 {
		t.Error("Tried is empty")
	}
	if info.Threads < 1 {
		t.Errorf("Threads = %d", info.Threads)
	}
}

func TestBindingErrors(t *testing.T) {
	r := acquire(t)
	s := session(t, r, affine(), ort.SessionOptions{})
	for _, tt := range []struct {
		name string
		do   func(*ort.Binding) error
		want string
	}{
		{"unknown input", func(b *ort.Binding) error { return b.BindInput("z", tensor(t, ort.Float32, 2, 3)) }, `no input "z"`},
		{"unknown output", func(b *ort.Binding) error { return b.BindOutput("x", tensor(t, ort.Float32, 2, 3)) }, `no output "x"`},
		{"other type", func(b *ort.Binding) error { return b.BindInput("x", tensor(t, ort.Int32, 2, 3)) }, "got int32 [2 3], want float32 [2 3]"},
		{"other shape", func(b *ort.Binding) error { return b.BindInput("x", tensor(t, ort.Float32, 3, 2)) }, "got float32 [3 2], want float32 [2 3]"},
		{"other rank", func(b *ort.Binding) error { return b.BindOutput("loss", tensor(t, ort.Float32, 1)) }, "got float32 [1], want float32 []"},
		{"not bound", func(b *ort.Binding) error { return b.Run(context.Background()) }, `input "x" is not bound`},
		{"closed", func(b *ort.Binding) error {
			if err := b.Close(); err != nil {
				return err
			}
			return b.Run(context.Background())
		}, "closed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := s.NewBinding()
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := tt.do(b); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestBadModel(t *testing.T) {
	r := acquire(t)
	for name, data := range map[string][]byte{
		"empty":   nil,
		"garbage": []byte("this is no model"),
		"unknown operator": model{
			inputs:  []value{{"x", ort.Float32, []int{2}}},
			outputs: []value{{"y", ort.Float32, []int{2}}},
			nodes:   []node{{op: "NoSuchOperator", in: []string{"x"}, out: []string{"y"}}},
		}.encode(),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.NewSession(data, ort.SessionOptions{})
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("compiling a model of %d bytes", len(data))) {
				t.Errorf("got error %v", err)
			}
		})
	}
	for name, opts := range map[string]ort.SessionOptions{
		"threads":      {Threads: -1},
		"optimization": {Optimization: 17},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.NewSession(affine(), opts); err == nil {
				t.Error("no error")
			}
		})
	}
}

// slow is a model that multiplies n×n matrices count times.
func slow(n, count int) []byte {
	m := model{
		inputs:  []value{{"x", ort.Float32, []int{n, n}}},
		outputs: []value{{"y", ort.Float32, []int{n, n}}},
	}
	in := "x"
	for i := range count {
		out := fmt.Sprint("v", i)
		if i == count-1 {
			out = "y"
		}
		m.nodes = append(m.nodes, node{op: "MatMul", in: []string{in, "x"}, out: []string{out}})
		in = out
	}
	return m.encode()
}

func TestRunIsCancelled(t *testing.T) {
	r := acquire(t)
	const n = 256
	s := session(t, r, slow(n, 500), ort.SessionOptions{Threads: 1}) // a fifth of a second, at best
	b, tensors := bind(t, s)
	x := tensors["x"].Float32()
	for i := range n {
		x[i*n+i] = 1 // the identity, so that no product overflows
	}
	cause := errors.New("the user pressed a key")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if err := b.Run(ctx); !errors.Is(err, cause) {
		t.Fatalf("got error %v, want %v", err, cause)
	}
	if err := b.Run(ctx); !errors.Is(err, cause) {
		t.Fatalf("second run with the same context: got error %v, want %v", err, cause)
	}
	// The binding works again with a context that lives.
	if err := b.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(x, tensors["y"].Float32()) {
		t.Error("the identity times itself is something else")
	}
}

func TestThreadsDoNotChangeBits(t *testing.T) {
	r := acquire(t)
	const n = 192
	var want []float32
	for _, threads := range []int{0, 1, 2, 3} {
		s := session(t, r, slow(n, 3), ort.SessionOptions{Threads: threads})
		b, tensors := bind(t, s)
		for i := range tensors["x"].Float32() {
			tensors["x"].Float32()[i] = float32(i%37) / 100
		}
		if err := b.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := tensors["y"].Float32()
		if want == nil {
			want = append(want, got...)
		} else if !slices.Equal(want, got) {
			t.Errorf("%d threads give other bits", threads)
		}
	}
}

func TestReferences(t *testing.T) {
	if binding.IsInitialized() {
		t.Fatal("the environment is initialised before the test")
	}
	for range 3 { // the environment can be made again
		first, err := ort.Acquire(ort.Options{})
		if err != nil {
			t.Fatal(err)
		}
		second, err := ort.Acquire(ort.Options{Library: first.Info().Library})
		if err != nil {
			t.Fatal(err)
		}
		s, err := second.NewSession(affine(), ort.SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*ort.Runtime{first, first, second} {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !binding.IsInitialized() {
			t.Fatal("the environment was destroyed under a session")
		}
		b, _ := bind(t, s)
		if err := b.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if binding.IsInitialized() {
			t.Fatal("the environment outlives its last user")
		}
		if _, err := second.NewSession(affine(), ort.SessionOptions{}); err == nil {
			t.Error("a closed runtime makes sessions")
		}
	}
}

func TestBorrowedEnvironment(t *testing.T) {
	path, _, err := ort.FindLibrary("")
	if err != nil {
		t.Fatal(err)
	}
	binding.SetSharedLibraryPath(path)
	if err := binding.InitializeEnvironment(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := ort.Acquire(ort.Options{})
		if err != nil {
			t.Fatal(err)
		}
		info := r.Info()
		if !info.Borrowed || info.Threads != 0 {
			t.Errorf("Info: Borrowed %t, Threads %d; want true, 0", info.Borrowed, info.Threads)
		}
		if a, b := stat(t, info.Library), stat(t, path); !os.SameFile(a, b) {
			t.Errorf("Library = %s, want %s", info.Library, path)
		}
		s, err := r.NewSession(affine(), ort.SessionOptions{Threads: 2})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := bind(t, s)
		if err := b.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
		if !binding.IsInitialized() {
			t.Fatal("the borrowed environment was destroyed")
		}
	}
	if err := binding.DestroyEnvironment(); err != nil {
		t.Fatal(err)
	}
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestConcurrentUsers(t *testing.T) {
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for range 5 {
				r, err := ort.Acquire(ort.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				s, err := r.NewSession(affine(), ort.SessionOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				b, tensors := bind(t, s)
				if err := b.Run(context.Background()); err != nil {
					t.Error(err)
				}
				if got := tensors["loss"].Float32()[0]; got != 8 {
					t.Errorf("loss = %v, want 8", got)
				}
				if err := errors.Join(s.Close(), r.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
}

func TestSessionsDoNotLeak(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("memory is read from /proc; this system has none")
		return
	}
	r := acquire(t)
	cycle := func(n int) {
		for range n {
			s, err := r.NewSession(affine(), ort.SessionOptions{Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.NewBinding()
			if err != nil {
				t.Fatal(err)
			}
			var buffers []*ort.Buffer
			for _, side := range []struct {
				infos []ort.ValueInfo
				bind  func(string, ort.Tensor) error
			}{{s.Inputs(), b.BindInput}, {s.Outputs(), b.BindOutput}} {
				for _, v := range side.infos {
					for range 2 { // the second one takes the first one's place
						x, err := ort.NewTensor(v.DType, v.Shape...)
						if err != nil {
							t.Fatal(err)
						}
						buffers = append(buffers, x.Buffer())
						if err := side.bind(v.Name, x); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := b.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, b := range buffers {
				if err := b.Free(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	cycle(50) // what is kept once and for all
	before := residentBytes(t)
	cycle(200)
	if grown := residentBytes(t) - before; grown > 4<<20 {
		t.Errorf("200 sessions left %d bytes behind", grown)
	}
}

func residentBytes(t *testing.T) int {
	t.Helper()
	runtime.GC()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize()
}

func TestBuffer(t *testing.T) {
	b, err := ort.NewBuffer(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range b.Bytes() {
		if v != 0 {
			t.Fatalf("byte %d is %d at first", i, v)
		}
	}
	if got := len(b.Float32()); got != 1<<18 {
		t.Errorf("%d float32 values", got)
	}
	if got := len(b.Int64()); got != 1<<17 {
		t.Errorf("%d int64 values", got)
	}
	x, err := b.Tensor(ort.Int32, 3, 2, 5)
	if err != nil {
		t.Fatal(err)
	}
	x.Int32()[9] = -1
	if got := b.Bytes()[(3+9)*4]; got != 0xff {
		t.Errorf("the tensor's last element is not at element 12 of the buffer")
	}
	for name, f := range map[string]func() (ort.Tensor, error){
		"too long":           func() (ort.Tensor, error) { return b.Tensor(ort.Float32, 1, 1<<18) },
		"negative offset":    func() (ort.Tensor, error) { return b.Tensor(ort.Float32, -1, 1) },
		"negative dimension": func() (ort.Tensor, error) { return b.Tensor(ort.Float32, 0, -1) },
		"overflow":           func() (ort.Tensor, error) { return b.Tensor(ort.Float32, 0, 1<<40, 1<<40) },
		"type":               func() (ort.Tensor, error) { return b.Tensor(ort.DType(77), 0, 1) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for range 2 {
		if err := b.Free(); err != nil {
			t.Fatal(err)
		}
	}
	empty, err := ort.NewBuffer(0)
	if err != nil {
		t.Fatal(err)
	}
	if len(empty.Bytes()) != 0 {
		t.Error("an empty buffer has bytes")
	}
	if err := empty.Free(); err != nil {
		t.Fatal(err)
	}
	if _, err := ort.NewBuffer(-1); err == nil {
		t.Error("a buffer of -1 bytes")
	}
}

func TestFindLibrary(t *testing.T) {
	suffix := map[string]string{"darwin": ".1.9.0.dylib"}[runtime.GOOS]
	newer := map[string]string{"darwin": ".1.24.1.dylib"}[runtime.GOOS]
	if suffix == "" {
		suffix, newer = ".so.1.9.0", ".so.1.24.1"
	}
	dir := t.TempDir()
	touch := func(elem ...string) string {
		path := filepath.Join(append([]string{dir}, elem...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	touch("cache", "criteria", "a", "libonnxruntime"+suffix)
	cached := touch("cache", "criteria", "b", "capi", "libonnxruntime"+newer)
	touch("cache", "criteria", "b", "capi", "libonnxruntime_providers_shared"+newer)
	explicit := touch("explicit", "mine")
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	t.Setenv("HOME", dir)
	if runtime.GOOS == "darwin" {
		if err := os.MkdirAll(filepath.Join(dir, "Library"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "cache"), filepath.Join(dir, "Library", "Caches")); err != nil {
			t.Fatal(err)
		}
		cached = filepath.Join(dir, "Library", "Caches", "criteria", "b", "capi", "libonnxruntime"+newer)
	}

	for _, tt := range []struct {
		name, explicit, env string
		want                string
		tried               string // last place
		err                 bool
	}{
		{name: "explicit file", explicit: explicit, env: cached, want: explicit, tried: "the option"},
		{name: "explicit folder", explicit: filepath.Dir(cached), want: cached, tried: "the option"},
		{name: "explicit, missing", explicit: filepath.Join(dir, "no"), env: cached, err: true, tried: "the option"},
		{name: "variable", env: explicit, want: explicit, tried: ort.EnvLibrary},
		{name: "variable, folder without library", env: filepath.Dir(explicit), err: true, tried: ort.EnvLibrary},
		{name: "cache, newest", want: cached, tried: "criteria"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(ort.EnvLibrary, tt.env)
			got, tried, err := ort.FindLibrary(tt.explicit)
			if got != tt.want || (err != nil) != tt.err {
				t.Errorf("got %q, %v; want %q, error: %t", got, err, tt.want, tt.err)
			}
			if last := tried[len(tried)-1]; !strings.Contains(last, tt.tried) {
				t.Errorf("tried %q, want %q in the last one", tried, tt.tried)
			}
			var typed *ort.RuntimeError
			if tt.err && (!errors.As(err, &typed) || !strings.Contains(err.Error(), ort.Fetch)) {
				t.Errorf("error %v is no RuntimeError that says what to do", err)
			}
		})
	}
}

// TestFindLibraryBesideProgram: what a program was deployed with comes before what
// the user's cache has.
func TestFindLibraryBesideProgram(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := "libonnxruntime.so"
	if runtime.GOOS == "darwin" {
		name = "libonnxruntime.dylib"
	}
	cache := filepath.Join(t.TempDir(), "criteria", name)
	lib := filepath.Join(filepath.Dir(program), "lib")
	for _, path := range []string{cache, filepath.Join(lib, name)} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.RemoveAll(lib) })
	t.Setenv(ort.EnvLibrary, "")
	t.Setenv("XDG_CACHE_HOME", filepath.Dir(filepath.Dir(cache)))
	if got, tried, err := ort.FindLibrary(""); err != nil || got != filepath.Join(lib, name) {
		t.Errorf("found %q, %v, tried %q; want that in %s", got, err, tried, lib)
	}
	if err := os.RemoveAll(lib); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "darwin" {
		if got, _, err := ort.FindLibrary(""); err != nil || got != cache {
			t.Errorf("with nothing beside the program: found %q, %v; want %s", got, err, cache)
		}
	}
}

func TestUnusableLibrary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "libonnxruntime.so")
	if err := os.WriteFile(file, []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(t.TempDir(), "missing.so")} {
		_, err := ort.Acquire(ort.Options{Library: path})
		var typed *ort.RuntimeError
		if !errors.As(err, &typed) || typed.Library != path {
			t.Errorf("%s: got error %v, want a RuntimeError that names the library", path, err)
		}
	}
	r := acquire(t)
	if _, err := ort.Acquire(ort.Options{Library: file}); err == nil {
		t.Errorf("a second library next to %s: no error", r.Info().Library)
	}
}

// A library that is too old is refused before anything of it is used. The old
// one is compiled here: only its version matters.
func TestOldLibrary(t *testing.T) {
	const source = `
		#include <stddef.h>
		static const void *api(unsigned v) { (void)v; return NULL; }
		static const char *version(void) { return "1.9.2"; }
		static const struct { const void *(*a)(unsigned); const char *(*v)(void); } base = {api, version};
		const void *OrtGetApiBase(void) { return &base; }`
	dir := t.TempDir()
	file := filepath.Join(dir, "old.c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	cc, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		t.Fatal(err)
	}
	library := filepath.Join(dir, "libonnxruntime.so")
	if out, err := exec.Command(strings.TrimSpace(string(cc)), "-shared", "-fPIC", "-o", library, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, err = ort.Acquire(ort.Options{Library: library})
	var typed *ort.RuntimeError
	if !errors.As(err, &typed) {
		t.Fatalf("got error %v, want a RuntimeError", err)
	}
	if typed.Got != "1.9.2" || !strings.Contains(err.Error(), "1.24 or newer") {
		t.Errorf("got %q: %v", typed.Got, err)
	}
	acquire(t) // the refused library is not in the way of a good one
}

func BenchmarkRun(b *testing.B) {
	r := acquire(b)
	s := session(b, r, affine(), ort.SessionOptions{})
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancellable": b.Context()} {
		b.Run(name, func(b *testing.B) {
			binding, _ := bind(b, s)
			b.ReportAllocs()
			for b.Loop() {
				if err := binding.Run(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewSession(b *testing.B) {
	r := acquire(b)
	for b.Loop() {
		s, err := r.NewSession(affine(), ort.SessionOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
