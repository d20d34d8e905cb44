package engine

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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
	for _, s := range benchmarkShapes(b) {
		b.Run(s.String(), func(b *testing.B) { benchmarkStep(b, s.rows, s.length) })
	}
}

type shape struct{ rows, length int }

func (s shape) String() string { return fmt.Sprintf("%dx%d", s.rows, s.length) }

func benchmarkShapes(b *testing.B) []shape {
	b.Helper()
	text := os.Getenv("CRITERIA_BENCH_SHAPES")
	if text == "" {
		text = "4x128"
	}
	var shapes []shape
	for _, t := range strings.Split(text, ",") {
		var s shape
		if _, err := fmt.Sscanf(t, "%dx%d", &s.rows, &s.length); err != nil {
			b.Fatalf("CRITERIA_BENCH_SHAPES: %q: %v", t, err)
		}
		shapes = append(shapes, s)
	}
	return shapes
}

func benchmarkStep(b *testing.B, rows, length int) {
	step := newStep(b, rows, length)
	for range 2 { // the first steps touch fresh memory
		step()
	}
	b.ReportAllocs()
	least := time.Duration(math.MaxInt64) // what other programs slow down least
	for b.Loop() {
		began := time.Now()
		step()
		least = min(least, time.Since(began))
	}
	b.ReportMetric(least.Seconds()*1e3, "least-ms")
	b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "pairs/s")
	b.ReportMetric(peakMemory(b), "peak-GB")
}

// newStep returns a function that takes a training step of the base model with
// random weights on batches of one shape.
func newStep(b *testing.B, rows, length int) func() {
	ctx := context.Background()
	head := deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu", Dropout: 0.1}
	random := rand.New(rand.NewPCG(1, 2))
	spec := Spec{Head: head, Threads: 2, Training: &Training{Optimizer: adamWFused, WeightDecay: 0.01, MaxGradNorm: 1, Accumulation: 1}}
	e, err := open(base, nil, spec, "", func(e *Engine) error {
		fillRandom(e)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	for name := range strings.SplitSeq(os.Getenv("CRITERIA_BENCH_WITHOUT"), ",") {
		delete(hostOf(e).kernels, name)
	}
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
	return func() {
		if _, err := e.Accumulate(ctx, batch, step, 0); err != nil {
			b.Fatal(err)
		}
		if _, err := e.Update(ctx, 1e-5); err != nil {
			b.Fatal(err)
		}
		step++
	}
}

// fillRandom sets all parameters to N(0, 0.02²), LayerNorm weights around 1.
func fillRandom(e *Engine) {
	random := rand.New(rand.NewPCG(1, 2))
	for i, p := range e.layout.params {
		w := e.layout.slice(e.params.Float32(), i)
		for j := range w {
			w[j] = float32(random.NormFloat64() * 0.02)
			if strings.HasSuffix(p.Name, "LayerNorm.weight") {
				w[j]++
			}
		}
	}
}

// peakMemory returns the largest resident size of the process so far, in GB.
func peakMemory(b testing.TB) float64 {
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
