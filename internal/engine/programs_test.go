package engine

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// keyed is a program that notes when it is closed.
type keyed struct {
	key    programKey
	closed *[]programKey
	err    error
}

func (p *keyed) close() error {
	*p.closed = append(*p.closed, p.key)
	return p.err
}

// The program that was not used for the longest time makes room.
func TestProgramsLeastRecentlyUsed(t *testing.T) {
	var closed []programKey
	key := func(rows int) programKey { return programKey{evaluation, rows, 32} }
	s := newPrograms[*keyed]()
	s.limit = 3
	use := func(rows int) {
		t.Helper()
		if p, ok := s.get(key(rows)); ok {
			if p.key != key(rows) {
				t.Errorf("got the program of %v for %v", p.key, key(rows))
			}
			return
		}
		s.met(key(rows))
		if err := s.add(key(rows), &keyed{key(rows), &closed, nil}); err != nil {
			t.Error(err)
		}
		if len(s.entries) > s.limit {
			t.Errorf("%d programs, want at most %d", len(s.entries), s.limit)
		}
	}
	for _, rows := range []int{1, 2, 9, 1, 4, 2, 2, 5, 1} {
		use(rows)
	}
	if diff := cmp.Diff([]programKey{key(2), key(9), key(1), key(4)}, closed, cmp.AllowUnexported(programKey{})); diff != "" {
		t.Errorf("closed (-want +got):\n%s", diff)
	}
	if s.largest != key(9) {
		t.Errorf("the largest shape is %v, want %v although it was closed", s.largest, key(9))
	}
	broken := errors.New("broken")
	s.entries[key(1)].program.err = broken
	if err := s.close(); !errors.Is(err, broken) || len(closed) != 4+3 || len(s.entries) != 0 {
		t.Errorf("close: %v, %d were closed and %d are left", err, len(closed), len(s.entries))
	}
}

// An engine that keeps a single graph computes the same bits as one that keeps
// all: while gradients are accumulated, and when the masks' buffer is replaced.
func TestFewPrograms(t *testing.T) {
	type outcome struct {
		Losses []float64
		Logits [][]float32
		Params []float32
	}
	run := func(limit int) (o outcome) {
		e := openEngine(t, trainingSpec(t, adamWFused), false)
		hostOf(e).programs.limit = limit
		for step, shapes := range [][2][2]int{{{2, 20}, {4, 70}}, {{4, 40}, {2, 20}}, {{8, 90}, {8, 90}}, {{2, 20}, {1, 100}}} {
			for micro, shape := range shapes {
				b := randomBatch(uint64(10*step+micro), shape[0], shape[1])
				r, err := e.Accumulate(context.Background(), b, step, micro)
				if err != nil {
					t.Fatal(err)
				}
				o.Losses = append(o.Losses, r.Loss)
			}
			if _, err := e.Update(context.Background(), 1e-3); err != nil {
				t.Fatal(err)
			}
			r, err := e.Evaluate(context.Background(), randomBatch(uint64(step), 3, 30+step%2*40))
			if err != nil {
				t.Fatal(err)
			}
			o.Logits = append(o.Logits, slices.Clone(r.Logits))
			if n := len(hostOf(e).programs.entries); n > limit {
				t.Errorf("%d graphs, want at most %d", n, limit)
			}
		}
		o.Params = slices.Clone(e.params.Float32())
		return o
	}
	if diff := cmp.Diff(run(maxPrograms), run(1)); diff != "" {
		t.Errorf("with many graphs and with one at a time (-many +one):\n%s", diff)
	}
}
