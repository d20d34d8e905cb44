// Package parallel divides loops among the cores of the machine.
//
// When several loops run at the same time, all of them together have no more
// helpers than the process has cores but one, so that trainers side by side do
// not fight for the cores. Which goroutine does which part of a loop is left to
// chance, and so is how many there are: results must not depend on it.
package parallel

import (
	"sync"
	"sync/atomic"
)

// Do calls body for all parts from 0 on and returns when all are done. The
// goroutine of the caller works too, and others help it, as many as make the
// given number of threads.
func Do(parts, threads int, body func(part int)) { functions.Run(parts, threads, body) }

var functions = New(func(body *func(part int), part int) { (*body)(part) })

// Loop is a loop that runs again and again, with other arguments each time, and
// then allocates nothing.
type Loop[A any] struct {
	body func(args *A, part int)

	mu   sync.Mutex
	idle []*run[A] // as many as there ever were at the same time
}

// New returns a loop of parts that do not depend on each other. The body must not
// change what args points to.
func New[A any](body func(args *A, part int)) *Loop[A] { return &Loop[A]{body: body} }

// Run calls the body for all parts from 0 on, as [Do] does. It may be called by
// several goroutines at the same time.
func (l *Loop[A]) Run(parts, threads int, args A) {
	r := l.take()
	r.args, r.parts = args, int64(parts)
	r.next.Store(0)
	for range claim(min(threads, parts) - 1) {
		r.helping.Add(1)
		go r.help()
	}
	r.work()
	r.helping.Wait()
	var none A
	r.args = none // nothing that it refers to is kept alive
	l.mu.Lock()
	l.idle = append(l.idle, r)
	l.mu.Unlock()
}

// take returns a run that is idle.
func (l *Loop[A]) take() *run[A] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := len(l.idle) - 1; last >= 0 {
		r := l.idle[last]
		l.idle = l.idle[:last]
		return r
	}
	r := &run[A]{loop: l}
	r.help = func() {
		r.work()
		helpers.Add(-1)
		r.helping.Done()
	}
	return r
}

// run is one of a loop.
type run[A any] struct {
	loop    *Loop[A]
	args    A
	parts   int64
	next    atomic.Int64
	helping sync.WaitGroup
	help    func() // made once: a go statement with arguments would allocate
}

func (r *run[A]) work() {
	for i := r.next.Add(1) - 1; i < r.parts; i = r.next.Add(1) - 1 {
		r.loop.body(&r.args, int(i))
	}
}

// helpers counts the goroutines that help with a loop anywhere in the process: it
// is the cores of the process that they share.
var helpers atomic.Int64

// claim returns how many of the wanted helpers there are cores for.
func claim(wanted int) int {
	for {
		busy := helpers.Load()
		n := min(int64(wanted), int64(Cores()-1)-busy)
		if n <= 0 {
			return 0
		}
		if helpers.CompareAndSwap(busy, busy+n) {
			return int(n)
		}
	}
}
