package weights_test

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/weights"
)

// TestGoldenTorchVariants reads every form that torch.save has had. The name of
// a case says what is expected of it: the tensors of expected.safetensors, or of
// expected_TYPE.safetensors where the name ends in _TYPE; or a refusal.
func TestGoldenTorchVariants(t *testing.T) {
	for _, path := range golden.Glob(t, "model/torch-variants/*.bin") {
		name := strings.TrimSuffix(filepath.Base(path), ".bin")
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "truncated") || strings.Contains(name, "foreign") {
				f, err := weights.Open(path)
				if err == nil {
					f.Close()
				}
				requireFormatError(t, err)
				t.Log(err)
				return
			}
			got := openFile(t, path)
			expected := filepath.Join(filepath.Dir(path), "expected.safetensors")
			for _, kind := range golden.Glob(t, "model/torch-variants/expected_*.safetensors") {
				suffix := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(kind), "expected"), ".safetensors")
				if strings.HasSuffix(name, suffix) {
					expected = kind
				}
			}
			requireSameNumbers(t, openFile(t, expected), got)
		})
	}
}

// TestGoldenCheckpointForms compares the two files that a checkpoint on the hub
// offers: half precision in a pickle and single precision in safetensors.
func TestGoldenCheckpointForms(t *testing.T) {
	for _, path := range golden.Glob(t, "model/*/pytorch_model.bin") {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			single := openFile(t, filepath.Join(dir, "model.safetensors"))
			requireSameNumbers(t, single, openFile(t, path))

			byFolder := openFile(t, dir)
			if diff := cmp.Diff(single.Names(), byFolder.Names()); diff != "" {
				t.Errorf("opening the folder does not take model.safetensors (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGoldenCheckpointRoundTrip copies every golden safetensors file through the
// writer and expects the same tensors and metadata back.
func TestGoldenCheckpointRoundTrip(t *testing.T) {
	for _, path := range golden.Glob(t, "model/*/*.safetensors") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want := openFile(t, path)
			var sources []weights.Source
			for _, name := range want.Names() {
				s, err := want.Source(name)
				if err != nil {
					t.Fatal(err)
				}
				sources = append(sources, s)
			}
			written := filepath.Join(t.TempDir(), "copy.safetensors")
			if err := weights.WriteSafetensors(written, want.Metadata(), sources); err != nil {
				t.Fatal(err)
			}
			got := openFile(t, written)
			if diff := cmp.Diff(want.Metadata(), got.Metadata()); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.Names(), got.Names()); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			for _, name := range want.Names() {
				if !bytes.Equal(readBytes(t, want, name), readBytes(t, got, name)) {
					t.Errorf("%s: the bytes changed", name)
				}
			}
		})
	}
}

// requireSameNumbers expects every tensor of want in got, equal bit for bit.
// What got has beyond that may only be what a model ignores.
func requireSameNumbers(t *testing.T, want, got *weights.File) {
	t.Helper()
	compared := 0
	for _, name := range want.Names() {
		w, _ := want.Info(name)
		g, ok := got.Info(name)
		if !ok {
			t.Errorf("tensor %s is missing", name)
			continue
		}
		if diff := cmp.Diff(w.Shape, g.Shape); diff != "" {
			t.Errorf("%s: shape (-want +got):\n%s", name, diff)
			continue
		}
		a, b := readFloat32(t, want, name), readFloat32(t, got, name)
		for i := range a {
			if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
				t.Errorf("%s[%d]: want %x (%g), got %x (%g)", name, i, math.Float32bits(a[i]), a[i], math.Float32bits(b[i]), b[i])
				break
			}
			compared++
		}
	}
	if compared == 0 {
		t.Error("no number was compared")
	}
	t.Logf("%d tensors, %d numbers equal", len(want.Names()), compared)
}

func openFile(t testing.TB, path string) *weights.File {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func readFloat32(t testing.TB, f *weights.File, name string) []float32 {
	t.Helper()
	info, _ := f.Info(name)
	dst := make([]float32, info.Elements())
	if err := f.ReadFloat32(name, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func readBytes(t testing.TB, f *weights.File, name string) []byte {
	t.Helper()
	info, _ := f.Info(name)
	dst := make([]byte, info.Bytes())
	if err := f.ReadBytes(name, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
