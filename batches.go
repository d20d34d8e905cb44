package criteria

import (
	"fmt"

	"github.com/criteria-go/criteria/internal/data"
)

// encodedSplit is a split as token ids, from which batches are made.
type encodedSplit struct {
	encodings Encodings
	labels    []int64
	weights   [2]float32 // of the classes in the loss
	lengths   []int      // of the encodings
	padTo     int        // length of every batch; 0: that of its longest row
}

func newEncodedSplit(s namedSplit, e Encodings, weights [2]float32, c TokenizerConfig) (*encodedSplit, error) {
	if e.Len() != len(s.examples) || len(e.Offsets) != e.Len()+1 {
		return nil, fmt.Errorf("criteria: the tokenizer returned %d encodings for the %d pairs of the %s split", e.Len(), len(s.examples), s.phase)
	}
	split := &encodedSplit{encodings: e, labels: s.labels(), weights: weights, lengths: lengths(e)}
	if c.Padding == "max_length" {
		split.padTo = c.MaxLength
	}
	return split, nil
}

func lengths(e Encodings) []int {
	n := make([]int, e.Len())
	for i := range n {
		n[i] = e.Offsets[i+1] - e.Offsets[i]
	}
	return n
}

func (s *encodedSplit) len() int { return len(s.labels) }

func (s *encodedSplit) truncated() int {
	n := 0
	for _, t := range s.encodings.Truncated {
		if t {
			n++
		}
	}
	return n
}

// trainingBatches plans an epoch of training: rows of similar length together,
// in an order that is a function of seed and epoch.
func (s *encodedSplit) trainingBatches(size int, seed uint64, epoch int) [][]int {
	return rowsOf(data.Batches(s.lengths, size, 1, seed, epoch))
}

// evaluationBatches plans batches by length, the longest first.
func (s *encodedSplit) evaluationBatches(size int) [][]int {
	return rowsOf(data.EvalBatches(s.lengths, size, 1))
}

func rowsOf(plans []data.BatchPlan) [][]int {
	rows := make([][]int, len(plans))
	for i, p := range plans {
		rows[i] = p.Indices
	}
	return rows
}

// batch puts rows together, with their labels and the weights of their classes.
func (s *encodedSplit) batch(rows []int) Batch {
	b := padded(s.encodings, rows, s.padTo)
	b.Labels = make([]int64, len(rows))
	b.SampleWeights = make([]float32, len(rows))
	for i, row := range rows {
		b.Labels[i] = s.labels[row]
		b.SampleWeights[i] = s.weights[s.labels[row]]
	}
	return b
}

// padded lays rows of e side by side, each filled up with padding to the length
// of the longest or, if that is more, to padTo.
func padded(e Encodings, rows []int, padTo int) Batch {
	length := padTo
	for _, row := range rows {
		length = max(length, len(e.At(row)))
	}
	b := Batch{
		Rows: len(rows), Length: length,
		InputIDs:      make([]int64, len(rows)*length),
		AttentionMask: make([]int64, len(rows)*length),
	}
	for i, row := range rows {
		for j, id := range e.At(row) {
			b.InputIDs[i*length+j] = int64(id)
			b.AttentionMask[i*length+j] = 1
		}
	}
	return b
}
