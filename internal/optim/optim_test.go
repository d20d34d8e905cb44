package optim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vectors returns parameters, moments and gradients of n elements.
func vectors(n int) (p, m, v, g []float32) {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	p, m, v, g = make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range n {
		p[i] = float32(r.NormFloat64() * 0.02)
		m[i] = float32(r.NormFloat64() * 1e-3)
		v[i] = float32(r.ExpFloat64() * 1e-6)
		g[i] = float32(r.NormFloat64() * math.Pow(10, -6*r.Float64()))
	}
	return p, m, v, g
}

// stepInGo is AdamW.Step written plainly, rounding to float32 after every
// operation.
func stepInGo(o AdamW, p, m, v, g []float32, u Update) {
	t := float64(u.Step)
	decay := float32(1 - u.LR*u.WeightDecay)
	w1, w2 := float32(1-o.Beta1), float32(1-o.Beta2)
	step := float32(u.LR / (1 - math.Pow(o.Beta1, t)))
	correction := float32(1 / math.Sqrt(1-math.Pow(o.Beta2, t)))
	for i := range p {
		grad := g[i] * u.GradScale
		m[i] += float32(w1 * (grad - m[i]))
		v[i] = float32(v[i]*float32(o.Beta2)) + float32(float32(w2*grad)*grad)
		root := float32(math.Sqrt(float64(v[i])))
		p[i] = float32(p[i]*decay) - float32(step*m[i])/(float32(root*correction)+float32(o.Eps))
	}
}

func TestAdamW(t *testing.T) {
	o := DefaultAdamW()
	for _, n := range []int{0, 1, 3, 7, 8, 9, 31, 1000, part, part + 1, 3*part + 5} {
		for _, threads := range []int{0, 1, 2, 3, 7} {
			p, m, v, g := vectors(n)
			P, M, V := slices.Clone(p), slices.Clone(m), slices.Clone(v)
			for step := 1; step <= 3; step++ {
				u := Update{Step: step, LR: 1e-3 / float64(step), WeightDecay: 0.01, GradScale: 0.7, Threads: threads}
				o.Step(p, m, v, g, u)
				stepInGo(o, P, M, V, g, u)
			}
			for _, c := range []struct {
				name      string
				got, want []float32
			}{{"p", p, P}, {"m", m, M}, {"v", v, V}} {
				if i := firstDifference(c.got, c.want); i >= 0 {
					t.Errorf("%d elements, %d threads: %s[%d] = %v, want %v", n, threads, c.name, i, c.got[i], c.want[i])
				}
			}
		}
	}
}

// firstDifference returns the first index at which the bits differ, or -1.
func firstDifference(a, b []float32) int {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return i
		}
	}
	return -1
}

// A rate of 0 moves nothing, whatever the decay, but feeds the moments.
func TestAdamWWithoutRate(t *testing.T) {
	p, m, v, g := vectors(100)
	before := slices.Clone(p)
	clear(m)
	DefaultAdamW().Step(p, m, v, g, Update{Step: 1, WeightDecay: 0.1, GradScale: 1})
	if diff := cmp.Diff(before, p); diff != "" {
		t.Errorf("parameters moved (-want +got):\n%s", diff)
	}
	if m[0] == 0 {
		t.Error("the first moment did not")
	}
}

// The constants of a step in torch, worked out by hand for one parameter:
// p = 1, g = 0.5, lr = 0.1, λ = 0.1, first step. Then m = 0.05, v = 0.00025, both
// corrections undo the factors, and p = 0.99 - 0.1·0.5/(0.5 + 1e-8) = 0.89.
func TestAdamWByHand(t *testing.T) {
	p, m, v, g := []float32{1}, []float32{0}, []float32{0}, []float32{0.5}
	DefaultAdamW().Step(p, m, v, g, Update{Step: 1, LR: 0.1, WeightDecay: 0.1, GradScale: 1})
	if math.Abs(float64(p[0])-0.89) > 1e-6 || math.Abs(float64(m[0])-0.05) > 1e-8 || math.Abs(float64(v[0])-0.00025) > 1e-9 {
		t.Errorf("p, m, v = %v, %v, %v; want 0.89, 0.05, 0.00025", p[0], m[0], v[0])
	}
}

