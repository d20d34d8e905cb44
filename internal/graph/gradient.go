package graph

import (
	"fmt"
	"math"
	"slices"
)

// A rule returns the gradients of a node's inputs, given the gradient dy of
// its first output. need says which inputs want one; the others may be nil.
type rule func(g *Graph, n *Node, dy *Value, need []bool) []*Value

// rules holds the differentiation rule of every operator that has one.
// Operators without a rule (comparisons, Cast) stop gradients.
var rules = map[string]rule{
	"Add": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.sumTo(dy, n.Inputs[0]), g.sumTo(dy, n.Inputs[1])}
	},
	"Sub": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return each(need,
			func() *Value { return g.sumTo(dy, n.Inputs[0]) },
			func() *Value { return g.sumTo(g.Neg(dy), n.Inputs[1]) })
	},
	"Mul": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		a, b := n.Inputs[0], n.Inputs[1]
		return each(need,
			func() *Value { return g.sumTo(g.Mul(dy, b), a) },
			func() *Value { return g.sumTo(g.Mul(dy, a), b) })
	},
	"Div": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		a, b := n.Inputs[0], n.Inputs[1]
		return each(need,
			func() *Value { return g.sumTo(g.Div(dy, b), a) },
			func() *Value { return g.sumTo(g.Neg(g.Div(g.Mul(dy, n.Outputs[0]), b)), b) })
	},
	"Where": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		c, zero := n.Inputs[0], g.Scalar(0)
		return each(need,
			nil, // a condition is bool and has no gradient
			func() *Value { return g.sumTo(g.Where(c, dy, zero), n.Inputs[1]) },
			func() *Value { return g.sumTo(g.Where(c, zero, dy), n.Inputs[2]) })
	},
	"Neg": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.Neg(dy)}
	},
	"Exp": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.Mul(dy, n.Outputs[0])}
	},
	"Erf": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		x := n.Inputs[0] // 2/√π · exp(−x²)
		return []*Value{g.Mul(dy, g.Scale(g.Exp(g.Neg(g.Mul(x, x))), 2/math.Sqrt(math.Pi)))}
	},
	"Tanh": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		y := n.Outputs[0]
		return []*Value{g.Mul(dy, g.Sub(g.Scalar(1), g.Mul(y, y)))}
	},
	"Relu": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		zero := g.Scalar(0)
		return []*Value{g.Where(g.Greater(n.Inputs[0], zero), dy, zero)}
	},
	"Gelu":               geluRule,
	"FusedMatMul":        matMulRule,
	gemm:                 gemmRule,
	"Softmax":            softmaxRule,
	"LayerNormalization": layerNormRule,
	"Gather":             gatherRule,
	attentionProbs:       attentionRule(attentionGrad, 2),
	packedAttentionProbs: attentionRule(packedAttentionGrad, 2),
	packedFirstAttention: attentionRule(packedFirstAttentionGrad, 5),
	packedDropout:        packedDropoutRule,
	packedPool:           packedPoolRule,
	FlashAttention:       flashRule,
	"LogSoftmax": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		last := dy.Rank() - 1
		return []*Value{g.Sub(dy, g.Mul(g.Exp(n.Outputs[0]), g.ReduceSum(dy, true, last)))}
	},
	dropoutMask: func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.Dropout(dy, n.Inputs[1], float64(n.floatAttr("scale", 1))), nil}
	},
	dropoutRandom: func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.Dropout(dy, n.Outputs[1], dropoutFactor(n)), nil, nil}
	},
	PhiloxDropout: func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.apply1(PhiloxDropout, KernelDomain, []*Value{dy, n.Inputs[1]}, dy.Type, dy.Shape, n.Attributes...), nil}
	},
	skew: func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.apply1(unskew, KernelDomain, []*Value{dy}, Float32, n.Inputs[0].Shape)}
	},
	"Identity": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{dy}
	},
	"Reshape": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.Reshape(dy, n.Inputs[0].Shape...), nil}
	},
	"Transpose": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		perm := n.intsAttr("perm")
		inverse := make([]int, len(perm))
		for i, p := range perm {
			inverse[p] = i
		}
		return []*Value{g.Transpose(dy, inverse...)}
	},
	"Expand": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.sumTo(dy, n.Inputs[0]), nil}
	},
	"Slice": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		x, start, axis := n.Inputs[0], n.Inputs[1].ints()[0], n.Inputs[3].ints()[0]
		var parts []*Value
		zeros := func(width int) {
			if width > 0 {
				shape := slices.Clone(x.Shape)
				shape[axis] = width
				parts = append(parts, g.Zeros(shape...))
			}
		}
		zeros(start)
		parts = append(parts, dy)
		zeros(x.Shape[axis] - start - dy.Shape[axis])
		return []*Value{g.Concat(axis, parts...), nil, nil, nil}
	},
	"Concat": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		axis, start := n.intAttr("axis"), 0
		grads := make([]*Value, len(n.Inputs))
		for i, x := range n.Inputs {
			end := start + x.Shape[axis]
			if need[i] {
				grads[i] = g.Slice(dy, axis, start, end)
			}
			start = end
		}
		return grads
	},
	"ReduceSum": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		return []*Value{g.spread(dy, n), nil}
	},
	"ReduceMean": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		x := n.Inputs[0]
		share := float64(n.Outputs[0].Size()) / float64(x.Size())
		return []*Value{g.spread(g.Scale(dy, share), n), nil}
	},
	"ReduceMax": func(g *Graph, n *Node, dy *Value, need []bool) []*Value {
		x, axes := n.Inputs[0], n.Inputs[1].ints()
		keep := g.reduced(x, axes, true)
		top := g.Cast(g.Equal(x, g.Reshape(n.Outputs[0], keep...)), Float32)
		share := g.Div(g.Reshape(dy, keep...), g.ReduceSum(top, true, axes...))
		return []*Value{g.Mul(top, share), nil}
	},
}

