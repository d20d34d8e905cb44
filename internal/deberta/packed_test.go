package deberta

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/golden/tensors"
	"github.com/criteria-go/criteria/internal/ort"
)

// mix is a batch of rows of different lengths.
type mix struct {
	model   Model
	lengths []int // of the rows that are there
	rows    int   // that the graph has; the others are empty
	ids     [][]int64
	labels  []int64
	weights []float32
	key     dropout.Key
	values  map[string][]float32 // of the parameters
}

func newMix(model Model, rows int, lengths ...int) mix {
	m := mix{model: model, lengths: lengths, rows: rows, key: dropout.Key{Seed: 3, Step: 4<<16 | 1}, values: map[string][]float32{}}
	random := rand.New(rand.NewPCG(5, uint64(len(lengths))))
	for _, n := range lengths {
		ids := make([]int64, n)
		for i := range ids {
			ids[i] = 1 + random.Int64N(int64(model.Config.VocabSize-1))
		}
		m.ids = append(m.ids, ids)
		m.labels = append(m.labels, int64(len(m.labels)%Classes))
		m.weights = append(m.weights, 0.5+float32(len(m.weights))/4)
	}
	for _, p := range model.Params() {
		x := make([]float32, p.Size())
		for i := range x {
			x[i] = float32(0.02 + 0.15*random.NormFloat64())
			if strings.HasSuffix(p.Name, "LayerNorm.weight") {
				x[i]++
			}
		}
		m.values[p.Name] = x
	}
	return m
}

