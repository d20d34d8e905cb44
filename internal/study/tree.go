package study

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// treeNode is a node of a regression tree: x[feature] ≤ threshold goes left. A
// leaf has no children; its value is the mean there.
type treeNode struct {
	feature     int
	threshold   float64
	left, right *treeNode
	value       float64
}

func (n *treeNode) leaf() bool { return n.left == nil }

const maxTreeDepth = 64

// growTree fits a tree to a bootstrap sample: leaves are split, where the squared
// error falls most, until each is pure. Equally good columns are tried in random
// order (CART, as scikit-learn's RandomForestRegressor has it by default).
func growTree(x [][]float64, y []float64, rng *rand.Rand) *treeNode {
	sample := make([]int, len(y))
	for i := range sample {
		sample[i] = rng.IntN(len(y))
	}
	return splitNode(x, y, sample, rng, maxTreeDepth)
}

func splitNode(x [][]float64, y []float64, sample []int, rng *rand.Rand, depth int) *treeNode {
	const (
		pure  = 2.220446049250313e-16 // variance below which a leaf stays
		apart = 1e-7                  // distance of values that a threshold can divide
	)
	n := float64(len(sample))
	var sum, squares float64
	for _, i := range sample {
		sum += y[i]
		squares += y[i] * y[i]
	}
	node := &treeNode{value: sum / n}
	if len(sample) < 2 || depth == 0 || squares/n-node.value*node.value <= pure {
		return node
	}

	best, found := 0.0, false
	order := slices.Clone(sample)
	for _, f := range rng.Perm(len(x[0])) {
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a][f], x[b][f]) })
		left := 0.0 // sum of y
		for k, i := range order[:len(order)-1] {
			left += y[i]
			low, high := x[i][f], x[order[k+1]][f]
			if high <= low+apart {
				continue
			}
			// The larger this is, the smaller the squared error of both halves.
			nleft := float64(k + 1)
			right := sum - left
			if gain := left*left/nleft + right*right/(n-nleft); !found || gain > best {
				best, found = gain, true
				node.feature, node.threshold = f, low/2+high/2
			}
		}
	}
	if !found {
		return node
	}
	var left, right []int
	for _, i := range sample {
		if x[i][node.feature] <= node.threshold {
			left = append(left, i)
		} else {
			right = append(right, i)
		}
	}
	node.left = splitNode(x, y, left, rng, depth-1)
	node.right = splitNode(x, y, right, rng, depth-1)
	return node
}
