package weights_test

import (
	"archive/zip"
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/weights"
)

// BenchmarkRead reads a half-precision checkpoint of the shapes of
// deberta-v3-base, 368 MB, into float32 numbers, as a training run does when it
// starts. x-float32 is the peak of the process's memory divided by the size of
// those numbers.
func BenchmarkRead(b *testing.B) {
	for _, form := range []struct {
		name  string
		write func(testing.TB, string, []weights.Tensor)
	}{{"safetensors", writeHalfSafetensors}, {"pickle", writeHalfPickle}} {
		b.Run(form.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "weights")
			form.write(b, path, baseShapes())
			debug.FreeOSMemory()
			resetPeak(b)
			var flat []float32
			for b.Loop() {
				flat = readAll(b, path, flat)
			}
			b.SetBytes(2 * int64(len(flat)))
			b.ReportMetric(peak(b)/float64(4*len(flat)), "x-float32")
		})
	}
}

// readAll reads all tensors of a file into flat, one after the other, and makes
// flat in the first call.
func readAll(b *testing.B, path string, flat []float32) []float32 {
	b.Helper()
	f, err := weights.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if flat == nil {
		total := int64(0)
		for _, name := range f.Names() {
			info, _ := f.Info(name)
			total += info.Elements()
		}
		flat = make([]float32, total)
	}
	rest := flat
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		if err := f.ReadFloat32(name, rest[:info.Elements()]); err != nil {
			b.Fatal(err)
		}
		rest = rest[info.Elements():]
	}
	return flat
}

// BenchmarkWrite writes the same number of single-precision weights, as a run
// does when it keeps its best model.
func BenchmarkWrite(b *testing.B) {
	var sources []weights.Source
	total := int64(0)
	for _, t := range baseShapes() {
		sources = append(sources, weights.Float32s(t.Name, t.Shape, make([]float32, t.Elements())))
		total += t.Elements()
	}
	path := filepath.Join(b.TempDir(), "model.safetensors")
	for b.Loop() {
		if err := weights.WriteSafetensors(path, nil, sources); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(4 * total)
}

func baseShapes() []weights.Tensor {
	var tensors []weights.Tensor
	add := func(name string, shape ...int64) {
		tensors = append(tensors, weights.Tensor{Name: "deberta." + name, DType: weights.F16, Shape: shape})
	}
	add("embeddings.word_embeddings.weight", 128100, 768)
	add("encoder.rel_embeddings.weight", 512, 768)
	for i := range 12 {
		layer := fmt.Sprintf("encoder.layer.%d.", i)
		for _, name := range []string{"query_proj", "key_proj", "value_proj"} {
			add(layer+"attention.self."+name+".weight", 768, 768)
			add(layer+"attention.self."+name+".bias", 768)
		}
		add(layer+"attention.output.dense.weight", 768, 768)
		add(layer+"intermediate.dense.weight", 3072, 768)
		add(layer+"output.dense.weight", 768, 3072)
		add(layer+"output.LayerNorm.weight", 768)
	}
	return tensors
}

// writeHalf writes n half-precision numbers, normal and subnormal.
func writeHalf(w io.Writer, n int64) error {
	buffered := bufio.NewWriterSize(w, 1<<16)
	for i := range n {
		h := uint16(i*40503) & 0xbbff // any sign, finite
		if err := buffered.WriteByte(byte(h)); err != nil {
			return err
		}
		if err := buffered.WriteByte(byte(h >> 8)); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

func writeHalfSafetensors(t testing.TB, path string, tensors []weights.Tensor) {
	t.Helper()
	var sources []weights.Source
	for _, x := range tensors {
		sources = append(sources, weights.Source{Name: x.Name, DType: x.DType, Shape: x.Shape,
			WriteTo: func(w io.Writer) error { return writeHalf(w, x.Elements()) }})
	}
	if err := weights.WriteSafetensors(path, nil, sources); err != nil {
		t.Fatal(err)
	}
}

func writeHalfPickle(t testing.TB, path string, tensors []weights.Tensor) {
	t.Helper()
	program := "\x80\x02}("
	for i, x := range tensors {
		shape, strides := "(", "("
		for k, d := range x.Shape {
			shape += num(int(d))
			if k < len(x.Shape)-1 {
				strides += num(int(x.Shape[k+1]))
			}
		}
		program += str(x.Name) + "ctorch._utils\n_rebuild_tensor_v2\n(" +
			ref("HalfStorage", strconv.Itoa(i), int(x.Elements()), "") + num(0) + shape + "t" + strides + num(1) + "t\x89NtR"
	}
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(file)
	member := func(name string, write func(io.Writer) error) {
		m, err := w.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err == nil {
			err = write(m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	member("data.pkl", func(w io.Writer) error { _, err := io.WriteString(w, program+"u."); return err })
	for i, x := range tensors {
		member("data/"+strconv.Itoa(i), func(w io.Writer) error { return writeHalf(w, x.Elements()) })
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// resetPeak makes Linux count the peak of the memory from here on.
func resetPeak(b *testing.B) {
	b.Helper()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatalf("the peak of the memory is measured as Linux counts it: %v", err)
	}
}

// peak returns the highest resident memory since resetPeak, in bytes.
func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes * 1024
}
