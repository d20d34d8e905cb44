package ort_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/ort"
)

// operatorCase is a fused operator beside standard ones that compute the same:
// outputs "got…" and "want…" of the model are compared.
type operatorCase struct {
	name      string
	inputs    []value
	outputs   map[string][]int // shapes by name without got/want
	fused     []node
	composed  []node
	floats    map[string][]float32
	int64s    map[string][]int64
	scale     float64 // of the inputs; 1 if 0
	tolerance float64 // of the largest element of the output
	needs     string  // operator that the runtime may not have
}

func operatorCases() []operatorCase {
	f32 := func(name string, shape ...int) value { return value{name, ort.Float32, shape} }
	n := func(op string, out string, in ...string) node { return node{op: op, in: in, out: []string{out}} }
	var cases []operatorCase

	for _, shape := range [][]int{{1}, {7}, {3, 5}, {64, 257}, {33, 1024}} {
		cases = append(cases, operatorCase{
			name:    fmt.Sprint("GeluGrad ", shape),
			inputs:  []value{f32("dy", shape...), f32("x", shape...)},
			outputs: map[string][]int{"dx": shape},
			fused:   []node{{op: "GeluGrad", domain: ort.Domain, in: []string{"dy", "x"}, out: []string{"got_dx"}}},
			composed: []node{
				n("Mul", "z", "x", "invsqrt2"), n("Erf", "e", "z"), n("Add", "e1", "e", "one"), n("Mul", "cdf", "e1", "half"),
				n("Mul", "x2", "x", "x"), n("Mul", "hx2", "x2", "minushalf"), n("Exp", "ex", "hx2"), n("Mul", "pdf", "ex", "norm"),
				n("Mul", "xpdf", "x", "pdf"), n("Add", "slope", "cdf", "xpdf"), n("Mul", "want_dx", "dy", "slope"),
			},
			floats: map[string][]float32{"invsqrt2": {math.Sqrt2 / 2}, "one": {1}, "half": {0.5}, "minushalf": {-0.5},
				"norm": {float32(1 / math.Sqrt(2*math.Pi))}},
			scale:     3,
			tolerance: 1e-6,
		}, operatorCase{
			name:      fmt.Sprint("DropoutMask ", shape),
			inputs:    []value{f32("x", shape...), {"mask", ort.Bool, shape}},
			outputs:   map[string][]int{"y": shape},
			fused:     []node{{op: "DropoutMask", domain: ort.Domain, in: []string{"x", "mask"}, out: []string{"got_y"}, floats: map[string]float32{"scale": 1.25}}},
			composed:  []node{n("Mul", "xs", "x", "scale"), n("Where", "want_y", "mask", "xs", "zero")},
			floats:    map[string][]float32{"scale": {1.25}, "zero": {0}},
			tolerance: 0,
		}, operatorCase{
			name:    fmt.Sprint("SoftmaxGrad ", shape),
			inputs:  []value{f32("dy", shape...), f32("x", shape...)},
			outputs: map[string][]int{"dx": shape},
			fused:   []node{{op: "SoftmaxGrad", domain: ort.Domain, in: []string{"dy", "y"}, out: []string{"got_dx"}}},
			composed: []node{
				{op: "Softmax", in: []string{"x"}, out: []string{"y"}, ints: map[string]int64{"axis": -1}},
				n("Mul", "p", "dy", "y"),
				n("ReduceSum", "s", "p", "last"), n("Sub", "d", "dy", "s"), n("Mul", "want_dx", "y", "d"),
			},
			int64s:    map[string][]int64{"last": {-1}},
			tolerance: 1e-6,
		})
	}

	for _, shape := range [][]int{{1, 1}, {1, 5}, {3, 32}, {65, 33}, {200, 768}} {
		rows, d := shape[0], shape[1]
		cases = append(cases, operatorCase{
			name:    fmt.Sprint("LayerNormGrad ", shape),
			inputs:  []value{f32("dy", rows, d), f32("x", rows, d), f32("w", d), f32("b", d)},
			outputs: map[string][]int{"dx": {rows, d}, "dw": {d}, "db": {d}},
			fused: []node{{op: "LayerNormGrad", domain: ort.Domain, in: []string{"dy", "x", "w", "mean", "inv"},
				out: []string{"got_dx", "got_dw", "got_db"}}},
			composed: []node{
				{op: "LayerNormalization", in: []string{"x", "w", "b"}, out: []string{"y", "mean", "inv"},
					ints: map[string]int64{"axis": -1}, floats: map[string]float32{"epsilon": 1e-7}},
				n("Sub", "c", "x", "mean"), n("Mul", "xh", "c", "inv"), n("Mul", "u", "dy", "w"), n("Mul", "uxh", "u", "xh"),
				n("ReduceMean", "m1", "u"), n("ReduceMean", "m2", "uxh"),
				n("Mul", "xm", "xh", "m2"), n("Sub", "d1", "u", "m1"), n("Sub", "d2", "d1", "xm"), n("Mul", "want_dx", "d2", "inv"),
				n("Mul", "gxh", "dy", "xh"),
				{op: "ReduceSum", in: []string{"gxh", "first"}, out: []string{"want_dw"}, ints: map[string]int64{"keepdims": 0}},
				{op: "ReduceSum", in: []string{"dy", "first"}, out: []string{"want_db"}, ints: map[string]int64{"keepdims": 0}},
			},
			int64s:    map[string][]int64{"first": {0}},
			tolerance: 3e-6,
		})
		for i := range cases[len(cases)-1].composed {
			if c := &cases[len(cases)-1].composed[i]; c.op == "ReduceMean" {
				c.lists = map[string][]int64{"axes": {-1}}
			}
		}
	}

	for _, s := range []struct{ h, b, l int }{{1, 1, 1}, {2, 3, 4}, {1, 2, 33}, {3, 2, 128}} {
		h, b, l := s.h, s.b, s.l
		i := func(v ...int) []int64 {
			var out []int64
			for _, x := range v {
				out = append(out, int64(x))
			}
			return out
		}
		cases = append(cases, operatorCase{
			name:    fmt.Sprint("Skew ", s),
			inputs:  []value{f32("x", h, b, l, 2*l)},
			outputs: map[string][]int{"y": {h, b, l, l}},
			fused:   []node{{op: "Skew", domain: ort.Domain, in: []string{"x"}, out: []string{"got_y"}}},
			composed: []node{
				n("Reshape", "flat", "x", "flatshape"), n("Slice", "shifted", "flat", "start", "end", "axis2"),
				n("Reshape", "rows", "shifted", "rowshape"), n("Slice", "want_y", "rows", "zero", "length", "axis3"),
			},
			int64s: map[string][]int64{"flatshape": i(h, b, 2*l*l), "start": i(l - 1), "end": i(l - 1 + l*(2*l-1)), "axis2": i(2),
				"rowshape": i(h, b, l, 2*l-1), "zero": i(0), "length": i(l), "axis3": i(3)},
		}, operatorCase{
			name:    fmt.Sprint("Unskew ", s),
			inputs:  []value{f32("dy", h, b, l, l)},
			outputs: map[string][]int{"dx": {h, b, l, 2 * l}},
			fused:   []node{{op: "Unskew", domain: ort.Domain, in: []string{"dy"}, out: []string{"got_dx"}}},
			composed: []node{
				n("Pad", "wide", "dy", "right"), n("Reshape", "flat", "wide", "flatshape"),
				n("Pad", "shifted", "flat", "shift"), n("Reshape", "want_dx", "shifted", "rowshape"),
			},
			int64s: map[string][]int64{"right": i(0, 0, 0, 0, 0, 0, 0, l-1), "flatshape": i(h, b, l*(2*l-1)),
				"shift": i(0, 0, l-1, 0, 0, 1), "rowshape": i(h, b, l, 2*l)},
		})
	}

	for _, s := range []struct{ m, n, k int }{{1, 1, 1}, {5, 7, 3}, {64, 500, 96}, {500, 40, 64}, {401, 777, 130}} {
		for _, trans := range []struct{ a, b bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
			for _, c := range [][]int{nil, {s.n}, {s.m, s.n}} {
				a, b := f32("a", s.m, s.k), f32("b", s.k, s.n)
				attributes := map[string]int64{"transA": 0, "transB": 0}
				if trans.a {
					a.shape = []int{s.k, s.m}
					attributes["transA"] = 1
				}
				if trans.b {
					b.shape = []int{s.n, s.k}
					attributes["transB"] = 1
				}
				inputs, names := []value{a, b}, []string{"a", "b"}
				if c != nil {
					inputs, names = append(inputs, f32("c", c...)), append(names, "c")
				}
				cases = append(cases, operatorCase{
					name:      fmt.Sprint("Gemm ", s, trans, c),
					inputs:    inputs,
					outputs:   map[string][]int{"y": {s.m, s.n}},
					fused:     []node{{op: "Gemm", domain: ort.Domain, in: names, out: []string{"got_y"}, ints: attributes}},
					composed:  []node{{op: "Gemm", in: names, out: []string{"want_y"}, ints: attributes}},
					tolerance: 1e-5,
					needs:     "Gemm",
				})
			}
		}
	}

	for _, s := range []struct{ m, n, k, rows int }{{1, 1, 1, 0}, {5, 7, 3, 4}, {67, 500, 96, 500}, {50, 40, 900, 0}, {130, 777, 401, 500}} {
		dy, x, c, d := f32("dy", s.m, s.n), f32("x", s.m, s.k), f32("c", s.rows, s.k), f32("d", s.rows)
		transposed := map[string]int64{"transA": 1, "transB": 0}
		linear := operatorCase{
			name:    fmt.Sprint("LinearGrad ", s),
			inputs:  []value{dy, x, c, d},
			outputs: map[string][]int{"dw": {s.n, s.k}, "db": {s.n}},
			fused:   []node{{op: "LinearGrad", domain: ort.Domain, in: []string{"dy", "x", "c", "d"}, out: []string{"got_dw", "got_db"}}},
			composed: []node{
				{op: "Gemm", in: []string{"dy", "x"}, out: []string{"product"}, ints: transposed},
				{op: "ReduceSum", in: []string{"dy", "first"}, out: []string{"sum"}, ints: map[string]int64{"keepdims": 0}},
				n("Pad", "wide_c", "c", "below"), n("Pad", "wide_d", "d", "behind"),
				n("Add", "want_dw", "product", "wide_c"), n("Add", "want_db", "sum", "wide_d"),
			},
			int64s:    map[string][]int64{"first": {0}, "below": {0, 0, int64(s.n - s.rows), 0}, "behind": {0, int64(s.n - s.rows)}},
			tolerance: 1e-5,
			needs:     "LinearGrad",
		}
		cases = append(cases, linear)
	}
	return cases
}

