package deberta

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// TestLowParameters: products read parameters from inputs in low precision, and the
// graph rounds none of them. The results are, bit by bit, those of a graph that does,
// if there is nothing to round: ONNX Runtime's CPU provider, which computes in
// float32 after all, leaves out a Cast to float16 before one that it has put in.
func TestLowParameters(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{BLAS: ort.NoBLAS})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	model := Model{Config: Config{HiddenSize: 48, Layers: 2, Heads: 3, IntermediateSize: 80, VocabSize: 50, LayerNormEps: 1e-7,
		PositionBuckets: 16, MaxPosition: 64, InitializerRange: 0.02}}
	for _, pooling := range []string{"cls", "mean", "max"} {
		for _, recompute := range []bool{false, true} {
			model.Recompute = recompute
			model.Head = Head{Pooling: pooling, HiddenDims: []int{24}, Activation: "gelu"}
			for _, build := range []func(low graph.Type) *Graph{
				func(low graph.Type) *Graph { return model.DeviceTraining(3, 40, DeviceOptions{Low: low}) },
				func(low graph.Type) *Graph { return model.DeviceEvaluation(3, 40, DeviceOptions{Low: low}) },
			} {
				name := fmt.Sprintf("%s, recompute %t", pooling, recompute)
				got, rounding := build(graph.Float16), build(graph.Float32)
				rounding.LowerPrecision(graph.Float16, nil)
				checkLowParameters(t, name, got, rounding, model)
				want := runRandom(t, rt, model, rounding)
				for output, x := range runRandom(t, rt, model, got) {
					if !slices.Equal(x, want[output]) {
						t.Errorf("%s: %s of %s differs from that of parameters rounded in the graph", name, output, got.Name)
					}
				}
			}
		}
	}
}

// checkLowParameters checks which inputs a graph has of the parameters, and that it
// rounds as many values less than one that rounds them.
func checkLowParameters(t *testing.T, name string, g, rounding *Graph, m Model) {
	t.Helper()
	low := 0
	for _, p := range m.Params() {
		// What is looked up and what LayerNorms read stays in float32.
		full := strings.Contains(p.Name, "embeddings") || strings.Contains(p.Name, "LayerNorm")
		if g.HasInput(p.Name) != full || g.HasInput(LowOf(p.Name)) == full {
			t.Errorf("%s: %s has %s in float32: %t, in low precision: %t", name, g.Name, p.Name, g.HasInput(p.Name), g.HasInput(LowOf(p.Name)))
		}
		if !full {
			low++
		}
	}
	if got, want := g.Census()["Cast"], rounding.Census()["Cast"]-low; got != want {
		t.Errorf("%s: %s has %d casts, want %d", name, g.Name, got, want)
	}
}
