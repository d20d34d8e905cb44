package parallel_test

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/criteria-go/criteria/internal/parallel"
)

// counter counts how often each part was done, and how many at a time.
type counter struct {
	done      []atomic.Int64
	now, most atomic.Int64
}

func (c *counter) count(part int) {
	now := c.now.Add(1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	runtime.Gosched()
	c.done[part].Add(1)
	c.now.Add(-1)
}

var counting = parallel.New(func(c **counter, part int) { (*c).count(part) })

func TestDo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	for _, parts := range []int{0, 1, 2, 3, 100} {
		for _, threads := range []int{-1, 0, 1, 2, 3, 8} {
			c := &counter{done: make([]atomic.Int64, parts)}
			parallel.Do(parts, threads, c.count)
			for i := range c.done {
				if n := c.done[i].Load(); n != 1 {
					t.Errorf("%d parts on %d threads: part %d was done %d times", parts, threads, i, n)
				}
			}
			if most := int(c.most.Load()); most > max(1, min(parts, threads, 4)) {
				t.Errorf("%d parts on %d threads: %d at a time", parts, threads, most)
			}
		}
	}
}

// Many loops at the same time do not have many times the helpers.
func TestLoopsShareCores(t *testing.T) {
	const cores, callers = 4, 6
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
	all := &counter{done: make([]atomic.Int64, 200)}
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for range 50 {
				counting.Run(len(all.done), 8, all)
			}
		})
	}
	group.Wait()
	if most, limit := all.most.Load(), int64(callers+cores-1); most > limit {
		t.Errorf("%d goroutines at a time, want at most the %d callers and %d helpers", most, callers, cores-1)
	}
	for i := range all.done {
		if n := all.done[i].Load(); n != 50*callers {
			t.Errorf("part %d was done %d times, want %d", i, n, 50*callers)
		}
	}
	if n := parallel.Helpers(); n != 0 {
		t.Errorf("%d helpers after the last loop", n)
	}
}

// A loop allocates nothing, once there were some. (testing.AllocsPerRun would
// measure on one core, without helpers.)
func TestLoopAllocatesNothing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties a sync.Pool
	c := &counter{done: make([]atomic.Int64, 64)}
	const loops = 1000
	var before, after runtime.MemStats
	for range 2 {
		runtime.ReadMemStats(&before)
		for range loops {
			counting.Run(len(c.done), 4, c)
		}
		runtime.ReadMemStats(&after)
	}
	// A few are the runtime's own, for goroutines.
	if n := after.Mallocs - before.Mallocs; n > loops/2 {
		t.Errorf("%d allocations in %d loops", n, loops)
	}
}
