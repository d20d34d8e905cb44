package deberta

import (
	"math"
	"slices"
)

// bucket maps a relative position to a signed bucket: linear up to half the
// number of buckets, logarithmic beyond, so that maxPosition−1 falls into the
// last one. It is transformers' make_log_bucket_position.
func bucket(relative, buckets, maxPosition int) int {
	mid := buckets / 2
	distance := max(relative, -relative)
	if distance <= mid {
		return relative
	}
	log := math.Log(float64(distance)/float64(mid)) / math.Log(float64(maxPosition-1)/float64(mid))
	b := int(math.Ceil(log*float64(mid-1))) + mid
	if relative < 0 {
		return -b
	}
	return b
}

// row returns the row of the relative embeddings for a relative position.
func (c Config) row(relative int) int {
	i := bucket(relative, c.PositionBuckets, c.MaxPosition) + c.PositionBuckets
	return min(max(i, 0), 2*c.PositionBuckets-1)
}

// positions says which rows of the relative embeddings a sequence of a given
// length needs, and where each relative position finds its row.
type positions struct {
	rows  []int // rows of the table, ascending, without repeats
	index func(relative int) int
}

// positionsFor covers the relative positions (query − key) of a length. Only
// the rows that occur are normalised and projected: for short sequences a
// fraction of the table.
func (c Config) positionsFor(length int) positions {
	var rows []int
	for r := 1 - length; r < length; r++ {
		rows = append(rows, c.row(r))
	}
	slices.Sort(rows)
	rows = slices.Compact(rows)
	return positions{rows, func(relative int) int {
		i, _ := slices.BinarySearch(rows, c.row(relative))
		return i
	}}
}
