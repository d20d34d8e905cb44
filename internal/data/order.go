package data

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// Order is how the examples of an epoch of training come together in batches. The
// zero value is [Random].
type Order int

// The orders. What each draws is a function of seed and epoch, and must stay what
// it is: a run may be resumed or repeated by a later version.
const (
	// Random is a uniformly random permutation, cut into batches: what PyTorch's
	// RandomSampler draws. Only the last batch may be short.
	Random Order = iota
	// Grouped puts examples of alike length together, as transformers'
	// LengthGroupedSampler does, but those of one post into different batches.
	Grouped
	// Chunked sorts chunks of 50 batches by length. It is the order of version
	// 0.1, in which a run that it began goes on. The pairs of a post, which have
	// nearly one length, meet in a batch.
	Chunked
)

var orderNames = []string{"random", "grouped", "chunked"}

// String returns the name that [ParseOrder] reads.
func (o Order) String() string {
	if o < 0 || int(o) >= len(orderNames) {
		return fmt.Sprintf("Order(%d)", int(o))
	}
	return orderNames[o]
}

// ParseOrder reads random, grouped or chunked.
func ParseOrder(name string) (Order, error) {
	if i := slices.Index(orderNames, name); i >= 0 {
		return Order(i), nil
	}
	return 0, fmt.Errorf("order of batches %q, want one of %v", name, orderNames)
}

// Rows are the examples of a split, as far as their order depends on them.
type Rows struct {
	Lengths []int // tokens of each example
	Posts   []int // a number for the post of each
}

// Batches returns the examples of each batch of an epoch, by their places in
// rows. Every example occurs once.
func (o Order) Batches(rows Rows, batchSize int, seed uint64, epoch int) [][]int {
	batchSize = max(1, batchSize)
	switch o {
	case Grouped:
		return grouped(rows, batchSize, seed, epoch)
	case Chunked:
		var batches [][]int
		for _, p := range Batches(rows.Lengths, batchSize, 1, seed, epoch) {
			batches = append(batches, p.Indices)
		}
		return batches
	}
	return slices.Collect(slices.Chunk(permutation(len(rows.Lengths), newSource(seed, epoch)), batchSize))
}

// newSource returns the generator of an epoch: PCG-DXSM, whose numbers Go
// promises never to change.
func newSource(seed uint64, epoch int) *rand.PCG { return rand.NewPCG(seed, uint64(epoch)) }

// permutation draws one of the n! orders of 0 … n−1, each with the same
// probability, by the shuffle of Fisher and Yates (Durstenfeld, Algorithm 235,
// 1964).
func permutation(n int, from *rand.PCG) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	shuffle(order, from)
	return order
}

// shuffle puts a list into a random order. It is not that of math/rand/v2, which
// may draw differently in another version of Go.
func shuffle[T any](list []T, from *rand.PCG) {
	for i := len(list) - 1; i > 0; i-- {
		j := below(uint64(i)+1, from)
		list[i], list[j] = list[j], list[i]
	}
}

// below draws a number from 0 to n−1, each with the same probability (Lemire,
// Fast Random Integer Generation in an Interval, 2019).
func below(n uint64, from *rand.PCG) uint64 {
	high, low := bits.Mul64(from.Uint64(), n)
	if low < n {
		for least := -n % n; low < least; {
			high, low = bits.Mul64(from.Uint64(), n)
		}
	}
	return high
}

// grouped cuts a random permutation into chunks, as many that there are four at
// least and none has more than chunkBatches batches (transformers' rule), deals
// each out to batches of alike length, and puts these into a random order.
func grouped(rows Rows, batchSize int, seed uint64, epoch int) [][]int {
	source := newSource(seed, epoch)
	order := permutation(len(rows.Lengths), source)
	size := batchSize * max(1, min(len(order)/(4*batchSize), chunkBatches))
	var batches [][]int
	for chunk := range slices.Chunk(order, size) {
		batches = append(batches, deal(rows, chunk, batchSize)...)
	}
	shuffle(batches, source)
	return batches
}

// deal makes batches of a chunk. In the order of their lengths, the longest
// first, every example goes to the first batch with room that has the fewest
// examples of its post: to one that has none, as long as there is such a batch.
// So the examples of a batch are as alike as those of a post are spread. What
// the last batches have left to take is spread by exchanging.
func deal(rows Rows, chunk []int, batchSize int) [][]int {
	slices.SortStableFunc(chunk, func(a, b int) int { return cmp.Compare(rows.Lengths[b], rows.Lengths[a]) })
	d := dealt{posts: rows.Posts, of: make(map[[2]int]int)}
	for from := 0; from < len(chunk); from += batchSize {
		d.batches = append(d.batches, make([]int, 0, min(batchSize, len(chunk)-from)))
	}
	for _, example := range chunk {
		best := -1
		for b, batch := range d.batches {
			if len(batch) < cap(batch) && (best < 0 || d.has(b, example) < d.has(best, example)) {
				best = b
			}
		}
		d.batches[best] = append(d.batches[best], example)
		d.of[[2]int{best, rows.Posts[example]}]++
	}
	for b := len(d.batches) - 1; b > 0; b-- {
		d.spread(b)
	}
	return d.batches
}

// dealt are the batches of a chunk.
type dealt struct {
	posts   []int
	batches [][]int
	of      map[[2]int]int // examples by batch and post
}

// has counts the examples of the post of an example in a batch.
func (d *dealt) has(batch, example int) int { return d.of[[2]int{batch, d.posts[example]}] }

// spread exchanges examples of a batch whose post it has more than once for ones
// of the batches before it, the nearest first.
func (d *dealt) spread(b int) {
	for i, example := range d.batches[b] {
		for other := b - 1; other >= 0 && d.has(b, example) > 1; other-- {
			if d.has(other, example) > 0 {
				continue
			}
			for j, its := range d.batches[other] {
				if d.has(b, its) == 0 {
					d.exchange(b, i, other, j)
					example = its
					break
				}
			}
		}
	}
}

// exchange swaps example i of a batch with example j of another.
func (d *dealt) exchange(batch, i, other, j int) {
	a, b := &d.batches[batch][i], &d.batches[other][j]
	d.of[[2]int{batch, d.posts[*a]}]--
	d.of[[2]int{other, d.posts[*a]}]++
	d.of[[2]int{other, d.posts[*b]}]--
	d.of[[2]int{batch, d.posts[*b]}]++
	*a, *b = *b, *a
}
