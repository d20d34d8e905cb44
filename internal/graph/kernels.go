package graph

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// The operators of [KernelDomain], by the names that package ort gives them. A test
// there compares them.
const (
	// Of the host, which may offer any of them. Gemm is ONNX's too, for a host that
	// does not.
	geluGrad       = "GeluGrad"
	dropoutMask    = "DropoutMask"
	softmaxGrad    = "SoftmaxGrad"
	skew           = "Skew"
	unskew         = "Unskew"
	layerNormGrad  = "LayerNormGrad"
	gemm           = "Gemm"
	linearGrad     = "LinearGrad" // gradients of both parameters of a linear layer
	Attention      = "Attention"  // the three of attention come together
	attentionProbs = "AttentionProbs"
	attentionGrad  = "AttentionGrad"

	// Of the host, for packed batches, all or none; see packed.go.
	packedAttention          = "PackedAttention"
	packedAttentionProbs     = "PackedAttentionProbs"
	packedAttentionGrad      = "PackedAttentionGrad"
	packedFirstAttention     = "PackedFirstAttention"
	packedFirstAttentionGrad = "PackedFirstAttentionGrad"
	packedDropout            = "PackedDropout"
	packedPool               = "PackedPool"
	packedPoolGrad           = "PackedPoolGrad"

	// Of devices.
	PhiloxDropout      = "PhiloxDropout"
	SumSquares         = "SumSquares"
	AdamW              = "AdamW"
	AdamW8bit          = "AdamW8bit"
	FlashAttention     = "FlashAttention" // both of attention or none
	FlashAttentionGrad = "FlashAttentionGrad"
)

// PhiloxDropout zeroes elements of x with probability p and divides the others
// by 1−p. Which ones is a function of position (int64 [1]), seed and site alone,
// so nothing is kept for the backward pass; the site tells the dropouts of a
// model apart.
func (g *Graph) PhiloxDropout(x, position *Value, p float64, seed uint64, site int) *Value {
	check(position.Type == Int64 && position.Size() == 1, PhiloxDropout, "%v is no position", position)
	threshold := int(min(math.Round(p*(1<<32)), math.MaxUint32))
	return g.apply1(PhiloxDropout, KernelDomain, []*Value{x, position}, x.Type, x.Shape, Attribute{"seed", int(seed)},
		Attribute{"site", site}, Attribute{"threshold", threshold}, Attribute{"scale", float32(1 / (1 - p))})
}

// SumSquares returns one sum of squares for every span elements of the vector x.
func (g *Graph) SumSquares(x *Value, span int) *Value {
	check(x.Rank() == 1 && x.Size()%span == 0, SumSquares, "%v cannot be cut into parts of %d", x, span)
	return g.apply1(SumSquares, KernelDomain, []*Value{x}, Float32, []int{x.Size() / span}, Attribute{"span", span})
}

// AdamW takes a step of the optimizer on the parameters p with gradients grad and
// moments m and v, vectors of one size. scalars are nine numbers: 1−lr·λ, β₂,
// 1−β₁, 1−β₂, lr/(1−β₁ᵗ), 1/√(1−β₂ᵗ), ε, a factor of the gradients, and 0 if
// nothing shall change. low, which may be nil, is to become the last elements of
// the new p in low precision.
func (g *Graph) AdamW(p, grad, m, v, scalars, low *Value) (newP, newM, newV, newLow *Value) {
	for _, x := range []*Value{grad, m, v} {
		check(slices.Equal(x.Shape, p.Shape), AdamW, "%v does not fit %v", x, p)
	}
	check(scalars.Rank() == 1 && scalars.Size() == 9, AdamW, "%v are not nine scalars", scalars)
	out := g.optimizer(AdamW, low, []*Value{p, grad, m, v, scalars}, p, m, v)
	return out[0], out[1], out[2], out[3]
}

// optimizer applies an operator that replaces values, and low if it is not nil.
func (g *Graph) optimizer(op string, low *Value, inputs []*Value, replaced ...*Value) []*Value {
	if low != nil {
		check(low.Type.IsLow() && low.Rank() == 1 && low.Size() <= inputs[0].Size(), op, "%v is no copy of %v", low, inputs[0])
		inputs, replaced = append(inputs, low), append(replaced, low)
	}
	shapes := make([][]int, len(replaced))
	for i, v := range replaced {
		shapes[i] = v.Shape
	}
	out := g.apply(op, KernelDomain, inputs, Float32, shapes)
	for i, v := range replaced {
		out[i].Type = v.Type
	}
	if low == nil {
		out = append(out, nil)
	}
	return out
}

// State8bit is what [Graph.AdamW8bit] knows of the tensors that it works on: see
// internal/kernels/kernels.py.
type State8bit struct {
	Owners  []int32         // of every block of 256 elements the number of its tensor
	Tensors [][8]int64      // first block, place in p, size, places of scales or moments, of codes, of scalars
	Values  [2][256]float32 // what the codes of both moments stand for
	Cells   [2][65536]uint8 // codes of equal parts of [-1, 1]
}

// AdamW8bit is [Graph.AdamW] with moments in 8 bits: state, a uint8 vector, holds
// them. scalars are nine for each kind of tensor. All outputs must be bound to
// the memory of the inputs that they replace.
func (g *Graph) AdamW8bit(p, grad, state, scalars, low *Value, s State8bit) (newP, newState, newLow *Value) {
	check(slices.Equal(grad.Shape, p.Shape) && state.Type == Uint8 && scalars.Size()%9 == 0, AdamW8bit, "%v, %v, %v and %v do not fit", p, grad, state, scalars)
	constant := func(t Type, elements any, shape ...int) *Value {
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, elements); err != nil {
			panic(err)
		}
		return g.constant(t, b.Bytes(), product(shape), shape)
	}
	out := g.optimizer(AdamW8bit, low, []*Value{p, grad, state, constant(Int32, s.Owners, len(s.Owners)), constant(Int64, s.Tensors, len(s.Tensors), 8),
		constant(Float32, s.Values, 2, 256), constant(Uint8, s.Cells, 2, 65536), scalars}, p, state)
	return out[0], out[1], out[2]
}
