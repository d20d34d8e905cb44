package graph

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/criteria-go/criteria/internal/ort"
)

// operatorCase is one operator, alone, applied to inputs of given shapes.
type operatorCase struct {
	name   string
	shapes [][]int
	build  func(g *Graph, x []*Value) *Value
	// positive keeps the inputs away from 0, where the operator has a pole or
	// a kink that finite differences would step over.
	positive bool
	// needs names a fused operator without which the case cannot be built.
	needs string
}

func operatorCases() []operatorCase {
	shapes := func(s ...[]int) [][]int { return s }
	one := func(f func(g *Graph, x *Value) *Value) func(*Graph, []*Value) *Value {
		return func(g *Graph, x []*Value) *Value { return f(g, x[0]) }
	}
	two := func(f func(g *Graph, a, b *Value) *Value) func(*Graph, []*Value) *Value {
		return func(g *Graph, x []*Value) *Value { return f(g, x[0], x[1]) }
	}
	mask := func(g *Graph, x *Value) *Value { // a fixed pattern of true and false
		pattern := make([]float32, x.Size())
		for i := range pattern {
			pattern[i] = float32(i*7%5 - 2)
		}
		return g.Greater(g.Float(pattern, x.Shape...), g.Scalar(0))
	}
	cases := []operatorCase{
		{"Add", shapes([]int{3, 4}, []int{3, 4}), two((*Graph).Add), false, ""},
		{"Add/row", shapes([]int{2, 3, 4}, []int{4}), two((*Graph).Add), false, ""},
		{"Add/column", shapes([]int{3, 1}, []int{3, 4}), two((*Graph).Add), false, ""},
		{"Sub/broadcast", shapes([]int{3, 4}, []int{1, 4}), two((*Graph).Sub), false, ""},
		{"Mul", shapes([]int{3, 4}, []int{3, 4}), two((*Graph).Mul), false, ""},
		{"Mul/broadcast", shapes([]int{1, 3, 1}, []int{2, 1, 4}), two((*Graph).Mul), false, ""},
		{"Mul/square", shapes([]int{3, 4}), one(func(g *Graph, x *Value) *Value { return g.Mul(x, x) }), false, ""},
		{"Div", shapes([]int{3, 4}, []int{3, 1}), two((*Graph).Div), true, ""},
		{"Neg", shapes([]int{5}), one((*Graph).Neg), false, ""},
		{"Exp", shapes([]int{5}), one((*Graph).Exp), false, ""},
		{"Erf", shapes([]int{9}), one((*Graph).Erf), false, ""},
		{"Tanh", shapes([]int{9}), one((*Graph).Tanh), false, ""},
		{"Relu", shapes([]int{9}), one((*Graph).Relu), true, ""},
		{"Relu/negative", shapes([]int{9}), one(func(g *Graph, x *Value) *Value { return g.Relu(g.Neg(x)) }), true, ""},
		{"Gelu", shapes([]int{4, 9}), one((*Graph).Gelu), false, ""},
		{"Identity", shapes([]int{4}), one((*Graph).Identity), false, ""},
		{"Where", shapes([]int{3, 4}, []int{3, 4}), two(func(g *Graph, a, b *Value) *Value { return g.Where(mask(g, a), a, b) }), false, ""},
		{"Where/scalar", shapes([]int{3, 4}, []int{}), two(func(g *Graph, a, b *Value) *Value { return g.Where(mask(g, a), a, b) }), false, ""},
		{"PhiloxDropout", shapes([]int{7, 5}), one(func(g *Graph, x *Value) *Value {
			return g.PhiloxDropout(x, g.Ints([]int{1 << 40}, 1), 0.3, 1<<63, 4)
		}), false, ""},
		{"Dropout", shapes([]int{6, 5}), one(func(g *Graph, x *Value) *Value { return g.Dropout(x, mask(g, x), 1.25) }), false, ""},
		{"Linear", shapes([]int{5, 3}, []int{4, 3}, []int{4}), func(g *Graph, x []*Value) *Value { return g.Linear(x[0], x[1], x[2]) }, false, ""},
		// Gradients that come from several products, which are added up by the
		// products themselves if the runtime can do so.
		{"Sum/residual", shapes([]int{5, 3}, []int{3, 3}, []int{3}, []int{3, 3}, []int{3}), func(g *Graph, x []*Value) *Value {
			y := g.Add(g.Linear(x[0], x[1], x[2]), x[0])
			return g.Add(g.Linear(y, x[3], x[4]), y)
		}, false, ""},
		{"Sum/shared weight", shapes([]int{5, 3}, []int{4, 3}, []int{2, 3}, []int{2}), func(g *Graph, x []*Value) *Value {
			return g.Concat(0, g.Linear(x[0], x[2], x[3]), g.Linear(x[1], x[2], x[3]))
		}, false, ""},
		// The product is the gradient of both terms of a sum: neither may add to it.
		{"Sum/passed on", shapes([]int{5, 3}, []int{5, 3}, []int{3, 3}), func(g *Graph, x []*Value) *Value {
			y := g.Linear(g.Add(x[0], x[1]), x[2], nil)
			return g.Add(y, g.Mul(x[0], x[1]))
		}, false, ""},
		{"Reshape", shapes([]int{3, 4}), one(func(g *Graph, x *Value) *Value { return g.Reshape(x, 2, 6) }), false, ""},
		{"Transpose", shapes([]int{2, 3, 4}), one(func(g *Graph, x *Value) *Value { return g.Transpose(x, 2, 0, 1) }), false, ""},
		{"Expand", shapes([]int{2, 1, 3}), one(func(g *Graph, x *Value) *Value { return g.Expand(x, 2, 4, 3) }), false, ""},
		{"Slice/middle", shapes([]int{3, 6}), one(func(g *Graph, x *Value) *Value { return g.Slice(x, 1, 2, 5) }), false, ""},
		{"Slice/first", shapes([]int{3, 6}), one(func(g *Graph, x *Value) *Value { return g.Slice(x, 0, 0, 1) }), false, ""},
		{"Concat", shapes([]int{2, 3}, []int{2, 1}), two(func(g *Graph, a, b *Value) *Value { return g.Concat(1, a, b) }), false, ""},
		{"Gather/permutation", shapes([]int{4, 3}), one(func(g *Graph, x *Value) *Value { return g.Gather(x, g.Ints([]int{2, 0, 3, 1}, 4)) }), false, ""},
		{"Gather/repeats", shapes([]int{4, 3}), one(func(g *Graph, x *Value) *Value { return g.Gather(x, g.Ints([]int{2, 2, 0, 2, 1, 0}, 2, 3)) }), false, ""},
		{"ReduceSum", shapes([]int{2, 3, 4}), one(func(g *Graph, x *Value) *Value { return g.ReduceSum(x, false, 0, 2) }), false, ""},
		{"ReduceSum/keep", shapes([]int{2, 3, 4}), one(func(g *Graph, x *Value) *Value { return g.ReduceSum(x, true, 1) }), false, ""},
		{"ReduceMean", shapes([]int{2, 3, 4}), one(func(g *Graph, x *Value) *Value { return g.ReduceMean(x, true, 1, 2) }), false, ""},
		{"ReduceMax", shapes([]int{2, 5, 3}), one(func(g *Graph, x *Value) *Value { return g.ReduceMax(x, false, 1) }), false, ""},
		{"Softmax", shapes([]int{2, 3, 4}), one((*Graph).Softmax), false, ""},
		{"LogSoftmax", shapes([]int{3, 4}), one((*Graph).LogSoftmax), false, ""},
		{"LayerNorm", shapes([]int{20, 6}, []int{6}, []int{6}), func(g *Graph, x []*Value) *Value { return g.LayerNorm(x[0], x[1], x[2], 1e-7) }, false, ""},
		{"Skew", shapes([]int{2, 2, 4, 8}), one((*Graph).Skew), false, ""},
	}
	for _, dropout := range []bool{false, true} {
		// Two sequences of five positions, the second with padding; the far
		// positions share rows.
		cases = append(cases, operatorCase{name: fmt.Sprintf("Attention/%t", dropout), needs: "Attention",
			shapes: shapes([]int{10, 18}, []int{7, 12}),
			build: func(g *Graph, x []*Value) *Value {
				in := AttentionInputs{Projections: x[0], Positions: x[1],
					Tokens: g.Float([]float32{1, 1, 1, 1, 1, 1, 0, 1, 0, 0}, 10, 1), Index: g.Ints([]int{0, 0, 1, 2, 3, 4, 5, 6, 6}, 9),
					Heads: 2, Scale: 0.6, Keep: 1}
				if dropout {
					in.Mask, in.Keep = mask(g, g.Zeros(2, 2, 5, 5)), 1.25
				}
				return g.Attention(in, true)
			}})
		cases = append(cases, packedCases(dropout)...)
		cases = append(cases, operatorCase{name: fmt.Sprintf("FlashAttention/%t", dropout),
			shapes: shapes([]int{8, 16}, []int{8, 16}, []int{8, 16}, []int{2, 2, 4, 8}, []int{2, 2, 4, 8}),
			build: func(g *Graph, x []*Value) *Value {
				in := FlashInputs{Query: x[0], Key: x[1], Value: x[2], ContentToPosition: x[3], PositionToContent: x[4],
					Tokens: g.Float([]float32{1, 1, 1, 1, 1, 0, 1, 0}, 8, 1), Scale: 0.3}
				if dropout {
					in.Dropout, in.Position, in.Seed, in.Site = 0.3, g.Ints([]int{1 << 40}, 1), 1<<63, 4
				}
				return g.FlashAttention(in)
			}})
	}
	for _, ta := range []bool{false, true} {
		for _, tb := range []bool{false, true} {
			a, b := []int{5, 3}, []int{3, 4}
			if ta {
				slices.Reverse(a)
			}
			if tb {
				slices.Reverse(b)
			}
			cases = append(cases,
				operatorCase{fmt.Sprintf("MatMul/%t/%t", ta, tb), shapes(append([]int{2, 2}, a...), append([]int{2, 2}, b...)),
					two(func(g *Graph, a, b *Value) *Value {
						return g.MatMul(a, b, MatMulOptions{TransA: ta, TransB: tb, Alpha: 0.7})
					}), false, ""},
				operatorCase{fmt.Sprintf("Gemm/%t/%t", ta, tb), shapes(a, b),
					two(func(g *Graph, a, b *Value) *Value { return g.gemm(a, b, nil, ta, tb) }), false, ""})
		}
	}
	return cases
}

