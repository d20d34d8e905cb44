package criteria

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/criteria-go/criteria/internal/engine"
)

// batcher gathers the pairs of concurrent calls into batches for one session.
//
// A pair waits in a queue until the session is free. Then the pair that has
// waited longest and those that fit it best in length make the next batch: the
// busier the session, the larger the batches. The goroutine that computes them
// exists only while there is something to compute.
type batcher struct {
	session Evaluator
	packs   bool          // the session computes rows of any lengths together without padding
	size    int           // most pairs in a batch
	queue   int           // number of waiting pairs from which on calls are refused
	delay   time.Duration // how long a pair waits for others while the session is free

	mu      sync.Mutex
	waiting []waitingPair // oldest first
	current *batchRun     // nil between batches
	working bool          // whether the goroutine exists
	room    chan struct{} // closed, and replaced, when pairs have left the queue
	full    chan struct{} // holds a token when there may be pairs for a whole batch
	stats   Stats

	worker sync.WaitGroup
}

// waitingPair is a pair of a call that has no answer yet.
type waitingPair struct {
	call  *batchCall
	row   int // in the encodings of the call
	ids   []int32
	since time.Time
}

// batchCall is one call of batcher.evaluate.
type batchCall struct {
	logits []float32 // [2·pairs of the encodings]
	done   chan struct{}

	// Guarded by the batcher's mutex.
	left int // pairs without an answer
	err  error
	gone bool // whether nobody waits for the answers any more
}

// batchRun is the batch being computed.
type batchRun struct {
	pairs  []waitingPair
	cancel context.CancelFunc
}

// packer is what an evaluator may be that can compute rows of any lengths together
// without padding, as the default engine does on the CPU.
type packer interface{ Packs() bool }

func newBatcher(s Evaluator, size, queue int, delay time.Duration) *batcher {
	p, ok := s.(packer)
	return &batcher{
		session: s, packs: ok && p.Packs(), size: size, queue: queue, delay: delay,
		room: make(chan struct{}), full: make(chan struct{}, 1),
	}
}

// windowBatches is how many batches' worth of one call wait at a time: a call
// with many pairs must not keep those with few waiting until all of it is done.
const windowBatches = 8

// evaluate returns the logits of all pairs, two for each. A call that finds the
// queue full is refused with an [*OverloadError] or, if it is patient, waits for
// room. When ctx ends, the call returns at once, and its pairs leave the queue.
func (b *batcher) evaluate(ctx context.Context, e Encodings, patient bool) ([]float32, error) {
	order := make([]int, e.Len())
	for i := range order {
		order[i] = i
	}
	// The longest first: the batch that needs most memory shows at once
	// whether it fits.
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(len(e.At(j)), len(e.At(i))) })
	logits := make([]float32, 2*e.Len())
	for window := range slices.Chunk(order, windowBatches*b.size) {
		if err := b.evaluateRows(ctx, e, window, logits, patient); err != nil {
			return nil, err
		}
		patient = true // once admitted, a call is not refused halfway
	}
	return logits, nil
}

func (b *batcher) evaluateRows(ctx context.Context, e Encodings, rows []int, logits []float32, patient bool) error {
	call := &batchCall{logits: logits, left: len(rows), done: make(chan struct{})}
	b.mu.Lock()
	for len(b.waiting) >= b.queue {
		if !patient {
			err := b.refuse()
			b.mu.Unlock()
			return err
		}
		room := b.room
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		b.mu.Lock()
	}
	now := time.Now()
	for _, row := range rows {
		b.waiting = append(b.waiting, waitingPair{call, row, e.At(row), now})
	}
	if !b.working {
		b.working = true
		b.worker.Go(b.work)
	}
	b.announce()
	b.mu.Unlock()

	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
	}
	b.leave(call)
	return context.Cause(ctx)
}

// admit refuses early what evaluate would refuse: before texts are tokenized.
func (b *batcher) admit() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) >= b.queue {
		return b.refuse()
	}
	return nil
}

// refuse counts a refused call. The mutex is held.
func (b *batcher) refuse() error {
	b.stats.Refused++
	return &OverloadError{Waiting: len(b.waiting), Limit: b.queue}
}

// announce wakes a worker that waits for a full batch. The mutex is held.
func (b *batcher) announce() {
	if len(b.waiting) < b.size {
		return
	}
	select {
	case b.full <- struct{}{}:
	default:
	}
}

// leave takes the pairs of a call out of the queue, and breaks the current
// batch off if nobody waits for any of it.
func (b *batcher) leave(call *batchCall) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(call)
	if b.current != nil && !slices.ContainsFunc(b.current.pairs, func(p waitingPair) bool { return !p.call.gone }) {
		b.current.cancel()
	}
}

// drop takes the pairs of a call out of the queue and forgets the answers to
// those that are being computed. The mutex is held.
func (b *batcher) drop(call *batchCall) {
	call.gone = true
	b.waiting = slices.DeleteFunc(b.waiting, func(p waitingPair) bool { return p.call == call })
	b.makeRoom()
}

// makeRoom tells those who wait for room that there may be some. The mutex is
// held.
func (b *batcher) makeRoom() {
	close(b.room)
	b.room = make(chan struct{})
}