// run computes a graph for the batch.
func (m mix) run(t *testing.T, rt *ort.Runtime, g *Graph, threads int) map[string][]float32 {
	t.Helper()
	session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	binding, err := session.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	packed, total := g.Length == 0, 0
	for _, n := range m.lengths {
		total += n
	}
	total += 5 // which fill up
	relative := m.model.Config.RelativeFor(slices.Max(m.lengths))
	sizes := map[string][]int{InputIDs: {total}, RelativeRows: {len(relative.Rows)}, RelativeIndex: {len(relative.Index)},
		GradientOf(WordEmbeddings): {total, m.model.Config.HiddenSize}, "hidden": {total, m.model.Config.HiddenSize}}
	tensor := func(v ort.ValueInfo) ort.Tensor {
		shape := v.Shape
		if packed && sizes[v.Name] != nil {
			shape = sizes[v.Name]
		}
		x, err := ort.NewTensor(v.DType, shape...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = x.Buffer().Free() })
		return x
	}
	masks := map[string]int{}
	for site, mask := range g.Masks {
		masks[mask.Name] = site
	}
	for _, v := range session.Inputs() {
		x := tensor(v)
		site, isMask := masks[v.Name]
		switch {
		case isMask:
			m.fill(x.Bytes(), g.Masks[site], site)
		case v.Name == InputIDs && packed:
			clear(x.Int64())
			at := 0
			for _, ids := range m.ids {
				at += copy(x.Int64()[at:], ids)
			}
		case v.Name == InputIDs:
			for r, ids := range m.ids {
				copy(x.Int64()[r*g.Length:], ids)
			}
		case v.Name == AttentionMask:
			for r := range m.rows {
				x.Int64()[r*g.Length] = 1
				for i := range m.length(r) {
					x.Int64()[r*g.Length+i] = 1
				}
			}
		case v.Name == Offsets:
			for r := range m.rows {
				x.Int64()[r+1] = x.Int64()[r] + int64(m.length(r))
			}
		case v.Name == RelativeRows:
			copy(x.Int64(), relative.Rows)
		case v.Name == RelativeIndex:
			copy(x.Int64(), relative.Index)
		case v.Name == DropoutKey:
			x.Int64()[0] = m.key.State()
		case v.Name == Labels:
			copy(x.Int64(), m.labels)
		case v.Name == SampleWeights:
			copy(x.Float32(), m.weights)
		case v.Name == LossScale:
			x.Float32()[0] = 1
		case strings.HasPrefix(v.Name, SumOf("")):
			for i := range x.Float32() {
				x.Float32()[i] = 0.25
			}
		default:
			i := slices.IndexFunc(g.Weights, func(w Weight) bool { return w.Name == v.Name })
			flat := x.Float32()
			for _, p := range held(m.model, g.Weights[i]) {
				flat = flat[copy(flat, m.values[p.Name]):]
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
	m.gather(g, values)
	return values
}

func (m mix) length(row int) int {
	if row < len(m.lengths) {
		return m.lengths[row]
	}
	return 0
}

// fill draws a mask as the operators for packed batches draw it.
func (m mix) fill(dst []byte, mask Mask, site int) {
	key := m.key
	key.Site = uint64(site)
	switch {
	case mask.Table != nil:
		dropout.FillTable(dst, key, mask.Table, mask.Drop)
	case len(mask.Shape) == 4:
		dropout.FillScores(dst, key, mask.Shape[0], mask.Shape[1], mask.Shape[2], mask.Drop, 1)
	default:
		dropout.FillTokens(dst, key, m.rows, mask.Drop, 1)
	}
}

// gather keeps of what padding has as well only what rows and tokens have that are there.
func (m mix) gather(g *Graph, values map[string][]float32) {
	name, width := GradientOf(WordEmbeddings), m.model.Config.HiddenSize
	if all, ok := values[name]; ok {
		var there []float32
		at := 0
		for r, n := range m.lengths {
			if g.Length > 0 {
				at = r * g.Length
			}
			there = append(there, all[at*width:(at+n)*width]...)
			at += n
		}
		values[name] = there
	}
	values[Logits] = values[Logits][:len(m.lengths)*Classes]
}

// TestGoldenPacked compares loss, logits and the gradient of every parameter of packed
// batches with what transformers computes of padded ones.
func TestGoldenPacked(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	dir := filepath.Join(golden.Dir(t), "model", "tiny-deberta")
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	config.HiddenDropout, config.AttentionDropout = 0, 0 // the cases are without dropout
	for _, path := range golden.Glob(t, "model/forward/case??.safetensors") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".safetensors"), func(t *testing.T) {
			c := tensors.Open(t, path)
			model := Model{Config: config, Head: headOf(c)}
			m := goldenMix(model, c, tensors.Open(t, dir))
			g := model.PackedTraining(m.rows, kernels(rt), drawn)
			got := apart(model, g, m.run(t, rt, g, 1))
			got[GradientOf(WordEmbeddings)] = m.padded(got[GradientOf(WordEmbeddings)], c.Shape("input_ids")[1])
			compareGradients(t, c, model, got)
		})
	}
}

// goldenMix is the batch of a golden case.
func goldenMix(model Model, c, weights tensors.File) mix {
	shape, ids, class := c.Shape("input_ids"), c.Ints("input_ids"), c.Floats("class_weights")
	m := mix{model: model, rows: shape[0], labels: c.Ints("labels"), values: map[string][]float32{}}
	for r := range m.rows {
		n := 0
		for _, token := range c.Ints("attention_mask")[r*shape[1] : (r+1)*shape[1]] {
			n += int(token)
		}
		m.lengths = append(m.lengths, n)
		m.ids = append(m.ids, ids[r*shape[1]:][:n])
		m.weights = append(m.weights, class[m.labels[r]])
	}
	for _, p := range model.Params() {
		from := weights
		if p.IsHead() {
			from = c
		}
		m.values[p.Name] = from.Floats(p.Name)
	}
	return m
}

// padded puts what tokens have where they are in a batch padded to a length.
func (m mix) padded(packed []float32, length int) []float32 {
	width := m.model.Config.HiddenSize
	all := make([]float32, m.rows*length*width)
	for r, n := range m.lengths {
		packed = packed[copy(all[r*length*width:][:n*width], packed):]
	}
	return all
}

