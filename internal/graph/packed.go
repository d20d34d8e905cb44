package graph

import (
	"fmt"
	"slices"
)

// In a packed batch the tokens of all B rows lie end to end in matrices [T, …]: row r is
// tokens offsets[r] … offsets[r+1]−1, offsets int64 [B+1].

// OffersPacked reports whether the runtime has the operators for packed batches.
func (k Kernels) OffersPacked() bool { return k[packedAttention] }

// symbols are sizes that stand for what is known only at run time: primes that no
// other size is a multiple of.
var symbols = []int{1000003, 1000033, 1000037, 1000039}

// Symbol returns a size that stands for one that differs from batch to batch: inputs
// and outputs that have it as a dimension are written with the name instead. Operators
// may be applied to values of such a shape as long as no constant of the graph would
// have to know the size; else [Graph.Encode] panics.
func (g *Graph) Symbol(name string) int {
	size := symbols[len(g.symbols)]
	if g.symbols == nil {
		g.symbols = map[int]string{}
	}
	g.symbols[size] = name
	return size
}

// openShape is a shape as an operator reads it: with −1 for one symbol.
func (g *Graph) openShape(shape []int) []int {
	shape = slices.Clone(shape)
	if i := slices.IndexFunc(shape, func(d int) bool { return g.symbols[d] != "" }); i >= 0 {
		shape[i] = -1
	}
	return shape
}

// checkClosed panics if a constant knows the size that a symbol stands for.
func (g *Graph) checkClosed(v *Value) {
	sizes := v.Shape
	if v.Type == Int64 {
		sizes = slices.Concat(sizes, v.ints())
	}
	for symbol, name := range g.symbols {
		if slices.ContainsFunc(sizes, func(d int) bool { return d != 0 && d%symbol == 0 }) {
			panic(fmt.Sprintf("graph: constant %v would depend on %s, which is known only at run time", v, name))
		}
	}
}

// Draw says how dropout draws what it keeps; see op_dropout_loops.h in internal/ort.
type Draw struct {
	Key       *Value  // int64 [1]: what seed and step begin with
	Site      int     // tells the places of a model apart
	Threshold int     // of 65536 values the number that drop an element; 0: nothing is dropped
	Scale     float64 // of what is kept
}

func (d Draw) attributes() []Attribute {
	return []Attribute{{"keep", float32(d.Scale)}, {"site", d.Site}, {"threshold", d.Threshold}}
}

// PackedDropout drops elements of a packed matrix x [T, D], each row of the batch by
// numbers of its own.
func (g *Graph) PackedDropout(x, offsets *Value, d Draw) *Value {
	return g.packedDropout(x, offsets, d, 0)
}

// TableDropout drops elements of rows x [N, D] of a table that all rows of a batch
// share; numbers (int64 [N]) says which rows these are.
func (g *Graph) TableDropout(x, numbers *Value, d Draw) *Value {
	return g.packedDropout(x, numbers, d, 1)
}

func (g *Graph) packedDropout(x, places *Value, d Draw, mode int) *Value {
	check(x.Rank() == 2 && places.Type == Int64 && places.Rank() == 1, packedDropout, "%v and %v do not fit", x, places)
	return g.apply1(packedDropout, KernelDomain, []*Value{x, places, d.Key}, Float32, x.Shape,
		append(d.attributes(), Attribute{"mode", mode})...)
}

// Pooling says what [Graph.PackedPool] reduces the tokens of a row to.
type Pooling int

// First is a row's first token, Mean the mean of its tokens, Maximum each element's
// largest; equal ones share its gradient.
const (
	First Pooling = iota
	Mean
	Maximum
)

