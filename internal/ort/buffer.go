package ort

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"
)

// Buffer is memory outside the Go heap: page aligned, zero at first, at a fixed
// address. The garbage collector neither scans nor counts it, so C code may
// keep pointers into it, and gigabytes of parameters do not make the heap grow.
// One that a [Device] made may lie on that device: then its bytes are read and
// written by [Device.Copy] only.
//
// A Buffer lives until Free, whatever becomes of the references to it: slices
// and tensors made from it must not be used afterwards.
type Buffer struct {
	mu      sync.Mutex
	size    int
	data    []byte         // nil on a device
	device  *Device        // nil for memory of the host
	address unsafe.Pointer // on the device
	release func() error   // nil: data was mapped
}

// NewBuffer returns a buffer of size bytes. Memory is taken from the system as
// it is first touched.
func NewBuffer(size int) (*Buffer, error) {
	if size < 0 {
		return nil, fmt.Errorf("ort: buffer of %d bytes", size)
	}
	data, err := syscall.Mmap(-1, 0, max(size, 1), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("ort: allocating %d bytes: %w", size, err)
	}
	return &Buffer{size: size, data: data[:size:size]}, nil
}

// Free gives the memory back. Freeing twice does nothing.
func (b *Buffer) Free() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if release := b.release; release != nil {
		b.data, b.address, b.release = nil, nil, nil
		return release()
	}
	if b.data == nil {
		return nil
	}
	data := b.data
	b.data = nil
	if cap(data) == 0 { // the one page behind an empty buffer
		data = unsafe.Slice(unsafe.SliceData(data), 1)
	}
	if err := syscall.Munmap(data); err != nil {
		return fmt.Errorf("ort: freeing %d bytes: %w", len(data), err)
	}
	return nil
}

// Bytes returns the whole memory, nil if it lies on a device.
func (b *Buffer) Bytes() []byte { return b.data }

// Float32 returns the memory as float32 values; bytes left over at the end are
// not part of it.
func (b *Buffer) Float32() []float32 { return view[float32](b.data) }

// Int64 returns the memory as int64 values; bytes left over at the end are not
// part of it.
func (b *Buffer) Int64() []int64 { return view[int64](b.data) }

// Float64 returns the memory as float64 values; bytes left over at the end are
// not part of it.
func (b *Buffer) Float64() []float64 { return view[float64](b.data) }

// view reinterprets bytes as values of another type.
func view[T float32 | float64 | int32 | int64](b []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(zero)))
}

// Tensor returns a view of the buffer: elements of the given type and shape
// from the offset-th element on, row by row. No shape at all means a scalar.
func (b *Buffer) Tensor(dtype DType, offset int, shape ...int) (Tensor, error) {
	t, err := newTensor(b, dtype, offset, shape)
	if err != nil {
		return Tensor{}, err
	}
	if need := (offset + t.Len()) * dtype.Size(); offset < 0 || need > b.size {
		return Tensor{}, fmt.Errorf("ort: tensor %v %v at element %d does not fit into a buffer of %d bytes", dtype, shape, offset, b.size)
	}
	return t, nil
}
