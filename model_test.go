package criteria_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// trained returns the folder of a model that tells posts with "sign" apart.
func trained(t *testing.T) (*bench, string) {
	t.Helper()
	b := newBench(t)
	b.config.Train.Epochs, b.config.Train.EarlyStoppingPatience = 4, 0
	return b, b.run(t).ModelDir()
}

func load(t *testing.T, b *bench, dir string, opts ...criteria.LoadOption) *criteria.Classifier {
	t.Helper()
	c, err := criteria.Load(t.Context(), dir, append([]criteria.LoadOption{criteria.WithEngine(b.engine), criteria.WithTokenizer(&fakes.Tokenizer{})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// pairs of many lengths; those with an even number have the sign.
func manyPairs(n int) []criteria.Pair {
	pairs := make([]criteria.Pair, n)
	for i := range pairs {
		for j := range 1 + i*7%23 {
			pairs[i].Post += fmt.Sprintf("word%d ", (i+j)%50)
		}
		if i%2 == 0 {
			pairs[i].Post += "sign"
		}
		pairs[i].Criterion = "criterion0"
	}
	return pairs
}

func TestPredictKeepsTheOrder(t *testing.T) {
	b, dir := trained(t)
	pairs := manyPairs(100)
	want := make([]criteria.Prediction, len(pairs))
	one := load(t, b, dir, criteria.WithBatchSize(1))
	for i, p := range pairs { // one by one there is no order to lose
		single, err := one.Predict(t.Context(), []criteria.Pair{p})
		if err != nil {
			t.Fatal(err)
		}
		want[i] = single[0]
	}
	for _, size := range []int{1, 7, 64, 1000} {
		got, err := load(t, b, dir, criteria.WithBatchSize(size)).Predict(t.Context(), pairs)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("batches of %d (-want +got):\n%s", size, diff)
		}
	}
	if want[0].Probability <= want[1].Probability {
		t.Errorf("probabilities %v with the sign and %v without; the test shows nothing", want[0], want[1])
	}
	for i, p := range want {
		if p.Probability < 0 || p.Probability > 1 || p.Label != (p.Probability > 0.5) {
			t.Errorf("prediction %d: %+v", i, p)
		}
	}
}

func TestPredictNothing(t *testing.T) {
	b, dir := trained(t)
	got, err := load(t, b, dir).Predict(t.Context(), nil)
	if len(got) != 0 || err != nil {
		t.Errorf("Predict(nil) = %v, %v; want nothing", got, err)
	}
}

// max_length is that of the training: 32 tokens.
func TestPredictTruncates(t *testing.T) {
	b, dir := trained(t)
	long := criteria.Pair{Post: fmt.Sprint(make([]int, 40)), Criterion: "c"}
	got, err := load(t, b, dir).Predict(t.Context(), []criteria.Pair{long, {Post: "short", Criterion: "c"}})
	if err != nil || !got[0].Truncated || got[1].Truncated {
		t.Errorf("Predict() = %+v, %v; want only the first to be cut", got, err)
	}
}

func TestPredictSeq(t *testing.T) {
	b, dir := trained(t)
	c := load(t, b, dir, criteria.WithBatchSize(3))
	pairs := manyPairs(100)
	want, err := c.Predict(t.Context(), pairs)
	if err != nil {
		t.Fatal(err)
	}
	var got []criteria.Prediction
	for p, err := range c.PredictSeq(t.Context(), slices.Values(pairs)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n := 0
	for range c.PredictSeq(t.Context(), slices.Values(pairs)) {
		if n++; n == 30 {
			break
		}
	}
	if n != 30 {
		t.Errorf("%d predictions before the break; want 30", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for p, err := range c.PredictSeq(ctx, slices.Values(pairs)) {
		if !errors.Is(err, context.Canceled) || p != (criteria.Prediction{}) {
			t.Errorf("with a cancelled context: %v, %v", p, err)
		}
		n++
	}
	if n != 31 {
		t.Errorf("the error came %d times; want it once", n-30)
	}
}

func TestPredictConcurrently(t *testing.T) {
	b, dir := trained(t)
	c := load(t, b, dir, criteria.WithBatchSize(4))
	pairs := manyPairs(40)
	want, err := c.Predict(t.Context(), pairs)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := c.Predict(t.Context(), pairs)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	wg.Wait()
}

func TestCloseWaits(t *testing.T) {
	b, dir := trained(t)
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.engine.Result = func(string, criteria.Batch, *criteria.BatchResult) {
		once.Do(func() { close(started) })
		<-release
	}
	c := load(t, b, dir)
	var wg sync.WaitGroup
	wg.Go(func() {
		if p, err := c.Predict(t.Context(), manyPairs(3)); err != nil || len(p) != 3 {
			t.Errorf("the running Predict: %v, %v; want it to end well", p, err)
		}
	})
	<-started
	closed := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			select {
			case <-release:
			default:
				t.Error("Close returned while Predict was running")
			}
		})
	}
	wg.Go(func() {
		for { // Close has begun when new calls are refused
			if _, err := c.Predict(t.Context(), nil); errors.Is(err, criteria.ErrClosed) {
				close(closed)
				return
			}
		}
	})
	<-closed
	close(release)
	wg.Wait()
	if _, err := c.Predict(t.Context(), manyPairs(1)); !errors.Is(err, criteria.ErrClosed) {
		t.Errorf("Predict after Close: %v; want ErrClosed", err)
	}
}

func TestLoadFails(t *testing.T) {
	b, dir := trained(t)
	broken := errors.New("broken")
	empty := t.TempDir()
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "training_config.yaml"), []byte("model: {tokenizer: {max_length: -1}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dir  string
		opts []criteria.LoadOption
		want error
	}{
		"no folder":     {filepath.Join(empty, "none"), nil, os.ErrNotExist},
		"no tokenizer":  {empty, nil, os.ErrNotExist},
		"bad record":    {bad, nil, criteria.ErrInvalidConfig},
		"engine":        {dir, []criteria.LoadOption{criteria.WithTokenizer(&fakes.Tokenizer{}), criteria.WithEngine(&fakes.Engine{Before: func(string) error { return broken }})}, broken},
		"nil tokenizer": {dir, []criteria.LoadOption{criteria.WithTokenizer(nil)}, criteria.ErrInvalidOption},
		"batch size":    {dir, []criteria.LoadOption{criteria.WithBatchSize(0)}, criteria.ErrInvalidOption},
		"nil option":    {dir, []criteria.LoadOption{nil}, criteria.ErrInvalidOption},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := criteria.Load(t.Context(), tc.dir, append([]criteria.LoadOption{criteria.WithEngine(b.engine)}, tc.opts...)...)
			if c != nil || !errors.Is(err, tc.want) {
				t.Errorf("Load() = %v, %v; want error %v", c, err, tc.want)
			}
		})
	}
}
