package study

import (
	"math"
	"slices"
	"sort"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// PEDANOVA says how much each hyperparameter matters for being among the best
// tenth of the trials: it is the Pearson divergence between the density of a
// parameter among these and among all (Watanabe, Bansal & Hutter, "PED-ANOVA",
// IJCAI 2023). It needs no forest and no seed and covers conditional parameters
// (as Optuna 5 does, arXiv:2601.20800), but of 30 trials it looks at three.
func PEDANOVA(trials []FrozenTrial, direction Direction) ([]Importance, error) {
	raw, err := pedAnova(trials, direction)
	if err != nil {
		return nil, err
	}
	return shares(raw), nil
}

func pedAnova(trials []FrozenTrial, direction Direction) (map[string]float64, error) {
	all, err := judged(trials)
	if err != nil {
		return nil, err
	}
	sign := 1.0
	if direction == Maximize {
		sign = -1
	}
	losses := make([]float64, len(all))
	for i, t := range all {
		losses[i] = sign * t.Value
	}
	slices.Sort(losses)
	cutoff := losses[int(math.Ceil(0.1*float64(len(losses))))-1]
	top := map[int]bool{} // by number
	for _, t := range all {
		if sign*t.Value <= cutoff {
			top[t.Number] = true
		}
	}

	share := float64(len(top)) / float64(len(all))
	raw := map[string]float64{}
	for _, t := range trials {
		if t.State == Complete {
			for name := range t.Distributions {
				raw[name] = 0
			}
		}
	}
	for name := range raw {
		regimes, err := regimesOf(all, name)
		if err != nil {
			return nil, err
		}
		for _, r := range regimes {
			var topValues []float64
			for i, number := range r.numbers {
				if top[number] {
					topValues = append(topValues, r.values[i])
				}
			}
			if len(r.values) < 2 || len(topValues) == 0 || r.dist.Single() {
				continue
			}
			alpha := float64(len(topValues)) / float64(len(top))
			beta := float64(len(r.values)) / float64(len(all))
			raw[name] += alpha * alpha / beta * divergence(r.dist, topValues, r.values) * share * share
		}
	}
	return raw, nil
}

// regime holds the trials that drew a parameter from one range.
type regime struct {
	dist    Distribution
	numbers []int
	values  []float64
}

func regimesOf(trials []FrozenTrial, name string) ([]*regime, error) {
	var regimes []*regime
	for _, t := range trials {
		d, err := distributionOf(t, name)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		i := slices.IndexFunc(regimes, func(r *regime) bool { return sameDistribution(r.dist, d) })
		if i < 0 {
			i = len(regimes)
			regimes = append(regimes, &regime{dist: d})
		}
		regimes[i].numbers = append(regimes[i].numbers, t.Number)
		regimes[i].values = append(regimes[i].values, t.InternalParams[name])
	}
	return regimes, nil
}

// divergence is Pearson's, of the density of some values from that of all.
func divergence(d Distribution, some, all []float64) (sum float64) {
	const never = 1e-12 // keeps the ratio finite
	p, q := gridDensity(d, some), gridDensity(d, all)
	for i := range p {
		ratio := (p[i] + never) / (q[i] + never)
		sum += (q[i] + never) * (ratio - 1) * (ratio - 1)
	}
	return sum
}

// gridDensity puts values on a grid over their range and smooths the counts with
// kernels and a prior of weight 1.
func gridDensity(d Distribution, values []float64) []float64 {
	if c, ok := d.(CategoricalDistribution); ok {
		counts := make([]float64, len(c.Choices))
		for _, v := range values {
			counts[int(v)]++
		}
		cells, weights := occupied(counts)
		return mixture(newCategoricalKernels(len(counts), cells), weights, len(counts))
	}
	counts := countOnGrid(d, values)
	cells, weights := occupied(counts)
	kernels := newNormalKernels(IntDistribution{Low: 0, High: len(counts) - 1}, cells)
	sigma := scottBandwidth(cells, weights)
	for k := range cells {
		kernels.sigma[k] = sigma
		mean := kernels.mean[k]
		kernels.inside[k] = logNormalMass((kernels.low-mean)/sigma, (kernels.high-mean)/sigma)
	}
	return mixture(kernels, weights, len(counts))
}

// countOnGrid counts the values next to each point of a grid, which has at most
// 50, no more than there are values, and on a logarithmic scale of integers about
// as many as there are powers of two.
func countOnGrid(d Distribution, values []float64) []float64 {
	n := 50
	low, high, step, log := grid(d)
	switch {
	case step > 0 && log:
		n = min(int(math.Ceil(math.Log(high-low+1)/math.Log(2)))+1, n)
	case step > 0:
		n = min(int(math.RoundToEven((high-low)/step))+1, n)
	}
	scale := func(x float64) float64 { return x }
	if log {
		scale = math.Log
	}
	low, high = scale(low), scale(high)
	width := (high - low) / float64(n-1)
	counts := make([]float64, n)
	for _, v := range values {
		// Midway between two points belongs to the lower one.
		i := int(math.Ceil((scale(v)-low)/width - 0.5))
		counts[min(max(i, 0), n-1)]++
	}
	return counts
}

// occupied returns the cells of a grid that have counts, and the counts.
func occupied(counts []float64) (cells, weights []float64) {
	for i, n := range counts {
		if n > 0 {
			cells, weights = append(cells, float64(i)), append(weights, n)
		}
	}
	return cells, weights
}

// scottBandwidth is Scott's rule for weighted cells (Scott, "Multivariate Density
// Estimation", 1992), wide enough that nine tenths of a kernel lie in its cell.
func scottBandwidth(cells, weights []float64) float64 {
	n := floats.Sum(weights)
	_, variance := stat.PopMeanVariance(cells, weights)
	deviation := math.Sqrt(variance * n / max(1, n-1))
	cumulative := make([]float64, len(weights))
	floats.CumSum(cumulative, weights)
	first := sort.SearchFloat64s(cumulative, math.Floor(n/4))
	third := sort.Search(len(cumulative), func(i int) bool { return cumulative[i] > math.Floor(n*3/4) })
	spread := cells[min(third, len(cells)-1)] - cells[first]
	return max(1.059*min(spread/1.34, deviation)*math.Pow(n, -0.2), 0.5/1.64)
}

// mixture returns the probability of each cell of a grid under weighted kernels
// and the prior, which comes last.
func mixture(kernels dimension, weights []float64, cells int) []float64 {
	weights = append(slices.Clone(weights), 1)
	floats.Scale(1/floats.Sum(weights), weights)
	density := &parzen{weights: weights, dims: []dimension{kernels}}
	p := make([]float64, cells)
	for i := range p {
		p[i] = math.Exp(density.logDensity([]float64{float64(i)}))
	}
	return p
}
