package weights

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"unicode/utf8"
)

// Source is a tensor to be written. WriteTo writes its numbers, little-endian
// and in row-major order, exactly as many bytes as DType and Shape ask for; it
// is called once, when the tensor's turn comes.
type Source struct {
	Name    string
	DType   DType
	Shape   []int64
	WriteTo func(w io.Writer) error
}

// Float32s is a source of type F32 whose numbers are data. The slice is read
// when the file is written.
func Float32s(name string, shape []int64, data []float32) Source {
	return Source{Name: name, DType: F32, Shape: shape, WriteTo: func(w io.Writer) error {
		buffer := chunks.Get().(*[chunkBytes]byte)
		defer chunks.Put(buffer)
		for part := range slices.Chunk(data, chunkBytes/4) {
			for i, x := range part {
				binary.LittleEndian.PutUint32(buffer[4*i:], math.Float32bits(x))
			}
			if _, err := w.Write(buffer[:4*len(part)]); err != nil {
				return err
			}
		}
		return nil
	}}
}

// Int64s is a source of type I64 whose numbers are data.
func Int64s(name string, shape []int64, data []int64) Source {
	return Source{Name: name, DType: I64, Shape: shape, WriteTo: func(w io.Writer) error {
		return binary.Write(w, binary.LittleEndian, data)
	}}
}

// Bytes is a source of any type whose numbers are already little-endian bytes.
func Bytes(name string, dtype DType, shape []int64, data []byte) Source {
	return Source{Name: name, DType: dtype, Shape: shape, WriteTo: func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}
}

// WriteSafetensors writes tensors, and metadata if there is any, to path.
// PyTorch's loaders want the metadata {"format": "pt"}.
//
// The file appears under its name only when it is complete and on the disk: it
// is written beside it, synced and renamed, so that a crash or a full disk
// leaves the old file, or none. The bytes depend on the tensors and the metadata
// alone: tensors are ordered as the reference implementation orders them, by
// falling alignment and then by name.
func WriteSafetensors(path string, metadata map[string]string, tensors []Source) error {
	header, ordered, err := layOut(metadata, tensors)
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	err = writeAtomically(path, func(w io.Writer) error {
		if _, err := w.Write(header); err != nil {
			return err
		}
		for _, t := range ordered {
			counted := &countingWriter{w: w}
			if err := t.WriteTo(counted); err != nil {
				return fmt.Errorf("tensor %s: %w", quote(t.Name), err)
			}
			if want := (Tensor{t.Name, t.DType, t.Shape}).Bytes(); counted.n != want {
				return fmt.Errorf("tensor %s: its source wrote %d bytes where %s%v has %d", quote(t.Name), counted.n, t.DType, t.Shape, want)
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("checkpoint %s: the disk is full: free some space or choose another folder: %w", path, err)
	case err != nil:
		return fmt.Errorf("checkpoint %s: %w", path, err)
	}
	return nil
}

// layOut checks the tensors, puts them in order and encodes the header.
func layOut(metadata map[string]string, tensors []Source) ([]byte, []Source, error) {
	ordered := slices.Clone(tensors)
	slices.SortFunc(ordered, func(a, b Source) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), cmp.Compare(a.Name, b.Name))
	})
	var b bytes.Buffer
	b.Write(make([]byte, safetensorsPrefix))
	b.WriteByte('{')
	if len(metadata) > 0 {
		appendKey(&b, metadataKey)
		b.WriteByte('{')
		for _, key := range slices.Sorted(maps.Keys(metadata)) {
			appendKey(&b, key)
			appendJSON(&b, metadata[key])
		}
		b.WriteByte('}')
	}
	seen := make(map[string]bool, len(ordered))
	at := int64(0)
	for _, t := range ordered {
		switch {
		case t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name):
			return nil, nil, fmt.Errorf("%q cannot be the name of a tensor", t.Name)
		case seen[t.Name]:
			return nil, nil, fmt.Errorf("tensor %s is given twice", quote(t.Name))
		case t.DType.Size() == 0:
			return nil, nil, fmt.Errorf("tensor %s is of unknown type %s", quote(t.Name), quote(string(t.DType)))
		case t.WriteTo == nil:
			return nil, nil, fmt.Errorf("tensor %s has no data", quote(t.Name))
		}
		seen[t.Name] = true
		if _, err := checkShape(t.Shape); err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		end := at + (Tensor{t.Name, t.DType, t.Shape}).Bytes()
		shape := t.Shape
		if shape == nil {
			shape = []int64{} // a scalar, which JSON must not show as null
		}
		appendKey(&b, t.Name)
		appendJSON(&b, safetensorsEntry{t.DType, shape, [2]int64{at, end}})
		at = end
	}
	b.WriteByte('}')
	for b.Len()%safetensorsPrefix != 0 {
		b.WriteByte(' ')
	}
	if b.Len()-safetensorsPrefix > maxHeader {
		return nil, nil, fmt.Errorf("%d tensors need a header of %d bytes, more than the format allows", len(ordered), b.Len())
	}
	header := b.Bytes()
	binary.LittleEndian.PutUint64(header, uint64(len(header)-safetensorsPrefix))
	return header, ordered, nil
}

// appendKey writes the key of an object, after a comma if it is not the first.
func appendKey(b *bytes.Buffer, key string) {
	if last := b.Bytes()[b.Len()-1]; last != '{' {
		b.WriteByte(',')
	}
	appendJSON(b, key)
	b.WriteByte(':')
}

// appendJSON writes v without the escapes that encoding/json adds for HTML.
// Strings and safetensorsEntry always have an encoding.
func appendJSON(b *bytes.Buffer, v any) {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("checkpoint: encoding a header: " + err.Error())
	}
	b.Truncate(b.Len() - 1) // the line break that Encode adds
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeAtomically lets write fill a new file in the folder of path, and gives it
// that name once everything is on the disk. After an error nothing is left.
func writeAtomically(path string, write func(io.Writer) error) error {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	temp, err := os.CreateTemp(dir, "."+base+".*.tmp")
	if err != nil {
		return err
	}
	renamed := false
	defer func() {
		if !renamed { // whatever went wrong first is what the caller must hear
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	w := bufio.NewWriterSize(temp, chunkBytes)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// CreateTemp keeps the file to its owner; weights are shared as other files are.
	if err := temp.Chmod(0o644); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	renamed = true
	return syncDir(dir)
}

// syncDir makes a rename survive a power failure. Some file systems cannot sync
// a folder; the file itself is safe there all the same.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
