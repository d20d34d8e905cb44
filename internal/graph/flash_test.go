package graph

import (
	"fmt"
	"slices"
	"testing"
)

// flash returns two layers of attention, in the fused operator or composed, and
// their gradients.
func flash(fused, recompute bool, p float64) *Graph {
	const batch, n, heads, size = 2, 8, 2, 8
	g := New("attention", nil)
	x := g.Input("x", Float32, batch*n, heads*size)
	tokens := slices.Repeat([]float32{1}, batch*n)
	tokens[n-2], tokens[n-1], tokens[n+3] = 0, 0, 0 // the last one is a hole
	mask, position := g.Float(tokens, batch*n, 1), g.Ints([]int{77}, 1)
	split := func(x *Value) *Value { return g.Transpose(g.Reshape(x, batch, n, heads, size), 2, 0, 1, 3) }
	with := []*Value{x}
	y := x
	for l := range 2 {
		param := func(name string, shape ...int) *Value {
			v := g.Input(fmt.Sprint(name, l), Float32, shape...)
			with = append(with, v)
			return v
		}
		q, k, v := g.Linear(y, param("q", 16, 16), nil), g.Linear(y, param("k", 16, 16), nil), g.Linear(y, param("v", 16, 16), nil)
		pk, pq := param("c", heads, 2*n, size), param("p", heads, 2*n, size)
		attend := func() *Value {
			const scale = 0.25
			times := MatMulOptions{TransB: true, Alpha: scale}
			table := func(x, positions *Value) *Value {
				return g.Reshape(g.MatMul(g.Reshape(split(x), heads, batch*n, size), positions, times), heads, batch, n, 2*n)
			}
			c2p, p2c := table(q, pk), table(k, pq)
			if fused {
				in := FlashInputs{Query: q, Key: k, Value: v, ContentToPosition: c2p, PositionToContent: p2c, Tokens: mask, Scale: scale}
				if p > 0 {
					in.Dropout, in.Position, in.Seed, in.Site = p, position, 3, l
				}
				return g.FlashAttention(in)
			}
			scores := g.Add(g.Add(g.MatMul(split(q), split(k), times), g.Skew(c2p)), g.Transpose(g.Skew(p2c), 0, 1, 3, 2))
			bias := g.Reshape(g.Scale(g.Sub(g.Scalar(1), mask), -1e30), 1, batch, 1, n)
			probs := g.Softmax(g.Add(scores, bias))
			if p > 0 {
				probs = g.PhiloxDropout(probs, position, p, 3, l)
			}
			context := g.Transpose(g.MatMul(probs, split(v), MatMulOptions{}), 1, 2, 0, 3)
			return g.Reshape(context, batch*n, heads*size)
		}
		if recompute {
			y = g.Add(y, g.Recompute(attend))
		} else {
			y = g.Add(y, attend())
		}
	}
	// Rows of padding count for nothing.
	y = g.Mul(y, mask)
	loss := g.ReduceSum(g.Mul(y, y), false, 0, 1)
	g.Output("loss", loss)
	for i, dx := range g.Gradients(loss, g.Input("seed", Float32), with) {
		g.Output(fmt.Sprint("d", i), dx)
	}
	return g
}

// TestFlashAttention: the fused operator is what it stands for, with the same
// elements dropped; to be computed again are the tables that it reads, not itself.
func TestFlashAttention(t *testing.T) {
	want := outputs(t, flash(false, false, 0.2))
	var first [][]float32
	for _, recompute := range []bool{false, true} {
		g := flash(true, recompute, 0.2)
		got := outputs(t, g)
		for i := range want {
			if off := distance(got[i], want[i]); off > 1e-6 {
				t.Errorf("recompute %t: output %d is off by %.2g of its norm", recompute, i, off)
			}
		}
		if first == nil {
			first = got
		} else if !slices.EqualFunc(got, first, slices.Equal) {
			t.Error("computing the tables again changes the result")
		}
		census := g.Census()
		if census[FlashAttention] != 2 || census[FlashAttentionGrad] != 2 {
			t.Errorf("recompute %t: operators %v, want two of attention and their gradients", recompute, census)
		}
		products := 2 * 2 // of tables, in two layers
		if recompute {
			products *= 2
		}
		if backward := 2 * 4; census["FusedMatMul"] != products+backward {
			t.Errorf("recompute %t: %d products by head, want %d", recompute, census["FusedMatMul"], products+backward)
		}
	}
}

// TestFlashPrecision: in low precision the operator gets and yields numbers of this
// type, but for the mask and what it keeps of every row of the scores.
func TestFlashPrecision(t *testing.T) {
	want := outputs(t, flash(true, true, 0.2))
	for _, low := range []Type{Float16, BFloat16} {
		g := flash(true, true, 0.2)
		g.LowerPrecision(low, nil)
		seen := 0
		for _, n := range g.nodes {
			full := map[string][2][]int{FlashAttention: {{5}, {1}}, FlashAttentionGrad: {{7, 8}, {5}}}[n.Op]
			if full[0] == nil {
				continue
			}
			seen++
			for side, values := range [][]*Value{n.Inputs, n.Outputs} {
				for i, v := range values {
					if v.Type == Int64 {
						continue
					}
					if want := map[bool]Type{false: low, true: Float32}[slices.Contains(full[side], i)]; v.Type != want {
						t.Errorf("%s: number %d of %v is %v, want %v", n.Op, i, []string{"the inputs", "the outputs"}[side], v, want)
					}
				}
			}
		}
		if seen != 4 {
			t.Errorf("%d operators of attention, want 4", seen)
		}
		if low == BFloat16 {
			continue // a CPU does not compute in it
		}
		differs := false
		for i, got := range outputs(t, g) {
			off := distance(got, want[i])
			differs = differs || off > 0
			if off > 1e-2 {
				t.Errorf("output %d is off by %.2g of its norm", i, off)
			}
		}
		if !differs {
			t.Error("nothing was rounded")
		}
	}
}
