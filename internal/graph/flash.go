package graph

import (
	"math"
	"slices"
)

// FlashInputs are the values that [Graph.FlashAttention] reads, for B sequences of L
// positions and H heads of size D/H.
type FlashInputs struct {
	Query, Key, Value *Value // [B·L, D]
	// ContentToPosition and PositionToContent are what [Graph.Skew] reads,
	// [H, B, L, 2L]: the products of queries, or keys, with all relative positions,
	// times Scale.
	ContentToPosition, PositionToContent *Value
	Tokens                               *Value  // [B·L, 1]: 1 for a token, 0 for padding
	Scale                                float64 // factor of the products of queries and keys

	// Dropout is the probability with which a probability is dropped, as
	// [Graph.PhiloxDropout] drops elements of [H, B, L, L].
	Dropout  float64
	Position *Value // nil without dropout
	Seed     uint64
	Site     int
}

// FlashAttention returns disentangled attention, [B·L, D]:
//
//	dropout(softmax(scale·q_i·k_j + c2p[i, j−i+L−1] + p2c[j, i−j+L−1]))·v
//
// without a value of the size of the probabilities; see internal/kernels/attention.py.
// Positions after a sequence's last token yield 0.
func (g *Graph) FlashAttention(in FlashInputs) *Value {
	table := in.ContentToPosition.Shape
	check(len(table) == 4 && table[3] == 2*table[2] && slices.Equal(in.PositionToContent.Shape, table), FlashAttention,
		"%v and %v are no tables of relative positions", in.ContentToPosition, in.PositionToContent)
	for _, v := range []*Value{in.Query, in.Key, in.Value} {
		check(v.Rank() == 2 && v.Shape[0] == table[1]*table[2] && v.Shape[1]%table[0] == 0 && slices.Equal(v.Shape, in.Query.Shape),
			FlashAttention, "%v does not fit %v", v, in.ContentToPosition)
	}
	check(in.Tokens.Size() == in.Query.Shape[0], FlashAttention, "%v does not fit %v", in.Tokens, in.Query)
	check(in.Position != nil == (in.Dropout > 0), FlashAttention, "dropout %v with position %v", in.Dropout, in.Position)
	inputs := []*Value{in.Query, in.Key, in.Value, in.ContentToPosition, in.PositionToContent, in.Tokens}
	if in.Position != nil {
		inputs = append(inputs, in.Position)
	}
	threshold := int(min(math.Round(in.Dropout*(1<<32)), math.MaxUint32))
	return g.apply(FlashAttention, KernelDomain, inputs, Float32, [][]int{in.Query.Shape, table[:3]},
		Attribute{"scale", float32(in.Scale)}, Attribute{"keep", float32(1 / (1 - in.Dropout))}, Attribute{"seed", int(in.Seed)},
		Attribute{"site", in.Site}, Attribute{"threshold", threshold})[0]
}

// flashRule has an operator of its own, which reads the result and, for every row
// of the scores, the logarithm of the sum of their exponentials. Tokens and position
// have no gradient.
func flashRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	const differentiable = 5
	inputs := append([]*Value{dy}, n.Inputs[:differentiable]...)
	inputs = append(append(inputs, n.Outputs...), n.Inputs[differentiable:]...)
	var shapes [][]int
	for _, v := range append(n.Inputs[:differentiable:differentiable], n.Outputs[1]) {
		shapes = append(shapes, v.Shape)
	}
	// The last output is room that the operator needs.
	gradients := make([]*Value, len(n.Inputs))
	copy(gradients, g.apply(FlashAttentionGrad, KernelDomain, inputs, Float32, shapes, n.Attributes...)[:differentiable])
	return gradients
}
