package study

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/floats"
)

// parzen is a Parzen estimator: a density over a search space, the mixture of
// one product of kernels for each observation and one wide product, the prior,
// that comes last.
//
// It is the estimator of Optuna 5's TPE. Bergstra et al., "Algorithms for
// Hyper-Parameter Optimization", NeurIPS 2011, has the idea; the product over
// all parameters at once is Falkner et al., "BOHB", ICML 2018; the weights and
// bandwidths are explained in Watanabe, "Tree-Structured Parzen Estimator",
// arXiv:2304.11127.
type parzen struct {
	weights []float64   // of the kernels; their sum is 1
	dims    []dimension // in the order of the search space
}

// dimension holds the kernels of one parameter.
type dimension interface {
	// addLogDensity adds the logarithm of each kernel's density (or mass, where
	// values are discrete) at x.
	addLogDensity(sum []float64, x float64)
	// sample draws a value from one kernel, with u uniform in [0, 1).
	sample(kernel int, u float64) float64
}

// newParzen builds the estimator of a space from observations in the order of
// time, each with a value for every dimension.
func newParzen(space []Distribution, observations [][]float64) *parzen {
	p := &parzen{weights: append(timeWeights(len(observations)), 1)}
	floats.Scale(1/floats.Sum(p.weights), p.weights)
	for i, d := range space {
		column := make([]float64, len(observations))
		for k, x := range observations {
			column[k] = x[i]
		}
		if c, ok := d.(CategoricalDistribution); ok {
			p.dims = append(p.dims, newCategoricalKernels(len(c.Choices), column))
		} else {
			p.dims = append(p.dims, newNormalKernels(d, column))
		}
	}
	return p
}

// timeWeights lets old observations fade: the newest 25 count 1, the ones before
// from 1/n upwards.
func timeWeights(n int) []float64 {
	const full = 25
	w := make([]float64, n)
	for i := range w {
		w[i] = 1
	}
	switch ramp := n - full; {
	case ramp == 1:
		w[0] = 1 / float64(n)
	case ramp > 1:
		floats.Span(w[:ramp], 1/float64(n), 1)
	}
	return w
}

// logDensity is the logarithm of the mixture's density at x.
func (p *parzen) logDensity(x []float64) float64 {
	sum := make([]float64, len(p.weights))
	for k, w := range p.weights {
		sum[k] = math.Log(w)
	}
	for i, d := range p.dims {
		d.addLogDensity(sum, x[i])
	}
	return floats.LogSumExp(sum)
}

// sample draws from the mixture.
func (p *parzen) sample(rng *rand.Rand) []float64 {
	kernel := draw(p.weights, rng.Float64())
	x := make([]float64, len(p.dims))
	for i, d := range p.dims {
		x[i] = d.sample(kernel, rng.Float64())
	}
	return x
}

// draw returns an index with the probability given for it, from u uniform in
// [0, 1).
func draw(probabilities []float64, u float64) int {
	for i, p := range probabilities {
		if u -= p; u < 0 {
			return i
		}
	}
	return len(probabilities) - 1 // rounding
}

// categoricalKernels holds a row of probabilities for each kernel.
type categoricalKernels [][]float64

func newCategoricalKernels(choices int, observed []float64) categoricalKernels {
	kernels := make(categoricalKernels, len(observed)+1)
	for k := range kernels {
		row := make([]float64, choices)
		for c := range row {
			row[c] = 1 / float64(len(kernels))
		}
		if k < len(observed) {
			row[int(observed[k])]++
		}
		floats.Scale(1/floats.Sum(row), row)
		kernels[k] = row
	}
	return kernels
}

func (kernels categoricalKernels) addLogDensity(sum []float64, x float64) {
	for k, row := range kernels {
		sum[k] += math.Log(row[int(x)])
	}
}

func (kernels categoricalKernels) sample(kernel int, u float64) float64 {
	return float64(draw(kernels[kernel], u))
}

// normalKernels holds a truncated normal distribution for each kernel. Values
// with a step have the mass of half a step on both sides; on a logarithmic
// scale, mean and deviation are those of the logarithm.
type normalKernels struct {
	dist      Distribution
	log       bool
	step      float64 // 0: continuous
	low, high float64 // on the scale of the kernels, half a step wider than the range
	mean      []float64
	sigma     []float64
	inside    []float64 // log of the mass between low and high
}

func newNormalKernels(d Distribution, observed []float64) *normalKernels {
	kernels := &normalKernels{dist: d}
	low, high, step, log := grid(d)
	kernels.step, kernels.log = step, log
	kernels.low, kernels.high = kernels.scale(low-step/2), kernels.scale(high+step/2)
	width := kernels.high - kernels.low

	for _, x := range observed {
		kernels.mean = append(kernels.mean, kernels.scale(x))
	}
	kernels.sigma = bandwidths(kernels.mean, kernels.low, kernels.high)
	kernels.mean = append(kernels.mean, (kernels.low+kernels.high)/2)
	kernels.sigma = append(kernels.sigma, width)
	for k, mean := range kernels.mean {
		s := kernels.sigma[k]
		kernels.inside = append(kernels.inside, logNormalMass((kernels.low-mean)/s, (kernels.high-mean)/s))
	}
	return kernels
}

// bandwidths gives each mean the distance to the farther of its neighbours, at
// the ends to the only one, within limits that n sets.
func bandwidths(means []float64, low, high float64) []float64 {
	n := len(means)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	// Stable, for the sake of equal means: integers and choices have many.
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case means[a] < means[b]:
			return -1
		case means[a] > means[b]:
			return 1
		}
		return 0
	})
	at := func(i int) float64 {
		switch {
		case i < 0:
			return low
		case i == n:
			return high
		}
		return means[order[i]]
	}
	widest := high - low
	narrowest := widest / min(100, float64(n+2))
	sigma := make([]float64, n)
	for i, k := range order {
		left, right := at(i)-at(i-1), at(i+1)-at(i)
		s := max(left, right)
		switch {
		case n > 1 && i == 0:
			s = right
		case n > 1 && i == n-1:
			s = left
		}
		sigma[k] = min(max(s, narrowest), widest)
	}
	return sigma
}

// scale maps a value to where its kernels are normal.
func (kernels *normalKernels) scale(x float64) float64 {
	if kernels.log {
		return math.Log(x)
	}
	return x
}

func (kernels *normalKernels) addLogDensity(sum []float64, x float64) {
	if kernels.step > 0 {
		left, right := kernels.scale(x-kernels.step/2), kernels.scale(x+kernels.step/2)
		for k, mean := range kernels.mean {
			s := kernels.sigma[k]
			sum[k] += logNormalMass((left-mean)/s, (right-mean)/s) - kernels.inside[k]
		}
		return
	}
	y := kernels.scale(x)
	for k, mean := range kernels.mean {
		s := kernels.sigma[k]
		z := (y - mean) / s
		sum[k] += -z*z/2 - math.Log(2*math.Pi)/2 - math.Log(s) - kernels.inside[k]
	}
}

func (kernels *normalKernels) sample(kernel int, u float64) float64 {
	mean, s := kernels.mean[kernel], kernels.sigma[kernel]
	y := mean + s*truncatedNormal(u, (kernels.low-mean)/s, (kernels.high-mean)/s)
	if kernels.log {
		y = math.Exp(y)
	}
	return nearest(kernels.dist, y)
}
