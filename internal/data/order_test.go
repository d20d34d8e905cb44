package data

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// posts returns rows like a corpus': nine pairs for each post, of nearly one
// length.
func posts(n int) Rows {
	random := rand.New(rand.NewPCG(1, 2))
	var r Rows
	for post := range n {
		length := 20 + random.IntN(80)
		for criterion := range 9 {
			r.Lengths = append(r.Lengths, length+criterion%4)
			r.Posts = append(r.Posts, post)
		}
	}
	return r
}

func TestOrders(t *testing.T) {
	rows := posts(112) // 1008 pairs
	for _, o := range []Order{Random, Grouped, Chunked} {
		name := o.String()
		if parsed, err := ParseOrder(name); err != nil || parsed != o {
			t.Errorf("ParseOrder(%q) = %v, %v", name, parsed, err)
		}
		batches := o.Batches(rows, 16, 42, 1)
		seen := make([]int, len(rows.Lengths))
		for i, b := range batches {
			for _, row := range b {
				seen[row]++
			}
			if len(b) == 0 || len(b) > 16 || o == Random && len(b) < 16 && i < len(batches)-1 {
				t.Errorf("%s: batch %d has %d examples", name, i, len(b))
			}
		}
		if i := slices.IndexFunc(seen, func(n int) bool { return n != 1 }); i >= 0 {
			t.Errorf("%s: example %d occurs %d times", name, i, seen[i])
		}
		if len(batches) != 63 {
			t.Errorf("%s: %d batches, want 63", name, len(batches))
		}
		if diff := cmp.Diff(batches, o.Batches(rows, 16, 42, 1)); diff != "" {
			t.Errorf("%s: a second time (-want +got):\n%s", name, diff)
		}
		if cmp.Equal(batches, o.Batches(rows, 16, 42, 2)) || cmp.Equal(batches, o.Batches(rows, 16, 43, 1)) {
			t.Errorf("%s: another epoch or seed has the same order", name)
		}
		if got := o.Batches(Rows{}, 16, 1, 1); len(got) != 0 {
			t.Errorf("%s: %v for no examples", name, got)
		}
	}
	if _, err := ParseOrder("sorted"); err == nil {
		t.Error("no error for an unknown order")
	}
}

// The orders are part of what makes a run reproducible: they must not change with
// a version of this package or of Go.
func TestOrdersStay(t *testing.T) {
	rows := Rows{Lengths: []int{3, 9, 4, 8, 5, 7, 6}, Posts: []int{0, 0, 0, 1, 1, 2, 2}}
	for o, want := range map[Order][][]int{
		Random:  {{6, 1}, {3, 2}, {0, 5}, {4}},
		Grouped: {{1, 6}, {4}, {5, 0}, {3, 2}},
		Chunked: {{5, 6}, {1, 3}, {4, 2}, {0}},
	} {
		if diff := cmp.Diff(want, o.Batches(rows, 2, 42, 3)); diff != "" {
			t.Errorf("%v of (seed 42, epoch 3) (-want +got):\n%s", o, diff)
		}
	}
}

// partners returns how many pairs of its own post a pair meets in its batch, on
// average over epochs.
func partners(o Order, rows Rows, batchSize int) float64 {
	met := 0
	const epochs = 10
	for epoch := range epochs {
		for _, batch := range o.Batches(rows, batchSize, 7, epoch+1) {
			of := make(map[int]int)
			for _, row := range batch {
				of[rows.Posts[row]]++
			}
			for _, n := range of {
				met += n * (n - 1)
			}
		}
	}
	return float64(met) / float64(epochs*len(rows.Lengths))
}

// The pairs of a post meet as often as chance has it, (batch−1)·8/(pairs−1), and
// hardly ever if they are grouped by length. By the order of version 0.1 they meet
// ten times as often, and the gradients of a batch speak of few posts.
func TestPairsOfAPostAreSpread(t *testing.T) {
	for _, c := range []struct{ posts, batch int }{{50, 32}, {320, 32}, {320, 16}, {1187, 16}} {
		rows := posts(c.posts)
		chance := float64(c.batch-1) * 8 / float64(len(rows.Lengths)-1)
		random, grouped, chunked := partners(Random, rows, c.batch), partners(Grouped, rows, c.batch), partners(Chunked, rows, c.batch)
		t.Logf("%d pairs, batches of %d: by chance %.3f, random %.3f, grouped %.3f, chunked %.3f",
			len(rows.Lengths), c.batch, chance, random, grouped, chunked)
		if math.Abs(random-chance) > 0.1*chance+0.01 {
			t.Errorf("%d pairs, batches of %d: a pair meets %.3f of its post, want %.3f", len(rows.Lengths), c.batch, random, chance)
		}
		if grouped > chance/3 {
			t.Errorf("%d pairs, batches of %d: grouped by length, a pair meets %.3f of its post, want at most %.3f",
				len(rows.Lengths), c.batch, grouped, chance/3)
		}
		if chunked < 5*chance {
			t.Errorf("%d pairs, batches of %d: the test does not see the order of version 0.1: %.3f", len(rows.Lengths), c.batch, chunked)
		}
	}
}

// Every order of four examples comes equally often, whatever came before it: the
// statistic of Pearson's test stays below its quantile of 0.999.
func TestPermutationsAreUniform(t *testing.T) {
	const draws = 24000
	alone, after := make(map[[4]int]int), make(map[[2]int]int)
	last := 0
	for epoch := 1; epoch <= draws; epoch++ {
		p := permutation(4, newSource(42, epoch))
		alone[[4]int(p)]++
		after[[2]int{last, p[0]}]++
		last = p[0]
	}
	for _, c := range []struct {
		name     string
		counts   []int
		cells    int
		quantile float64
	}{
		{"orders", slices.Collect(maps.Values(alone)), 24, 49.73},
		{"firsts after each other", slices.Collect(maps.Values(after)), 16, 37.70},
	} {
		if len(c.counts) != c.cells {
			t.Fatalf("%d %s, want %d", len(c.counts), c.name, c.cells)
		}
		want := float64(draws) / float64(c.cells)
		chi := 0.0
		for _, n := range c.counts {
			chi += (float64(n) - want) * (float64(n) - want) / want
		}
		if chi > c.quantile {
			t.Errorf("%s: Pearson's statistic is %.1f, want at most %.1f", c.name, chi, c.quantile)
		}
	}
}

// Batches of alike length have less padding than random ones.
func TestGroupedWastesLess(t *testing.T) {
	rows := posts(320)
	padded := func(o Order) (places int) {
		for _, batch := range o.Batches(rows, 16, 1, 1) {
			longest := 0
			for _, row := range batch {
				longest = max(longest, rows.Lengths[row])
			}
			places += longest * len(batch)
		}
		return places
	}
	tokens := 0
	for _, n := range rows.Lengths {
		tokens += n
	}
	random, grouped, chunked := padded(Random), padded(Grouped), padded(Chunked)
	t.Logf("padding of %d tokens: random %.2f, grouped %.2f, chunked %.2f", tokens,
		float64(random)/float64(tokens)-1, float64(grouped)/float64(tokens)-1, float64(chunked)/float64(tokens)-1)
	if grouped >= random {
		t.Errorf("%d places grouped by length, %d at random", grouped, random)
	}
}