func TestLengthsMustAgree(t *testing.T) {
	for name, f := range map[string]func(){
		"AdamW": func() {
			DefaultAdamW().Step(make([]float32, 3), make([]float32, 3), make([]float32, 2), make([]float32, 3), Update{Step: 1})
		},
		"AdamW8bit": func() {
			NewAdamW8bit(DefaultAdamW(), RoundByTable).Step(make([]float32, 300), make([]float32, 300), NewState8bit(200), Update{Step: 1})
		},
		"step 0": func() { DefaultAdamW().Step(nil, nil, nil, nil, Update{}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestGlobalNorm(t *testing.T) {
	for _, n := range []int{0, 1, 5, 31, 32, 33, 4096, 4097, normPart, normPart + 1, 5*normPart + 77} {
		_, _, _, g := vectors(n)
		var sum float64
		for _, x := range g {
			sum += float64(x) * float64(x)
		}
		want := math.Sqrt(sum)
		first := GlobalNorm(g, nil, 1)
		if math.Abs(first-want) > 1e-6*want {
			t.Errorf("%d elements: got %v, want %v", n, first, want)
		}
		for _, threads := range []int{0, 2, 3, 8} {
			if got := GlobalNorm(g, nil, threads); got != first {
				t.Errorf("%d elements: %d threads give %v, one gives %v", n, threads, got, first)
			}
		}
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		g := make([]float32, 10000)
		g[9999] = bad
		if got := GlobalNorm(g, nil, 2); !math.IsNaN(got) && !math.IsInf(got, 1) {
			t.Errorf("norm of gradients with %v: %v", bad, got)
		}
	}
}

func TestClipScale(t *testing.T) {
	for _, tt := range []struct {
		norm, max float64
		want      float32
	}{
		{0.5, 1, 1},
		{4, 1, float32(1 / (4 + 1e-6))},
		{1, 1, float32(1 / (1 + 1e-6))}, // torch shrinks a norm of exactly max, too
		{4, 0, 1},
		{4, -1, 1},
		{math.Inf(1), 1, 0},
	} {
		if got := ClipScale(tt.norm, tt.max); got != tt.want {
			t.Errorf("norm %v, max %v: got %v, want %v", tt.norm, tt.max, got, tt.want)
		}
	}
	if got := ClipScale(math.NaN(), 1); got == got {
		t.Errorf("norm NaN: got %v, want NaN", got)
	}
}

func TestSchedule(t *testing.T) {
	for _, tt := range []struct {
		s    Schedule
		step int
		want float64
	}{
		{Schedule{Linear, 2, 4, 12}, 0, 0},
		{Schedule{Linear, 2, 4, 12}, 1, 0.5},
		{Schedule{Linear, 2, 4, 12}, 4, 2},
		{Schedule{Linear, 2, 4, 12}, 8, 1},
		{Schedule{Linear, 2, 4, 12}, 12, 0},
		{Schedule{Linear, 2, 4, 12}, 99, 0},
		{Schedule{Cosine, 2, 4, 12}, 8, 1},
		{Schedule{Cosine, 2, 4, 12}, 12, 0},
		{Schedule{Constant, 2, 4, 12}, 3, 1.5},
		{Schedule{Constant, 2, 4, 12}, 99, 2},
		{Schedule{Linear, 2, 0, 4}, 0, 2},
		{Schedule{Linear, 2, 0, 0}, 0, 0},
		{Schedule{Constant, 2, 0, 0}, 0, 2},
	} {
		if got := tt.s.LR(tt.step); math.Abs(got-tt.want) > 1e-15 {
			t.Errorf("%+v at step %d: got %v, want %v", tt.s, tt.step, got, tt.want)
		}
	}
	for _, tt := range []struct {
		ratio       float64
		total, want int
	}{{0.1, 30, 3}, {0.1, 31, 4}, {0, 30, 0}, {1, 7, 7}} {
		if got := WarmupSteps(tt.ratio, tt.total); got != tt.want {
			t.Errorf("%v of %d: got %d, want %d", tt.ratio, tt.total, got, tt.want)
		}
	}
}

// 8-bit state follows float32 state closely where the gradients of a block do
// not differ by many decades, and the number of threads does not matter.
func TestAdamW8bit(t *testing.T) {
	const n = 2*part + 300
	for _, rounding := range []Rounding{RoundByTable, RoundToNearest} {
		t.Run(fmt.Sprint("rounding ", rounding), func(t *testing.T) {
			o := NewAdamW8bit(DefaultAdamW(), rounding)
			var first []float32
			var codes State8bit
			for _, threads := range []int{1, 2, 5} {
				r := rand.New(rand.NewPCG(1, 2))
				p := make([]float32, n)
				exact, m, v, g := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
				s := NewState8bit(n)
				for step := 1; step <= 10; step++ {
					for i := range g {
						g[i] = float32(math.Sin(float64(i)) + 0.3*r.NormFloat64())
					}
					u := Update{Step: step, LR: 1e-3, WeightDecay: 0.01, GradScale: 1, Threads: threads}
					o.Step(p, g, s, u)
					DefaultAdamW().Step(exact, m, v, g, u)
				}
				var sum float64
				for i := range p {
					d := float64(p[i] - exact[i])
					sum += d * d
				}
				if rms := math.Sqrt(sum / n); rms > 5e-4 { // parameters have moved by about 5e-3
					t.Errorf("rms difference to float32 state: %v", rms)
				}
				if first == nil {
					first, codes = p, s
				} else if diff := cmp.Diff(codes, s); diff != "" || firstDifference(first, p) >= 0 {
					t.Errorf("%d threads give other bits than one", threads)
				}
			}
		})
	}
}

func TestZeroGradients8bit(t *testing.T) {
	for _, rounding := range []Rounding{RoundByTable, RoundToNearest} {
		p, g, s := make([]float32, 5000), make([]float32, 5000), NewState8bit(5000)
		NewAdamW8bit(DefaultAdamW(), rounding).Step(p, g, s, Update{Step: 1, LR: 1, GradScale: 1})
		if diff := cmp.Diff(NewState8bit(5000), s); diff != "" || p[0] != 0 {
			t.Errorf("rounding %d: state or parameters of zero gradients are not zero", rounding)
		}
	}
}

// The base model: 183.8 million parameters.
const baseModel = 183_831_552

func BenchmarkAdamW(b *testing.B) {
	p, m, v, g := make([]float32, baseModel), make([]float32, baseModel), make([]float32, baseModel), make([]float32, baseModel)
	for i := range p {
		p[i], m[i], v[i], g[i] = float32(i%1000)*1e-4, float32(i%77)*1e-5, float32(i%91)*1e-8, float32(i%113)*1e-3
	}
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint("threads=", threads), func(b *testing.B) {
			b.SetBytes(baseModel * 4 * 7) // four read, three written
			b.ReportAllocs()
			for i := 1; b.Loop(); i++ {
				DefaultAdamW().Step(p, m, v, g, Update{Step: i, LR: 1e-5, WeightDecay: 0.01, GradScale: 0.5, Threads: threads})
			}
		})
	}
}

func BenchmarkGlobalNorm(b *testing.B) {
	g := make([]float32, baseModel)
	for i := range g {
		g[i] = float32(i%113) * 1e-3
	}
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint("threads=", threads), func(b *testing.B) {
			b.SetBytes(baseModel * 4)
			b.ReportAllocs()
			for b.Loop() {
				GlobalNorm(g, nil, threads)
			}
		})
	}
}