// each calls the functions whose result is needed. There may be more of them
// than the node has inputs: the last inputs of some operators are optional.
func each(need []bool, gradients ...func() *Value) []*Value {
	out := make([]*Value, len(need))
	for i := range need {
		if need[i] {
			out[i] = gradients[i]()
		}
	}
	return out
}

// sumTo adds v up over the dimensions along which x was broadcast to it.
func (g *Graph) sumTo(v, x *Value) *Value {
	if slices.Equal(v.Shape, x.Shape) {
		return v
	}
	lead := v.Rank() - x.Rank()
	var axes []int
	for i, d := range v.Shape {
		if i < lead || x.Shape[i-lead] == 1 && d > 1 {
			axes = append(axes, i)
		}
	}
	return g.Reshape(g.ReduceSum(v, false, axes...), x.Shape...)
}

// spread repeats the gradient of a reduction over what was reduced.
func (g *Graph) spread(dy *Value, n *Node) *Value {
	x := n.Inputs[0]
	return g.Expand(g.Reshape(dy, g.reduced(x, n.Inputs[1].ints(), true)...), x.Shape...)
}

// geluRule: d(x·Φ(x))/dx = Φ(x) + x·φ(x), with the normal distribution Φ and
// its density φ.
func geluRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	x := n.Inputs[0]
	if g.kernels[geluGrad] {
		return []*Value{g.apply1(geluGrad, KernelDomain, []*Value{dy, x}, Float32, x.Shape)}
	}
	cdf := g.Scale(g.Add(g.Erf(g.Scale(x, math.Sqrt2/2)), g.Scalar(1)), 0.5)
	density := g.Scale(g.Exp(g.Mul(g.Scale(x, -0.5), x)), 1/math.Sqrt(2*math.Pi))
	return []*Value{g.Mul(dy, g.Add(cdf, g.Mul(x, density)))}
}

func matMulRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	a, b := n.Inputs[0], n.Inputs[1]
	ta, tb := n.intAttr("transA") == 1, n.intAttr("transB") == 1
	product := func(x, y *Value, tx, ty bool) *Value {
		return g.MatMul(x, y, MatMulOptions{TransA: tx, TransB: ty, Alpha: float64(n.floatAttr("alpha", 1))})
	}
	return each(need,
		func() *Value {
			if ta { // y = aᵀb: da = b·dyᵀ
				return product(b, dy, tb, true)
			}
			return product(dy, b, false, !tb)
		},
		func() *Value {
			if tb { // y = a·bᵀ: db = dyᵀ·a
				return product(dy, a, true, ta)
			}
			return product(a, dy, !ta, false)
		})
}

func gemmRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	a, b := n.Inputs[0], n.Inputs[1]
	ta, tb := n.intAttr("transA") == 1, n.intAttr("transB") == 1
	second := func() *Value {
		if tb {
			return g.gemm(dy, a, nil, true, ta)
		}
		return g.gemm(a, dy, nil, !ta, false)
	}
	sum := func() *Value { return g.ReduceSum(dy, false, 0) }
	if g.kernels[linearGrad] && tb && !ta && len(need) == 3 && need[1] && need[2] {
		weight, bias := g.linearGradients(dy, a)
		second, sum = func() *Value { return weight }, func() *Value { return bias }
	}
	return each(need,
		func() *Value {
			if ta {
				return g.gemm(b, dy, nil, tb, true)
			}
			return g.gemm(dy, b, nil, false, !tb)
		},
		second, sum)
}

// softmaxRule: dx = y·(dy − Σ dy·y).
func softmaxRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	y := n.Outputs[0]
	if g.kernels[softmaxGrad] {
		return []*Value{g.apply1(softmaxGrad, KernelDomain, []*Value{dy, y}, Float32, y.Shape)}
	}
	inner := g.ReduceSum(g.Mul(dy, y), true, y.Rank()-1)
	return []*Value{g.Mul(y, g.Sub(dy, inner))}
}

// layerNormRule: with x̂ = (x − mean)/σ and u = dy·w, the gradients are
// dw = Σ dy·x̂ and db = Σ dy over the rows, and in each row
// dx = (u − mean(u) − x̂·mean(u·x̂)) / σ.
func layerNormRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	x, weight := n.Inputs[0], n.Inputs[1]
	mean, invStd := n.Outputs[1], n.Outputs[2]
	rows, d := x.Shape[0], x.Shape[1]
	// The kernel computes all three gradients, and must have somewhere to put them.
	if g.kernels[layerNormGrad] && !slices.Contains(need, false) {
		return g.apply(layerNormGrad, KernelDomain, []*Value{dy, x, weight, mean, invStd}, Float32,
			[][]int{{rows, d}, {d}, {d}})
	}
	normal := g.Mul(g.Sub(x, mean), invStd)
	weighted := g.Mul(dy, normal)
	return each(need,
		func() *Value {
			// Both means are products with a column: one pass each over dy
			// and dy·x̂, without first multiplying either by the weights.
			column := g.Reshape(weight, d, 1)
			share := g.Scalar(1 / float64(d))
			m1 := g.Mul(g.gemm(dy, column, nil, false, false), share)
			m2 := g.Mul(g.gemm(weighted, column, nil, false, false), share)
			return g.Mul(g.Sub(g.Mul(dy, weight), g.Add(g.Mul(normal, m2), m1)), invStd)
		},
		func() *Value { return g.ReduceSum(weighted, false, 0) },
		func() *Value { return g.ReduceSum(dy, false, 0) })
}

// attentionRule is the rule of an operator whose gradient is another one, which reads
// the probabilities, its second output. Inputs from the given number on have no gradient.
func attentionRule(op string, differentiable int) rule {
	return func(g *Graph, n *Node, dy *Value, _ []bool) []*Value {
		inputs := append([]*Value{dy}, n.Inputs[:differentiable]...)
		inputs = append(append(inputs, n.Outputs[1]), n.Inputs[differentiable:]...)
		var shapes [][]int
		for _, v := range n.Inputs[:differentiable] {
			shapes = append(shapes, v.Shape)
		}
		gradients := g.apply(op, KernelDomain, inputs, Float32, shapes, n.Attributes...)
		return append(gradients, make([]*Value, len(n.Inputs)-differentiable)...)
	}
}