func (c operatorCase) model() []byte {
	m := model{inputs: c.inputs, floats: c.floats, int64s: c.int64s}
	// Nodes must stand in order of their inputs; some fused ones read results of
	// the composed ones.
	m.nodes = append(slices.Clone(c.composed), c.fused...)
	for name, shape := range c.outputs {
		m.outputs = append(m.outputs, value{"got_" + name, ort.Float32, shape}, value{"want_" + name, ort.Float32, shape})
	}
	return m.encode()
}

func TestOperators(t *testing.T) {
	r := acquire(t)
	if !r.HasOperator("Gemm") {
		t.Fatalf("no BLAS was found (looked at %q): run `make deps`, or set %s", r.Info().BLASTried, ort.EnvBLAS)
	}
	for _, c := range operatorCases() {
		t.Run(c.name, func(t *testing.T) {
			first := map[string][]float32{}
			for _, threads := range []int{1, 2, 3} {
				s := session(t, r, c.model(), ort.SessionOptions{Threads: threads})
				b, tensors := bind(t, s)
				random := rand.New(rand.NewPCG(1, 2))
				for _, v := range c.inputs {
					x := tensors[v.name]
					if v.dtype == ort.Bool {
						for i := range x.Bytes() {
							x.Bytes()[i] = byte(random.IntN(2))
						}
						continue
					}
					for i := range x.Float32() {
						x.Float32()[i] = float32(random.NormFloat64() * max(1, c.scale))
					}
				}
				if err := b.Run(context.Background()); err != nil {
					t.Fatal(err)
				}
				for name := range c.outputs {
					got, want := tensors["got_"+name].Float32(), tensors["want_"+name].Float32()
					largest := 1e-30
					for _, w := range want {
						largest = max(largest, math.Abs(float64(w)))
					}
					for i := range want {
						if d := math.Abs(float64(got[i] - want[i])); !(d <= c.tolerance*largest) {
							t.Fatalf("%s[%d] = %v, want %v (largest element %v)", name, i, got[i], want[i], largest)
						}
					}
					if first[name] == nil {
						first[name] = slices.Clone(got)
					} else if !slices.Equal(first[name], got) {
						t.Errorf("%s: %d threads give other bits than one", name, threads)
					}
				}
			}
		})
	}
}

