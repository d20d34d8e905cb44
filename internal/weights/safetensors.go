package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// The layout of a safetensors file: eight bytes that give the length of the
// header, the header, the data. Offsets in the header count from the start of
// the data.
const (
	safetensorsPrefix = 8
	// maxHeader is the reference implementation's own limit.
	maxHeader   = 100_000_000
	metadataKey = "__metadata__"
)

// safetensorsEntry is one tensor in the header.
type safetensorsEntry struct {
	DType   DType    `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// openSafetensors reads the header. It accepts what the reference
// implementation accepts: tensors that fill the data without gap or overlap.
func openSafetensors(path string, data io.ReaderAt, size int64) (*File, error) {
	broken := func(err error, format string, args ...any) error {
		return &FormatError{Path: path, Found: "safetensors: " + fmt.Sprintf(format, args...), Remedy: remedyIncomplete, Err: err}
	}
	var prefix [safetensorsPrefix]byte
	if _, err := data.ReadAt(prefix[:], 0); err != nil {
		return nil, broken(err, "no header")
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader || length > uint64(size-safetensorsPrefix) {
		return nil, broken(nil, "the header claims %d bytes, the file has %d", length, size)
	}
	raw := make([]byte, length)
	var err error
	if _, err = data.ReadAt(raw, safetensorsPrefix); err != nil && !errors.Is(err, io.EOF) {
		return nil, broken(err, "the header cannot be read")
	}

	expected := bytes.Count(raw, []byte(`"data_offsets"`))
	f := &File{path: path, tensors: make(map[string]*entry, expected)}
	start := safetensorsPrefix + int64(length)
	sorted := make([]*entry, 0, expected)
	f.metadata, err = parseHeader(raw, func(name string, e safetensorsEntry) error {
		if _, twice := f.tensors[name]; twice {
			return fmt.Errorf("tensor %s appears twice", quote(name))
		}
		t := Tensor{Name: name, DType: e.DType, Shape: e.Shape}
		if e.DType.Size() == 0 {
			return &FormatError{Path: path,
				Found:  fmt.Sprintf("safetensors: tensor %s is of unknown type %s", quote(name), quote(string(e.DType))),
				Remedy: "save the weights as F32, F16 or BF16"}
		}
		if _, err := checkShape(e.Shape); err != nil {
			return broken(err, "tensor %s", quote(name))
		}
		begin, end := e.Offsets[0], e.Offsets[1]
		if begin < 0 || end < begin || end > size-start {
			return broken(nil, "tensor %s lies at bytes %d to %d, but the file holds %d bytes of data", t, begin, end, size-start)
		}
		if end-begin != t.Bytes() {
			return broken(nil, "tensor %s needs %d bytes, but has %d", t, t.Bytes(), end-begin)
		}
		f.tensors[name] = &entry{Tensor: t, path: path, data: data, offset: start + begin}
		sorted = append(sorted, f.tensors[name])
		return nil
	})
	if _, told := errors.AsType[*FormatError](err); told {
		return nil, err
	} else if err != nil {
		return nil, broken(err, "the header is not what the format asks for")
	}

	// Every byte belongs to exactly one tensor, so nothing can hide in the file
	// and no tensor can be read through another.
	slices.SortFunc(sorted, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.Bytes(), b.Bytes()), cmp.Compare(a.Name, b.Name))
	})
	at := int64(0)
	for _, e := range sorted {
		begin := e.offset - start
		if begin != at {
			return nil, broken(nil, "tensor %s starts at byte %d of the data, where byte %d is due: tensors overlap or leave a gap",
				quote(e.Name), begin, at)
		}
		at = begin + e.Bytes()
	}
	if at != size-start {
		return nil, broken(nil, "the tensors fill %d bytes, but the file holds %d bytes of data", at, size-start)
	}
	return f, nil
}
