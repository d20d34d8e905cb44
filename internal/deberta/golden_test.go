package deberta

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/golden/tensors"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// TestGoldenBuckets compares the bucket of every relative position with the
// tables of make_log_bucket_position.
func TestGoldenBuckets(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(golden.Dir(t), "model", "bucket_tables.json"))
	if err != nil {
		t.Fatal(err)
	}
	var tables map[string]struct {
		RelFrom       int `json:"rel_from"`
		Bucket, Index []int
	}
	if err := json.Unmarshal(raw, &tables); err != nil {
		t.Fatal(err)
	}
	if len(tables) == 0 {
		t.Fatal("no tables")
	}
	for name, table := range tables {
		var buckets, maxPosition int
		if _, err := fmt.Sscanf(name, "%d,%d", &buckets, &maxPosition); err != nil {
			t.Fatal(err)
		}
		for i, want := range table.Bucket {
			r := table.RelFrom + i
			if got := bucket(r, buckets, maxPosition); got != want {
				t.Errorf("%s: bucket(%d) = %d, want %d", name, r, got, want)
			}
			c := Config{PositionBuckets: buckets, MaxPosition: maxPosition}
			if got := c.row(r); i < len(table.Index) && got != table.Index[i] {
				t.Errorf("%s: row(%d) = %d, want %d", name, r, got, table.Index[i])
			}
		}
	}
}

// headOf returns the head of a golden case.
func headOf(c tensors.File) Head {
	h := Head{Pooling: c.Metadata("pooling"), Activation: c.Metadata("activation")}
	for k := range int(c.Number("num_layers")) {
		h.HiddenDims = append(h.HiddenDims, c.Shape(fmt.Sprintf("head.%d.weight", k))[0])
	}
	return h
}

// TestGoldenForward compares logits, loss, hidden states and the gradient of
// every parameter with what transformers computes.
func TestGoldenForward(t *testing.T) {
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
			weights := tensors.Open(t, dir)
			model := Model{Config: config, Head: headOf(c)}
			shape := c.Shape("input_ids")
			rows, length := shape[0], shape[1]

			for name, kernels := range map[string]graph.Kernels{"gradients": nil, "gradients with kernels": kernels(rt)} {
				t.Run(name, func(t *testing.T) {
					c, weights := c.For(t), weights.For(t)
					g := model.Training(rows, length, kernels, func(p float64) float64 { return 1 / (1 - p) })
					compareGradients(t, c, model, apart(model, g, runGraph(t, rt, model, g, c, weights)))
				})
			}
			t.Run("states", func(t *testing.T) {
				c, weights := c.For(t), weights.For(t)
				b := model.newBuilder("states", rows, length, nil, nil)
				b.allRows = true
				loss, logits := b.classify()
				b.g.Output(Loss, loss)
				b.g.Output(Logits, logits)
				b.g.Output("pooled", b.pooled)
				b.g.Output("hidden", b.hidden)
				got := runGraph(t, rt, model, b.graph(), c, weights)
				near(t, "pooled", got["pooled"], c.Floats("pooled"), 1e-5)
				near(t, "logits", got[Logits], c.Floats("logits"), 1e-5)
				// Rows of padding are nobody's input, and differ.
				hidden, want := got["hidden"], c.Floats("hidden")
				for i, token := range c.Ints("attention_mask") {
					if d := config.HiddenSize; token == 0 {
						copy(hidden[i*d:][:d], want[i*d:][:d])
					}
				}
				near(t, "hidden", hidden, want, 1e-5)
			})
		})
	}
}

// kernels lists the fused operators that the runtime offers.
func kernels(rt *ort.Runtime) graph.Kernels {
	k := graph.Kernels{}
	for _, name := range rt.Operators() {
		k[name] = true
	}
	return k
}

// near checks that the largest difference is within tolerance of the largest
// element.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s has %d elements, want %d", what, len(got), len(want))
		return
	}
	var worst, largest float64
	for i := range want {
		worst = max(worst, math.Abs(float64(got[i])-float64(want[i])))
		largest = max(largest, math.Abs(float64(want[i])))
	}
	if !(worst <= tolerance*max(largest, 1e-8)) {
		t.Errorf("%s differs by %.3g, its largest element is %.3g: relative %.3g, want at most %g", what, worst, largest, worst/largest, tolerance)
	}
}