// gatherRule adds the gradients of equal rows up by a product with a matrix of
// zeros and ones, or, if no row was taken twice, by gathering them back.
func gatherRule(g *Graph, n *Node, dy *Value, need []bool) []*Value {
	table, indices := n.Inputs[0], n.Inputs[1]
	if g.distinct[n] {
		return []*Value{g.putBack(dy, indices, table), nil}
	}
	check(indices.data != nil, "Gather", "the gradient of %v by indices known only at run time is not offered; "+
		"differentiate with respect to the gathered rows", table)
	rows, taken := table.Shape[0], indices.ints()
	dy = g.Reshape(dy, len(taken), table.Shape[1])
	if slices.Equal(sorted(taken), ascending(rows)) {
		inverse := make([]int, rows)
		for i, r := range taken {
			inverse[r] = i
		}
		return []*Value{g.Gather(dy, g.vector(inverse...)), nil}
	}
	selection := make([]float32, len(taken)*rows)
	for i, r := range taken {
		selection[i*rows+r] = 1
	}
	return []*Value{g.gemm(g.Float(selection, len(taken), rows), dy, nil, true, false), nil}
}

func sorted(s []int) []int {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

func ascending(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// Gradients appends the backward pass of y: it returns the gradients of Σ seed·y
// with respect to the given values, which may be inputs of the model or values
// in its midst. seed has y's shape; for a scalar loss it is a factor.
//
// It panics if y does not depend on one of the values, or only by way of an
// operator that cannot be differentiated.
func (g *Graph) Gradients(y, seed *Value, with []*Value) []*Value {
	check(slices.Equal(y.Shape, seed.Shape), "Gradients", "seed %v does not fit %v", seed, y)
	depends := map[*Value]bool{}
	for _, v := range with {
		depends[v] = true
	}
	forward := slices.Clone(g.nodes)
	for _, n := range forward {
		if slices.ContainsFunc(n.Inputs, func(v *Value) bool { return depends[v] }) && rules[n.Op] != nil {
			depends[n.Outputs[0]] = true
		}
	}

	partial := map[*Value][]*Value{y: {seed}}
	// fresh are the parts that belong to one sum only: what was passed on
	// unchanged may be part of others as well.
	fresh := map[*Value]bool{}
	total := func(v *Value) *Value {
		parts := partial[v]
		sum := parts[0]
		for _, p := range parts[1:] {
			if fresh[p] {
				sum = g.AddTo(sum, p)
			} else {
				sum = g.Add(sum, p)
			}
		}
		fresh[sum] = false
		partial[v] = []*Value{sum}
		return sum
	}
	// finished returns the gradients of the given values that have come since it
	// was called last.
	told := map[*Value]bool{}
	finished := func() []*Value {
		var fresh []*Value
		for _, v := range with {
			for _, p := range partial[v] {
				if p.node != nil && !told[p] {
					told[p] = true
					fresh = append(fresh, p)
				}
			}
		}
		return fresh
	}
	var replayed *segment
	var again map[*Node]*Node
	for i, n := range slices.Backward(forward) {
		out := n.Outputs[0]
		if partial[out] == nil || !depends[out] || rules[n.Op] == nil {
			continue
		}
		need := make([]bool, len(n.Inputs))
		for i, v := range n.Inputs {
			need[i] = depends[v]
		}
		if !slices.Contains(need, true) {
			continue
		}
		dy := total(out)
		// Rules read the values of the node: within a segment its repetition's.
		values := n
		if s := g.segmentOf(i); s != nil {
			if s != replayed {
				again, replayed = g.replay(forward[s.from:s.to], append(finished(), dy)), s
			}
			if again[n] != nil {
				values = again[n]
			}
		}
		parts := rules[n.Op](g, values, dy, need)
		for i, d := range parts {
			if d != nil && need[i] {
				v := n.Inputs[i]
				check(slices.Equal(d.Shape, v.Shape), n.Op, "the gradient %v does not fit the input %v", d, v)
				partial[v] = append(partial[v], d)
				_, known := fresh[d]
				fresh[d] = !known && d != dy
			}
		}
	}
	gradients := make([]*Value, len(with))
	for i, v := range with {
		if partial[v] == nil {
			panic(fmt.Sprintf("graph: Gradients: %v does not depend on %v by differentiable operators", y, v))
		}
		gradients[i] = total(v)
	}
	return gradients
}
