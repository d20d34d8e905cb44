package weights

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// File is an opened weight file, or a folder of them. Its methods may be called
// from several goroutines at once, except Close and ModernizeLayerNorm.
type File struct {
	path     string
	tensors  map[string]*entry
	metadata map[string]string
	open     []io.Closer
}

// entry is a tensor and where its numbers lie.
type entry struct {
	Tensor
	path    string // the file, for messages: a folder may hold several
	data    io.ReaderAt
	offset  int64   // of the first element, in bytes
	strides []int64 // in elements; nil if the numbers lie in row-major order
}

// Path is the path that was given to Open.
func (f *File) Path() string { return f.path }

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.tensors)) }

// Info describes the tensor of that name.
func (f *File) Info(name string) (Tensor, bool) {
	e, ok := f.tensors[name]
	if !ok {
		return Tensor{}, false
	}
	t := e.Tensor
	t.Name = name
	t.Shape = slices.Clone(t.Shape)
	return t, true
}

// Elements is the number of elements of all tensors together.
func (f *File) Elements() int64 {
	n := int64(0)
	for _, e := range f.tensors {
		n += e.Elements()
	}
	return n
}

// Metadata returns the free text that a safetensors file may carry, such as
// "format": "pt". It is empty for PyTorch files and for folders of shards.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// ReadFloat32 reads a tensor of floating type, in row-major order, into dst,
// whose length must be the tensor's number of elements. F16 and BF16 are
// converted exactly, F64 is rounded to nearest.
func (f *File) ReadFloat32(name string, dst []float32) error {
	return read(f, name, dst, toFloat32, "ReadFloat32 takes F32, F16, BF16 and F64")
}

// ReadInt64 reads a tensor of integers or booleans, in row-major order, into
// dst, whose length must be the tensor's number of elements.
func (f *File) ReadInt64(name string, dst []int64) error {
	return read(f, name, dst, toInt64, "ReadInt64 takes integers and booleans")
}

// ReadBytes reads the numbers of a tensor of any type as they are, little-endian
// and in row-major order, into dst, whose length must be the tensor's Bytes.
func (f *File) ReadBytes(name string, dst []byte) error {
	e, err := f.lookup(name)
	if err != nil {
		return err
	}
	if int64(len(dst)) != e.Bytes() {
		return f.lengthError(e, int64(len(dst)), e.Bytes(), "bytes")
	}
	return e.stream(func(chunk []byte) error {
		dst = dst[copy(dst, chunk):]
		return nil
	})
}

// Source makes the tensor of that name a source for [WriteSafetensors]: its
// bytes are copied through, without conversion, when the file is written.
func (f *File) Source(name string) (Source, error) {
	e, err := f.lookup(name)
	if err != nil {
		return Source{}, err
	}
	return Source{
		Name: name, DType: e.DType, Shape: slices.Clone(e.Shape),
		WriteTo: func(w io.Writer) error {
			return e.stream(func(chunk []byte) error {
				_, err := w.Write(chunk)
				return err
			})
		},
	}, nil
}

// compiled is what torch.compile puts before the names of the module that it
// compiles: of all parameters, or of those of a part.
const compiled = "_orig_mod."

// parallel is what DataParallel puts before every name.
const parallel = "module."

// StripWrappers takes off what torch.compile and DataParallel add to names, in any
// number and order. A name that would come twice is left alone.
func (f *File) StripWrappers() {
	for _, name := range f.Names() {
		f.rename(name, strings.ReplaceAll(name, compiled, ""))
	}
	for len(f.tensors) > 0 {
		names := f.Names()
		for _, name := range names {
			if !strings.HasPrefix(name, parallel) {
				return
			}
		}
		for _, name := range names {
			f.rename(name, strings.TrimPrefix(name, parallel))
		}
	}
}

// rename gives a tensor another name, unless that is taken.
func (f *File) rename(name, to string) {
	if _, taken := f.tensors[to]; taken {
		return
	}
	f.tensors[to] = f.tensors[name]
	delete(f.tensors, name)
}

// ModernizeLayerNorm offers LayerNorm.gamma and LayerNorm.beta, the names that
// checkpoints converted from TensorFlow carry, as LayerNorm.weight and
// LayerNorm.bias. A name that exists already is left alone.
func (f *File) ModernizeLayerNorm() {
	for _, name := range f.Names() {
		stem, old := strings.CutSuffix(name, "LayerNorm.gamma")
		modern := stem + "LayerNorm.weight"
		if !old {
			stem, old = strings.CutSuffix(name, "LayerNorm.beta")
			modern = stem + "LayerNorm.bias"
		}
		if old {
			f.rename(name, modern)
		}
	}
}