// The polynomials of GeluGrad hold over the whole range, with the accuracy of
// float32 also where the derivative is small.
func TestGeluGradRange(t *testing.T) {
	r := acquire(t)
	const n = 20001
	s := session(t, r, model{
		inputs:  []value{{"dy", ort.Float32, []int{n}}, {"x", ort.Float32, []int{n}}},
		outputs: []value{{"dx", ort.Float32, []int{n}}},
		nodes:   []node{{op: "GeluGrad", domain: ort.Domain, in: []string{"dy", "x"}, out: []string{"dx"}}},
	}.encode(), ort.SessionOptions{})
	b, tensors := bind(t, s)
	x := tensors["x"].Float32()
	for i := range x {
		x[i] = -20 + 40*float32(i)/(n-1)
		tensors["dy"].Float32()[i] = 1
	}
	if err := b.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, got := range tensors["dx"].Float32() {
		v := float64(x[i])
		cdf, pdf := 0.5*math.Erfc(-v/math.Sqrt2), math.Exp(-v*v/2)/math.Sqrt(2*math.Pi)
		want := cdf + v*pdf
		// The exponential of a rounded argument is off by up to ε·x²/2 of itself.
		if bound := 4e-7*(cdf+math.Abs(v)*pdf)*(1+v*v/4) + 1e-36; math.Abs(float64(got)-want) > bound {
			t.Fatalf("slope at %v: got %v, want %v (within %g)", v, got, want, bound)
		}
	}
}