func acquire(t testing.TB) *ort.Runtime {
	t.Helper()
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Close() })
	return rt
}

// packedCases are those for a packed batch of rows of five, no and three tokens, and two
// that fill it up.
func packedCases(dropout bool) []operatorCase {
	draw := func(g *Graph) Draw {
		d := Draw{Key: g.Ints([]int{1 << 40}, 1), Scale: 1}
		if dropout {
			d.Site, d.Threshold, d.Scale = 7, 1<<14, 4./3
		}
		return d
	}
	offsets := func(g *Graph) *Value { return g.Ints([]int{0, 5, 5, 8}, 4) }
	attention := func(g *Graph) PackedAttentionInputs {
		return PackedAttentionInputs{Offsets: offsets(g), Index: g.Ints([]int{0, 0, 1, 2, 3, 4, 5, 6, 6}, 9), Heads: 2,
			Scale: 0.6, Dropout: draw(g)}
	}
	cases := []operatorCase{
		{name: "PackedAttention", shapes: [][]int{{10, 18}, {7, 12}}, build: func(g *Graph, x []*Value) *Value {
			return g.PackedAttention(x[0], x[1], attention(g), true)
		}},
		{name: "PackedFirstAttention", shapes: [][]int{{3, 6}, {10, 6}, {10, 6}, {7, 6}, {7, 6}}, build: func(g *Graph, x []*Value) *Value {
			return g.PackedFirstAttention(x[0], x[1], x[2], x[3], x[4], attention(g))
		}},
		{name: "PackedDropout", shapes: [][]int{{10, 7}}, build: func(g *Graph, x []*Value) *Value {
			return g.PackedDropout(x[0], offsets(g), draw(g))
		}},
		{name: "TableDropout", shapes: [][]int{{3, 7}}, build: func(g *Graph, x []*Value) *Value {
			return g.TableDropout(x[0], g.Ints([]int{1, 2, 9}, 3), draw(g))
		}},
		{name: "GatherDistinct", shapes: [][]int{{5, 4}}, build: func(g *Graph, x []*Value) *Value {
			return g.GatherDistinct(x[0], g.Cast(g.Float([]float32{4, 0, 1}, 3), Int64))
		}},
	}
	for _, p := range []Pooling{First, Mean, Maximum} {
		apart := make([]float32, 10*6) // so that no step makes another element the maximum
		for i := range apart {
			apart[i] = float32(i * 7 % 60)
		}
		cases = append(cases, operatorCase{name: fmt.Sprint("PackedPool/", p), shapes: [][]int{{10, 6}},
			build: func(g *Graph, x []*Value) *Value {
				return g.PackedPool(g.Add(x[0], g.Float(apart, 10, 6)), offsets(g), p)
			}})
	}
	for i := range cases {
		cases[i].name = fmt.Sprintf("%s/%t", cases[i].name, dropout)
		cases[i].needs = "PackedAttention"
	}
	return cases
}

