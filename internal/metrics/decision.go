package metrics

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A margin is the difference of the two logits of an example, class 1 minus
// class 0. Its logistic function is the probability of class 1.

func checkMargins(margins []float64, labels []int) error {
	if len(margins) == 0 || len(margins) != len(labels) {
		return fmt.Errorf("metrics: found %d margins and %d labels, want as many of each and at least one", len(margins), len(labels))
	}
	for i, m := range margins {
		if math.IsNaN(m) || math.IsInf(m, 0) || labels[i] < 0 || labels[i] > 1 {
			return fmt.Errorf("metrics: example %d: found margin %v and label %d, want a number and 0 or 1", i, m, labels[i])
		}
	}
	return nil
}

func logistic(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// BestThreshold returns the probability above which examples are to be taken
// for class 1 so that macro-F1 is highest, and that macro-F1. Between two
// examples it is the middle; of several such thresholds it is the one nearest to
// 0.5, which is 0.5 itself if that is as good as any.
func BestThreshold(margins []float64, labels []int) (threshold, macroF1 float64, err error) {
	if err := checkMargins(margins, labels); err != nil {
		return 0, 0, err
	}
	order := make([]int, len(margins))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(margins[a], margins[b]) })
	probability := func(i int) float64 { return logistic(margins[order[i]]) }

	// Below all examples everything is class 1; the threshold then moves up past
	// one group of equal probabilities after the other.
	var c Confusion
	for _, l := range labels {
		c[l][1]++
	}
	best := -1.0
	consider := func(low, high float64) { // thresholds t with low ≤ t < high mean the same
		if low == high { // probabilities of 0 or 1
			return
		}
		t := low + (high-low)/2
		if low <= 0.5 && 0.5 < high {
			t = 0.5
		}
		f1 := c.Macro().F1
		if f1 > best || f1 == best && math.Abs(t-0.5) < math.Abs(threshold-0.5) {
			best, threshold = f1, t
		}
	}
	consider(0, probability(0))
	for i := 0; i < len(order); {
		p := probability(i)
		for i < len(order) && probability(i) == p {
			l := labels[order[i]]
			c[l][1]--
			c[l][0]++
			i++
		}
		if i < len(order) {
			consider(p, probability(i))
		} else {
			consider(p, 1)
		}
	}
	return threshold, best, nil
}

// Bounds of [Temperature]. Where a model separates the examples without a
// fault, no temperature is low enough, and where it is worse than chance none
// is high enough.
const (
	MinTemperature = 0.1
	MaxTemperature = 10
)

// Temperature returns the T between [MinTemperature] and [MaxTemperature] that
// minimises the mean negative log-likelihood of the labels when margins are
// divided by T (Guo et al., "On Calibration of Modern Neural Networks",
// arXiv:1706.04599).
func Temperature(margins []float64, labels []int) (float64, error) {
	if err := checkMargins(margins, labels); err != nil {
		return 0, err
	}
	// In β = 1/T the likelihood is convex, so its slope has one root at most:
	// d/dβ Σ log(1 + exp(−s·m·β)) = −Σ s·m·logistic(−s·m·β), s = ±1 by label.
	slope := func(beta float64) float64 {
		sum := 0.0
		for i, m := range margins {
			if labels[i] == 0 {
				m = -m
			}
			sum -= m * logistic(-m*beta)
		}
		return sum
	}
	low, high := 1.0/MaxTemperature, 1.0/MinTemperature
	if slope(low) >= 0 {
		return MaxTemperature, nil
	}
	if slope(high) <= 0 {
		return MinTemperature, nil
	}
	for range 60 { // halving leaves no bit to gain
		mid := low + (high-low)/2
		if slope(mid) < 0 {
			low = mid
		} else {
			high = mid
		}
	}
	return 1 / (low + (high-low)/2), nil
}

// NLL returns the mean negative log-likelihood of the labels when margins are
// divided by the temperature.
func NLL(margins []float64, labels []int, temperature float64) float64 {
	sum := 0.0
	for i, m := range margins {
		if labels[i] == 1 {
			m = -m
		}
		m /= temperature
		sum += max(m, 0) + math.Log1p(math.Exp(-math.Abs(m))) // log(1 + exp(m)) without overflow
	}
	return sum / float64(len(margins))
}
