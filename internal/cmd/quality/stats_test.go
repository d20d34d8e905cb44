package main

import (
	"math"
	"testing"
)

// What SciPy 1.17.1 computes: mannwhitneyu(x, y, method="exact") where no values
// are equal, else permutation_test of the distance of the rank sum from its mean,
// over all permutations.
func TestMannWhitney(t *testing.T) {
	for _, c := range []struct {
		x, y []float64
		want float64
	}{
		{[]float64{1, 2, 3}, []float64{4, 5, 6, 7}, 0.05714285714285714},
		{[]float64{.739, .545, .444, .61, .5, .9}, []float64{.3, .41, .66, .2, .55, .7, .35}, 0.18065268065268064},
		{
			[]float64{.82, .85, .85, .9, .88, .79, .91, .83, .86, .84}, []float64{.87, .89, .85, .92, .9, .88, .93, .86, .94, .91},
			0.013628786074606509,
		},
		{[]float64{1, 1}, []float64{1, 1, 1}, 1},
	} {
		for _, got := range []float64{mannWhitney(c.x, c.y), mannWhitney(c.y, c.x)} {
			if math.Abs(got-c.want) > 1e-12 {
				t.Errorf("%v and %v: p is %v, want %v", c.x, c.y, got, c.want)
			}
		}
	}
}

// A file of results is read as it was written, and says what is done.
func TestResults(t *testing.T) {
	path := t.TempDir() + "/small.jsonl"
	of := result{training{Set: "small", Pooling: "cls", Arm: armOurs, Seed: 3, Epochs: 2, Batch: 32, Rate: 2e-3}, []score{{ValF1: 0.7, TestF1: 0.5}, {ValF1: 0.7, TestF1: 0.6}}}
	for round := range 2 {
		r, err := openResults(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.has(of.training); got != (round == 1) {
			t.Errorf("round %d: done %t", round, got)
		}
		if round == 0 {
			if err := r.add(of); err != nil {
				t.Fatal(err)
			}
		} else if got := r.all[0].chosen().TestF1; got != 0.5 {
			t.Errorf("of equal epochs that with test macro-F1 %v was chosen, want the first", got)
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
	}
}
