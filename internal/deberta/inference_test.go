package deberta

import (
	"context"
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

// source reads parameters for a head from a case, all others from the
// checkpoint.
func source(c, weights tensors.File) Source {
	return func(p Param) ([]float32, error) {
		if p.IsHead() {
			return c.Floats(p.Name), nil
		}
		return weights.Floats(p.Name), nil
	}
}

// TestGoldenInference runs the graph with dynamic shapes on the golden cases,
// as they are, with more padding, and row by row without any.
func TestGoldenInference(t *testing.T) {
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
	for _, path := range golden.Glob(t, "model/forward/case??.safetensors") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".safetensors"), func(t *testing.T) {
			c := tensors.Open(t, path)
			weights := tensors.Open(t, dir)
			model := Model{Config: config, Head: headOf(c)}
			ids, mask, shape := c.Ints("input_ids"), c.Ints("attention_mask"), c.Shape("input_ids")
			rows, length := shape[0], shape[1]
			want := c.Floats("logits")

			run := inferenceSession(t, rt, model.Inference(source(c, weights), false))
			near(t, "logits", run(rows, length, ids, mask), want, 1e-5)

			longer := length + 37
			paddedIDs, paddedMask := make([]int64, rows*longer), make([]int64, rows*longer)
			for r := range rows {
				copy(paddedIDs[r*longer:], ids[r*length:][:length])
				copy(paddedMask[r*longer:], mask[r*length:][:length])
			}
			near(t, "logits with more padding", run(rows, longer, paddedIDs, paddedMask), want, 1e-5)

			for r := range rows {
				n := 0
				for n < length && mask[r*length+n] != 0 {
					n++
				}
				got := run(1, n, ids[r*length:][:n], mask[r*length:][:n])
				near(t, "logits of one row alone", got, want[r*Classes:][:Classes], 2e-5)
			}
		})
	}
}

// inferenceSession returns a function that runs the graph on a batch.
func inferenceSession(t *testing.T, rt *ort.Runtime, g *graph.Graph) func(rows, length int, ids, mask []int64) []float32 {
	t.Helper()
	session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return func(rows, length int, ids, mask []int64) []float32 {
		t.Helper()
		binding, err := session.NewBinding()
		if err != nil {
			t.Fatal(err)
		}
		for name, elements := range map[string][]int64{InputIDs: ids, AttentionMask: mask, TokenTypeIDs: nil} {
			x := tensor(t, ort.ValueInfo{DType: ort.Int64, Shape: []int{rows, length}})
			copy(x.Int64(), elements)
			if err := binding.BindInput(name, x); err != nil {
				t.Fatal(err)
			}
		}
		logits := tensor(t, ort.ValueInfo{DType: ort.Float32, Shape: []int{rows, Classes}})
		if err := binding.BindOutput(Logits, logits); err != nil {
			t.Fatal(err)
		}
		if err := binding.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(logits.Float32())
	}
}
