package criteria

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// slowSession answers every pair with its first id as the logit of class 1. A
// batch takes a second, or ends with its context. A pair that begins with -1
// breaks its batch.
type slowSession struct {
	Session // nil: nothing else may be called

	mu      sync.Mutex
	batches [][]int64 // first ids of the rows
	ended   int       // batches whose context ended
}

var errBroken = errors.New("broken")

func (s *slowSession) Evaluate(ctx context.Context, b Batch) (BatchResult, error) {
	var ids []int64
	var r BatchResult
	for row := range b.Rows {
		id := b.InputIDs[row*b.Length]
		ids = append(ids, id)
		r.Logits = append(r.Logits, 0, float32(id))
	}
	s.mu.Lock()
	s.batches = append(s.batches, ids)
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		s.mu.Lock()
		s.ended++
		s.mu.Unlock()
		return BatchResult{}, context.Cause(ctx)
	}
	if slices.Contains(ids, -1) {
		return BatchResult{}, errBroken
	}
	return r, nil
}

// encoded makes pairs of one length, which begin with the given ids.
func encoded(length int, ids ...int32) Encodings {
	e := Encodings{Offsets: []int{0}}
	for _, id := range ids {
		e.IDs = append(e.IDs, id)
		e.IDs = append(e.IDs, make([]int32, length-1)...)
		e.Offsets = append(e.Offsets, len(e.IDs))
		e.Truncated = append(e.Truncated, false)
	}
	return e
}

func answers(ids ...int32) []float32 {
	var logits []float32
	for _, id := range ids {
		logits = append(logits, 0, float32(id))
	}
	return logits
}

// While a batch is computed others gather; the answers find their way home.
func TestBatcherGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSession{}
		b := newBatcher(s, 4, 100, 0)
		var wg sync.WaitGroup
		for id := range int32(10) {
			wg.Go(func() {
				time.Sleep(time.Duration(id) * time.Millisecond)
				got, err := b.evaluate(t.Context(), encoded(5, id, id+100), false)
				if diff := cmp.Diff(answers(id, id+100), got); err != nil || diff != "" {
					t.Errorf("call %d: %v (-want +got):\n%s", id, err, diff)
				}
			})
		}
		wg.Wait()
		b.worker.Wait()
		want := [][]int64{{0, 100}, {1, 101, 2, 102}, {3, 103, 4, 104}, {5, 105, 6, 106}, {7, 107, 8, 108}, {9, 109}}
		if diff := cmp.Diff(want, s.batches); diff != "" {
			t.Errorf("batches (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(Stats{Pairs: 20, Batches: 6}, b.snapshot()); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
	})
}

// A pair that waits for company waits no longer than allowed, and not at all
// once the batch is full.
func TestBatcherWaitsForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSession{}
		b := newBatcher(s, 3, 100, 50*time.Millisecond)
		call := func(id int32, want time.Duration) func() {
			return func() {
				started := time.Now()
				if _, err := b.evaluate(t.Context(), encoded(5, id), false); err != nil {
					t.Error(err)
				}
				if took := time.Since(started); took != want {
					t.Errorf("call %d took %v; want %v", id, took, want)
				}
			}
		}
		var wg sync.WaitGroup
		wg.Go(call(1, 1050*time.Millisecond))
		time.Sleep(20 * time.Millisecond)
		wg.Go(call(2, 1030*time.Millisecond))
		wg.Wait()
		wg.Go(call(3, 1010*time.Millisecond))
		time.Sleep(10 * time.Millisecond)
		wg.Go(call(4, time.Second))
		wg.Go(call(5, time.Second))
		wg.Wait()
		b.worker.Wait()
		if len(s.batches) != 2 {
			t.Errorf("batches %v; want 2", s.batches)
		}
	})
}

