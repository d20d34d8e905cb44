package graph

import "slices"

// segment is a range of nodes whose values are computed twice.
type segment struct{ from, to int }

// Recompute calls f, which builds a part of the model, and returns its result.
// What the part computes is not kept for the backward pass but computed again
// there, from what it reads of the rest of the model (gradient checkpointing:
// Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174).
// The gradients are the same, bit by bit.
//
// Random numbers must not be drawn twice: the elements that [Graph.DropoutRandom]
// drops are kept. [Graph.PhiloxDropout] draws the same ones again. The results of
// [Graph.FlashAttention] are kept as well: they are small, and its gradient computes
// again what lies between them and its inputs.
func (g *Graph) Recompute(f func() *Value) *Value {
	from := len(g.nodes)
	v := f()
	g.segments = append(g.segments, segment{from, len(g.nodes)})
	return v
}

// replay makes nodes that compute a segment again. It returns them by the nodes
// they repeat. None of them can run before all values in done are known. The
// runtime is free to choose an order: it would otherwise run them at once and
// keep all that they compute, or put the gradients of parameters off to the end,
// and keep what these read.
func (g *Graph) replay(nodes []*Node, done []*Value) map[*Node]*Node {
	firsts := make([]*Value, len(done))
	for i, v := range done {
		size := v.Size()
		if !slices.Equal(g.openShape(v.Shape), v.Shape) {
			size = -1
		}
		flat := g.apply1("Reshape", "", []*Value{v, g.vector(size)}, v.Type, []int{v.Size()})
		g.waits[flat.node] = true
		firsts[i] = g.Slice(flat, 0, 0, 1)
	}
	first := g.Slice(g.Concat(0, firsts...), 0, 0, 1)
	after := g.Greater(first, first) // whatever it is, both choices below are the same
	waiting := map[*Value]*Value{}
	wait := func(v *Value) *Value {
		if waiting[v] == nil {
			waiting[v] = g.Where(after, v, v)
		}
		return waiting[v]
	}

	again := map[*Node]*Node{}
	value := map[*Value]*Value{}
	for _, n := range nodes {
		inputs := make([]*Value, len(n.Inputs))
		waits, outside := false, -1
		for i, v := range n.Inputs {
			inputs[i] = v
			if copied := value[v]; copied != nil {
				inputs[i], waits = copied, true
			} else if v.node != nil && v.Type == Float32 && outside < 0 {
				outside = i
			}
		}
		if !waits {
			if outside < 0 {
				continue // computed from parameters and constants alone: not worth it
			}
			inputs[outside] = wait(inputs[outside])
		}
		copied := &Node{Op: n.Op, Domain: n.Domain, Inputs: inputs, Attributes: n.Attributes}
		g.distinct[copied] = g.distinct[n]
		if n.Op == FlashAttention {
			copied.Outputs = n.Outputs
			again[n] = copied
			continue
		}
		if n.Op == dropoutRandom {
			kept := n.Outputs[1]
			y := g.Dropout(inputs[0], kept, dropoutFactor(n))
			copied = &Node{Op: n.Op, Domain: n.Domain, Inputs: inputs, Attributes: n.Attributes, Outputs: []*Value{y, kept}}
			again[n] = copied
			value[n.Outputs[0]] = y
			continue
		}
		for _, out := range n.Outputs {
			v := &Value{Name: g.newName("again"), Type: out.Type, Shape: out.Shape, node: copied}
			copied.Outputs = append(copied.Outputs, v)
			value[out] = v
		}
		g.nodes = append(g.nodes, copied)
		again[n] = copied
	}
	return again
}

// segmentOf returns the segment that contains node i, nil if none does.
func (g *Graph) segmentOf(i int) *segment {
	for j := range g.segments {
		if s := &g.segments[j]; s.from <= i && i < s.to {
			return s
		}
	}
	return nil
}
