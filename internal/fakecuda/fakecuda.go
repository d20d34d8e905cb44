// Package fakecuda stands in for NVIDIA's libraries, so that tests start the
// CUDA provider of a stock ONNX Runtime on a machine without a GPU.
//
// Real under it are ONNX Runtime's own decisions and the traffic: which nodes
// it places on the GPU, whether it copies between host and device, whether it
// admits a graph for capture, allocations, copies, bindings. Host memory stands
// in for the device's. Copies are done as late as CUDA allows, when something
// waits for them. Kernels do nothing: what they should have computed is 0 or
// whatever lay there before. Nothing here says anything about speed.
package fakecuda

import (
	"bytes"
	"context"
	"debug/elf"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

//go:embed stub
var stubs embed.FS

// driver is the library whose symbols carry no version.
const driver = "libcuda.so.1"

var (
	libraryName = regexp.MustCompile(`^lib(cu|nv)\w*\.so`)
	symbolName  = regexp.MustCompile(`^(__cuda|cu)[A-Za-z]`)
)

// Build writes libraries into dir that offer what provider, the file
// libonnxruntime_providers_cuda.so, wants of CUDA. It needs a C compiler.
//
// Which symbols are wanted is read from provider. Those with a behaviour are in
// the folder stub; all others do nothing and return 0.
func Build(ctx context.Context, provider, dir string) error {
	wanted, err := wantedSymbols(provider)
	if err != nil {
		return fmt.Errorf("fakecuda: %s: %w", provider, err)
	}
	for library, symbols := range wanted {
		if err := build(ctx, dir, library, symbols); err != nil {
			return fmt.Errorf("fakecuda: %s: %w", library, err)
		}
	}
	return nil
}

// wantedSymbols lists the CUDA libraries that a file is linked to, each with
// the symbols that are wanted from it.
func wantedSymbols(file string) (map[string][]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	wanted := map[string][]string{}
	for _, name := range libraries {
		if libraryName.MatchString(name) {
			wanted[name] = nil
		}
	}
	// The layouts of structures in stub/cudart.c are those of CUDA 13.
	if _, ok := wanted["libcudart.so.13"]; !ok {
		return nil, fmt.Errorf("it is linked to %v, want libcudart.so.13: only builds for CUDA 13 are known here", libraries)
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if !symbolName.MatchString(s.Name) {
			continue
		}
		library := s.Library
		if library == "" {
			library = driver
		}
		if _, ok := wanted[library]; !ok {
			return nil, fmt.Errorf("symbol %s is wanted from %s, which it is not linked to", s.Name, library)
		}
		wanted[library] = append(wanted[library], s.Name)
	}
	return wanted, nil
}

// build compiles one library: its behaviour, if it has one, over weak functions
// that do nothing.
func build(ctx context.Context, dir, library string, symbols []string) error {
	source := filepath.Join(dir, "src", library)
	if err := os.MkdirAll(source, 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(slices.Values(symbols)) {
		fmt.Fprintf(&b, "__attribute__((weak)) int %s(void) { return 0; }\n", name)
	}
	files := map[string][]byte{"weak.c": b.Bytes()}
	stem, _, _ := strings.Cut(strings.TrimPrefix(library, "lib"), ".so")
	if behaviour, err := stubs.ReadFile("stub/" + stem + ".c"); err == nil {
		files["behaviour.c"] = behaviour
	}
	args := []string{"-std=gnu11", "-w", "-O1", "-shared", "-fPIC", "-fno-builtin", "-o", filepath.Join(dir, library), "-Wl,-soname," + library}
	if library != driver {
		files["version.map"] = fmt.Appendf(nil, "%s { global: *; };\n", library)
		args = append(args, "-Wl,--version-script="+filepath.Join(source, "version.map"))
	}
	for name, content := range files {
		path := filepath.Join(source, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
		if strings.HasSuffix(name, ".c") {
			args = append(args, path)
		}
	}
	cc := "cc"
	if words := strings.Fields(os.Getenv("CC")); len(words) > 0 {
		cc, args = words[0], append(words[1:], args...)
	}
	out, err := exec.CommandContext(ctx, cc, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cc, err, out)
	}
	return nil
}

// Launch is a kernel of our own that was launched: the programs of its grid, the
// threads of each, and their dynamic shared memory in bytes.
type Launch struct {
	Kernel                    string
	Programs, Threads, Shared int
}

// Launches calls f under the stand-in and returns what was launched meanwhile
// through the driver. What ONNX Runtime launches is not among it.
func Launches(t *testing.T, f func()) []Launch {
	t.Helper()
	path := filepath.Join(t.TempDir(), "launches")
	t.Setenv("FAKECUDA_LAUNCHES", path)
	f()
	t.Setenv("FAKECUDA_LAUNCHES", "")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var launches []Launch
	for line := range strings.Lines(string(raw)) {
		var l Launch
		if _, err := fmt.Sscan(line, &l.Kernel, &l.Programs, &l.Threads, &l.Shared); err != nil {
			t.Fatalf("launch %q: %v", line, err)
		}
		launches = append(launches, l)
	}
	return launches
}

// Environment variables that the child of [Run] gets.
const (
	// EnvRuntime names the ONNX Runtime with a CUDA provider to be tested.
	EnvRuntime = "CRITERIA_CUDA_ORT_LIB"
	// EnvLibraries names the folder of NVIDIA's libraries.
	EnvLibraries = "CRITERIA_CUDA_LIB"

	envInside = "FAKECUDA_INSIDE"
)

// childTime is what a child gets: far more than any needs.
const childTime = 10 * time.Minute

// Run reports whether the test runs in a process that has the stand-in. If not,
// it runs the test again in such a process, with variables such as
// FAKECUDA_MEMORY=1000000 added, and the test succeeds if it does there:
//
//	if !fakecuda.Run(t) {
//		return
//	}
//
// A process of its own is needed since ONNX Runtime exists once per process.
// The test is skipped, or in continuous integration fails, where EnvRuntime
// names no ONNX Runtime for GPUs; `make test` provides one.
func Run(t *testing.T, variables ...string) bool {
	t.Helper()
	if os.Getenv(envInside) == t.Name() {
		return true
	}
	library := os.Getenv(EnvRuntime)
	if library == "" {
		const message = EnvRuntime + " is not set: nothing was placed on a GPU (make test provides it)"
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	dir := t.TempDir()
	if err := Build(t.Context(), filepath.Join(filepath.Dir(library), "libonnxruntime_providers_cuda.so"), dir); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), childTime)
	defer cancel()
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run="+pattern, "-test.v=true", "-test.count=1")
	cmd.Env = append(os.Environ(), append([]string{envInside + "=" + t.Name(), EnvLibraries + "=" + dir}, variables...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("under the stand-in: %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("under the stand-in the test did not run:\n%s", out)
	}
	if testing.Verbose() {
		t.Logf("under the stand-in:\n%s", out)
	}
	return false
}
