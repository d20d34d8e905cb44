package criteria_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/criteria-go/criteria"
)

// basePair is what a pair of real length takes in a training step of
// deberta-v3-base on two cores: see docs/performance.md.
const basePair = 500 * time.Millisecond

// BenchmarkScaling trains an epoch on more and more pairs of real length with an
// engine and a tokenizer that take no time to speak of: what is left is the run
// around them, per pair in µs. Of that, the loop is what happens between the
// first step and the end of the epoch, and the rest is reading, checkpoints and
// reports, much of which costs the same for any number of pairs. %-of-base says
// what a run takes in addition, in percent of what the base model takes to
// compute: it must not matter, for few pairs nor for many. Bytes per token are
// what the dataset, texts and ids, holds in memory while it is trained on.
func BenchmarkScaling(b *testing.B) {
	for _, pairs := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(pairs), func(b *testing.B) {
			checkpoint := emptyCheckpoint(b)
			before := liveBytes()
			data, tokens := longPosts(pairs)
			engine := &idleEngine{}
			config := criteria.DefaultConfig()
			config.Model.Checkpoint = checkpoint
			config.Train.Epochs, config.Train.BatchSize = 1, 8
			var loop time.Duration
			for b.Loop() {
				var started time.Time
				hooks := criteria.Hooks{
					Start: func(criteria.StartEvent) { started = time.Now() },
					Epoch: func(criteria.EpochEvent) { loop += time.Since(started) },
				}
				t, err := criteria.NewTrainer(criteria.WithConfig(config), criteria.WithDataset(data), criteria.WithEngine(engine),
					criteria.WithTokenizer(idleTokenizer{}), criteria.WithOutputDir(b.TempDir()), criteria.WithHooks(hooks))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := t.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			perPair := func(t time.Duration) float64 { return float64(t.Nanoseconds()) / 1e3 / float64(pairs*b.N) }
			b.ReportMetric(perPair(b.Elapsed()), "µs/pair")
			b.ReportMetric(perPair(loop), "loop-µs/pair")
			b.ReportMetric(perPair(b.Elapsed())/float64(basePair.Microseconds())*100, "%-of-base")
			b.ReportMetric(float64(engine.held-before)/float64(tokens), "B/token")
		})
	}
}

// emptyCheckpoint returns a folder that only an engine accepts that reads nothing.
func emptyCheckpoint(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// idleEngine computes nothing.
type idleEngine struct{ held uint64 } // memory in use when a model was saved

func (e *idleEngine) Open(context.Context, criteria.ModelSpec) (criteria.Session, error) {
	return &idleSession{engine: e, logits: make([]float32, 2*64)}, nil
}

type idleSession struct {
	engine *idleEngine
	logits []float32
}

func (s *idleSession) result(b criteria.Batch) criteria.BatchResult {
	return criteria.BatchResult{Loss: 0.5, Logits: s.logits[:2*b.Rows]}
}

func (s *idleSession) Accumulate(_ context.Context, b criteria.Batch, _, _ int) (criteria.BatchResult, error) {
	return s.result(b), nil
}

func (s *idleSession) Evaluate(_ context.Context, b criteria.Batch) (criteria.BatchResult, error) {
	return s.result(b), nil
}

func (s *idleSession) Update(context.Context, float64) (float64, error) { return 1, nil }

func (s *idleSession) SaveModel(context.Context, string) error {
	s.engine.held = liveBytes()
	return nil
}

func (s *idleSession) SaveState(context.Context, string) error { return nil }
func (s *idleSession) LoadState(context.Context, string) error { return nil }
func (s *idleSession) Close() error                            { return nil }

// idleTokenizer takes each word for a token, without looking at it.
type idleTokenizer struct{}

func (idleTokenizer) EncodePairs(_ context.Context, pairs []criteria.Pair, _ int) (criteria.Encodings, error) {
	e := criteria.Encodings{Offsets: make([]int, len(pairs)+1), Truncated: make([]bool, len(pairs))}
	for i, p := range pairs {
		e.Offsets[i+1] = e.Offsets[i] + strings.Count(p.Post, " ") + strings.Count(p.Criterion, " ") + 5
	}
	e.IDs = make([]int32, e.Offsets[len(pairs)])
	return e, nil
}

func (idleTokenizer) SaveTo(string) error { return nil }
func (idleTokenizer) Close() error        { return nil }

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
