package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
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
	if _, err := data.ReadAt(raw, safetensorsPrefix); err != nil && !errors.Is(err, io.EOF) {
		return nil, broken(err, "the header cannot be read")
	}
	entries, metadata, err := parseHeader(raw)
	if err != nil {
		return nil, broken(err, "the header is not what the format asks for")
	}

	f := &File{path: path, metadata: metadata, tensors: make(map[string]*entry, len(entries))}
	start := safetensorsPrefix + int64(length)
	names := make([]string, 0, len(entries))
	for name, e := range entries {
		t := Tensor{Name: name, DType: e.DType, Shape: e.Shape}
		if e.DType.Size() == 0 {
			return nil, &FormatError{Path: path,
				Found:  fmt.Sprintf("safetensors: tensor %s is of unknown type %s", quote(name), quote(string(e.DType))),
				Remedy: "save the weights as F32, F16 or BF16"}
		}
		if _, err := checkShape(e.Shape); err != nil {
			return nil, broken(err, "tensor %s", quote(name))
		}
		begin, end := e.Offsets[0], e.Offsets[1]
		if begin < 0 || end < begin || end > size-start {
			return nil, broken(nil, "tensor %s lies at bytes %d to %d, but the file holds %d bytes of data", t, begin, end, size-start)
		}
		if end-begin != t.Bytes() {
			return nil, broken(nil, "tensor %s needs %d bytes, but has %d", t, t.Bytes(), end-begin)
		}
		f.tensors[name] = &entry{Tensor: t, path: path, data: data, offset: start + begin}
		names = append(names, name)
	}

	// Every byte belongs to exactly one tensor, so nothing can hide in the file
	// and no tensor can be read through another.
	slices.SortFunc(names, func(a, b string) int {
		x, y := entries[a].Offsets, entries[b].Offsets
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]), cmp.Compare(a, b))
	})
	at := int64(0)
	for _, name := range names {
		begin, end := entries[name].Offsets[0], entries[name].Offsets[1]
		if begin != at {
			return nil, broken(nil, "tensor %s starts at byte %d of the data, where byte %d is due: tensors overlap or leave a gap", quote(name), begin, at)
		}
		at = end
	}
	if at != size-start {
		return nil, broken(nil, "the tensors fill %d bytes, but the file holds %d bytes of data", at, size-start)
	}
	return f, nil
}

// parseHeader reads the header's JSON object key by key: encoding/json would
// let the second of two tensors of one name silently replace the first.
func parseHeader(raw []byte) (map[string]safetensorsEntry, map[string]string, error) {
	if len(raw) == 0 || raw[0] != '{' {
		return nil, nil, errors.New("it does not start with {")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if _, err := dec.Token(); err != nil {
		return nil, nil, err
	}
	entries := make(map[string]safetensorsEntry)
	var metadata map[string]string
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, nil, err
		}
		name := token.(string) // a key: the decoder admits nothing else here
		if name == metadataKey {
			if metadata != nil {
				return nil, nil, fmt.Errorf("%s appears twice", metadataKey)
			}
			if err := dec.Decode(&metadata); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", metadataKey, err)
			}
			continue
		}
		if _, twice := entries[name]; twice {
			return nil, nil, fmt.Errorf("tensor %s appears twice", quote(name))
		}
		var fields struct {
			DType   *DType   `json:"dtype"`
			Shape   *[]int64 `json:"shape"`
			Offsets []int64  `json:"data_offsets"`
		}
		if err := dec.Decode(&fields); err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		if fields.DType == nil || fields.Shape == nil || len(fields.Offsets) != 2 {
			return nil, nil, fmt.Errorf("tensor %s lacks dtype, shape or two data_offsets", quote(name))
		}
		entries[name] = safetensorsEntry{*fields.DType, *fields.Shape, [2]int64(fields.Offsets)}
	}
	if _, err := dec.Token(); err != nil {
		return nil, nil, err
	}
	// Writers pad the header with spaces so that the data is aligned.
	if rest := bytes.TrimLeft(raw[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, nil, fmt.Errorf("%d bytes follow the JSON object", len(rest))
	}
	return entries, metadata, nil
}
