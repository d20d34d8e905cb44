package main

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// meanSD returns the mean of a sample and its standard deviation (n − 1).
func meanSD(x []float64) (mean, sd float64) { return stat.MeanStdDev(x, nil) }

// mannWhitney returns the two-sided p of the rank sum test of Mann and Whitney
// (On a test of whether one of two random variables is stochastically larger than
// the other, 1947): how probable it is, if both samples are drawn from one
// distribution, that the rank sum of one departs from its expectation as far as
// it does here, or farther. It is exact for samples of any size, with ties too:
// the ways to choose len(x) of all ranks are counted, by their sum.
func mannWhitney(x, y []float64) float64 {
	ranks := doubledRanks(append(slices.Clone(x), y...))
	total := 0
	for _, r := range ranks {
		total += r
	}
	// ways[k][s] is the number of ways to choose k ranks that sum up to s.
	ways := make([][]float64, len(x)+1)
	for k := range ways {
		ways[k] = make([]float64, total+1)
	}
	ways[0][0] = 1
	for _, r := range ranks {
		for k := len(x); k > 0; k-- {
			for s := total; s >= r; s-- {
				ways[k][s] += ways[k-1][s-r]
			}
		}
	}
	found := 0
	for _, r := range ranks[:len(x)] {
		found += r
	}
	expected := float64(len(x)) * float64(total) / float64(len(ranks))
	apart := math.Abs(float64(found) - expected)
	var all, far float64
	for s, n := range ways[len(x)] {
		all += n
		if math.Abs(float64(s)-expected) >= apart-1e-9 {
			far += n
		}
	}
	return far / all
}

// doubledRanks returns twice the rank of each value, from 1; of values that are
// equal the mean of theirs, which doubled is a whole number.
func doubledRanks(x []float64) []int {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	ranks := make([]int, len(x))
	for from := 0; from < len(order); {
		to := from + 1
		for to < len(order) && x[order[to]] == x[order[from]] {
			to++
		}
		for _, i := range order[from:to] {
			ranks[i] = from + 1 + to
		}
		from = to
	}
	return ranks
}
