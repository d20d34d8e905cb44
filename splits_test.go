package criteria

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// splitOf returns pairs of the given lengths with ids that tell them apart.
func splitOf(lengths ...int) *encodedSplit {
	s := &encodedSplit{encodings: Encodings{Offsets: []int{0}}, weights: [2]float32{0.5, 2}, lengths: lengths}
	for i, n := range lengths {
		for j := range n {
			s.encodings.IDs = append(s.encodings.IDs, int32(100*i+j+1))
		}
		s.encodings.Offsets = append(s.encodings.Offsets, len(s.encodings.IDs))
		s.encodings.Truncated = append(s.encodings.Truncated, false)
		s.labels = append(s.labels, int64(i%2))
	}
	return s
}

// A feed goes through its plan in order, in memory that it uses again, whoever
// gives it back when.
func TestFeed(t *testing.T) {
	s := splitOf(3, 1, 2, 5, 4, 2, 1)
	plan := [][]int{{0, 1}, {2, 3, 4}, {5}, {6, 0}, {1}, {4, 3}}
	for held := 1; held <= 3; held++ {
		f := s.feed(plan, held)
		var taken []*microBatch
		memory := map[*int64]bool{}
		for i, rows := range plan {
			b := f.take()
			taken = append(taken, b)
			memory[&b.InputIDs[0]] = true
			if diff := cmp.Diff(s.batch(rows), b.Batch); diff != "" {
				t.Errorf("%d held: batch %d (-want +got):\n%s", held, i, diff)
			}
			if len(taken) == held {
				f.giveBack(taken[0])
				taken = taken[1:]
			}
		}
		f.stop()
		if n := len(memory); n > held+1 {
			t.Errorf("%d held: the batches were in %d places, want at most %d", held, n, held+1)
		}
	}
}

// A feed may be stopped anywhere: its goroutine ends.
func TestFeedStops(t *testing.T) {
	s := splitOf(3, 1, 2)
	plan := [][]int{{0}, {1}, {2}, {0, 1}, {1, 2}, {2, 0}}
	for n := range len(plan) {
		f := s.feed(plan, 2)
		for range n {
			f.giveBack(f.take())
		}
		f.stop()
	}
}

// In the background our tokenizer takes one core; what others take is theirs.
func TestInBackground(t *testing.T) {
	own := &textTokenizer{workers: 4}
	if quiet, ok := inBackground(own).(*textTokenizer); !ok || quiet.workers != 1 || own.workers != 4 {
		t.Errorf("%+v of %+v; want one with 1 worker, and that as it was", quiet, own)
	}
	injected := struct{ Tokenizer }{}
	if got := inBackground(injected); got != injected {
		t.Errorf("%v, want the injected one", got)
	}
}
