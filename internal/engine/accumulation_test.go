package engine

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
)

// TestAccumulatedGradients: what two micro-batches leave is the sum of what each
// leaves alone, with products that are added in place and with standard
// operators.
func TestAccumulatedGradients(t *testing.T) {
	for name, portable := range map[string]bool{"kernels": false, "standard operators": true} {
		t.Run(name, func(t *testing.T) {
			gradients := func(micros ...int) []float32 {
				e := openEngine(t, trainingSpec(t, adamWFused), true)
				if portable {
					hostOf(e).kernels = nil
				}
				for _, micro := range micros {
					if _, err := e.Accumulate(context.Background(), randomBatch(uint64(micro), 4, 16), 0, micro); err != nil {
						t.Fatal(err)
					}
				}
				return slices.Clone(hostOf(e).trainer.gradients.Float32())
			}
			one, other, both := gradients(1), gradients(2), gradients(1, 2)
			e := openEngine(t, trainingSpec(t, adamWFused), true)
			for i, p := range e.layout.params {
				a, b, sum := e.layout.slice(one, i), e.layout.slice(other, i), e.layout.slice(both, i)
				size := 1e-6
				for j := range a {
					size = max(size, math.Abs(float64(a[j]))+math.Abs(float64(b[j])))
				}
				for j := range a {
					if d := math.Abs(float64(sum[j]) - float64(a[j]) - float64(b[j])); !(d <= 1e-5*size) {
						t.Fatalf("%s: element %d is %v, want %v + %v", p.Name, j, sum[j], a[j], b[j])
					}
				}
			}
		})
	}
}

// TestProductsAddInPlace: the gradients of weights and biases need no pass of
// their own to be added up.
func TestProductsAddInPlace(t *testing.T) {
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	if !hostOf(e).kernels["LinearGrad"] {
		t.Fatal("no BLAS is loaded")
	}
	first := e.model.Training(4, 16, hostOf(e).kernels, dropoutScale)
	further := e.model.Accumulating(4, 16, hostOf(e).kernels, dropoutScale)
	want := 0
	for _, w := range first.Weights {
		switch {
		case !w.Trained, w.Name == deberta.WordEmbeddings:
		case strings.Contains(w.Name, "LayerNorm."):
			want++ // not of a product
		case strings.Contains(w.Name, "query_"), strings.Contains(w.Name, "key_"):
			want++ // the sum of two products already: by content and by position
		}
	}
	if added := further.Census()["Add"] - first.Census()["Add"]; added != want {
		t.Errorf("%d gradients are added by a pass of their own, want %d", added, want)
	}
}
