package kernels

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/graph"
)

// attentionCase is an attention on random numbers, and what its definition says
// of it.
type attentionCase struct {
	kind                  graph.Type // of numbers
	heads, n, size        int
	lengths               []int   // of the sequences, with a hole in each
	p                     float64 // of dropout
	key                   dropout.Key
	q, k, v, c2p, p2c, dy []float32
	tokens                []float32

	context, dq, dk, dv, dc2p, dp2c []float64
	lse                             []float64 // NaN for rows of padding, which have none
}

// fill draws numbers that every type represents exactly.
func (c *attentionCase) fill(r *rand.Rand) {
	vector := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.Round(32*min(max(r.NormFloat64(), -4), 4)) / 32)
		}
		return x
	}
	batch := len(c.lengths)
	rows, tables := batch*c.n*c.heads*c.size, c.heads*batch*c.n*2*c.n
	c.q, c.k, c.v, c.dy, c.c2p, c.p2c = vector(rows), vector(rows), vector(rows), vector(rows), vector(tables), vector(tables)
	c.tokens = make([]float32, batch*c.n)
	for b, length := range c.lengths {
		for j := range length {
			if length < 4 || j != length/2 {
				c.tokens[b*c.n+j] = 1
			}
		}
	}
}

func (c *attentionCase) scale() float64 { return 1 / math.Sqrt(float64(3*c.size)) }

// define computes what attention and its gradients are by definition.
func (c *attentionCase) define() {
	n, width, batch := c.n, c.heads*c.size, len(c.lengths)
	for _, x := range []*[]float64{&c.context, &c.dq, &c.dk, &c.dv} {
		*x = make([]float64, len(c.q))
	}
	c.dc2p, c.dp2c, c.lse = make([]float64, len(c.c2p)), make([]float64, len(c.c2p)), make([]float64, c.heads*batch*n)
	for i := range c.lse {
		c.lse[i] = math.NaN()
	}
	mask := make([]byte, len(c.lse)*n)
	dropout.FillPhilox(mask, c.key, c.p)
	for pair := range c.heads * batch {
		h, b := pair/batch, pair%batch
		row := func(x []float32, i int) []float32 { return x[(b*n+i)*width+h*c.size:][:c.size] }
		sum := func(x []float64, i int) []float64 { return x[(b*n+i)*width+h*c.size:][:c.size] }
		for i := range c.lengths[b] {
			p, dp := make([]float64, n), make([]float64, n)
			c2p := func(j int) int { return (pair*n+i)*2*n + j - i + n - 1 }
			p2c := func(j int) int { return (pair*n+j)*2*n + i - j + n - 1 }
			total, delta := 0.0, 0.0
			for j := range n {
				if c.tokens[b*n+j] != 0 {
					p[j] = math.Exp(c.scale()*inner(row(c.q, i), row(c.k, j)) + float64(c.c2p[c2p(j)]) + float64(c.p2c[p2c(j)]))
					total += p[j]
				}
			}
			c.lse[pair*n+i] = math.Log(total)
			for j := range n {
				p[j] /= total
				kept := float64(mask[(pair*n+i)*n+j]) / (1 - c.p)
				for d := range c.size {
					sum(c.context, i)[d] += p[j] * kept * float64(row(c.v, j)[d])
					sum(c.dv, j)[d] += p[j] * kept * float64(row(c.dy, i)[d])
				}
				dp[j] = kept * inner(row(c.dy, i), row(c.v, j))
				delta += p[j] * dp[j]
			}
			for j := range n {
				ds := p[j] * (dp[j] - delta)
				c.dc2p[c2p(j)], c.dp2c[p2c(j)] = ds, ds
				for d := range c.size {
					sum(c.dq, i)[d] += c.scale() * ds * float64(row(c.k, j)[d])
					sum(c.dk, j)[d] += c.scale() * ds * float64(row(c.q, i)[d])
				}
			}
		}
	}
}

func inner(x, y []float32) (sum float64) {
	for i := range x {
		sum += float64(x[i]) * float64(y[i])
	}
	return sum
}

// launch returns the launch of a kernel with tensors and what all three take after
// them.
func (c *attentionCase) launch(t *testing.T, name string, tensors ...any) launch {
	t.Helper()
	name += "_" + c.kind.String()
	all := manifest(t).Kernels
	at := slices.IndexFunc(all, func(k Kernel) bool { return k.Name == name })
	if at < 0 {
		t.Fatalf("there is no kernel %s", name)
	}
	batch, block := len(c.lengths), all[at].Block
	threshold, keep := uint32(0), 1.0
	if c.p > 0 {
		threshold, keep = dropout.PhiloxThreshold(c.p), 1/(1-c.p)
	}
	return launch{name, batch * c.heads * ((c.n + block - 1) / block),
		append(tensors, c.key.Seed, c.key.Site, threshold, float32(keep), float32(c.scale()), batch, c.heads, c.n, c.size)}
}

// low returns a tensor of the case's type of numbers, and numbers reads one.
func (c *attentionCase) low(x []float32) tensor {
	if c.kind.IsLow() {
		return tensorOf(lowTypes[c.kind], convert(x, c.kind))
	}
	return tensorOf("fp32", x)
}

