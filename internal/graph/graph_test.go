package graph

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/graphaudit"
)

// network is a small graph with a part that no output needs.
func network() *Graph {
	g := New("network", nil)
	x := g.Input("x", Float32, 4, 3)
	w := g.Input("w", Float32, 2, 3)
	b := g.Input("b", Float32, 2)
	g.Input("unused", Int64, 1)
	y := g.Tanh(g.Linear(x, w, b))
	g.Softmax(y) // nobody reads it
	loss := g.ReduceSum(g.Mul(y, y), false, 0, 1)
	g.Output("y", y)
	g.Output("loss", loss)
	d := g.Gradients(loss, g.Scalar(1), []*Value{w, b})
	g.Output("dw", d[0])
	g.Output("db", d[1])
	return g
}

func TestEncode(t *testing.T) {
	g := network()
	model := g.Encode([2]string{"key", "value"})
	if !bytes.Equal(model, network().Encode([2]string{"key", "value"})) {
		t.Error("the same graph gives different bytes")
	}
	report, err := graphaudit.Audit(model)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g.Census(), report.Census); diff != "" {
		t.Errorf("operators (-planned +read):\n%s", diff)
	}
	if report.Census["Softmax"] != 0 {
		t.Error("a node that no output needs was written")
	}
	if diff := cmp.Diff([]string{"x", "w", "b", "unused"}, report.Inputs); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"y", "loss", "dw", "db"}, report.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

// TestOutputs: an input, a constant and a value under two names can be outputs.
func TestOutputs(t *testing.T) {
	rt := acquire(t)
	g := New("outputs", nil)
	x := g.Input("x", Float32, 2)
	y := g.Neg(x)
	g.Output("again", x)
	g.Output("y", y)
	g.Output("y too", y)
	g.Output("seven", g.Fill(7, 3))
	m := compile(t, rt, g)
	copy(m.in[0].Float32(), []float32{1, -2})
	m.run()
	var got [][]float32
	for _, o := range m.out {
		got = append(got, o.Float32())
	}
	if diff := cmp.Diff([][]float32{{1, -2}, {-1, 2}, {-1, 2}, {7, 7, 7}}, got); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

// TestConstants: equal constants are one, different ones are not.
func TestConstants(t *testing.T) {
	g := New("constants", nil)
	if first, second := g.Scalar(2), g.Scalar(2); first != second {
		t.Error("equal scalars are two constants")
	}
	for _, other := range []*Value{g.Scalar(3), g.Float([]float32{2}, 1), g.Fill(2), g.Ints([]int{2})} {
		if g.Scalar(2) == other {
			t.Errorf("%v is the scalar 2", other)
		}
	}
}

// TestSkew compares with the definition y[i, j] = x[i, j−i+L−1].
func TestSkew(t *testing.T) {
	const l = 5
	rt := acquire(t)
	for name, kernels := range map[string]Kernels{"composed": nil, "kernel": available(t, rt)} {
		g := New("skew", kernels)
		g.Output("y", g.Skew(g.Input("x", Float32, 2, 1, l, 2*l)))
		m := compile(t, rt, g)
		x := m.in[0].Float32()
		for i := range x {
			x[i] = float32(i)
		}
		m.run()
		for h := range 2 {
			for i := range l {
				for j := range l {
					got := m.out[0].Float32()[(h*l+i)*l+j]
					if want := x[(h*l+i)*2*l+j-i+l-1]; got != want {
						t.Errorf("%s: y[%d, %d, %d] = %v, want %v", name, h, i, j, got, want)
					}
				}
			}
		}
	}
}

// TestPanics: a shape or type that does not fit names the operator.
func TestPanics(t *testing.T) {
	for want, f := range map[string]func(g *Graph, x *Value){
		"Add":                func(g *Graph, x *Value) { g.Add(x, g.Input("y", Float32, 4)) },
		"Mul":                func(g *Graph, x *Value) { g.Mul(x, g.Input("y", Int64, 3)) },
		"Gemm":               func(g *Graph, x *Value) { g.Linear(x, g.Input("w", Float32, 4, 5), nil) },
		"MatMul":             func(g *Graph, x *Value) { g.MatMul(x, x, MatMulOptions{}) },
		"Reshape":            func(g *Graph, x *Value) { g.Reshape(x, 7) },
		"Transpose":          func(g *Graph, x *Value) { g.Transpose(x, 0) },
		"Slice":              func(g *Graph, x *Value) { g.Slice(x, 1, 2, 9) },
		"Concat":             func(g *Graph, x *Value) { g.Concat(0, x, g.Input("y", Float32, 2, 4)) },
		"ReduceSum":          func(g *Graph, x *Value) { g.ReduceSum(x, false, 2) },
		"LayerNormalization": func(g *Graph, x *Value) { g.LayerNorm(x, x, x, 1e-7) },
		"Dropout":            func(g *Graph, x *Value) { g.Dropout(x, x, 1) },
		"Skew":               func(g *Graph, x *Value) { g.Skew(x) },
		"Where":              func(g *Graph, x *Value) { g.Where(x, x, x) },
		"two inputs":         func(g *Graph, x *Value) { g.Input("x", Float32) },
		"Gather":             func(g *Graph, x *Value) { runtimeGather(g, x) },
		"does not depend":    func(g *Graph, x *Value) { g.Gradients(g.Neg(x), x, []*Value{g.Input("y", Float32)}) },
		"constant of shape":  func(g *Graph, x *Value) { g.Float([]float32{1, 2}, 3) },
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				if p, _ := recover().(string); !strings.Contains(p, want) {
					t.Errorf("panic %q does not mention %q", p, want)
				}
			}()
			g := New("bad", nil)
			f(g, g.Input("x", Float32, 2, 3))
		})
	}
}

// runtimeGather asks for a gradient that is deliberately not offered.
func runtimeGather(g *Graph, table *Value) {
	rows := g.Gather(table, g.Input("indices", Int64, 5))
	g.Gradients(rows, rows, []*Value{table})
}
