package criteria_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// nativeThreads counts the threads of the process that Go did not start.
func nativeThreads(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Error(err)
	}
	return len(entries) - pprof.Lookup("threadcreate").Count()
}

// inOwnProcess reports whether the test runs in a process of its own, where no other
// test has threads. If it does not, it is run in one.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const child = "CRITERIA_TEST_THREADS"
	if os.Getenv(child) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// trainBriefly trains the sample's model for a little while.
func trainBriefly(t *testing.T, data *criteria.Dataset, seed uint64, opts ...criteria.TrainerOption) (*criteria.Result, error) {
	checkpoint, err := filepath.Abs("testdata/sample/tiny-deberta")
	if err != nil {
		return nil, err
	}
	config := criteria.DefaultConfig()
	config.Train.Epochs, config.Train.BatchSize, config.Train.Seed = 2, 4, seed
	config.Model.Tokenizer.MaxLength = 96
	trainer, err := criteria.NewTrainer(append([]criteria.TrainerOption{criteria.WithConfig(config), criteria.WithCheckpoint(checkpoint),
		criteria.WithDataset(data), criteria.WithOutputDir(t.TempDir())}, opts...)...)
	if err != nil {
		return nil, err
	}
	return trainer.Run(t.Context())
}

// TestThreadPoolOfAnySize: a model has one pool of the threads that were asked for,
// however many graphs it has.
func TestThreadPoolOfAnySize(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	data := fakes.Dataset(16, 3, 3, 1)
	most := func(threads int) int {
		return mostThreads(t, func() {
			if _, err := trainBriefly(t, data, 1, criteria.WithThreads(threads)); err != nil {
				t.Error(err)
			}
		})
	}
	const many = 9 // more than the machine has, or fewer
	if one, all := most(1), most(many); all-one > many-1 {
		t.Errorf("%d threads beside those of Go with WithThreads(%d), %d with WithThreads(1)", all, many, one)
	}
}

// TestOneThreadPool: trainers and classifiers side by side share one pool of
// threads, and compute what they compute one after the other.
func TestOneThreadPool(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	const trainers, classifiers = 3, 2
	data := fakes.Dataset(16, 3, 3, 1)
	var pairs []criteria.Pair
	for _, e := range data.Train {
		pairs = append(pairs, e.Pair)
	}
	predict := func(ctx context.Context, r *criteria.Result) ([]criteria.Prediction, error) {
		c, err := r.Classifier(ctx)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.Predict(ctx, pairs)
	}

	type outcome struct {
		History []criteria.EpochScores
		Test    criteria.Scores
		Answers []criteria.Prediction
	}
	// work trains, and judges with the first model of all meanwhile.
	var first *criteria.Result
	work := func(i int) (o outcome, err error) {
		if i < trainers {
			r, err := trainBriefly(t, data, uint64(i))
			if err != nil {
				return o, err
			}
			if first == nil {
				first = r
			}
			return outcome{History: r.History, Test: r.Test}, nil
		}
		o.Answers, err = predict(t.Context(), first)
		return o, err
	}
	var want, got [trainers + classifiers]outcome
	alone := mostThreads(t, func() {
		for i := range want {
			var err error
			if want[i], err = work(i); err != nil {
				t.Fatal(err)
			}
		}
	})
	together := mostThreads(t, func() {
		var group sync.WaitGroup
		for i := range got {
			group.Go(func() {
				var err error
				if got[i], err = work(i); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("one after the other and at the same time (-want +got):\n%s", diff)
	}
	if together > alone {
		t.Errorf("%d threads beside those of Go, want no more than the %d of one model at a time", together, alone)
	}
}

// mostThreads returns the most native threads that there are while f runs. Those
// of a pool live longer than it takes to look twenty times; threads of an earlier
// pool that are just ending do not count.
func mostThreads(t *testing.T, f func()) int {
	stop, most := make(chan struct{}), make(chan int)
	go func() {
		var seen [20]int
		n := 0
		for i := 0; ; i++ {
			seen[i%len(seen)] = nativeThreads(t)
			if i >= len(seen) {
				n = max(n, slices.Min(seen[:]))
			}
			select {
			case <-stop:
				most <- n
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	return <-most
}
