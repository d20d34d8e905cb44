//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/wheel"
)

func testCache(t *testing.T) *cache {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir()) // macOS derives the cache folder from it
	t.Setenv("CRITERIA_ORT_LIB", "")
	t.Setenv("CRITERIA_BLAS_LIB", "")
	t.Setenv("CGO_LDFLAGS", "")
	c, err := openCache(new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill puts empty files where the native parts belong.
func fill(t *testing.T, c *cache) paths {
	t.Helper()
	p := paths{
		onnxruntime: filepath.Join(c.part("onnxruntime", wheel.ONNXRuntimeVersion), libraryName("onnxruntime")),
		openblas:    filepath.Join(c.part("openblas", wheel.OpenBLASVersion), libraryName("scipy_openblas")),
	}
	tokenizers := filepath.Join(c.part("tokenizers", tokenizersVersion), "libtokenizers.a")
	for _, path := range []string{p.onnxruntime, p.openblas, tokenizers} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestNativePartsAreReusedWithoutAnyTool(t *testing.T) {
	c := testCache(t)
	want := fill(t, c)
	t.Setenv("PATH", t.TempDir()) // no cargo, no compiler
	got, err := c.nativeParts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(paths{})); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func TestOracleNamesWhatTheMachineLacks(t *testing.T) {
	c := testCache(t)
	for _, variable := range []string{"CC", "CXX", "PYTHON"} {
		t.Setenv(variable, "")
	}
	t.Setenv("PATH", t.TempDir())
	_, err := c.tokenizers(context.Background())
	if err == nil {
		t.Fatal("built the Rust library without tools")
	}
	for _, want := range []string{"cargo", "rustup", "cc ", "c++", "g++"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("message lacks %q:\n%v", want, err)
		}
	}
	if exists(c.dir) {
		t.Error("the cache folder was created before the tools were checked")
	}
}

func TestNativePartsOfTheUser(t *testing.T) {
	c := testCache(t)
	fill(t, c)
	mine := filepath.Join(t.TempDir(), "libonnxruntime.so")
	t.Setenv("CRITERIA_ORT_LIB", mine)
	if _, err := c.nativeParts(context.Background()); err == nil || !strings.Contains(err.Error(), mine) {
		t.Errorf("CRITERIA_ORT_LIB names no file: error %v", err)
	}
	if err := os.WriteFile(mine, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := c.nativeParts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got.onnxruntime != mine {
		t.Errorf("onnxruntime %s, want %s", got.onnxruntime, mine)
	}
	for _, word := range []string{"none", "libopenblas.so.0"} {
		t.Setenv("CRITERIA_BLAS_LIB", word)
		if got, err := c.nativeParts(context.Background()); err != nil || got.openblas != word {
			t.Errorf("CRITERIA_BLAS_LIB=%s: %q, %v", word, got.openblas, err)
		}
	}
}

func TestPinnedVersions(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(tokenizersModule) + ` (\S+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatalf("go.mod does not require %s", tokenizersModule)
	}
	if got := string(m[1]); got != tokenizersVersion {
		t.Errorf("go.mod requires %s %s, but its Rust half is built at %s", tokenizersModule, got, tokenizersVersion)
	}
	wheels := append([]wheel.Wheel{cudaRuntime}, cudaLibraries...)
	for _, platform := range []string{"linux/amd64", "linux/arm64", "darwin/arm64"} {
		ort, ok := wheel.ONNXRuntime(platform)
		blas, found := wheel.OpenBLAS(platform)
		if !ok || !found {
			t.Errorf("%s: no wheel is pinned", platform)
		}
		wheels = append(wheels, ort, blas)
	}
	for _, w := range wheels {
		if b, err := hex.DecodeString(w.SHA256); err != nil || len(b) != sha256.Size {
			t.Errorf("%s: %q is no SHA-256", w.Distribution, w.SHA256)
		}
	}
}

// Every package of a Python environment has one version and the hashes of its
// files, and what the list asks for is among them.
func TestPinnedPythonPackages(t *testing.T) {
	pinned := regexp.MustCompile(`(?m)^([A-Za-z0-9._-]+)==(\S+)( ; [^\\\n]+)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)`)
	comment := regexp.MustCompile(`(?m)^ *#.*\n`)
	for name, env := range environments {
		text := comment.ReplaceAllString(env.requirements, "")
		versions := map[string]string{}
		for _, m := range pinned.FindAllStringSubmatch(text, -1) {
			versions[strings.ToLower(m[1])] = m[2]
		}
		if rest := strings.TrimSpace(pinned.ReplaceAllString(text, "")); rest != "" || len(versions) < 2 {
			t.Errorf("%s.txt: %d packages; not pinned: %.200s", name, len(versions), rest)
		}
		asked, err := os.ReadFile(name + ".in")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(comment.ReplaceAllString(string(asked), "")) {
			wanted, version, _ := strings.Cut(strings.TrimSpace(line), "==")
			wanted, _, _ = strings.Cut(strings.ToLower(wanted), "[")
			if got := versions[wanted]; got == "" || version != "" && got != version {
				t.Errorf("%s.in asks for %s, %s.txt has %q: run make pins", name, strings.TrimSpace(line), name, got)
			}
		}
	}
}

// TestEnv lets a shell evaluate the printed lines: paths may hold anything.
func TestEnv(t *testing.T) {
	c := testCache(t)
	c.dir = filepath.Join(t.TempDir(), "a $HOME; of `spaces`")
	want := fill(t, c)
	var out bytes.Buffer
	if err := c.printEnv(context.Background(), []string{"oracle"}, &out); err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("sh", "-c", `eval "$1"; printf '%s\n' "$CRITERIA_ORT_LIB" "$CGO_LDFLAGS"`, "sh", out.String())
	got, err := shell.Output()
	if err != nil {
		t.Fatal(err)
	}
	wantOut := want.onnxruntime + "\n'-L" + c.part("tokenizers", tokenizersVersion) + "'\n"
	if diff := cmp.Diff(wantOut, string(got)); diff != "" {
		t.Errorf("environment of the shell (-want +got):\n%s", diff)
	}
}

func TestExport(t *testing.T) {
	const value = `it's "$HOME" \ ` + "`x`\n"
	got, err := exec.Command("sh", "-c", `eval "$1"; printf %s "$X"`, "sh", export("X", value)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(value, string(got)); diff != "" {
		t.Errorf("value after the shell read it (-want +got):\n%s", diff)
	}
}

func TestWithSearchPath(t *testing.T) {
	for _, test := range []struct{ flags, dir, want string }{
		{"", "/lib", "-L/lib"},
		{"-lm", "/lib", "-L/lib -lm"},
		{"-L/lib -lm", "/lib", "-L/lib -lm"},
		{"", "/my lib", "'-L/my lib'"},
	} {
		if got := withSearchPath(test.flags, test.dir); got != test.want {
			t.Errorf("withSearchPath(%q, %q) = %q, want %q", test.flags, test.dir, got, test.want)
		}
	}
}

func TestLockWaitsAndSweeps(t *testing.T) {
	c := testCache(t)
	unlock, err := c.lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(c.dir, "tmp-1")
	if err := os.Mkdir(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("second lock while the first is held: %v, want it to wait until cancelled", err)
	}
	unlock()
	unlock, err = c.lock(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if exists(stale) {
		t.Error("what a killed process left behind is still there")
	}
}

func TestCopyTree(t *testing.T) {
	c := testCache(t)
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := os.MkdirAll(filepath.Join(src, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a/x.rs": "new", "y.rs": "y"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.copyTree(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dst, "y.rs"), []byte("kept"), 0o644); err != nil {
		t.Fatalf("the copy is not writable: %v", err)
	}
	if err := c.copyTree(dst, src); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(filepath.Join(dst, "y.rs")); string(got) != "kept" {
		t.Errorf("a file that was there was replaced by %q", got)
	}
}

func TestUsage(t *testing.T) {
	testCache(t)
	for _, args := range [][]string{{"help"}, {"venv"}, {"venv", "none"}, {"env", "none"}} {
		c := &bytes.Buffer{}
		t.Setenv("PATH", t.TempDir())
		if err := run(context.Background(), args, c, c); err == nil {
			t.Errorf("deps %v: no error", args)
		}
	}
}
