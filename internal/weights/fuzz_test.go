package weights

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nlpodyssey/gopickle/types"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzOpen reads any bytes as a weight file. They are refused with a
// *FormatError, or every tensor that they describe can be read.
func FuzzOpen(f *testing.F) {
	for _, pattern := range []string{"model/torch-variants/*.bin", "model/torch-variants/*.safetensors"} {
		for _, path := range golden.Glob(f, pattern) {
			content, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		memwatch.Start(t, len(content))
		file, err := open("fuzz", bytes.NewReader(content), int64(len(content)))
		if err != nil {
			var format *FormatError
			if !errors.As(err, &format) {
				t.Fatalf("not a *FormatError: %v", err)
			}
			return
		}
		requireReadable(t, file)
	})
}

// FuzzSafetensors does the same for the header of a safetensors file alone, and
// expects that what was read is written back and read again unchanged.
func FuzzSafetensors(f *testing.F) {
	f.Add([]byte(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`), uint16(8))
	f.Add([]byte(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[],"data_offsets":[4,5]}}  `), uint16(5))
	f.Fuzz(func(t *testing.T, header []byte, size uint16) {
		memwatch.Start(t, len(header))
		content := []byte{byte(len(header)), byte(len(header) >> 8), byte(len(header) >> 16), 0, 0, 0, 0, 0}
		content = append(append(content, header...), make([]byte, size)...)
		file, err := openSafetensors("fuzz", bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return
		}
		requireReadable(t, file)
		var sources []Source
		for _, name := range file.Names() {
			s, err := file.Source(name)
			if err != nil {
				t.Fatal(err)
			}
			if name == "" { // legal to read, but nothing that we would write
				return
			}
			sources = append(sources, s)
		}
		path := filepath.Join(t.TempDir(), "again.safetensors")
		if err := WriteSafetensors(path, file.Metadata(), sources); err != nil {
			t.Fatal(err)
		}
		again, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if !slices.Equal(file.Names(), again.Names()) {
			t.Errorf("names: want %q, got %q", file.Names(), again.Names())
		}
	})
}

// FuzzPickle runs any bytes as the pickle of a PyTorch file that has one storage.
func FuzzPickle(f *testing.F) {
	data := make([]byte, 1024)
	f.Add([]byte("\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtRs."))
	f.Add([]byte("\x80\x04ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00_metadata]sb."))
	f.Fuzz(func(t *testing.T, program []byte) {
		memwatch.Start(t, len(program))
		root, n, err := unpickle(program, func(id *types.Tuple) (*storage, error) {
			_, s, err := parseStorage(*id)
			if err == nil && s.elements*int64(s.dtype.Size()) > int64(len(data)) {
				err = errors.New("too long")
			}
			return s, err
		})
		if err != nil {
			return
		}
		if n > len(program) {
			t.Fatalf("a pickle of %d bytes in %d", n, len(program))
		}
		file, err := fromStateDict("fuzz", bytes.NewReader(data), root)
		if err == nil {
			requireReadable(t, file)
		}
	})
}

// requireReadable reads every tensor of a file, as bytes and as numbers.
func requireReadable(t *testing.T, f *File) {
	t.Helper()
	budget := int64(16 << 20)
	for _, name := range f.Names() {
		info, _ := f.Info(name)
		if budget -= info.Bytes(); budget < 0 {
			return // expanded views of one storage, each within its own bound
		}
		if err := f.ReadBytes(name, make([]byte, info.Bytes())); err != nil {
			t.Fatal(err)
		}
		switch info.DType {
		case F32, F16, BF16, F64:
			if err := f.ReadFloat32(name, make([]float32, info.Elements())); err != nil {
				t.Fatal(err)
			}
		}
	}
}