// With the output bound to the memory of C, products add up there.
func TestGemmAccumulates(t *testing.T) {
	r := acquire(t)
	s := session(t, r, model{
		inputs:  []value{{"a", ort.Float32, []int{2, 3}}, {"b", ort.Float32, []int{3, 2}}, {"c", ort.Float32, []int{2, 2}}},
		outputs: []value{{"y", ort.Float32, []int{2, 2}}},
		nodes:   []node{{op: "Gemm", domain: ort.Domain, in: []string{"a", "b", "c"}, out: []string{"y"}, ints: map[string]int64{"transA": 0, "transB": 0}}},
	}.encode(), ort.SessionOptions{})
	b, tensors := bind(t, s)
	if err := b.BindOutput("y", tensors["c"]); err != nil {
		t.Fatal(err)
	}
	copy(tensors["a"].Float32(), []float32{1, 2, 3, 4, 5, 6})
	copy(tensors["b"].Float32(), []float32{1, 2, 3, 4, 5, 6})
	copy(tensors["c"].Float32(), []float32{1000, 2000, 3000, 4000})
	for run := range 3 {
		if err := b.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		k := float32(run + 1)
		want := []float32{1000 + 22*k, 2000 + 28*k, 3000 + 49*k, 4000 + 64*k}
		if diff := cmp.Diff(want, tensors["c"].Float32()); diff != "" {
			t.Fatalf("after %d runs (-want +got):\n%s", run+1, diff)
		}
	}
}

// So does LinearGrad, both results at once.
func TestLinearGradAccumulates(t *testing.T) {
	r := acquire(t)
	s := session(t, r, model{
		inputs:  []value{{"dy", ort.Float32, []int{3, 2}}, {"x", ort.Float32, []int{3, 2}}, {"c", ort.Float32, []int{2, 2}}, {"d", ort.Float32, []int{2}}},
		outputs: []value{{"dw", ort.Float32, []int{2, 2}}, {"db", ort.Float32, []int{2}}},
		nodes:   []node{{op: "LinearGrad", domain: ort.Domain, in: []string{"dy", "x", "c", "d"}, out: []string{"dw", "db"}}},
	}.encode(), ort.SessionOptions{})
	b, tensors := bind(t, s)
	for output, sum := range map[string]string{"dw": "c", "db": "d"} {
		if err := b.BindOutput(output, tensors[sum]); err != nil {
			t.Fatal(err)
		}
	}
	copy(tensors["dy"].Float32(), []float32{1, 2, 3, 4, 5, 6})
	copy(tensors["x"].Float32(), []float32{1, 2, 3, 4, 5, 6})
	copy(tensors["c"].Float32(), []float32{1000, 2000, 3000, 4000})
	copy(tensors["d"].Float32(), []float32{100, 200})
	for run := range 3 {
		if err := b.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		k := float32(run + 1)
		want := [][]float32{{1000 + 35*k, 2000 + 44*k, 3000 + 44*k, 4000 + 56*k}, {100 + 9*k, 200 + 12*k}}
		if diff := cmp.Diff(want, [][]float32{tensors["c"].Float32(), tensors["d"].Float32()}); diff != "" {
			t.Fatalf("after %d runs (-want +got):\n%s", run+1, diff)
		}
	}
}