func compareGradients(t *testing.T, c tensors.File, model Model, got map[string][]float32) {
	if want := c.Floats("loss")[0]; math.Abs(float64(got[Loss][0]-want)) > 1e-5 {
		t.Errorf("loss is %v, want %v", got[Loss][0], want)
	}
	near(t, "logits", got[Logits], c.Floats("logits"), 1e-5)
	compared := 0
	for _, p := range model.Params() {
		g := got[GradientOf(p.Name)]
		key := "grad." + strings.TrimPrefix(p.Name, "deberta.")
		if p.Name == WordEmbeddings {
			d := model.Config.HiddenSize
			dense := make([]float32, p.Size())
			for i, id := range c.Ints("input_ids") {
				if id == 0 {
					continue // padding_idx
				}
				for j := range d {
					dense[int(id)*d+j] += g[i*d+j]
				}
			}
			want := make([]float32, p.Size())
			rows := c.Floats("grad.word_embeddings.rows")
			for i, id := range c.Ints("grad.word_embeddings.ids") {
				copy(want[int(id)*d:][:d], rows[i*d:][:d])
			}
			near(t, p.Name, dense, want, 1e-4)
		} else {
			near(t, p.Name, g, c.Floats(key), 1e-4)
		}
		compared++
	}
	if compared != len(model.Params()) {
		t.Errorf("compared %d of %d gradients", compared, len(model.Params()))
	}
}

// held lists the parameters that a weight holds.
func held(model Model, w Weight) []Param {
	params := model.Params()
	from := slices.IndexFunc(params, func(p Param) bool { return p.Name == w.First })
	size := Param{Shape: w.Shape}.Size()
	to := from
	for ; size > 0; to++ {
		size -= params[to].Size()
	}
	return params[from:to]
}

// apart splits the gradients of weights that hold several parameters.
func apart(model Model, g *Graph, gradients map[string][]float32) map[string][]float32 {
	all := maps.Clone(gradients)
	for _, w := range g.Weights {
		d, ok := gradients[GradientOf(w.Name)]
		if !ok || w.Name == w.First {
			continue
		}
		delete(all, GradientOf(w.Name))
		for _, p := range held(model, w) {
			all[GradientOf(p.Name)], d = d[:p.Size()], d[p.Size():]
		}
	}
	return all
}

// runGraph runs a graph once on the inputs of a case and returns its outputs.
func runGraph(t *testing.T, rt *ort.Runtime, model Model, g *Graph, c, weights tensors.File) map[string][]float32 {
	t.Helper()
	session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	binding, err := session.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range session.Inputs() {
		x := tensor(t, v)
		switch v.Name {
		case InputIDs, AttentionMask, Labels:
			copy(x.Int64(), c.Ints(v.Name))
		case SampleWeights:
			class := c.Floats("class_weights")
			for i, y := range c.Ints("labels") {
				x.Float32()[i] = class[y]
			}
		case LossScale:
			x.Float32()[0] = 1
		default:
			i := slices.IndexFunc(g.Weights, func(w Weight) bool { return w.Name == v.Name })
			flat := x.Float32()
			for _, p := range held(model, g.Weights[i]) {
				from := weights
				if p.IsHead() {
					from = c
				}
				flat = flat[copy(flat, from.Floats(p.Name)):]
			}
		}
		if err := binding.BindInput(v.Name, x); err != nil {
			t.Fatal(err)
		}
	}
	out := map[string][]float32{}
	for _, v := range session.Outputs() {
		x := tensor(t, v)
		if err := binding.BindOutput(v.Name, x); err != nil {
			t.Fatal(err)
		}
		out[v.Name] = x.Float32()
	}
	if err := binding.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out
}

func tensor(t *testing.T, v ort.ValueInfo) ort.Tensor {
	t.Helper()
	x, err := ort.NewTensor(v.DType, v.Shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Buffer().Free() })
	return x
}
