package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
)

// base is the configuration of deberta-v3-base.
var base = deberta.Config{HiddenSize: 768, Layers: 12, Heads: 12, IntermediateSize: 3072, VocabSize: 128100,
	LayerNormEps: 1e-7, HiddenDropout: 0.1, AttentionDropout: 0.1, PositionBuckets: 256, MaxPosition: 512, InitializerRange: 0.02}

// BenchmarkStep times a whole training step of deberta-v3-base with random
// weights: forward, backward, clipping and AdamW, dropout 0.1, in float32. The
// environment variable CRITERIA_BENCH_SHAPES names other shapes than 4x128, in
// the form "4x128,8x256".
func BenchmarkStep(b *testing.B) {
	shapes := os.Getenv("CRITERIA_BENCH_SHAPES")
	if shapes == "" {
		shapes = "4x128"
	}
	for _, shape := range strings.Split(shapes, ",") {
		var rows, length int
		if _, err := fmt.Sscanf(shape, "%dx%d", &rows, &length); err != nil {
			b.Fatalf("shape %q: %v", shape, err)
		}
		b.Run(shape, func(b *testing.B) { benchmarkStep(b, rows, length) })
	}
}

func benchmarkStep(b *testing.B, rows, length int) {
	ctx := context.Background()
	head := deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu", Dropout: 0.1}
	random := rand.New(rand.NewPCG(1, 2))
	e, err := open(base, nil, Spec{Head: head, Threads: 2, Training: &Training{Optimizer: adamWFused, WeightDecay: 0.01, MaxGradNorm: 1, Accumulation: 1}}, "",
		func(e *Engine) error {
			for i, p := range e.layout.params {
				w := e.layout.slice(e.params.Float32(), i)
				for j := range w {
					w[j] = float32(random.NormFloat64() * 0.02)
					if strings.HasSuffix(p.Name, "LayerNorm.weight") {
						w[j]++
					}
				}
			}
			return nil
		})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	batch := Batch{Rows: rows, Length: length}
	for range rows * length {
		batch.InputIDs = append(batch.InputIDs, 5+random.Int64N(int64(base.VocabSize)-5))
		batch.AttentionMask = append(batch.AttentionMask, 1)
	}
	for range rows {
		batch.Labels = append(batch.Labels, random.Int64N(2))
		batch.SampleWeights = append(batch.SampleWeights, 1)
	}
	step := 0
	run := func() {
		if _, err := e.Accumulate(ctx, batch, step, 0); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Update(ctx, 1e-5); err != nil {
			b.Fatal(err)
		}
		step++
	}
	for range 2 { // the first steps touch fresh memory
		run()
	}
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "pairs/s")
	b.ReportMetric(peakMemory(b), "peak-GB")
}

// peakMemory returns the largest resident size of the process so far, in GB.
func peakMemory(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb * 1024 / 1e9
		}
	}
	b.Fatal("no VmHWM in /proc/self/status")
	return 0
}