// work computes batches until no pair waits.
func (b *batcher) work() {
	for b.gather() {
		ctx, cancel := context.WithCancel(context.Background())
		b.mu.Lock()
		pairs := b.take()
		b.current = &batchRun{pairs, cancel}
		b.mu.Unlock()
		b.compute(ctx, pairs)
		b.mu.Lock()
		b.current = nil
		b.mu.Unlock()
		cancel()
	}
}

// gather waits until a batch should start: when there are pairs for a full one,
// or the oldest pair has waited long enough. It reports false, and work must
// end, if no pair waits.
func (b *batcher) gather() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.waiting) > 0 {
		wait := b.delay - time.Since(b.waiting[0].since)
		if b.delay == 0 || wait <= 0 || len(b.waiting) >= b.size {
			return true
		}
		b.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-b.full:
		}
		timer.Stop()
		b.mu.Lock()
	}
	b.working = false
	return false
}

// take removes the pairs of the next batch from the queue. The mutex is held.
func (b *batcher) take() []waitingPair {
	if len(b.waiting) == 0 { // their callers have left since
		return nil
	}
	chosen := b.choose()
	batch := make([]waitingPair, 0, len(chosen))
	for _, i := range chosen {
		batch = append(batch, b.waiting[i])
		b.waiting[i].call = nil
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(p waitingPair) bool { return p.call == nil })
	b.makeRoom()
	b.stats.Batches++
	b.stats.Pairs += uint64(len(batch))
	return batch
}

// choose returns the indices of the pairs for the next batch: those that came first,
// unless padding makes others better company.
func (b *batcher) choose() []int {
	if b.packs {
		first := make([]int, min(len(b.waiting), b.size))
		for i := range first {
			first[i] = i
		}
		return first
	}
	// Far back in the queue there may be better company, but it came later.
	near := b.waiting[:min(len(b.waiting), windowBatches*b.size)]
	lengths := make([]int, len(near))
	for i, p := range near {
		lengths[i] = len(p.ids)
	}
	return company(lengths, b.size)
}

// Lengths are computed in steps of so many tokens by the default engine.
const lengthStep = engine.LengthStep

// company returns the indices of at most size pairs that make a batch: the first
// one and those nearest to it in length, as long as no more than a quarter of
// the batch is padding.
func company(lengths []int, size int) []int {
	rounded := func(i int) int { return (lengths[i] + lengthStep - 1) / lengthStep * lengthStep }
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(rounded(i), rounded(j)) })
	// The batch is order[low:high], which grows on the nearer side.
	low := slices.Index(order, 0)
	high := low + 1
	tokens := rounded(0)
	for high-low < size {
		const none = 1 << 30
		below, above := none, none
		if low > 0 {
			below = rounded(0) - rounded(order[low-1])
		}
		if high < len(order) {
			above = rounded(order[high]) - rounded(0)
		}
		if below == none && above == none {
			break
		}
		next, longest := high, 0
		if below <= above {
			next, longest = low-1, rounded(order[high-1])
		} else {
			longest = rounded(order[high])
		}
		sum := tokens + rounded(order[next])
		if 3*(high-low+1)*longest > 4*sum {
			break
		}
		tokens = sum
		low, high = min(low, next), max(high, next+1)
	}
	return order[low:high]
}

// compute evaluates a batch and hands the answers out. If it fails, the calls in
// it are tried one by one: what is wrong with one of them must not be the
// others' problem.
func (b *batcher) compute(ctx context.Context, pairs []waitingPair) {
	if len(pairs) == 0 {
		return
	}
	logits, err := b.run(ctx, pairs)
	if err != nil && ctx.Err() == nil {
		if calls := byCall(pairs); len(calls) > 1 {
			for _, own := range calls {
				b.compute(ctx, own)
			}
			return
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range pairs {
		c := p.call
		switch {
		case c.gone:
		case err != nil:
			c.err = err
			b.drop(c)
			close(c.done)
		default:
			copy(c.logits[2*p.row:], logits[2*i:2*i+2])
			if c.left--; c.left == 0 {
				close(c.done)
			}
		}
	}
}

func (b *batcher) run(ctx context.Context, pairs []waitingPair) ([]float32, error) {
	var e Encodings
	e.Offsets = append(e.Offsets, 0)
	rows := make([]int, len(pairs))
	for i, p := range pairs {
		e.IDs = append(e.IDs, p.ids...)
		e.Offsets = append(e.Offsets, len(e.IDs))
		rows[i] = i
	}
	result, err := b.session.Evaluate(ctx, padded(e, rows, 0))
	if err != nil {
		return nil, err
	}
	if len(result.Logits) != 2*len(pairs) {
		return nil, fmt.Errorf("the engine returned %d logits for %d pairs, want two for each", len(result.Logits), len(pairs))
	}
	for _, x := range result.Logits {
		if !finite(float64(x)) {
			return nil, errors.New("the model computed a logit that is not finite: its weights are damaged")
		}
	}
	return result.Logits, nil
}

// byCall splits pairs by the call that they belong to.
func byCall(pairs []waitingPair) [][]waitingPair {
	var calls [][]waitingPair
	index := make(map[*batchCall]int)
	for _, p := range pairs {
		i, ok := index[p.call]
		if !ok {
			i = len(calls)
			index[p.call] = i
			calls = append(calls, nil)
		}
		calls[i] = append(calls[i], p)
	}
	return calls
}

// snapshot returns the counters.
func (b *batcher) snapshot() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Waiting = len(b.waiting)
	return s
}