// What does not fit is refused, at the latest when the model is run.
func TestOperatorShapesAreChecked(t *testing.T) {
	r := acquire(t)
	for _, tt := range []struct {
		name string
		m    model
		want string
	}{
		{"Skew", model{
			inputs:  []value{{"x", ort.Float32, []int{1, 1, 4, 7}}},
			outputs: []value{{"y", ort.Float32, []int{1, 1, 4, 4}}},
			nodes:   []node{{op: "Skew", domain: ort.Domain, in: []string{"x"}, out: []string{"y"}}},
		}, "Skew wants [.., L, 2L]"},
		{"Gemm", model{
			inputs:  []value{{"a", ort.Float32, []int{2, 3}}, {"b", ort.Float32, []int{2, 3}}},
			outputs: []value{{"y", ort.Float32, []int{2, 3}}},
			nodes:   []node{{op: "Gemm", domain: ort.Domain, in: []string{"a", "b"}, out: []string{"y"}, ints: map[string]int64{"transA": 0, "transB": 0}}},
		}, "A and B do not fit"},
		{"LinearGrad", model{
			inputs:  []value{{"dy", ort.Float32, []int{3, 2}}, {"x", ort.Float32, []int{3, 4}}, {"c", ort.Float32, []int{3, 4}}, {"d", ort.Float32, []int{2}}},
			outputs: []value{{"dw", ort.Float32, []int{2, 4}}, {"db", ort.Float32, []int{2}}},
			nodes:   []node{{op: "LinearGrad", domain: ort.Domain, in: []string{"dy", "x", "c", "d"}, out: []string{"dw", "db"}}},
		}, "C or d does not fit"},
		{"Attention", model{
			inputs:  []value{{"x", ort.Float32, []int{2, 6}}, {"positions", ort.Float32, []int{3, 6}}, {"tokens", ort.Float32, []int{2, 1}}, {"index", ort.Int64, []int{3}}},
			outputs: []value{{"y", ort.Float32, []int{2, 2}}},
			nodes: []node{{op: "Attention", domain: ort.Domain, in: []string{"x", "positions", "tokens", "index"}, out: []string{"y"},
				ints: map[string]int64{"heads": 1}, floats: map[string]float32{"scale": 1, "keep": 1}}},
		}, "do not fit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := r.NewSession(tt.m.encode(), ort.SessionOptions{})
			if err == nil {
				defer s.Close()
				b, _ := bind(t, s)
				err = b.Run(context.Background())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestBLASIsOptional(t *testing.T) {
	r, err := ort.Acquire(ort.Options{BLAS: ort.NoBLAS})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.HasOperator("Gemm") || r.Info().BLAS != "" {
		t.Errorf("Gemm is offered without a BLAS: %+v", r.Info())
	}
	if !r.HasOperator("GeluGrad") {
		t.Error("GeluGrad is not offered")
	}
	_, err = ort.Acquire(ort.Options{BLAS: filepath.Join(t.TempDir(), "missing.so")})
	var typed *ort.RuntimeError
	if !errors.As(err, &typed) || !strings.Contains(err.Error(), ort.EnvBLAS) {
		t.Errorf("a BLAS that is not there: got error %v", err)
	}
	// A library, but no BLAS.
	library, _, err := ort.FindLibrary("")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = ort.Acquire(ort.Options{BLAS: library}); !errors.As(err, &typed) {
		t.Errorf("a library that is no BLAS: got error %v", err)
	}
}
