package kernels

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func manifest(t *testing.T) Manifest {
	t.Helper()
	m, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Kernels) == 0 {
		t.Fatal("the manifest is empty")
	}
	return m
}

// python returns the interpreter of the environment with Triton.
func python(t *testing.T) string {
	t.Helper()
	const variable = "CRITERIA_KERNELS_PYTHON"
	path := os.Getenv(variable)
	if path == "" {
		const message = variable + " is not set: no kernel was compiled or run (make test provides it)"
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return path
}

// TestSources: the binaries belong to the sources as they are.
func TestSources(t *testing.T) {
	m := manifest(t)
	for name, want := range m.Sources {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(source); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s is not what the binaries were built from: run make kernels", name)
		}
	}
	if diff := cmp.Diff([]string{"attention.py", "build.py", "kernels.py"}, slices.Sorted(maps.Keys(m.Sources))); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

// TestRebuild: building again gives the same bytes, and there is nothing else in
// the folder.
func TestRebuild(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(python(t), "build.py", dir)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	built := os.DirFS(dir)
	want := map[string]bool{}
	list := func(root string, visit func(path string)) {
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				path, err = filepath.Rel(root, path)
				visit(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	list(dir, func(path string) { want[path] = true })
	list("bin", func(path string) {
		if !want[path] {
			t.Errorf("bin/%s is not built by make kernels", path)
			return
		}
		delete(want, path)
		have, err := os.ReadFile(filepath.Join("bin", path))
		if err != nil {
			t.Fatal(err)
		}
		f, err := built.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var again bytes.Buffer
		if _, err := again.ReadFrom(f); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, again.Bytes()) {
			t.Errorf("bin/%s differs from what its sources give: run make kernels", path)
		}
	})
	for path := range want {
		t.Errorf("bin/%s is missing: run make kernels", path)
	}
}

// TestTargets: every GPU gets the code that it can run, the best first.
func TestTargets(t *testing.T) {
	m := manifest(t)
	for _, tt := range []struct {
		major, minor int
		want         []string
	}{
		{7, 5, nil},
		{8, 0, []string{"sm_80", "compute_80"}},
		{8, 6, []string{"sm_86", "sm_80", "compute_80"}},
		{8, 7, []string{"sm_86", "sm_80", "compute_80"}},
		{8, 9, []string{"sm_89", "sm_86", "sm_80", "compute_80"}},
		{9, 0, []string{"sm_90a", "compute_80"}},
		{10, 0, []string{"compute_80"}},
		{12, 0, []string{"sm_120a", "compute_80"}},
		{12, 1, []string{"compute_80"}},
	} {
		if diff := cmp.Diff(tt.want, m.Targets(tt.major, tt.minor)); diff != "" {
			t.Errorf("compute capability %d.%d (-want +got):\n%s", tt.major, tt.minor, diff)
		}
	}
}

// TestImages: every kernel has machine code for every kind of GPU, and PTX, of the
// right architecture and with the entry and the arguments of the manifest.
func TestImages(t *testing.T) {
	m := manifest(t)
	capability := map[string]uint32{"sm_80": 80, "sm_86": 86, "sm_89": 89, "sm_90a": 90, "sm_120a": 120}
	for _, k := range m.Kernels {
		for target, number := range capability {
			if !slices.ContainsFunc(m.Targets(int(number)/10, int(number)%10), func(target string) bool {
				_, ok := k.For(target)
				return ok && strings.HasPrefix(target, "sm_")
			}) {
				t.Errorf("%s has no machine code for %s", k.Name, target)
			}
		}
		if _, ok := k.For("compute_80"); !ok {
			t.Errorf("%s has no PTX", k.Name)
		}
		if k.Block <= 0 || len(k.Arguments) == 0 {
			t.Errorf("%s: block %d, arguments %v", k.Name, k.Block, k.Arguments)
		}
		for _, image := range k.Images {
			code, err := image.Code()
			if err != nil {
				t.Fatal(err)
			}
			if image.Warps < 1 || image.Warps > 32 || image.Shared > 48<<10 {
				t.Errorf("%s: %d warps, %d bytes of shared memory: launching it needs more than is done", image.File, image.Warps, image.Shared)
			}
			if image.Target == "compute_80" {
				checkPTX(t, k, image, code)
				continue
			}
			if !bytes.HasPrefix(code, []byte("\x7fELF")) {
				t.Fatalf("%s is no ELF file", image.File)
			}
			// The flags of the header say the architecture, in a place that
			// depends on the version of the format.
			flags := binary.LittleEndian.Uint32(code[48:])
			if version := code[8]; version >= 8 {
				flags >>= 8
			}
			if got, want := flags&0xff, capability[image.Target]; got != want {
				t.Errorf("%s is for architecture %d, want %d", image.File, got, want)
			}
			if !bytes.Contains(code, []byte("\x00.text."+k.Entry+"\x00")) {
				t.Errorf("%s has no function %s", image.File, k.Entry)
			}
		}
	}
}

// TestCode: an image that is not the manifest's is not handed out.
func TestCode(t *testing.T) {
	image := manifest(t).Kernels[0].Images[0]
	image.SHA256 = strings.Repeat("0", 64)
	if _, err := image.Code(); err == nil || !strings.Contains(err.Error(), image.File) {
		t.Errorf("error %v, want one that names %s", err, image.File)
	}
}

// checkPTX checks PTX, which can be read: a version that drivers of CUDA 12 know,
// the parameters, and IEEE 754's arithmetic with one rounding for each operation,
// but for the kernels of attention.
func checkPTX(t *testing.T, k Kernel, image Image, code []byte) {
	t.Helper()
	ptx := string(code)
	if !strings.HasSuffix(ptx, "\x00") {
		t.Errorf("%s does not end with a 0 byte", image.File)
	}
	for _, want := range []string{".version 8.0\n", ".target sm_80\n", ".visible .entry " + k.Entry + "(", ".reqntid " + strconv.Itoa(32*image.Warps)} {
		if !strings.Contains(ptx, want) {
			t.Errorf("%s lacks %q", image.File, want)
		}
	}
	kinds := map[string]string{"i32": "u32", "u32": "u32", "u64": "u64", "fp32": "f32"}
	var want []string
	for _, a := range k.Arguments {
		_, kind, _ := strings.Cut(a, " ")
		kind, _, _ = strings.Cut(kind, "%")
		if strings.HasPrefix(kind, "*") {
			kind = "u64"
		}
		if known, ok := kinds[kind]; ok {
			kind = known
		}
		want = append(want, kind)
	}
	want = append(want, "u64", "u64") // Triton's own
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^\s+\.param \.(\w+) `).FindAllStringSubmatch(ptx, -1) {
		got = append(got, m[1])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: parameters (-want +got):\n%s", image.File, diff)
	}
	if strings.HasPrefix(k.Entry, "flash_attention") {
		return // its products of matrices and exponentials are nobody's bits
	}
	if bad := regexp.MustCompile(`\bfma\b|\.ftz|\.approx|\.full|\b(?:mul|add|sub)\.f32`).FindAllString(ptx, -1); bad != nil {
		t.Errorf("%s has instructions that do not round as a CPU does: %v", image.File, slices.Compact(bad))
	}
	roundings := regexp.MustCompile(`\bcvt\.(\S*)\.b?f16(?:x2)?\.f32`).FindAllStringSubmatch(ptx, -1)
	for _, r := range roundings {
		if r[1] != "rn" {
			t.Errorf("%s rounds by %s, not to the nearest", image.File, r[0])
		}
	}
	low := slices.ContainsFunc(k.Arguments, func(a string) bool { return strings.HasSuffix(a, "16") && strings.Contains(a, " *") })
	if low != (len(roundings) > 0) {
		t.Errorf("%s rounds to 16 bits in %d places", image.File, len(roundings))
	}
}