// model is a compiled graph with float32 inputs and outputs.
type model struct {
	t       testing.TB
	binding *ort.Binding
	in, out []ort.Tensor
}

func compile(t testing.TB, rt *ort.Runtime, g *Graph) *model {
	t.Helper()
	m := &model{t: t}
	session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	if m.binding, err = session.NewBinding(); err != nil {
		t.Fatal(err)
	}
	tensor := func(v ort.ValueInfo) ort.Tensor {
		x, err := ort.NewTensor(v.DType, v.Shape...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Buffer().Free() })
		return x
	}
	for _, v := range session.Inputs() {
		x := tensor(v)
		if err := m.binding.BindInput(v.Name, x); err != nil {
			t.Fatal(err)
		}
		m.in = append(m.in, x)
	}
	for _, v := range session.Outputs() {
		x := tensor(v)
		if err := m.binding.BindOutput(v.Name, x); err != nil {
			t.Fatal(err)
		}
		m.out = append(m.out, x)
	}
	return m
}

func (m *model) run() {
	m.t.Helper()
	if err := m.binding.Run(context.Background()); err != nil {
		m.t.Fatal(err)
	}
}

// TestGradients runs every operator alone through ONNX Runtime and compares its
// differentiation rule with central differences along random directions.
func TestGradients(t *testing.T) {
	rt := acquire(t)
	covered := map[string]bool{}
	for _, kernels := range []Kernels{nil, available(t, rt)} {
		for _, c := range operatorCases() {
			if c.needs != "" && !kernels[c.needs] {
				continue
			}
			name := c.name
			if kernels != nil {
				name = "kernels/" + name
			}
			t.Run(name, func(t *testing.T) { checkOperator(t, rt, c, kernels, covered) })
		}
	}
	for op := range rules {
		if !covered[op] && op != dropoutRandom { // it has TestDropoutRandom
			t.Errorf("the rule of %s is not tested by any case", op)
		}
	}
}

