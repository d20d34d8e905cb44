package criteria_test

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/criteria-go/criteria"
)

// TestLoopAllocatesNothing: around an engine that computes nothing, a step of the
// loop makes no garbage: batches are built in the memory of earlier ones, and
// results become part of the state without any of their own.
func TestLoopAllocatesNothing(t *testing.T) {
	const batch, from, to = 4, 100, 500 // micro-batches
	data, _ := longPosts(batch * to)
	checkpoint := emptyCheckpoint(t)
	for _, accumulation := range []int{1, 2} {
		t.Run(fmt.Sprintf("accumulation=%d", accumulation), func(t *testing.T) {
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			config := criteria.DefaultConfig()
			config.Model.Checkpoint = checkpoint
			config.Train.Epochs, config.Train.BatchSize, config.Train.GradientAccumulationSteps = 1, batch, accumulation
			// What else the process does meanwhile counts, too: garbage of the loop's
			// own is there every time. A few may be the runtime's own.
			least := uint64(math.MaxUint64)
			for range 3 {
				if least = min(least, allocations(t, config, data, from, to)); least <= (to-from)/20 {
					return
				}
			}
			t.Errorf("%d allocations in %d micro-batches", least, to-from)
		})
	}
}

// allocations counts those between two steps of a training around an engine that
// computes nothing.
func allocations(t *testing.T, config criteria.Config, data *criteria.Dataset, from, to int) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	step := 0
	hooks := criteria.Hooks{Step: func(e criteria.StepEvent) {
		switch step++; step {
		case from:
			runtime.ReadMemStats(&before)
		case to:
			runtime.ReadMemStats(&after)
		}
	}}
	trainer, err := criteria.NewTrainer(criteria.WithConfig(config), criteria.WithDataset(data), criteria.WithEngine(&idleEngine{}),
		criteria.WithTokenizer(idleTokenizer{}), criteria.WithOutputDir(t.TempDir()), criteria.WithHooks(hooks))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return after.Mallocs - before.Mallocs
}
