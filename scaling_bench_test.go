package criteria_test

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// BenchmarkScaling trains an epoch on more and more pairs of real length with an
// engine that takes no time to speak of: what is left is the loop, the batches
// and the tokens. Time per pair should stay the same. Bytes per token are what
// the dataset, texts and ids, holds in memory while it is trained on.
func BenchmarkScaling(b *testing.B) {
	for _, pairs := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(pairs), func(b *testing.B) {
			checkpoint := b.TempDir()
			if err := os.WriteFile(filepath.Join(checkpoint, "config.json"), []byte("{}"), 0o644); err != nil {
				b.Fatal(err)
			}
			before := liveBytes()
			data, tokens := longPosts(pairs)
			var held uint64
			engine := &fakes.Engine{Before: func(op string) error {
				if op == "save" {
					held = liveBytes() - before
				}
				return nil
			}}
			config := criteria.DefaultConfig()
			config.Model.Checkpoint = checkpoint
			config.Train.Epochs, config.Train.BatchSize = 1, 8
			for b.Loop() {
				t, err := criteria.NewTrainer(criteria.WithConfig(config), criteria.WithDataset(data), criteria.WithEngine(engine),
					criteria.WithTokenizer(&fakes.Tokenizer{}), criteria.WithOutputDir(b.TempDir()), criteria.WithLogger(slog.New(slog.DiscardHandler)))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := t.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(pairs*b.N), "µs/pair")
			b.ReportMetric(float64(held)/float64(tokens), "B/token")
		})
	}
}

// longPosts makes a dataset whose training split has the given number of pairs,
// with lengths as posts have them: log-normal, median 180, at most 512.
func longPosts(pairs int) (_ *criteria.Dataset, tokens int) {
	random := rand.New(rand.NewPCG(1, 2))
	split := func(name string, pairs int) []criteria.Example {
		examples := make([]criteria.Example, pairs)
		for i := range examples {
			words := make([]string, min(max(int(180*math.Exp(0.6*random.NormFloat64())), 16), 512)-6)
			for j := range words {
				words[j] = fmt.Sprintf("w%d", random.IntN(5000))
			}
			tokens += len(words) + 6
			examples[i] = criteria.Example{PostID: fmt.Sprint(name, i), CriterionID: "c", Label: i % 2,
				Pair: criteria.Pair{Post: strings.Join(words, " "), Criterion: "tired every day"}}
		}
		return examples
	}
	return &criteria.Dataset{Name: "long", Train: split("train", pairs), Val: split("val", 16), Test: split("test", 16)}, tokens
}

// liveBytes returns the size of what the program holds on to.
func liveBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
