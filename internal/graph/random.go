package graph

import "slices"

// dropoutRandom is ONNX's own dropout, which draws the elements itself.
const dropoutRandom = "Dropout"

// DropoutRandom zeroes elements of x with probability p, drawn anew in every
// run, and divides the others by 1−p. The numbers are a function of seed and of
// how often the model has run.
func (g *Graph) DropoutRandom(x *Value, p float64, seed int) *Value {
	training := g.constant(Bool, []byte{1}, 1, nil)
	n := g.apply(dropoutRandom, "", []*Value{x, g.Scalar(p), training}, x.Type, [][]int{x.Shape, x.Shape}, Attribute{"seed", seed})
	n[1].Type = Bool
	return n[0]
}

// dropoutFactor is what a Dropout node multiplies the kept elements by, rounded
// as ONNX Runtime rounds it.
func dropoutFactor(n *Node) float64 { return float64(1 / (1 - float32(n.Inputs[1].floats()[0]))) }

// ScatterAdd returns table with rows added to those of its rows that ids (int64
// [n]) names: table[ids[i]] += rows[i]. It is not differentiable here.
func (g *Graph) ScatterAdd(table, ids, rows *Value) *Value {
	check(table.Rank() == 2 && rows.Rank() == 2 && ids.Rank() == 1 && slices.Equal(rows.Shape, []int{ids.Shape[0], table.Shape[1]}),
		"ScatterElements", "%v, %v and %v do not fit", table, ids, rows)
	index := g.Expand(g.Reshape(g.Cast(ids, Int32), ids.Shape[0], 1), rows.Shape...)
	return g.apply1("ScatterElements", "", []*Value{table, index, rows}, table.Type, table.Shape,
		Attribute{"axis", 0}, Attribute{"reduction", "add"})
}