func BenchmarkAdamW8bit(b *testing.B) {
	const n = 768 * 30000
	p, _, _, g := vectors(n)
	for _, rounding := range []Rounding{RoundByTable, RoundToNearest} {
		b.Run(fmt.Sprint("rounding=", rounding), func(b *testing.B) {
			o, s := NewAdamW8bit(DefaultAdamW(), rounding), NewState8bit(n)
			b.SetBytes(n * (4*3 + 2*2))
			for i := 1; b.Loop(); i++ {
				o.Step(p, g, s, Update{Step: i, LR: 1e-5, WeightDecay: 0.01, GradScale: 1, Threads: 2})
			}
		})
	}
}

// TestDeferred: updates made up for at once give the bits of updates with
// gradients of 0, for parameters with moments and without.
func TestDeferred(t *testing.T) {
	for _, n := range []int{1, 7, 8, 31, 64, 65, 768, 1000} {
		for _, resting := range []bool{false, true} {
			p, m, v, _ := vectors(n)
			for i := range m {
				if v[i] = v[i] * v[i]; resting || i < n/2 {
					m[i], v[i] = 0, 0
				}
			}
			gotP, gotM, gotV := slices.Clone(p), slices.Clone(m), slices.Clone(v)
			var d Deferred
			zero := make([]float32, n)
			for step := 1; step <= 12; step++ {
				u := Update{Step: step, LR: 1e-3 * float64(step), WeightDecay: 0.01 * float64(step%3), GradScale: 0.5}
				DefaultAdamW().Step(p, m, v, zero, u)
				d.Add(DefaultAdamW(), u)
				if step == 5 {
					d.Apply(gotP, gotM, gotV, 0)
				}
			}
			if d.Len() != 12 {
				t.Fatalf("%d updates were put off, want 12", d.Len())
			}
			d.Apply(gotP, gotM, gotV, 5)
			if !slices.Equal(p, gotP) || !slices.Equal(m, gotM) || !slices.Equal(v, gotV) {
				t.Errorf("%d elements, resting %t: updates put off give other bits", n, resting)
			}
			d.Apply(gotP, gotM, gotV, 12)
			if d.Clear(); d.Len() != 0 || !slices.Equal(p, gotP) {
				t.Error("nothing was due, but something happened")
			}
		}
	}
}

func TestGlobalNormOfFewBlocks(t *testing.T) {
	g := make([]float32, 3*normPart+1000)
	nonzero := map[int]bool{}
	for _, block := range []int{1, 3, 64, 65, 130, len(g) / NormBlock} {
		nonzero[block] = true
		for i := block * NormBlock; i < min((block+1)*NormBlock, len(g)); i++ {
			g[i] = float32(i%977) * 1e-3
		}
	}
	want := GlobalNorm(g, nil, 1)
	for _, threads := range []int{1, 3} {
		if got := GlobalNorm(g, func(block int) bool { return !nonzero[block] }, threads); got != want {
			t.Errorf("%d threads: norm without the blocks of zeros is %v, with them %v", threads, got, want)
		}
	}
}
