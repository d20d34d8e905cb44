package optim

import (
	"sync"
	"sync/atomic"
)

// Parallel calls f for the parts [from, to) of n elements, size of them in each
// but the last, on up to the given number of threads, and returns when all are
// done. Which thread gets which part is left to chance: f must not depend on it.
func Parallel(n, size, threads int, f func(index, from, to int)) {
	parts := (n + size - 1) / size
	call := func(i int) { f(i, i*size, min((i+1)*size, n)) }
	if threads = min(threads, parts); threads <= 1 {
		for i := range parts {
			call(i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	work := func() {
		for i := int(next.Add(1)) - 1; i < parts; i = int(next.Add(1)) - 1 {
			call(i)
		}
	}
	for range threads - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
}