// Whoever stops waiting gets his answer at once and spoils nothing; a batch that
// nobody waits for is broken off.
func TestBatcherCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSession{}
		b := newBatcher(s, 2, 100, 0)
		cause := errors.New("had enough")
		var wg sync.WaitGroup
		impatient := func(id int32, patience time.Duration) func() {
			return func() {
				ctx, cancel := context.WithTimeoutCause(t.Context(), patience, cause)
				defer cancel()
				started := time.Now()
				if _, err := b.evaluate(ctx, encoded(5, id), false); !errors.Is(err, cause) || time.Since(started) != patience {
					t.Errorf("call %d: %v after %v; want the cause after %v", id, err, time.Since(started), patience)
				}
			}
		}
		wg.Go(func() { // fills the first batch together with the next
			if got, err := b.evaluate(t.Context(), encoded(5, 1), false); err != nil || got[1] != 1 {
				t.Errorf("%v, %v; want the answer", got, err)
			}
		})
		synctest.Wait()
		wg.Go(impatient(2, 100*time.Millisecond)) // leaves while it waits
		synctest.Wait()
		wg.Go(impatient(3, 1200*time.Millisecond)) // leaves while it is computed
		wg.Go(func() {
			if got, err := b.evaluate(t.Context(), encoded(5, 4), false); err != nil || got[1] != 4 {
				t.Errorf("%v, %v; want the answer", got, err)
			}
		})
		wg.Wait()
		b.worker.Wait()
		if len(s.batches) != 2 || s.ended != 0 {
			t.Errorf("batches %v, of which %d were broken off; want 2 and none", s.batches, s.ended)
		}
		wg.Go(impatient(5, 300*time.Millisecond)) // alone: its batch is in vain
		wg.Wait()
		b.worker.Wait()
		if s.ended != 1 {
			t.Errorf("%d batches were broken off; want 1", s.ended)
		}
	})
}

func TestBatcherRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSession{}
		b := newBatcher(s, 1, 2, 0)
		var wg sync.WaitGroup
		for id := range int32(3) { // one is computed, two wait
			wg.Go(func() {
				if _, err := b.evaluate(t.Context(), encoded(5, id), false); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		want := &OverloadError{Waiting: 2, Limit: 2}
		for _, err := range []error{b.admit(), func() error { _, err := b.evaluate(t.Context(), encoded(5, 9), false); return err }()} {
			var got *OverloadError
			if !errors.Is(err, ErrOverloaded) || !errors.As(err, &got) || *got != *want {
				t.Errorf("error %v; want %v", err, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if _, err := b.evaluate(ctx, encoded(5, 9), true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a patient call: %v; want the end of its context", err)
		}
		if got, err := b.evaluate(t.Context(), encoded(5, 9), true); err != nil || got[1] != 9 {
			t.Errorf("a patient call: %v, %v; want the answer", got, err)
		}
		wg.Wait()
		b.worker.Wait()
		if got := b.snapshot(); got != (Stats{Pairs: 4, Batches: 4, Refused: 2}) {
			t.Errorf("stats %+v", got)
		}
	})
}

// What one call did wrong is not the others' problem, and the rest of a call
// that failed is not computed.
func TestBatcherIsolatesFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowSession{}
		b := newBatcher(s, 4, 100, time.Millisecond)
		var wg sync.WaitGroup
		for _, ids := range [][]int32{{1}, {-1, 2, 3, 4, 5, 6}, {7}} {
			wg.Go(func() {
				got, err := b.evaluate(t.Context(), encoded(5, ids...), false)
				if ids[0] == -1 {
					if !errors.Is(err, errBroken) {
						t.Errorf("the broken call: %v, %v", got, err)
					}
				} else if diff := cmp.Diff(answers(ids...), got); err != nil || diff != "" {
					t.Errorf("call %v: %v (-want +got):\n%s", ids, err, diff)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		b.worker.Wait()
		if n := len(b.waiting); n != 0 {
			t.Errorf("%d pairs are left in the queue", n)
		}
	})
}

// A long call comes in portions, so that a short one need not wait for all of it.
func TestBatcherIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBatcher(&slowSession{}, 1, 1, 0)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.evaluate(t.Context(), encoded(5, make([]int32, 100)...), false); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		started := time.Now()
		if _, err := b.evaluate(t.Context(), encoded(5, 1), true); err != nil {
			t.Error(err)
		}
		if took := time.Since(started); took > 2*windowBatches*time.Second {
			t.Errorf("the short call took %v of the long one's 100s", took)
		}
		wg.Wait()
		b.worker.Wait()
	})
}

func TestCompany(t *testing.T) {
	for name, tc := range map[string]struct {
		lengths []int
		size    int
		want    []int // lengths, sorted
	}{
		"alone":                       {[]int{40}, 8, []int{40}},
		"all alike":                   {[]int{40, 41, 42}, 8, []int{40, 41, 42}},
		"no more than fit":            {[]int{40, 41, 42}, 2, []int{40, 41}},
		"no long one to a short one":  {[]int{10, 500, 12}, 8, []int{10, 12}},
		"no short one to a long one":  {[]int{500, 10, 480, 12}, 8, []int{480, 500}},
		"the oldest is always in":     {[]int{500, 10, 10, 10, 10}, 2, []int{500}},
		"a little padding is fine":    {[]int{40, 70, 65}, 8, []int{40, 65, 70}},
		"much padding is not":         {[]int{33, 40, 40, 40, 70}, 8, []int{33, 40, 40, 40}},
		"the nearest, on either side": {[]int{200, 190, 180, 240, 250, 100}, 3, []int{180, 190, 200}},
	} {
		var got []int
		for _, i := range company(tc.lengths, tc.size) {
			got = append(got, tc.lengths[i])
		}
		slices.Sort(got)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestCompanyHolds checks the promises for queues of all kinds.
func TestCompanyHolds(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		lengths := make([]int, 1+random.IntN(100))
		for i := range lengths {
			lengths[i] = 1 + random.IntN(512)
		}
		size := 1 + random.IntN(40)
		chosen := company(lengths, size)
		seen := make(map[int]bool)
		longest, tokens := 0, 0
		for _, i := range chosen {
			if seen[i] {
				t.Fatalf("%d is in the batch twice", i)
			}
			seen[i] = true
			rounded := (lengths[i] + lengthStep - 1) / lengthStep * lengthStep
			longest, tokens = max(longest, rounded), tokens+rounded
		}
		if !seen[0] || len(chosen) > size || 3*len(chosen)*longest > 4*tokens {
			t.Fatalf("company(%v, %d) = %v", lengths, size, chosen)
		}
	}
}

// packingSession computes rows of any lengths together without padding.
type packingSession struct{ slowSession }

func (*packingSession) Packs() bool { return true }

// Where nothing is padded, pairs of any lengths are computed together, in the order in
// which they came; else those of one length are.
func TestBatcherMixesLengths(t *testing.T) {
	for _, packs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := &packingSession{}
			var session Evaluator = s
			want := [][]int64{{0}, {1, 2, 3, 4}}
			if !packs {
				session, want = &s.slowSession, [][]int64{{0}, {1, 3}, {2, 4}}
			}
			b := newBatcher(session, 4, 100, 0)
			var wg sync.WaitGroup
			for id := range int32(5) {
				wg.Go(func() {
					time.Sleep(time.Duration(id) * time.Millisecond)
					length := 5
					if id%2 == 0 {
						length = 400
					}
					got, err := b.evaluate(t.Context(), encoded(length, id), false)
					if diff := cmp.Diff(answers(id), got); err != nil || diff != "" {
						t.Errorf("call %d: %v (-want +got):\n%s", id, err, diff)
					}
				})
			}
			wg.Wait()
			b.worker.Wait()
			if diff := cmp.Diff(want, s.batches); diff != "" {
				t.Errorf("packs: %t: batches (-want +got):\n%s", packs, diff)
			}
		})
	}
}
