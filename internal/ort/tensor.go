package ort

import (
	"fmt"
	"math"
	"slices"
	"unsafe"
)

// DType is the type of a tensor's elements, numbered as in ONNX.
type DType int

// The element types that tensors may have.
const (
	Float32  DType = 1
	Uint8    DType = 2
	Int32    DType = 6
	Int64    DType = 7
	Bool     DType = 9
	Float16  DType = 10
	Float64  DType = 11
	BFloat16 DType = 16
)

func (t DType) String() string {
	switch t {
	case Float32:
		return "float32"
	case Uint8:
		return "uint8"
	case Int32:
		return "int32"
	case Int64:
		return "int64"
	case Bool:
		return "bool"
	case Float16:
		return "float16"
	case Float64:
		return "float64"
	case BFloat16:
		return "bfloat16"
	}
	return fmt.Sprintf("DType(%d)", int(t))
}

// Size returns the bytes of one element, 0 for a type that tensors cannot have.
func (t DType) Size() int {
	switch t {
	case Float32, Int32:
		return 4
	case Int64, Float64:
		return 8
	case Float16, BFloat16:
		return 2
	case Uint8, Bool:
		return 1
	}
	return 0
}

// Tensor is a view of a [Buffer]: what a [Binding] reads from or writes to. It
// is a small value, to be copied; it owns nothing, and must not be used after
// its buffer was freed.
type Tensor struct {
	buffer *Buffer
	dtype  DType
	offset int // in elements
	shape  []int
}

// NewTensor returns a tensor of zeros in a buffer of its own, to be freed by
// t.Buffer().Free().
func NewTensor(dtype DType, shape ...int) (Tensor, error) {
	t, err := newTensor(nil, dtype, 0, shape)
	if err != nil {
		return Tensor{}, err
	}
	t.buffer, err = NewBuffer(t.Len() * dtype.Size())
	if err != nil {
		return Tensor{}, err
	}
	return t, nil
}

func newTensor(b *Buffer, dtype DType, offset int, shape []int) (Tensor, error) {
	if dtype.Size() == 0 {
		return Tensor{}, fmt.Errorf("ort: tensors of type %v are not supported", dtype)
	}
	n := 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/16/d {
			return Tensor{}, fmt.Errorf("ort: impossible tensor shape %v", shape)
		}
		n *= d
	}
	return Tensor{buffer: b, dtype: dtype, offset: offset, shape: slices.Clone(shape)}, nil
}

// DType returns the type of the elements.
func (t Tensor) DType() DType { return t.dtype }

// Shape returns a copy of the dimensions; empty for a scalar.
func (t Tensor) Shape() []int { return slices.Clone(t.shape) }

// Buffer returns the memory that the tensor is a view of.
func (t Tensor) Buffer() *Buffer { return t.buffer }

// Len returns the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// Bytes returns the elements as they lie in memory; of types Bool and Uint8 one
// byte each, where a Bool must be 0 or 1.
func (t Tensor) Bytes() []byte {
	size := t.dtype.Size()
	from, to := t.offset*size, (t.offset+t.Len())*size
	return t.buffer.data[from:to:to]
}

// Float32 returns the elements. It panics if they have another type.
func (t Tensor) Float32() []float32 { return view[float32](t.bytesOf(Float32)) }

// Int32 returns the elements. It panics if they have another type.
func (t Tensor) Int32() []int32 { return view[int32](t.bytesOf(Int32)) }

// Int64 returns the elements. It panics if they have another type.
func (t Tensor) Int64() []int64 { return view[int64](t.bytesOf(Int64)) }

func (t Tensor) bytesOf(want DType) []byte {
	if t.dtype != want {
		panic(fmt.Sprintf("ort: a tensor of type %v read as %v", t.dtype, want))
	}
	return t.Bytes()
}

// pointer returns the address of the first element.
func (t Tensor) pointer() unsafe.Pointer {
	if t.buffer.device != nil {
		return unsafe.Add(t.buffer.address, t.offset*t.dtype.Size())
	}
	return unsafe.Pointer(unsafe.SliceData(t.Bytes()))
}
