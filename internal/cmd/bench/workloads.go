package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/engine"
)

const (
	epochPairs = 2000
	batchSize  = 8 // Hugging Face's default
	maxLength  = 512
)

// realLengths draws token counts as posts have them: log-normal with median 180,
// σ 0.6, at most 512.
func realLengths(n int) []int {
	random := rand.New(rand.NewPCG(5, 6))
	lengths := make([]int, n)
	for i := range lengths {
		lengths[i] = min(max(int(180*math.Exp(0.6*random.NormFloat64())), 16), maxLength)
	}
	return lengths
}

// epoch compares an epoch on pairs of real lengths. Its batches are planned in
// full; a sample of them is measured.
func (b *bench) epoch() error {
	lengths := realLengths(epochPairs)
	var ours, dynamic, fixed []shape
	for _, plan := range data.Batches(lengths, batchSize, 1, 1, 1) {
		steps := (plan.Length + engine.LengthStep - 1) / engine.LengthStep // what the engine fills up
		ours = append(ours, shape{len(plan.Indices), steps * engine.LengthStep})
	}
	order := rand.New(rand.NewPCG(7, 8)).Perm(len(lengths))
	for batch := range slices.Chunk(order, batchSize) {
		longest := 0
		for _, i := range batch {
			longest = max(longest, lengths[i])
		}
		dynamic = append(dynamic, shape{len(batch), longest})
		fixed = append(fixed, shape{len(batch), maxLength})
	}
	progress("epoch: padding to %d", maxLength)
	padded, err := b.sample(fixed, 1, true, b.eager.step)
	if err != nil {
		return err
	}
	progress("epoch: dynamic padding")
	padding, err := b.sample(dynamic, 3, false, b.eager.step)
	if err != nil {
		return err
	}
	progress("epoch: ours")
	mine, err := b.sample(ours, 6, true, func(s shape) (answer, error) { return b.ours.step(b.ctx, s) })
	if err != nil {
		return err
	}
	fmt.Printf("Epoch on %d pairs, lengths log-normal (median 180, at most %d), batches of %d, from a sample of its batches:\n", epochPairs, maxLength, batchSize)
	for _, side := range []struct {
		name    string
		batches []shape
		seconds float64
	}{{"ours, batches by length", ours, mine}, {fmt.Sprintf("torch eager, padding to %d", maxLength), fixed, padded}, {"torch eager, dynamic padding", dynamic, padding}} {
		fmt.Printf("  %-30s  %6.2f pairs/s, %2.0f %% padding", side.name, epochPairs/side.seconds, 100*paddingShare(lengths, side.batches))
		if side.seconds != mine {
			fmt.Printf("; ours is %.2f × as fast", side.seconds/mine)
		}
		fmt.Println()
	}
	fmt.Println()
	return nil
}

// paddingShare returns which part of the batches is not tokens of the pairs.
func paddingShare(lengths []int, batches []shape) float64 {
	tokens, places := 0, 0
	for _, n := range lengths {
		tokens += n
	}
	for _, b := range batches {
		places += b.rows * b.length
	}
	return 1 - float64(tokens)/float64(places)
}

// sample returns the estimated time of all batches: they are sorted by size and
// cut into equal groups, and the middle batch of each group stands for it.
func (b *bench) sample(batches []shape, groups int, warm bool, step func(shape) (answer, error)) (float64, error) {
	batches = slices.Clone(batches)
	slices.SortFunc(batches, func(x, y shape) int { return cmp.Compare(x.rows*x.length, y.rows*y.length) })
	total := 0.0
	for g := range groups {
		s := batches[(2*g+1)*len(batches)/(2*groups)]
		if warm {
			if _, err := step(s); err != nil {
				return 0, err
			}
		}
		a, err := step(s)
		if err != nil {
			return 0, err
		}
		total += a.Seconds
	}
	return total / float64(groups) * float64(len(batches)), nil
}

const (
	predictPairs = 48
	predictBatch = 16
)

// predict compares the judging of texts: our Classifier and transformers'
// pipeline, both from texts to answers, with the same batch size.
func (b *bench) predict() error {
	progress("prediction")
	dir := filepath.Join(b.dir, "trained")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := b.ours.SaveModel(b.ctx, dir); err != nil {
		return err
	}
	if err := b.ours.Close(); err != nil {
		return err
	}
	b.ours = nil
	for _, name := range []string{"tokenizer/tokenizer.json", "tiny-deberta/tokenizer_config.json"} {
		content, err := os.ReadFile(filepath.Join("testdata/golden/model", name))
		if err != nil {
			return fmt.Errorf("%w: run it in the root of the repository", err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o644); err != nil {
			return err
		}
	}
	c, err := criteria.Load(b.ctx, dir, criteria.WithBatchSize(predictBatch), criteria.WithThreads(b.threads))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := b.eager.ask(request{"do": "forget"}); err != nil {
		return err
	}
	if _, err := b.eager.ask(request{"do": "load", "dir": dir, "batch": predictBatch}); err != nil {
		return err
	}
	var pairs []criteria.Pair
	var texts [][2]string
	for _, length := range realLengths(predictPairs) {
		p := criteria.Pair{Post: strings.Repeat("the day was long ", length/6), Criterion: "feels tired nearly every day"}
		pairs = append(pairs, p)
		texts = append(texts, [2]string{p.Post, p.Criterion})
	}
	var ours, theirs float64
	for round := range 2 { // the first compiles
		start := time.Now()
		if _, err := c.Predict(b.ctx, pairs); err != nil {
			return err
		}
		ours = time.Since(start).Seconds()
		if round == 0 {
			continue
		}
		a, err := b.eager.ask(request{"do": "predict", "pairs": texts})
		if err != nil {
			return err
		}
		theirs = a.Seconds
	}
	fmt.Printf("Prediction of %d pairs in batches of %d: ours %.2f pairs/s, transformers' pipeline %.2f pairs/s, ratio %.2f\n\n",
		predictPairs, predictBatch, predictPairs/ours, predictPairs/theirs, theirs/ours)
	return nil
}