func checkOperator(t *testing.T, rt *ort.Runtime, c operatorCase, kernels Kernels, covered map[string]bool) {
	random := rand.New(rand.NewPCG(1, uint64(len(c.name))))
	g := New("operator", kernels)
	var inputs []*Value
	for i, s := range c.shapes {
		inputs = append(inputs, g.Input(fmt.Sprint("x", i), Float32, s...))
	}
	y := c.build(g, inputs)
	for _, n := range g.nodes {
		covered[n.Op] = true
	}
	seed := g.Input("seed", Float32, y.Shape...)
	g.Output("y", y)
	for i, d := range g.Gradients(y, seed, inputs) {
		g.Output(fmt.Sprint("d", i), d)
	}
	m := compile(t, rt, g)

	weights := m.in[len(inputs)].Float32()
	for i := range weights {
		weights[i] = float32(random.NormFloat64())
	}
	at := make([][]float32, len(inputs))
	for k := range inputs {
		at[k] = make([]float32, inputs[k].Size())
		for i := range at[k] {
			at[k][i] = float32(random.NormFloat64())
			if c.positive {
				at[k][i] = float32(0.5 + random.Float64())
			}
		}
	}
	// value is Σ seed·y, in float64 so that only ONNX Runtime rounds to float32.
	value := func(direction [][]float32, step float32) (sum, scale float64) {
		for k := range inputs {
			x := m.in[k].Float32()
			for i := range x {
				x[i] = at[k][i]
				if direction != nil {
					x[i] += step * direction[k][i]
				}
			}
		}
		m.run()
		for i, y := range m.out[0].Float32() {
			sum += float64(weights[i]) * float64(y)
			scale += math.Abs(float64(weights[i]) * float64(y))
		}
		return sum, scale
	}

	_, scale := value(nil, 0)
	gradients := make([][]float32, len(inputs))
	for k := range gradients {
		gradients[k] = slices.Clone(m.out[1+k].Float32())
	}
	for k := range inputs {
		for range 4 {
			direction := make([][]float32, len(inputs))
			for j := range direction {
				direction[j] = make([]float32, inputs[j].Size())
			}
			var want, size float64
			for i := range direction[k] {
				direction[k][i] = float32(random.NormFloat64())
				want += float64(gradients[k][i]) * float64(direction[k][i])
				size += math.Abs(float64(gradients[k][i]) * float64(direction[k][i]))
			}
			const step = 5e-3
			up, _ := value(direction, step)
			down, _ := value(direction, -step)
			got := (up - down) / (2 * step)
			// Rounding of y shows up divided by the step, the cubic term of
			// the Taylor series multiplied by its square.
			tolerance := 2e-7*scale/step + 2e-3*size + 1e-5
			if math.Abs(got-want) > tolerance {
				t.Errorf("input %d: directional derivative is %.6g by the rule, %.6g by finite differences (tolerance %.1g)", k, want, got, tolerance)
			}
		}
	}
}
