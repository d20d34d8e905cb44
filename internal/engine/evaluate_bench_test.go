package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
)

// BenchmarkEvaluate times the forward pass of deberta-v3-base with random weights
// for batches of more and more pairs: tokens/s says from which size on the rate
// no longer rises.
func BenchmarkEvaluate(b *testing.B) {
	e, err := open(base, nil, Spec{Head: deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu"}}, "", func(e *Engine) error {
		fillRandom(e)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	for _, s := range []shape{{4, 32}, {8, 32}, {16, 32}, {32, 32}, {64, 32}, {1, 128}, {2, 128}, {4, 128}, {8, 128}, {16, 128}, {32, 128}, {1, 512}, {2, 512}, {4, 512}} {
		b.Run(fmt.Sprintf("%d=%v", s.rows*s.length, s), func(b *testing.B) {
			batch := randomBatch(1, s.rows, s.length)
			for i := range batch.AttentionMask {
				batch.AttentionMask[i] = 1
			}
			run := func() {
				if _, err := e.Evaluate(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
			run() // the first one compiles the graph and touches fresh memory
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(s.rows*s.length*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
