package engine

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
)

// TestStepAllocatesNothing: once every shape was met, a training step makes no
// garbage in Go, whether or not it accumulates and threads help each other.
// (testing.AllocsPerRun would measure on one core, without helpers.)
func TestStepAllocatesNothing(t *testing.T) {
	stockGoroutines()
	for _, optimizer := range []string{adamWFused, adamW8bit} {
		for _, threads := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d threads", optimizer, threads), func(t *testing.T) {
				spec := trainingSpec(t, optimizer)
				spec.Threads = threads
				e := openEngine(t, spec, true)
				var batches []Batch
				for i := range 3 {
					batches = append(batches, randomBatch(uint64(i), 4, 20+40*i))
				}
				step := 0
				take := func(steps int) {
					for range steps {
						for micro := range spec.Training.Accumulation {
							if _, err := e.Accumulate(context.Background(), batches[(step+micro)%len(batches)], step, micro); err != nil {
								t.Fatal(err)
							}
						}
						if _, err := e.Update(context.Background(), 1e-4); err != nil {
							t.Fatal(err)
						}
						step++
					}
				}
				// What is kept for reuse grows at first, by the step and by the processor.
				take(len(batches) * 2)
				const steps = 20
				least := mallocs(func() { take(steps) })
				for range 2 {
					least = min(least, mallocs(func() { take(steps) }))
				}
				if least > steps/2 { // a few may be the runtime's own
					t.Errorf("%d allocations in %d steps", least, steps)
				}
			})
		}
	}
}

// stockGoroutines lets the runtime have goroutines in stock for all processors, so
// that helpers need no new ones.
func stockGoroutines() {
	var group sync.WaitGroup
	release := make(chan struct{})
	for range 1000 {
		group.Go(func() { <-release })
	}
	close(release)
	group.Wait()
}

// mallocs counts the objects that are allocated while f runs.
func mallocs(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties a sync.Pool
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}
