package criteria_test

import (
	"fmt"
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
			// A few may be the runtime's own.
			if n := after.Mallocs - before.Mallocs; n > (to-from)/20 {
				t.Errorf("%d allocations in %d micro-batches", n, to-from)
			}
		})
	}
}
