package criteria

import (
	"fmt"
	"sync"

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

// A pendingSplit is a split that is being tokenized.
type pendingSplit struct {
	done  chan struct{} // closed when split or err is there
	split *encodedSplit
	err   error
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
	var b Batch
	s.fill(&b, rows)
	return b
}

// fill is batch in the memory of an earlier one.
func (s *encodedSplit) fill(b *Batch, rows []int) {
	pad(b, s.encodings, rows, s.padTo)
	b.Labels, b.SampleWeights = b.Labels[:0], b.SampleWeights[:0]
	for _, row := range rows {
		b.Labels = append(b.Labels, s.labels[row])
		b.SampleWeights = append(b.SampleWeights, s.weights[s.labels[row]])
	}
}

// padded lays rows of e side by side, each filled up with padding to the length
// of the longest or, if that is more, to padTo.
func padded(e Encodings, rows []int, padTo int) Batch {
	var b Batch
	pad(&b, e, rows, padTo)
	return b
}

// pad is padded in the memory of an earlier batch.
func pad(b *Batch, e Encodings, rows []int, padTo int) {
	length := padTo
	for _, row := range rows {
		length = max(length, len(e.At(row)))
	}
	b.Rows, b.Length = len(rows), length
	b.InputIDs, b.AttentionMask = b.InputIDs[:0], b.AttentionMask[:0]
	for _, row := range rows {
		ids := e.At(row)
		for _, id := range ids {
			b.InputIDs = append(b.InputIDs, int64(id))
			b.AttentionMask = append(b.AttentionMask, 1)
		}
		for range length - len(ids) {
			b.InputIDs = append(b.InputIDs, 0)
			b.AttentionMask = append(b.AttentionMask, 0)
		}
	}
}

// largest returns the most rows and the most tokens of the batches of a plan.
func (s *encodedSplit) largest(plan [][]int) (rows, tokens int) {
	for _, batch := range plan {
		length := s.padTo
		for _, row := range batch {
			length = max(length, s.lengths[row])
		}
		rows, tokens = max(rows, len(batch)), max(tokens, len(batch)*length)
	}
	return rows, tokens
}

// microBatch is a batch on its way through a session. Its labels are wanted again
// when its result arrives.
type microBatch struct {
	Batch
	pairs   int     // of the epoch, up to its end
	updates bool    // whether an update follows it
	loss    float64 // once it is known
}

// A feed builds the batches of a plan, in order, while those before them are
// computed. It makes do with the memory of few.
type feed struct {
	built, empty chan *microBatch
	builder      sync.WaitGroup
}

// feed starts to build the batches of a plan, of which at most held have been
// taken and not given back at any time. It must be stopped.
func (s *encodedSplit) feed(plan [][]int, held int) *feed {
	f := &feed{built: make(chan *microBatch, held+1), empty: make(chan *microBatch, held+1)}
	rows, tokens := s.largest(plan)
	for range cap(f.empty) {
		f.empty <- &microBatch{Batch: Batch{
			InputIDs: make([]int64, 0, tokens), AttentionMask: make([]int64, 0, tokens),
			Labels: make([]int64, 0, rows), SampleWeights: make([]float32, 0, rows),
		}}
	}
	f.builder.Go(func() {
		for _, rows := range plan {
			b, ok := <-f.empty
			if !ok {
				return
			}
			s.fill(&b.Batch, rows)
			f.built <- b // there is room for all of them
		}
	})
	return f
}

// take returns the next batch of the plan. It is the caller's until it is given
// back.
func (f *feed) take() *microBatch { return <-f.built }

// giveBack lets another batch be built in the memory of b.
func (f *feed) giveBack(b *microBatch) { f.empty <- b }

// stop ends the feed, wherever in the plan it is. No batch may be taken or given
// back any more.
func (f *feed) stop() {
	close(f.empty)
	f.builder.Wait()
}
