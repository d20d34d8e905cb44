//go:build linux

package criteria_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// manyEngine names, in the environment, the engine of the trainings that
// TestMain does instead of running tests, one after another.
const manyEngine = "CRITERIA_TEST_MANY_ENGINE"

// usage is what a process holds.
type usage struct {
	RSS        int // kB
	Files      int
	Goroutines int
	Threads    int
}

func measure() (u usage, err error) {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // a sync.Pool lasts until the second collection
	u.Goroutines = runtime.NumGoroutine()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return u, err
	}
	u.Files = len(entries)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &u.RSS)
		_, _ = fmt.Sscanf(line, "Threads: %d", &u.Threads)
	}
	return u, nil
}

// The trainings of trainMany, and the windows of them in which it measures: the
// first after the process has warmed up, and the last.
const (
	manyTrainings = 200
	manyWindow    = 40
	manyWarmUp    = 20
)

// trainMany trains and predicts again and again and prints what the process
// holds after each training in one of the windows.
func trainMany(engine, checkpoint string) error {
	dir, err := os.MkdirTemp("", "criteria-many-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data := fakes.Dataset(3, 3, 3, 1)
	config := criteria.DefaultConfig()
	config.Train.Epochs, config.Train.BatchSize, config.Train.KeepCheckpoints = 1, 16, 0
	config.Model.Head.HiddenDims, config.Model.Tokenizer.MaxLength = []int{8}, 32
	opts := []criteria.TrainerOption{
		criteria.WithConfig(config), criteria.WithCheckpoint(checkpoint), criteria.WithDataset(data), criteria.WithThreads(1), criteria.WithOutputDir(dir),
	}
	if engine == "fake" { // which leaves time for a tracker
		tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(filepath.Join(dir, "mlruns")), criteria.WithExperiment("many"))
		if err != nil {
			return err
		}
		opts = append(opts, criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}), criteria.WithTracker(tracker))
	}
	for i := range manyTrainings {
		trainer, err := criteria.NewTrainer(opts...)
		if err != nil {
			return err
		}
		result, err := trainer.Run(context.Background())
		if err != nil {
			return err
		}
		classifier, err := result.Classifier(context.Background())
		if err != nil {
			return err
		}
		_, err = classifier.Predict(context.Background(), []criteria.Pair{data.Test[0].Pair})
		if err := errors.Join(err, classifier.Close(), os.RemoveAll(filepath.Join(dir, "mlruns"))); err != nil {
			return err
		}
		if i < manyWarmUp || i >= manyWarmUp+manyWindow && i < manyTrainings-manyWindow {
			continue
		}
		u, err := measure()
		if err != nil {
			return err
		}
		fmt.Printf("%d %d %d %d\n", u.RSS, u.Files, u.Goroutines, u.Threads)
	}
	return nil
}

// TestManyTrainings: a program that trains all day does not grow, neither with
// the fake engine nor with ONNX Runtime.
func TestManyTrainings(t *testing.T) {
	for _, engine := range []string{"fake", "onnxruntime"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program)
			// One heap in the C library: how many there are, and how full each is,
			// depends on which threads happen to work at the same time.
			cmd.Env = append(os.Environ(), manyEngine+"="+engine, "MALLOC_ARENA_MAX=1")
			cmd.Stderr = t.Output()
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var seen []usage
			for line := range strings.Lines(string(out)) {
				var u usage
				if _, err := fmt.Sscanf(line, "%d %d %d %d", &u.RSS, &u.Files, &u.Goroutines, &u.Threads); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				seen = append(seen, u)
			}
			if len(seen) != 2*manyWindow {
				t.Fatalf("%d measurements, want %d", len(seen), 2*manyWindow)
			}
			// The least in a window: a single look depends on what Go's collector
			// has just done, and what is never given back again is in all of them.
			before, after := least(seen[:manyWindow]), least(seen[manyWindow:])
			t.Logf("after %d trainings %+v, after %d %+v: %+.1f %% RSS", manyWarmUp+manyWindow, before, manyTrainings, after, 100*(float64(after.RSS)/float64(before.RSS)-1))
			if float64(after.RSS) > 1.05*float64(before.RSS) {
				t.Errorf("RSS grew from %d to %d kB, want at most 5 %%", before.RSS, after.RSS)
			}
			if after.Files > before.Files || after.Goroutines > before.Goroutines || after.Threads > before.Threads+2 { // Go starts threads as it needs them
				t.Errorf("something is left: %+v after %d trainings, %+v after %d", before, manyWarmUp+manyWindow, after, manyTrainings)
			}
		})
	}
}

func least(all []usage) usage {
	u := all[0]
	for _, v := range all[1:] {
		u = usage{min(u.RSS, v.RSS), min(u.Files, v.Files), min(u.Goroutines, v.Goroutines), min(u.Threads, v.Threads)}
	}
	return u
}
