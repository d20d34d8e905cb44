package graph

import (
	"errors"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/ort"
)

// A size known only at run time may be anything: one graph serves all.
func TestSymbol(t *testing.T) {
	g := New("open", nil)
	n := g.Symbol("n")
	x := g.Input("x", Float32, n, 3)
	g.Output("y", g.Reshape(g.Mul(x, x), n, 3, 1))
	rt := acquire(t)
	m := openModel(t, rt, g)
	for _, rows := range []int{1, 4, 2} {
		got := m(rows)
		for i, y := range got {
			if want := float32(i * i); y != want {
				t.Errorf("%d rows: element %d is %v, want %v", rows, i, y, want)
			}
		}
	}
}

// What would have to know the size is refused, not written.
func TestSymbolInConstant(t *testing.T) {
	for name, build := range map[string]func(g *Graph, x *Value) *Value{
		"a constant's shape": func(g *Graph, x *Value) *Value { return g.Add(x, g.Zeros(x.Shape...)) },
		"a size":             func(g *Graph, x *Value) *Value { return g.Reshape(x, x.Size()) },
		"a bound":            func(g *Graph, x *Value) *Value { return g.Slice(x, 0, 1, x.Shape[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			g := New("open", nil)
			g.Output("y", build(g, g.Input("x", Float32, g.Symbol("tokens"), 3)))
			defer func() {
				if message, _ := recover().(string); !strings.Contains(message, "tokens") {
					t.Errorf("got panic %q, want one that names the size", message)
				}
			}()
			g.Encode()
		})
	}
}

// openModel returns a function that runs a graph x [n, 3] → y [n, 3, 1] on 0, 1, ….
func openModel(t *testing.T, rt *ort.Runtime, g *Graph) func(rows int) []float32 {
	t.Helper()
	session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	binding, err := session.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	return func(rows int) []float32 {
		t.Helper()
		var tensors []ort.Tensor
		for _, shape := range [][]int{{rows, 3}, {rows, 3, 1}} {
			x, err := ort.NewTensor(ort.Float32, shape...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = x.Buffer().Free() })
			tensors = append(tensors, x)
		}
		for i := range tensors[0].Float32() {
			tensors[0].Float32()[i] = float32(i)
		}
		if err := errors.Join(binding.BindInput("x", tensors[0]), binding.BindOutput("y", tensors[1]), binding.Run(t.Context())); err != nil {
			t.Fatal(err)
		}
		return tensors[1].Float32()
	}
}