// TestPacked: packed batches have the loss, the logits and the gradients of padded ones,
// with dropout, for mixes of lengths from 1 to 512. They are compared with what the same
// products compute of the padded batch, and with what standard operators do; what differs
// is the order of sums.
func TestPacked(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	kernels := kernels(rt)
	config := Config{HiddenSize: 48, Layers: 2, Heads: 3, IntermediateSize: 80, VocabSize: 50, LayerNormEps: 1e-7,
		HiddenDropout: 0.1, AttentionDropout: 0.2, PositionBuckets: 64, MaxPosition: 512, InitializerRange: 0.02}
	for _, pooling := range []string{"cls", "mean", "max"} {
		model := Model{Config: config, Head: Head{Pooling: pooling, HiddenDims: []int{24}, Activation: "gelu", Dropout: 0.1}}
		if !model.Packs(kernels) {
			t.Fatal("the runtime has no operators for packed batches: no BLAS is loaded")
		}
		for _, lengths := range [][]int{{1}, {7, 1, 30}, {512, 3, 129, 64}, {40, 41, 200, 17, 1, 99}} {
			rows := len(lengths) + len(lengths)%2
			m := newMix(model, rows, lengths...)
			t.Run(fmt.Sprint(pooling, lengths), func(t *testing.T) {
				comparePacked(t, rt, m, "training", model.Training(rows, slices.Max(lengths), kernels, scale),
					model.PackedTraining(rows, kernels, drawn))
				comparePacked(t, rt, m, "evaluation", model.Evaluation(rows, slices.Max(lengths), nil),
					model.PackedEvaluation(rows, kernels))
			})
		}
		lengths := []int{33, 5, 64}
		m := newMix(model, 4, lengths...)
		again := model
		again.Recompute = true
		t.Run(pooling, func(t *testing.T) {
			comparePacked(t, rt, m, "standard operators", model.Training(4, 64, nil, scale), model.PackedTraining(4, kernels, drawn))
			comparePacked(t, rt, m, "accumulating", model.Accumulating(4, 64, kernels, scale), model.PackedAccumulating(4, kernels, drawn))
			comparePacked(t, rt, m, "recomputed", model.Training(4, 64, kernels, scale), again.PackedTraining(4, kernels, drawn))
		})
	}
}

func drawn(p float64) (int, float64) { return dropout.Threshold(p), scale(p) }

func scale(p float64) float64 { return 1 / dropout.KeepProbability(p) }

func comparePacked(t *testing.T, rt *ort.Runtime, m mix, what string, padded, packed *Graph) {
	t.Helper()
	const tolerance = 5e-6 // of the largest element, where sums of 800 products cancel
	want := apart(m.model, padded, m.run(t, rt, padded, 2))
	got := apart(m.model, packed, m.run(t, rt, packed, 2))
	for output, x := range want {
		near(t, what+": "+output, got[output], x, tolerance)
	}
}

// TestPackedThreads: packed batches give the same bits on any number of threads.
func TestPackedThreads(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	config := Config{HiddenSize: 384, Layers: 2, Heads: 6, IntermediateSize: 800, VocabSize: 50, LayerNormEps: 1e-7,
		HiddenDropout: 0.1, AttentionDropout: 0.2, PositionBuckets: 64, MaxPosition: 512, InitializerRange: 0.02}
	for _, pooling := range []string{"cls", "mean", "max"} {
		m := newMix(Model{Config: config, Head: Head{Pooling: pooling, Dropout: 0.1}}, 4, 200, 31, 77, 150)
		g := m.model.PackedTraining(4, kernels(rt), drawn)
		one := m.run(t, rt, g, 1)
		for threads := 2; threads <= 3; threads++ {
			for output, x := range m.run(t, rt, g, threads) {
				if !slices.EqualFunc(x, one[output], func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
					t.Errorf("%s: %s has other bits on %d threads", pooling, output, threads)
				}
			}
		}
	}
}
