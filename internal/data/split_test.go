package data

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func corpusDataset(t testing.TB, n int) *Dataset {
	t.Helper()
	posts, annotations := corpus(n)
	d, err := Read(context.Background(), write(t, nineCriteria(), map[string]string{
		postsFile: "post_id,text\n" + strings.Join(posts, ""), annotationsFile: annotationHeader + strings.Join(annotations, "")}))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSplit(t *testing.T) {
	d := corpusDataset(t, 203)
	seen := make(map[string]bool)
	for _, seed := range []uint64{0, 1, 42} {
		s, err := d.Split(Ratios{0.8, 0.1, 0.1}, seed)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{163, 20, 20}, []int{Posts(s.Train), Posts(s.Val), Posts(s.Test)}); diff != "" {
			t.Errorf("seed %d: posts (-want +got):\n%s", seed, diff)
		}
		of := make(map[string]int)
		total := 0
		for i, part := range [][]Example{s.Train, s.Val, s.Test} {
			total += len(part)
			for _, e := range part {
				if before, ok := of[e.PostID]; ok && before != i {
					t.Fatalf("seed %d: post %s is in two splits", seed, e.PostID)
				}
				of[e.PostID] = i
			}
			if !slices.IsSortedFunc(part, func(a, b Example) int { return strings.Compare(a.PostID, b.PostID) }) {
				t.Errorf("seed %d: split %d is not sorted", seed, i)
			}
		}
		if total != len(d.Examples) {
			t.Errorf("seed %d: %d examples in the splits of %d", seed, total, len(d.Examples))
		}
		// Every criterion has its share of positives, to within one post or so.
		for _, c := range d.Criteria {
			share := func(part []Example) float64 {
				n := 0.0
				for _, e := range part {
					if e.CriterionID == c.ID {
						n += float64(e.Label)
					}
				}
				return n
			}
			all := share(d.Examples)
			for i, want := range []float64{.8 * all, .1 * all, .1 * all} {
				if got := share([][]Example{s.Train, s.Val, s.Test}[i]); math.Abs(got-want) > 2.5 {
					t.Errorf("seed %d: %s has %v positives in split %d, want about %.1f", seed, c.ID, got, i, want)
				}
			}
		}
		seen[s.Test[0].PostID+s.Test[len(s.Test)-1].PostID] = true
	}
	if len(seen) < 2 {
		t.Error("three seeds gave one split")
	}
}

func TestSplitErrors(t *testing.T) {
	d := corpusDataset(t, 40)
	for name, r := range map[string]Ratios{
		"sum":      {0.8, 0.1, 0.2},
		"zero":     {0.9, 0.1, 0},
		"negative": {1.1, -0.2, 0.1},
		"NaN":      {math.NaN(), 0.5, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := d.Split(r, 1)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(e.Field, "data.train_ratio") {
				t.Errorf("got error %v, want an *Error naming data.train_ratio", err)
			}
		})
	}
	if _, err := corpusDataset(t, 5).Split(Ratios{0.8, 0.1, 0.1}, 1); err == nil || !strings.Contains(err.Error(), "both classes") {
		t.Errorf("five posts: got error %v, want one about both classes", err)
	}
}

func TestApportion(t *testing.T) {
	for n, want := range map[int][3]int{0: {}, 3: {3, 0, 0}, 10: {8, 1, 1}, 1484: {1187, 149, 148}} {
		got := apportion(n, [3]float64{.8, .1, .1})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d posts (-want +got):\n%s", n, diff)
		}
	}
}

func TestBatches(t *testing.T) {
	lengths := make([]int, 1003)
	for i := range lengths {
		lengths[i] = 5 + i*7919%200
	}
	check := func(t *testing.T, plans []BatchPlan) {
		t.Helper()
		seen := make([]int, len(lengths))
		short := 0
		for _, p := range plans {
			longest := 0
			for _, i := range p.Indices {
				seen[i]++
				longest = max(longest, lengths[i])
			}
			if p.Length%32 != 0 || p.Length < longest || p.Length-longest >= 32 {
				t.Errorf("batch of length %d for %d tokens", p.Length, longest)
			}
			if len(p.Indices) < 16 {
				short++
			}
			if len(p.Indices) == 0 || len(p.Indices) > 16 {
				t.Errorf("batch of %d examples", len(p.Indices))
			}
		}
		if short > 1 {
			t.Errorf("%d short batches, want at most one", short)
		}
		for i, n := range seen {
			if n != 1 {
				t.Fatalf("example %d occurs %d times", i, n)
			}
		}
	}

	a := Batches(lengths, 16, 32, 42, 0)
	check(t, a)
	if diff := cmp.Diff(a, Batches(lengths, 16, 32, 42, 0)); diff != "" {
		t.Errorf("a second call (-want +got):\n%s", diff)
	}
	for name, b := range map[string][]BatchPlan{"epoch": Batches(lengths, 16, 32, 42, 1), "seed": Batches(lengths, 16, 32, 43, 0)} {
		check(t, b)
		if cmp.Equal(a, b) {
			t.Errorf("another %s gave the same order", name)
		}
	}
	check(t, EvalBatches(lengths, 16, 32))

	// The order is part of what makes a run reproducible: it must not change
	// with a version of this package or of Go.
	var got []int
	for _, p := range Batches([]int{3, 9, 4, 8, 5, 7, 6}, 2, 4, 42, 3) {
		got = append(append(got, p.Indices...), -p.Length)
	}
	if diff := cmp.Diff(goldenOrder, got); diff != "" {
		t.Errorf("order of (seed 42, epoch 3) (-want +got):\n%s", diff)
	}
}

func TestBatchesWasteLittle(t *testing.T) {
	lengths := make([]int, 2880)
	tokens := 0
	for i := range lengths {
		lengths[i] = 10 + i*i%110
		tokens += lengths[i]
	}
	padded := 0
	for _, p := range Batches(lengths, 16, 32, 1, 1) {
		padded += len(p.Indices) * p.Length
	}
	if waste := float64(padded)/float64(tokens) - 1; waste > 0.35 {
		t.Errorf("%.0f %% padding, want less than 35 %%", 100*waste)
	}
}

func TestNoBatches(t *testing.T) {
	if got := Batches(nil, 16, 32, 1, 1); len(got) != 0 {
		t.Errorf("got %v for no examples", got)
	}
	if got := EvalBatches([]int{7}, 0, 0); len(got) != 1 || got[0].Length != 7 {
		t.Errorf("got %v, want one batch of length 7", got)
	}
}

var goldenOrder = []int{5, 6, -8, 1, 3, -12, 4, 2, -8, 0, -4}
