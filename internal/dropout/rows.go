package dropout

import "github.com/criteria-go/criteria/internal/parallel"

// Masks by rows: every row of a batch has numbers of its own, so that what is kept of it
// depends neither on how far it is padded, nor on where the other rows lie, nor on who
// computes it. A row's mask is that of [FillMask] for the state
//
//	mix(start + row·golden + 3)
//
// and one of a head of its attention for mix(of the row + head·golden + 4). Element i·D + c
// belongs to column c of token i of D columns; in attention element i·2¹⁶ + j to query i
// and key j. A table that all rows share has the numbers of row 0.

// queryStride is where the next query's elements begin.
const queryStride = 1 << 16

// State is what the seed and the step of a key begin with: what operators that draw
// masks themselves are given in its place.
func (k Key) State() int64 {
	return int64(mix(mix(k.Seed+golden) + k.Step*golden + 1))
}

// Threshold returns of how many of 65536 values an element is dropped.
func Threshold(p float64) int { return int(threshold(p)) }

func row(start uint64, row int) uint64   { return mix(start + uint64(row)*golden + 3) }
func head(start uint64, head int) uint64 { return mix(start + uint64(head)*golden + 4) }

// FillTokens writes the mask of rows that have equally many elements each.
func FillTokens(dst []byte, key Key, rows int, p float64, threads int) {
	fillRows.Run(rows, threads, rowMask{dst, key.start(), len(dst) / rows, p})
}

type rowMask struct {
	dst   []byte
	start uint64
	each  int
	p     float64
}

var fillRows = parallel.New(func(m *rowMask, r int) {
	fillMask(m.dst[r*m.each:(r+1)*m.each], row(m.start, r), 0, m.p)
})

// FillTable writes the mask of the numbered rows of a table.
func FillTable(dst []byte, key Key, numbers []int, p float64) {
	start, width := row(key.start(), 0), len(dst)/len(numbers)
	for i, n := range numbers {
		fillMask(dst[i*width:(i+1)*width], start, n*width, p)
	}
}

// FillScores writes the mask of attention probabilities [heads, rows, queries, keys].
func FillScores(dst []byte, key Key, heads, rows, queries int, p float64, threads int) {
	fillScores.Run(heads*rows, threads, scoreMask{dst, key.start(), rows, queries, len(dst) / (heads * rows * queries), p})
}

type scoreMask struct {
	dst                 []byte
	start               uint64
	rows, queries, keys int
	p                   float64
}

var fillScores = parallel.New(func(m *scoreMask, part int) {
	start := head(row(m.start, part%m.rows), part/m.rows)
	for i := range m.queries {
		at := (part*m.queries + i) * m.keys
		fillMask(m.dst[at:at+m.keys], start, i*queryStride, m.p)
	}
})
