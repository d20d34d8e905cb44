// Package parallel divides loops among the cores of the machine.
package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Task is a loop whose iterations do not depend on each other. Long-lived ones,
// by pointer, make [Run] allocate nothing.
type Task interface {
	// Do works on one part of the loop, while others may be worked on by other
	// goroutines.
	Do(part int)
}

// Func is a task that is a function.
type Func func(part int)

// Do calls f.
func (f Func) Do(part int) { f(part) }

// helpers counts the goroutines that help with a loop anywhere in the process: it
// is the cores of the process that they share.
var helpers atomic.Int64

// Run calls task.Do for all parts from 0 on and returns when all are done. The
// goroutine of the caller works too, and others help it, as many as make the
// given number of threads. When several loops run at the same time, all of them
// together have no more helpers than the process has cores but one, so that
// trainers side by side do not fight for them.
//
// Which goroutine does which part is left to chance, and so is how many there
// are: results must not depend on it.
func Run(parts, threads int, task Task) {
	l := loops.Get().(*loop)
	l.task, l.parts = task, int64(parts)
	l.next.Store(0)
	for range claim(min(threads, parts) - 1) {
		l.helping.Add(1)
		go l.help()
	}
	l.work()
	l.helping.Wait()
	l.task = nil
	loops.Put(l)
}

// claim returns how many of the wanted helpers there are cores for.
func claim(wanted int) int {
	for {
		busy := helpers.Load()
		n := min(int64(wanted), int64(runtime.GOMAXPROCS(0)-1)-busy)
		if n <= 0 {
			return 0
		}
		if helpers.CompareAndSwap(busy, busy+n) {
			return int(n)
		}
	}
}

// loop is one that runs.
type loop struct {
	task    Task
	parts   int64
	next    atomic.Int64
	helping sync.WaitGroup
	help    func() // made once: a go statement with arguments would allocate
}

// loops keeps what Run needs for the next call.
var loops = sync.Pool{New: func() any {
	l := &loop{}
	l.help = func() {
		l.work()
		helpers.Add(-1)
		l.helping.Done()
	}
	return l
}}

func (l *loop) work() {
	for i := l.next.Add(1) - 1; i < l.parts; i = l.next.Add(1) - 1 {
		l.task.Do(int(i))
	}
}
