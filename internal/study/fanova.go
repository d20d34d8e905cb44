package study

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// FANOVA is the share of the objective's variance that each hyperparameter
// explains on its own: a random forest is fitted to the complete trials, and the
// variance of each parameter's marginal prediction is divided by the variance of
// all predictions (Hutter, Hoos & Leyton-Brown, "An Efficient Approach for
// Assessing Hyperparameter Importance", ICML 2014).
//
// As in Optuna, the forest has 64 trees of at most 64 levels, the average runs
// over the whole search space, and only parameters count that all complete
// trials have with the same range. The seed determines the forest; Optuna's own
// results differ from seed to seed about as much as from these.
func FANOVA(trials []FrozenTrial, seed uint64) ([]Importance, error) {
	const trees = 64
	complete, err := judged(trials)
	if err != nil {
		return nil, err
	}
	space, err := intersection(trials, Complete)
	if err != nil {
		return nil, err
	}
	names, dists, err := toSpace(space)
	if err != nil {
		return nil, err
	}

	// A categorical parameter has one column, 0 or 1, for each choice.
	raw := map[string]float64{}
	columns := map[string][]int{}
	var whole box
	x := make([][]float64, len(complete))
	y := make([]float64, len(complete))
	for i, t := range complete {
		y[i] = t.Value
	}
	for i, name := range names {
		raw[name] = 0
		if dists[i].Single() {
			continue
		}
		if c, ok := dists[i].(CategoricalDistribution); ok {
			for choice := range c.Choices {
				columns[name] = append(columns[name], len(whole))
				whole = append(whole, interval{0, 1})
				for k, t := range complete {
					hot := 0.0
					if int(t.InternalParams[name]) == choice {
						hot = 1
					}
					x[k] = append(x[k], hot)
				}
			}
			continue
		}
		low, high, _, _ := grid(dists[i])
		columns[name] = []int{len(whole)}
		whole = append(whole, interval{low, high})
		for k, t := range complete {
			// Single precision, as scikit-learn's trees split.
			x[k] = append(x[k], float64(float32(t.InternalParams[name])))
		}
	}
	if len(whole) == 0 {
		return shares(raw), nil
	}

	counted := 0.0
	for n := range trees {
		tree := growTree(x, y, stream(seed, n, "tree of fANOVA"))
		m := newMarginals(tree, whole)
		total := m.totalVariance()
		if !(total > 0) {
			continue
		}
		counted++
		for name, c := range columns {
			raw[name] += m.variance(c) / total
		}
	}
	if counted == 0 {
		return nil, ErrNoVariance
	}
	for name := range raw {
		raw[name] /= counted
	}
	return shares(raw), nil
}

// interval is the part of a column between two bounds.
type interval struct{ low, high float64 }

// box is a part of the search space.
type box []interval

func (b box) volume() float64 {
	v := 1.0
	for _, i := range b {
		v *= i.high - i.low
	}
	return v
}

// halves cuts a box in two.
func (b box) halves(feature int, threshold float64) (left, right box) {
	left, right = slices.Clone(b), slices.Clone(b)
	left[feature].high, right[feature].low = threshold, threshold
	return left, right
}

// marginals averages the predictions of one tree over parts of the search space.
type marginals struct {
	root   *marginalNode
	space  box
	splits [][]float64 // thresholds of each column, sorted
}

// marginalNode is a node with the volume of its box, the average prediction in
// it, and the columns that are split below.
type marginalNode struct {
	*treeNode
	left, right *marginalNode
	volume      float64
	average     float64
	splitsOn    []bool
}

func newMarginals(root *treeNode, space box) *marginals {
	m := &marginals{space: space, splits: make([][]float64, len(space))}
	m.root = m.measure(root, space)
	for i := range m.splits {
		slices.Sort(m.splits[i])
		m.splits[i] = slices.Compact(m.splits[i])
	}
	return m
}

func (m *marginals) measure(n *treeNode, b box) *marginalNode {
	if n.leaf() {
		return &marginalNode{treeNode: n, volume: b.volume(), average: n.value, splitsOn: make([]bool, len(b))}
	}
	m.splits[n.feature] = append(m.splits[n.feature], n.threshold)
	leftBox, rightBox := b.halves(n.feature, n.threshold)
	left, right := m.measure(n.left, leftBox), m.measure(n.right, rightBox)
	node := &marginalNode{treeNode: n, left: left, right: right, volume: left.volume + right.volume, splitsOn: slices.Clone(left.splitsOn)}
	for i, on := range right.splitsOn {
		node.splitsOn[i] = node.splitsOn[i] || on
	}
	node.splitsOn[n.feature] = true
	node.average = (left.average*left.volume + right.average*right.volume) / node.volume
	return node
}

// totalVariance is the variance of the predictions over the search space.
func (m *marginals) totalVariance() float64 {
	var values, weights []float64
	var walk func(*marginalNode)
	walk = func(n *marginalNode) {
		if n.leaf() {
			values, weights = append(values, n.average), append(weights, n.volume)
			return
		}
		walk(n.left)
		walk(n.right)
	}
	walk(m.root)
	return stat.PopVariance(values, weights)
}

// variance is that of the average prediction as a function of some columns: it
// is constant between their thresholds, so one point of each part is enough.
func (m *marginals) variance(columns []int) float64 {
	points, sizes := [][]float64{nil}, []float64{1}
	for _, c := range columns {
		edges := slices.Concat([]float64{m.space[c].low}, m.splits[c], []float64{m.space[c].high})
		var nextPoints [][]float64
		var nextSizes []float64
		for i, p := range points {
			for k := range len(edges) - 1 {
				nextPoints = append(nextPoints, append(slices.Clone(p), (edges[k]+edges[k+1])/2))
				nextSizes = append(nextSizes, sizes[i]*(edges[k+1]-edges[k]))
			}
		}
		points, sizes = nextPoints, nextSizes
	}

	at := make([]float64, len(m.space)) // NaN: averaged over
	for i := range at {
		at[i] = math.NaN()
	}
	rest := make(box, len(m.space)) // volume 1 in all columns averaged over
	for i := range rest {
		rest[i] = interval{0, 1}
	}
	for _, c := range columns {
		rest[c] = m.space[c]
	}
	averages := make([]float64, len(points))
	for i, p := range points {
		for k, c := range columns {
			at[c] = p[k]
		}
		var sum, weight float64
		m.root.marginal(at, rest, &sum, &weight)
		averages[i] = sum / weight
		sizes[i] *= weight
	}
	return stat.PopVariance(averages, sizes)
}

// marginal adds up the predictions of the leaves that a point reaches in the
// columns where it is a number, weighted with their share of the other columns.
func (n *marginalNode) marginal(at []float64, rest box, sum, weight *float64) {
	if !n.leaf() {
		if x := at[n.feature]; !math.IsNaN(x) {
			left, right := rest.halves(n.feature, n.threshold)
			if x <= n.threshold {
				n.left.marginal(at, left, sum, weight)
			} else {
				n.right.marginal(at, right, sum, weight)
			}
			return
		}
		for i, x := range at {
			if !math.IsNaN(x) && n.splitsOn[i] {
				n.left.marginal(at, rest, sum, weight)
				n.right.marginal(at, rest, sum, weight)
				return
			}
		}
	}
	w := n.volume / rest.volume()
	*sum += n.average * w
	*weight += w
}
