package graph

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDropoutRandom: what is dropped is dropped in the gradient, too, the rest
// is scaled, and every run draws anew.
func TestDropoutRandom(t *testing.T) {
	const n, p = 20000, 0.25
	g := New("dropout", nil)
	x, seed := g.Input("x", Float32, n), g.Input("seed", Float32, n)
	y := g.DropoutRandom(x, p, 7)
	g.Output("y", y)
	g.Output("dx", g.Gradients(y, seed, []*Value{x})[0])
	m := compile(t, acquire(t), g)
	for i := range n {
		m.in[0].Float32()[i], m.in[1].Float32()[i] = 3, 6
	}
	var before []float32
	for range 3 {
		m.run()
		y, dx := m.out[0].Float32(), m.out[1].Float32()
		kept := 0
		for i := range y {
			if y[i] != 0 {
				kept++
			}
			if y[i] != 0 && math.Abs(float64(y[i])-3/(1-p)) > 1e-6 || dx[i] != 2*y[i] {
				t.Fatalf("element %d of value 3 and gradient 6 became %v and %v", i, y[i], dx[i])
			}
		}
		if share := float64(kept) / n; math.Abs(share-(1-p)) > 0.02 {
			t.Errorf("%.3f of the elements were kept, want %.3f", share, 1-p)
		}
		if slices.Equal(before, y) {
			t.Error("two runs dropped the same elements")
		}
		before = slices.Clone(y)
	}
}

func TestScatterAdd(t *testing.T) {
	g := New("scatter", nil)
	table := g.Input("table", Float32, 3, 2)
	g.Output("sum", g.ScatterAdd(table, g.Ints([]int{2, 0, 2, 2}, 4), g.Input("rows", Float32, 4, 2)))
	m := compile(t, acquire(t), g)
	copy(m.in[0].Float32(), []float32{100, 200, 300, 400, 500, 600})
	copy(m.in[1].Float32(), []float32{1, 2, 3, 4, 5, 6, 7, 8})
	m.run()
	if want := []float32{103, 204, 300, 400, 513, 616}; !slices.Equal(m.out[0].Float32(), want) {
		t.Errorf("got %v, want %v", m.out[0].Float32(), want)
	}
}

// attentive returns a small network with everything that recomputation and low
// precision treat in a way of its own, and its gradients.
func attentive(recompute bool, random string, kernels Kernels) *Graph {
	const rows, d, layers = 6, 8, 3
	g := New("network", kernels)
	x := g.Input("x", Float32, rows, d)
	shared := g.Scale(g.Input("shared", Float32, rows, d), 2) // computed once, read by all layers
	with := []*Value{x}
	param := func(name string, shape ...int) *Value {
		v := g.Input(name, Float32, shape...)
		with = append(with, v)
		return v
	}
	y := x
	for l := range layers {
		layer := func() *Value {
			a := g.Linear(y, param(fmt.Sprint("w", l), d, d), param(fmt.Sprint("b", l), d))
			switch a = g.Gelu(a); random {
			case dropoutRandom:
				a = g.DropoutRandom(a, 0.2, 40+l)
			case PhiloxDropout:
				a = g.PhiloxDropout(a, g.Ints([]int{7}, 1), 0.2, 40, l)
			default:
				a = g.Dropout(a, g.Greater(g.Input(fmt.Sprint("r", l), Float32, rows, d), g.Scalar(-0.5)), 1.25)
			}
			s := g.Softmax(g.MatMul(a, g.Add(shared, y), MatMulOptions{TransB: true}))
			a = g.MatMul(s, a, MatMulOptions{})
			return g.LayerNorm(g.Add(a, y), param(fmt.Sprint("n", l), d), param(fmt.Sprint("c", l), d), 1e-7)
		}
		if recompute {
			y = g.Recompute(layer)
		} else {
			y = layer()
		}
	}
	loss := g.ReduceSum(g.Mul(y, y), false, 0, 1)
	g.Output("loss", loss)
	for i, dx := range g.Gradients(loss, g.Input("seed", Float32), with) {
		g.Output(fmt.Sprint("d", i), dx)
	}
	return g
}

// outputs runs a network once on fixed inputs.
func outputs(t *testing.T, g *Graph) [][]float32 {
	t.Helper()
	m := compile(t, acquire(t), g)
	values := map[string]*rand.Rand{}
	for i, v := range g.Inputs() {
		if values[v.Name] == nil {
			values[v.Name] = rand.New(rand.NewPCG(1, uint64(v.Name[0])))
		}
		for j := range m.in[i].Float32() {
			m.in[i].Float32()[j] = float32(values[v.Name].NormFloat64()) / 2
		}
		if v.Name == "seed" {
			m.in[i].Float32()[0] = 1
		}
	}
	m.run()
	var out [][]float32
	for _, x := range m.out {
		out = append(out, slices.Clone(x.Float32()))
	}
	return out
}

