package engine

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
)

// BenchmarkPacked compares an epoch of packed batches in random order with one of padded
// batches in the order of their lengths, on the same pairs, and steps of equally long rows
// with each other. Both take turns, and of each batch the least processor time of all
// rounds counts: what other programs disturb least. The environment variable
// CRITERIA_BENCH_LAYERS sets the layers of the model, otherwise of the base model's width.
func BenchmarkPacked(b *testing.B) {
	config := base
	config.Layers = 2
	if text := os.Getenv("CRITERIA_BENCH_LAYERS"); text != "" {
		var err error
		if config.Layers, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	spec := Spec{Head: deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu", Dropout: 0.1}, Threads: 2,
		Training: &Training{Optimizer: adamWFused, WeightDecay: 0.01, MaxGradNorm: 1, Accumulation: 1}}
	e, err := open(config, nil, spec, "", func(e *Engine) error {
		fillRandom(e)
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })

	random := rand.New(rand.NewPCG(5, 6))
	const rows = 8
	lengths := make([]int, 6*rows) // as posts have them
	for i := range lengths {
		lengths[i] = min(max(int(180*math.Exp(0.6*random.NormFloat64())), 16), 512)
	}
	sorted := slices.Clone(lengths)
	slices.SortFunc(sorted, cmp.Compare)
	for _, c := range []struct {
		name           string
		padded, packed []int
	}{
		{"epoch", sorted, lengths},
		{"8x64", slices.Repeat([]int{64}, rows), slices.Repeat([]int{64}, rows)},
		{"8x176", slices.Repeat([]int{176}, rows), slices.Repeat([]int{176}, rows)},
	} {
		b.Run(c.name, func(b *testing.B) {
			padded, packed := cutBatches(random, c.padded, rows), cutBatches(random, c.packed, rows)
			least := [2][]float64{make([]float64, len(padded)), make([]float64, len(padded))}
			for side := range least {
				for i := range least[side] {
					least[side][i] = math.Inf(1)
				}
			}
			step := 0
			for b.Loop() {
				for side, batches := range [][]Batch{padded, packed} {
					hostOf(e).kernels["PackedAttention"] = side == 1
					for i, batch := range batches {
						least[side][i] = min(least[side][i], timeStep(b, e, batch, step))
						step++
					}
				}
			}
			total := [2]float64{}
			for side := range total {
				for _, s := range least[side] {
					total[side] += s
				}
			}
			b.ReportMetric(total[0], "padded-cpu-s")
			b.ReportMetric(total[1], "packed-cpu-s")
			b.ReportMetric(total[0]/total[1], "speedup")
		})
	}
}

// timeStep returns the processor time of forward and backward.
func timeStep(b *testing.B, e *Engine, batch Batch, step int) float64 {
	b.Helper()
	before := processorTime(b)
	if _, err := e.Accumulate(context.Background(), batch, step, 0); err != nil {
		b.Fatal(err)
	}
	took := processorTime(b) - before
	e.accumulated = 0
	hostOf(e).trainer.discard()
	return took
}

func processorTime(b *testing.B) float64 {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(fmt.Errorf("processor time: %w", err))
	}
	seconds := func(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}

// cutBatches returns batches of rows with the given lengths.
func cutBatches(random *rand.Rand, lengths []int, rows int) []Batch {
	var batches []Batch
	for part := range slices.Chunk(lengths, rows) {
		b := Batch{Rows: len(part), Length: slices.Max(part)}
		b.InputIDs, b.AttentionMask = make([]int64, b.Rows*b.Length), make([]int64, b.Rows*b.Length)
		for r, n := range part {
			for i := range n {
				b.InputIDs[r*b.Length+i] = 5 + random.Int64N(int64(base.VocabSize)-5)
				b.AttentionMask[r*b.Length+i] = 1
			}
			b.Labels, b.SampleWeights = append(b.Labels, random.Int64N(2)), append(b.SampleWeights, 1)
		}
		batches = append(batches, b)
	}
	return batches
}