// Close releases the file. Tensors and sources of f cannot be read afterwards.
func (f *File) Close() error {
	var errs []error
	for _, c := range f.open {
		errs = append(errs, c.Close())
	}
	f.open = nil
	return errors.Join(errs...)
}

// lookup finds a tensor that must exist. Someone who asks for a missing one has
// most likely the right file and another prefix, so the message shows a
// neighbour.
func (f *File) lookup(name string) (*entry, error) {
	if e, ok := f.tensors[name]; ok {
		return e, nil
	}
	remedy := "check that the configuration belongs to this checkpoint"
	if names := f.Names(); len(names) > 0 {
		tail := name[strings.IndexByte(name, '.')+1:]
		near := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, tail) })
		remedy += fmt.Sprintf("; among its %d tensors is %s", len(names), quote(names[max(near, 0)]))
	}
	return nil, &FormatError{Path: f.path, Found: "has no tensor " + quote(name), Remedy: remedy}
}

func (f *File) lengthError(e *entry, got, want int64, unit string) error {
	return &FormatError{
		Path:   e.path,
		Found:  fmt.Sprintf("tensor %s has %d %s, but %d are wanted", e.Tensor, want, unit, got),
		Remedy: "check that the configuration belongs to this checkpoint",
	}
}

// read converts a tensor chunk by chunk into dst.
func read[T any](f *File, name string, dst []T, convert func(DType, []byte, []T) error, remedy string) error {
	e, err := f.lookup(name)
	if err != nil {
		return err
	}
	if int64(len(dst)) != e.Elements() {
		return f.lengthError(e, int64(len(dst)), e.Elements(), "elements")
	}
	size := e.DType.Size()
	return e.stream(func(chunk []byte) error {
		n := len(chunk) / size
		if err := convert(e.DType, chunk, dst[:n]); err != nil {
			return &FormatError{Path: e.path, Found: "tensor " + e.Tensor.String(), Remedy: remedy, Err: err}
		}
		dst = dst[n:]
		return nil
	})
}

// chunkBytes is how much of a file is in memory at a time: large enough that
// system calls cost nothing, small enough to stay in the processor's cache. It
// is a multiple of every element size.
const chunkBytes = 256 << 10

var chunks = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// stream passes the tensor's bytes, in row-major order, to emit, in chunks of
// whole elements that are valid only during the call.
func (e *entry) stream(emit func(chunk []byte) error) error {
	if e.strides != nil {
		return e.gather(emit)
	}
	buffer := chunks.Get().(*[chunkBytes]byte)
	defer chunks.Put(buffer)
	for at, end := e.offset, e.offset+e.Bytes(); at < end; {
		chunk := buffer[:min(end-at, chunkBytes)]
		if err := e.readAt(chunk, at); err != nil {
			return err
		}
		if err := emit(chunk); err != nil {
			return err
		}
		at += int64(len(chunk))
	}
	return nil
}

// gather is stream for a view whose elements do not lie in row-major order,
// such as a transposed matrix. Such tensors are rare and the part of the
// storage that they span is no larger than the file, so that part is read whole.
func (e *entry) gather(emit func(chunk []byte) error) error {
	elements := e.Elements()
	if elements == 0 {
		return nil
	}
	size := int64(e.DType.Size())
	length, err := span(e.Shape, e.strides)
	if err != nil {
		return err
	}
	raw := make([]byte, length*size)
	if err := e.readAt(raw, e.offset); err != nil {
		return err
	}
	buffer := chunks.Get().(*[chunkBytes]byte)
	defer chunks.Put(buffer)

	index := make([]int64, len(e.Shape)) // counts like an odometer, last dimension fastest
	at, filled := int64(0), int64(0)
	for range elements {
		copy(buffer[filled:filled+size], raw[at*size:])
		if filled += size; filled == chunkBytes {
			if err := emit(buffer[:filled]); err != nil {
				return err
			}
			filled = 0
		}
		for d := len(index) - 1; d >= 0; d-- {
			index[d]++
			at += e.strides[d]
			if index[d] < e.Shape[d] {
				break
			}
			at -= index[d] * e.strides[d]
			index[d] = 0
		}
	}
	return emit(buffer[:filled])
}

func (e *entry) readAt(p []byte, offset int64) error {
	n, err := e.data.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("checkpoint %s: read after Close: %w", e.path, err)
	}
	return &FormatError{
		Path:   e.path,
		Found:  fmt.Sprintf("tensor %s cannot be read at byte %d", e.Tensor, offset+int64(n)),
		Remedy: "the file may have changed since it was opened: " + remedyIncomplete,
		Err:    cmp.Or(err, io.ErrUnexpectedEOF),
	}
}