// TestRecompute: values that are computed twice change no bit, neither of the
// fused operators nor of the standard ones. Where the graph draws its dropout
// itself, the CPU divides by what is multiplied with in the repetition.
func TestRecompute(t *testing.T) {
	kernels := available(t, acquire(t))
	for _, test := range []struct {
		name      string
		random    string
		kernels   Kernels
		tolerance float64
	}{
		{"standard", "", nil, 0},
		{"kernels", "", kernels, 0},
		{"random", dropoutRandom, nil, 1e-5},
		{"philox", PhiloxDropout, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			plain, again := attentive(false, test.random, test.kernels), attentive(true, test.random, test.kernels)
			want, got := outputs(t, plain), outputs(t, again)
			for i := range want {
				if off := distance(got[i], want[i]); off > test.tolerance {
					t.Errorf("output %d is off by %.2g of its norm", i, off)
				}
			}
			if once, twice := plain.Census()["Softmax"], again.Census()["Softmax"]; twice != 2*once {
				t.Errorf("softmax is computed %d times, want twice for each of %d", twice, once)
			}
		})
	}
}

// distance is ‖got − want‖ / ‖want‖.
func distance(got, want []float32) float64 {
	var square, off float64
	for j := range want {
		square += float64(want[j]) * float64(want[j])
		off += float64(got[j]-want[j]) * float64(got[j]-want[j])
	}
	return math.Sqrt(off / square)
}

// TestLowerPrecision: in float16, the low precision that a CPU computes in, the
// gradients stay near those of float32, and only products change their type.
func TestLowerPrecision(t *testing.T) {
	want := outputs(t, attentive(false, dropoutRandom, nil))
	for _, recompute := range []bool{false, true} {
		g := attentive(recompute, dropoutRandom, nil)
		g.LowerPrecision(Float16, nil)
		for _, n := range g.nodes {
			for _, v := range n.Outputs {
				full := slices.Contains([]string{"Softmax", "LayerNormalization", "ReduceSum", "Exp", "Div"}, n.Op)
				if v.Type == Float16 && full || v.Type == Float32 && n.Op == "FusedMatMul" {
					t.Errorf("%s yields %v", n.Op, v)
				}
			}
		}
		differs := false
		for i, got := range outputs(t, g) {
			off := distance(got, want[i])
			differs = differs || off > 0
			if off > 1e-2 {
				t.Errorf("recompute %t: output %d is off by %.2g of its norm", recompute, i, off)
			}
		}
		if !differs {
			t.Errorf("recompute %t: nothing was rounded", recompute)
		}
	}
}

// TestLowerPrecisionCopies: what is there in low precision is read there, not
// rounded, and an input that nothing reads any more is gone.
func TestLowerPrecisionCopies(t *testing.T) {
	g := New("copies", nil)
	x, w, both, norm := g.Input("x", Float32, 3, 4), g.Input("w", Float32, 4, 4), g.Input("both", Float32, 4), g.Input("norm", Float32, 4)
	y := g.LayerNorm(g.Linear(g.Linear(x, w, both), w, both), norm, both, 1e-7)
	g.Output("y", y)
	g.Output("same", norm)
	g.Input("unused", Float32, 1)
	g.LowerPrecision(BFloat16, map[string]string{"w": "low.w", "both": "low.both", "norm": "low.norm", "unused": "low.unused", y.Name: "low.y"})
	var inputs []string
	for _, v := range g.Inputs() {
		inputs = append(inputs, v.Name+" "+v.Type.String())
	}
	want := []string{"x float32", "low.w bfloat16", "both float32", "low.both bfloat16", "norm float32", "unused float32"}
	if diff := cmp.Diff(want, inputs); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
	var rounded []string
	for _, n := range g.nodes {
		if n.Op == "Cast" && n.Outputs[0].Type == BFloat16 {
			rounded = append(rounded, n.Inputs[0].Name)
		}
	}
	if diff := cmp.Diff([]string{"x"}, rounded); diff != "" {
		t.Errorf("what is rounded (-want +got):\n%s", diff)
	}
	if !g.HasInput("low.w") || g.HasInput("w") {
		t.Error("HasInput does not say so")
	}
}

func TestSplitReduceMax(t *testing.T) {
	for _, n := range []int{1, 2, 7, 8} {
		build := func() *Graph {
			g := New("max", nil)
			x := g.Input("x", Float32, 3, n, 5)
			y := g.ReduceMax(x, false, 1)
			g.Output("y", y)
			g.Output("dx", g.Gradients(y, g.Input("seed", Float32, y.Shape...), []*Value{x})[0])
			return g
		}
		split := build()
		split.SplitReduceMax()
		if split.Census()["ReduceMax"] > 0 {
			t.Error("ReduceMax is still there")
		}
		want, got := outputs(t, build()), outputs(t, split)
		for i := range want {
			if !slices.Equal(want[i], got[i]) {
				t.Errorf("%d elements: output %d is %v, want %v", n, i, got[i], want[i])
			}
		}
	}
}