// PackedPool reduces the rows of a packed matrix [T, D] to [B, D].
func (g *Graph) PackedPool(x, offsets *Value, p Pooling) *Value {
	check(x.Rank() == 2 && offsets.Type == Int64 && offsets.Rank() == 1, packedPool, "%v and %v do not fit", x, offsets)
	return g.apply1(packedPool, KernelDomain, []*Value{x, offsets}, Float32, []int{offsets.Size() - 1, x.Shape[1]},
		Attribute{"mode", int(p)})
}

// PackedAttentionInputs are what attention of a packed batch reads beside queries,
// keys and values.
type PackedAttentionInputs struct {
	Offsets *Value
	Index   *Value // int64 [2L−1], rising: row of the relative position i−(L−1), for L tokens or fewer
	Heads   int
	Scale   float64 // factor of the scores
	Dropout Draw    // of the probabilities
}

func (in PackedAttentionInputs) attributes() []Attribute {
	return append([]Attribute{{"heads", in.Heads}, {"scale", float32(in.Scale)}}, in.Dropout.attributes()...)
}

// PackedAttention is [Graph.Attention] of a packed batch: x is [T, 3·D], positions
// [R, 2·D], the result [T, D].
func (g *Graph) PackedAttention(x, positions *Value, in PackedAttentionInputs, differentiable bool) *Value {
	check(x.Rank() == 2 && 2*x.Shape[1] == 3*positions.Shape[1], packedAttention, "%v and %v do not fit", x, positions)
	inputs := []*Value{x, positions, in.Offsets, in.Index, in.Dropout.Key}
	context := []int{x.Shape[0], x.Shape[1] / 3}
	if !differentiable {
		return g.apply1(packedAttention, KernelDomain, inputs, Float32, context, in.attributes()...)
	}
	// How many probabilities there are only the operator knows.
	return g.apply(packedAttentionProbs, KernelDomain, inputs, Float32, [][]int{context, {-1}}, in.attributes()...)[0]
}

// PackedFirstAttention is attention for the first token of every row alone: q is
// [B, D], k and v [T, D], the relative positions' pq and pk [R, D], the result [B, D].
func (g *Graph) PackedFirstAttention(q, k, v, pq, pk *Value, in PackedAttentionInputs) *Value {
	check(q.Shape[0] == in.Offsets.Size()-1 && slices.Equal(k.Shape, v.Shape) && slices.Equal(pq.Shape, pk.Shape),
		packedFirstAttention, "%v, %v, %v, %v and %v do not fit", q, k, v, pq, pk)
	return g.apply(packedFirstAttention, KernelDomain, []*Value{q, k, v, pq, pk, in.Offsets, in.Index, in.Dropout.Key}, Float32,
		[][]int{q.Shape, {in.Heads, k.Shape[0]}}, in.attributes()...)[0]
}

// GatherDistinct is [Graph.Gather] of rows known only at run time, none of which
// comes twice: so their gradients need only be put back where they came from.
func (g *Graph) GatherDistinct(table, rows *Value) *Value {
	v := g.Gather(table, rows)
	g.distinct[v.node] = true
	return v
}

// putBack returns zeros like table with the given rows.
func (g *Graph) putBack(rows, indices, table *Value) *Value {
	at := g.Reshape(indices, indices.Size(), 1)
	return g.apply1("ScatterND", "", []*Value{g.Zeros(table.Shape...), at, rows}, Float32, table.Shape)
}

func packedDropoutRule(g *Graph, n *Node, dy *Value, _ []bool) []*Value {
	return []*Value{g.apply1(packedDropout, KernelDomain, []*Value{dy, n.Inputs[1], n.Inputs[2]}, Float32, dy.Shape, n.Attributes...),
		nil, nil}
}

func packedPoolRule(g *Graph, n *Node, dy *Value, _ []bool) []*Value {
	x, offsets := n.Inputs[0], n.Inputs[1]
	return []*Value{g.apply1(packedPoolGrad, KernelDomain, []*Value{dy, x, n.Outputs[0], offsets}, Float32, x.Shape,
		n.Attributes...), nil}
}
