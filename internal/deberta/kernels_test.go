package deberta

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// TestKernels compares the training graph with each fused operator alone, and
// with all of them, to the one of standard operators: loss, logits and the
// gradient of every parameter, with dropout, padding and distances that share
// buckets.
func TestKernels(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	config := Config{Layers: 2, Heads: 3, IntermediateSize: 80, VocabSize: 50, LayerNormEps: 1e-7,
		HiddenDropout: 0.1, AttentionDropout: 0.2, PositionBuckets: 16, MaxPosition: 64, InitializerRange: 0.02}
	all := kernels(rt)
	cases := map[string]graph.Kernels{"all": all}
	for name := range all {
		cases["without "+name] = maps.Clone(all)
		delete(cases["without "+name], name)
		cases["only "+name] = graph.Kernels{name: true}
		if name == "Attention" { // its three forms belong together
			cases["only "+name] = graph.Kernels{name: true, "AttentionProbs": true, "AttentionGrad": true}
		}
	}
	for _, s := range []struct {
		rows, length, width int
		pooling             string
	}{{3, 45, 48, "cls"}, {2, 40, 36, "mean"}, {2, 40, 32 * 3, "mean"}} {
		config.HiddenSize = s.width
		model := Model{Config: config, Head: Head{Pooling: s.pooling, HiddenDims: []int{24}, Activation: "gelu", Dropout: 0.1}}
		run := func(t *testing.T, k graph.Kernels) map[string][]float32 {
			g := model.Training(s.rows, s.length, k, func(p float64) float64 { return 1 / (1 - p) })
			return apart(model, g, runRandom(t, rt, model, g))
		}
		want := run(t, nil)
		for _, name := range slices.Sorted(maps.Keys(cases)) {
			t.Run(fmt.Sprintf("%s %d/%s", s.pooling, s.width, name), func(t *testing.T) {
				got := run(t, cases[name])
				for output, x := range want {
					near(t, output, got[output], x, 2e-5)
				}
			})
		}
	}
}

// TestJoinedProjections: query, key and value are one product, forward and
// backward, and the gradients of biases cost no pass of their own.
func TestJoinedProjections(t *testing.T) {
	config := Config{HiddenSize: 48, Layers: 3, Heads: 3, IntermediateSize: 80, VocabSize: 50, PositionBuckets: 16, MaxPosition: 64}
	kernels := graph.Kernels{}
	for _, name := range []string{"Gemm", "LinearGrad", "Attention", "AttentionProbs", "AttentionGrad"} {
		kernels[name] = true
	}
	for pooling, want := range map[string]int{
		// Query, key and value of words, query and key of positions, attention's
		// output and both layers of the feed-forward network; the head's two.
		"mean": 3*5 + 2,
		// The last layer has queries of the first words only.
		"cls": 2*5 + 8 + 2,
	} {
		model := Model{Config: config, Head: Head{Pooling: pooling, HiddenDims: []int{24}, Activation: "relu"}}
		census := model.Training(2, 32, kernels, nil).Census()
		if got := census["LinearGrad"]; got != want {
			t.Errorf("%s: %d linear layers, want %d", pooling, got, want)
		}
		without := model.Training(2, 32, nil, nil).Census()
		if saved := without["ReduceSum"] - census["ReduceSum"]; saved < want {
			t.Errorf("%s: %d sums of biases are part of products, want %d", pooling, saved, want)
		}
	}
}

// runRandom runs a graph on random parameters, masks and tokens, the same ones for
// every graph of the model. Float16 has all parameters as they are.
func runRandom(t *testing.T, rt *ort.Runtime, model Model, g *Graph) map[string][]float32 {
	t.Helper()
	session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	binding, err := session.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	drop := map[string]float64{}
	for _, m := range g.Masks {
		drop[m.Name] = m.Drop
	}
	tensor := func(v ort.ValueInfo) ort.Tensor {
		x, err := ort.NewTensor(v.DType, v.Shape...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Buffer().Free() })
		return x
	}
	number := func(random *rand.Rand) float32 {
		return float32(math.Round((0.1+0.2*random.NormFloat64())*1024) / 1024)
	}
	numbers := func(name string) *rand.Rand {
		h := fnv.New64a()
		fmt.Fprint(h, name)
		return rand.New(rand.NewPCG(1, h.Sum64()))
	}
	for _, v := range session.Inputs() {
		name := strings.TrimPrefix(v.Name, LowOf(""))
		random, x := numbers(name), tensor(v)
		switch {
		case v.Name == InputIDs:
			for j := range x.Int64() {
				x.Int64()[j] = random.Int64N(int64(model.Config.VocabSize))
			}
		case v.Name == AttentionMask:
			for j := range x.Int64() {
				if row, column := j/g.Length, j%g.Length; column < g.Length-7*row {
					x.Int64()[j] = 1
				}
			}
		case v.Name == Labels:
			for j := range x.Int64() {
				x.Int64()[j] = int64(j % Classes)
			}
		case v.Name == SampleWeights:
			for j := range x.Float32() {
				x.Float32()[j] = float32(0.5 + random.Float64())
			}
		case v.Name == LossScale:
			x.Float32()[0] = 1
		case v.DType == ort.Bool:
			for j := range x.Bytes() {
				if random.Float64() >= drop[v.Name] {
					x.Bytes()[j] = 1
				}
			}
		case v.DType == ort.Float16:
			for j := range x.Len() {
				binary.LittleEndian.PutUint16(x.Bytes()[2*j:], graph.Float16.Bits(number(random)))
			}
		default:
			parts := []Param{{Name: v.Name, Shape: v.Shape}}
			if i := slices.IndexFunc(g.Weights, func(w Weight) bool { return w.Name == v.Name }); i >= 0 {
				parts = held(model, g.Weights[i])
			}
			flat := x.Float32()
			for _, p := range parts {
				random := numbers(p.Name)
				for j := range p.Size() {
					flat[j] = number(random)
				}
				flat = flat[p.Size():]
			}
		}
		if err := binding.BindInput(v.Name, x); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string]ort.Tensor{}
	for _, v := range session.Outputs() {
		out[v.Name] = tensor(v)
		if err := binding.BindOutput(v.Name, out[v.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := binding.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	values := map[string][]float32{}
	for name, x := range out {
		values[name] = slices.Clone(x.Float32())
	}
	return values
}