func (c *attentionCase) numbers(t *testing.T, data []byte) []float32 {
	if c.kind == graph.Float32 {
		return elements[float32](t, data)
	}
	var out []float32
	for _, bits := range elements[uint16](t, data) {
		if c.kind == graph.Float16 {
			out = append(out, fromFloat16(bits))
		} else {
			out = append(out, math.Float32frombits(uint32(bits)<<16))
		}
	}
	return out
}

func fromFloat16(bits uint16) float32 {
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	x := math.Ldexp(fraction, -24)
	if exponent == 31 {
		x = math.NaN() // or infinite: nothing here is
	} else if exponent > 0 {
		x = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits>>15 == 1 {
		x = -x
	}
	return float32(x)
}

// TestKernelAttention: the fused attention and its gradients are what their
// definition says, up to rounding: for several heads and sequences, with padding,
// holes in the mask and a sequence without a token, for lengths that are no
// multiple of a block, with and without dropout, which drops what Philox says.
// What belongs to no pair of positions is 0, whatever lay there before.
func TestKernelAttention(t *testing.T) {
	tolerances := map[graph.Type]float64{graph.Float32: 2e-6, graph.Float16: 2e-3, graph.BFloat16: 2e-2}
	key := dropout.Key{Seed: math.MaxUint64 - 4, Step: 1<<40 | 3, Site: 7}
	var cases []*attentionCase
	for _, kind := range slices.Sorted(maps.Keys(tolerances)) {
		cases = append(cases,
			&attentionCase{kind: kind, heads: 2, n: 100, size: 16, lengths: []int{100, 37, 0}, p: 0.3, key: key},
			&attentionCase{kind: kind, heads: 1, n: 132, size: 64, lengths: []int{131}, p: 0.1, key: key},
			&attentionCase{kind: kind, heads: 4, n: 32, size: 8, lengths: []int{32, 1}})
	}
	r := rand.New(rand.NewPCG(9, 10))
	full := func(x []float32) tensor { return tensorOf("fp32", x) }
	ones := func(n int) []float32 { return slices.Repeat([]float32{1}, n) } // to be overwritten
	var forward, backward []launch
	for _, c := range cases {
		c.fill(r)
		c.define()
		forward = append(forward, c.launch(t, "flash_attention", c.low(c.q), c.low(c.k), c.low(c.v), c.low(c.c2p), c.low(c.p2c), full(c.tokens),
			tensorOf("i64", []uint64{c.key.Step}), c.low(ones(len(c.q))), full(ones(len(c.lse)))))
	}
	results := interpret(t, forward)
	for i, c := range cases {
		kind := c.low(nil).Type
		context, lse := results[i][7], results[i][8]
		delta := make([]float32, len(c.lse))
		for row := range delta {
			pair, position := row/c.n, row%c.n
			at := (pair%len(c.lengths)*c.n+position)*c.heads*c.size + pair/len(c.lengths)*c.size
			delta[row] = float32(inner(c.dy[at:][:c.size], c.numbers(t, context)[at:][:c.size]))
		}
		q, k, v, c2p, p2c, dy := c.low(c.q), c.low(c.k), c.low(c.v), c.low(c.c2p), c.low(c.p2c), c.low(c.dy)
		position := tensorOf("i64", []uint64{c.key.Step})
		rows, tables := c.low(ones(len(c.q))), c.low(ones(len(c.c2p)))
		backward = append(backward,
			c.launch(t, "flash_attention_queries", dy, q, k, v, c2p, p2c, tensor{kind, context}, tensor{"fp32", lse}, full(c.tokens), position,
				rows, tables, full(ones(len(c.lse)))),
			c.launch(t, "flash_attention_keys", dy, q, k, v, c2p, p2c, tensor{"fp32", lse}, full(delta), full(c.tokens), position, rows, rows, tables))
	}
	gradients := interpret(t, backward)
	for i, c := range cases {
		compare := func(what string, got []float32, want []float64) {
			t.Helper()
			largest, worst := 0.0, 0.0
			for j, w := range want {
				if w != w {
					continue
				}
				largest = max(largest, math.Abs(w))
				off := math.Abs(float64(got[j]) - w)
				if w == 0 && got[j] != 0 || off != off {
					t.Errorf("%s of case %d, in %v: element %d is %v, want %v", what, i, c.kind, j, got[j], w)
					return
				}
				worst = max(worst, off)
			}
			message := fmt.Sprintf("%s of case %d, in %v: off by %.1e of its largest element", what, i, c.kind, worst/largest)
			if !(worst <= tolerances[c.kind]*largest) {
				t.Error(message)
			}
			t.Log(message)
		}
		queries, keys := gradients[2*i], gradients[2*i+1]
		compare("context", c.numbers(t, results[i][7]), c.context)
		compare("lse", elements[float32](t, results[i][8]), c.lse)
		compare("dq", c.numbers(t, queries[10]), c.dq)
		compare("dc2p", c.numbers(t, queries[11]), c.dc2p)
		compare("dk", c.numbers(t, keys[10]), c.dk)
		compare("dv", c.numbers(t, keys[11]), c.dv)
		compare("dp2c", c.numbers(t, keys[12]), c.dp2c)
		delta := backward[2*i+1].Arguments[7].(tensor)
		want := make([]float64, len(c.lse))
		for j, x := range elements[float32](t, delta.Data) {
			want[j] = float64(x)
		}
		compare("delta", elements[float32](t, queries[12]), want)
	}
}
