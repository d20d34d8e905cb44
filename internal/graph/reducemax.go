package graph

// SplitReduceMax replaces, when all of the model is there, every maximum along
// an axis by maxima of two halves: on a GPU, ONNX Runtime leaves ReduceMax to
// cuDNN, which need not be installed. The maximum is the same.
func (g *Graph) SplitReduceMax() {
	nodes := g.nodes
	g.nodes, g.segments = nil, nil
	for _, n := range nodes {
		if n.Op != "ReduceMax" {
			g.nodes = append(g.nodes, n)
			continue
		}
		x := n.Inputs[0]
		for _, axis := range n.Inputs[1].ints() {
			for d := x.Shape[axis]; d > 1; d = x.Shape[axis] {
				half := (d + 1) / 2 // of an odd number, the one in the middle is in both
				x = g.Max(g.Slice(x, axis, 0, half), g.Slice(x, axis, d-half, d))
			}
		}
		out := n.Outputs[0]
		out.node = &Node{Op: "Reshape", Inputs: []*Value{x, g.vector(out.Shape...)}, Outputs: []*Value{out}}
		g.nodes = append(g.nodes, out.node)
	}
}
