package data

import (
	"cmp"
	"math/rand/v2"
	"slices"
)

// BatchPlan says which examples are computed together, and padded to which
// length.
type BatchPlan struct {
	Indices []int
	Length  int
}

// chunkBatches is how many batches' worth of examples are sorted by length
// together. More would waste less on padding, fewer would mix better.
const chunkBatches = 50

// Batches plans the batches of one epoch of training: examples of similar
// length together, in an order that is random but a function of seed and epoch
// alone. lengths[i] is the number of tokens of example i; the length of a
// batch is that of its longest example, rounded up to a multiple of multiple,
// so that few shapes occur. Every example occurs once; only the last batch of
// the last chunk may be short, and it too stands at a random place.
func Batches(lengths []int, batchSize, multiple int, seed uint64, epoch int) []BatchPlan {
	batchSize = max(1, batchSize)
	rng := rand.New(rand.NewPCG(seed, uint64(epoch)))
	order := rng.Perm(len(lengths))
	var plans []BatchPlan
	for chunk := range slices.Chunk(order, batchSize*chunkBatches) {
		plans = append(plans, planSorted(chunk, lengths, batchSize, multiple)...)
	}
	rng.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
	return plans
}

// EvalBatches plans batches by length, the longest first: the one that needs
// most memory shows at once whether it fits.
func EvalBatches(lengths []int, batchSize, multiple int) []BatchPlan {
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	return planSorted(order, lengths, max(1, batchSize), multiple)
}

// planSorted sorts indices by length, the longest first, and cuts them into
// batches, which are parts of indices.
func planSorted(indices, lengths []int, batchSize, multiple int) []BatchPlan {
	slices.SortStableFunc(indices, func(a, b int) int { return cmp.Compare(lengths[b], lengths[a]) })
	var plans []BatchPlan
	for batch := range slices.Chunk(indices, batchSize) {
		plans = append(plans, BatchPlan{Indices: batch, Length: roundUp(lengths[batch[0]], multiple)})
	}
	return plans
}

func roundUp(n, multiple int) int {
	if multiple <= 1 {
		return n
	}
	return (n + multiple - 1) / multiple * multiple
}
