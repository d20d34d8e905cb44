package weights

import (
	"fmt"
	"math"
	"slices"
)

// DType is the type of a tensor's elements, written as safetensors writes it.
type DType string

// The element types that safetensors defines in whole bytes. C64 and the 8-bit
// floating types can be listed and copied, but not converted.
const (
	F64    DType = "F64"
	F32    DType = "F32"
	F16    DType = "F16"
	BF16   DType = "BF16"
	I64    DType = "I64"
	I32    DType = "I32"
	I16    DType = "I16"
	I8     DType = "I8"
	U64    DType = "U64"
	U32    DType = "U32"
	U16    DType = "U16"
	U8     DType = "U8"
	Bool   DType = "BOOL"
	C64    DType = "C64"
	F8E5M2 DType = "F8_E5M2"
	F8E4M3 DType = "F8_E4M3"
)

// Size is the number of bytes of one element, 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case F64, I64, U64, C64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case I8, U8, Bool, F8E5M2, F8E4M3:
		return 1
	}
	return 0
}

// Tensor describes a tensor of a file. Its numbers stay in the file until one
// of the Read methods of [File] asks for them.
type Tensor struct {
	Name  string
	DType DType
	Shape []int64 // row-major; empty for a scalar
}

// Elements is the number of elements: the product of the shape.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes is the size of the tensor's data in its own type.
func (t Tensor) Bytes() int64 { return t.Elements() * int64(t.DType.Size()) }

// String gives name, type and shape, as messages quote them.
func (t Tensor) String() string {
	return fmt.Sprintf("%s %s%v", quote(t.Name), t.DType, t.Shape)
}

// maxElements bounds the tensors that are believed. The largest checkpoints of
// today have fewer elements in all; the bound keeps every product of a size in
// this package far from overflow.
const maxElements = 1 << 40

// checkShape returns the number of elements of shape, or an error if a
// dimension is negative or the product is absurd.
func checkShape(shape []int64) (int64, error) {
	n := int64(1)
	empty := false
	for _, d := range shape {
		switch {
		case d < 0 || d > maxElements:
			return 0, fmt.Errorf("shape %v has an impossible dimension %d", shape, d)
		case d == 0:
			empty = true
		case n > maxElements/d:
			return 0, fmt.Errorf("shape %v has more than 2^40 elements", shape)
		default:
			n *= d
		}
	}
	if empty {
		return 0, nil
	}
	return n, nil
}

// rowMajor returns the strides, in elements, of a contiguous tensor.
func rowMajor(shape []int64) []int64 {
	strides := make([]int64, len(shape))
	n := int64(1)
	for i, d := range slices.Backward(shape) {
		strides[i] = n
		n *= max(d, 1)
	}
	return strides
}

// contiguous says whether strides walk shape in row-major order without gaps.
// The stride of a dimension of 1 is never taken, so it does not matter.
func contiguous(shape, strides []int64) bool {
	want := rowMajor(shape)
	for i, d := range shape {
		if d > 1 && strides[i] != want[i] {
			return false
		}
	}
	return true
}

// span returns how many elements of the storage lie between the first and the
// last element of the view, both included; 0 for an empty view.
func span(shape, strides []int64) (int64, error) {
	last := int64(0)
	for i, d := range shape {
		if d == 0 {
			return 0, nil
		}
		s := strides[i]
		if s < 0 || s > maxElements {
			return 0, fmt.Errorf("impossible stride %d", s)
		}
		if d > 1 && s > (math.MaxInt64-last)/(d-1) {
			return 0, fmt.Errorf("shape %v with strides %v reaches beyond any storage", shape, strides)
		}
		last += (d - 1) * s
	}
	return last + 1, nil
}
