package engine

import (
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/ort"
)

// Batches are computed packed where the runtime has the operators for it: the tokens of
// all rows lie end to end, and no padding is computed. A graph for packed batches serves
// any lengths; it knows the number of rows alone.

// packedTokens is what the tokens of a packed batch are filled up to a multiple of:
// products are faster on whole vectors.
const packedTokens = 16

// packing is the memory that packed batches share, whatever their graph.
type packing struct {
	memory     *ort.Buffer
	generation int   // counts the buffers, so that programs bind anew
	lengths    []int // of the rows of the batch
	relative   map[int]deberta.Relative
	sizes      map[packedSize]packedTensors // views of the buffer
}

// packedSize is what the inputs of a packed batch have, each rounded up.
type packedSize struct {
	tokens, longest int
	training        bool
}

// packedTensors are the inputs and outputs whose sizes differ from batch to batch.
type packedTensors struct {
	ids, rows, index ort.Tensor
	rowGradients     ort.Tensor // training only
}

// boundPacked says what a program is bound to.
type boundPacked struct {
	size       packedSize
	generation int
}

// maxPackedSizes is how many sizes are remembered.
const maxPackedSizes = 4096

// packs reports whether batches are computed packed. Runs that began with masks by
// batches go on with them, and with the graphs that these masks are for.
func (h *host) packs() bool {
	return h.model.Packs(h.kernels) && (h.trainer == nil || !h.trainer.masksByBatch)
}

// rowLengths returns the tokens of every row, until the next call. It reports false if
// some row has none, or padding in between: such a batch is computed as it is.
func (p *packing) rowLengths(b Batch) (lengths []int, ok bool) {
	p.lengths = p.lengths[:0]
	for r := range b.Rows {
		mask, n := b.AttentionMask[r*b.Length:(r+1)*b.Length], 0
		for n < len(mask) && mask[n] != 0 {
			n++
		}
		for _, m := range mask[n:] {
			if m != 0 {
				return nil, false
			}
		}
		if n == 0 {
			return nil, false
		}
		p.lengths = append(p.lengths, n)
	}
	return p.lengths, true
}

// ready returns a program that is about to run on a batch: compiled, bound and loaded.
func (h *host) ready(k kind, b Batch) (*program, error) {
	if err := h.check(b); err != nil {
		return nil, err
	}
	if h.packs() && k != explanation { // scores belong to the places of a padded batch
		if lengths, ok := h.packing.rowLengths(b); ok {
			return h.readyPacked(k, b, lengths)
		}
	}
	p, err := h.program(k, b)
	if err != nil {
		return nil, err
	}
	p.load(b)
	h.settle(p.ids.Int64())
	return p, nil
}

func (h *host) readyPacked(k kind, b Batch, lengths []int) (*program, error) {
	h.programs.met(programKey{k, roundRows(b.Rows), roundUp(b.Length, LengthStep)})
	p, err := h.compiled(programKey{k, roundRows(b.Rows), 0})
	if err != nil {
		return nil, err
	}
	size := packedSize{training: k == training || k == accumulating}
	for _, n := range lengths {
		size.tokens += n
		size.longest = max(size.longest, n)
	}
	size.tokens, size.longest = roundUp(size.tokens, packedTokens), roundUp(size.longest, LengthStep)
	if err := h.bindPacked(p, size); err != nil {
		return nil, fmt.Errorf("engine: preparing a batch of %d tokens: %w", size.tokens, err)
	}
	p.loadPacked(b, lengths)
	h.settle(p.ids.Int64())
	return p, nil
}

// rowGradient is the output of the gradients of looked-up rows.
var rowGradient = deberta.GradientOf(deberta.WordEmbeddings)

// bindPacked binds a program to tensors of a size.
func (h *host) bindPacked(p *program, size packedSize) error {
	t, err := h.packing.tensors(h.model.Config, size)
	if err != nil {
		return err
	}
	want := boundPacked{size, h.packing.generation}
	if p.bound == want {
		return nil
	}
	p.bound = boundPacked{} // nothing, if the following fails
	if err := p.binding.BindInput(deberta.InputIDs, t.ids); err != nil {
		return err
	}
	if err := p.binding.BindInput(deberta.RelativeRows, t.rows); err != nil {
		return err
	}
	if err := p.binding.BindInput(deberta.RelativeIndex, t.index); err != nil {
		return err
	}
	if size.training {
		if err := p.binding.BindOutput(rowGradient, t.rowGradients); err != nil {
			return err
		}
	}
	p.ids, p.rowGradients, p.bound = t.ids, t.rowGradients, want
	return nil
}

// tensors returns the tensors of a size, with what relative positions need filled in.
func (p *packing) tensors(c deberta.Config, size packedSize) (packedTensors, error) {
	relative := p.relativeFor(c, size.longest)
	ids, rows, index := size.tokens, len(relative.Rows), len(relative.Index)
	// In bytes; what has eight bytes each comes first.
	gradients := roundUp(8*(ids+rows+index), 4*alignment)
	total := gradients
	if size.training {
		total += 4 * size.tokens * c.HiddenSize
	}
	if err := p.grow(total); err != nil {
		return packedTensors{}, err
	}
	t, ok := p.sizes[size]
	if !ok {
		var errs [4]error
		t.rows, errs[0] = p.memory.Tensor(ort.Int64, 0, rows)
		t.index, errs[1] = p.memory.Tensor(ort.Int64, rows, index)
		t.ids, errs[2] = p.memory.Tensor(ort.Int64, rows+index, ids)
		if size.training {
			t.rowGradients, errs[3] = p.memory.Tensor(ort.Float32, gradients/4, ids, c.HiddenSize)
		}
		if err := errors.Join(errs[:]...); err != nil {
			return packedTensors{}, err
		}
		if len(p.sizes) == maxPackedSizes {
			clear(p.sizes)
		}
		p.sizes[size] = t
	}
	copy(t.rows.Int64(), relative.Rows)
	copy(t.index.Int64(), relative.Index)
	return t, nil
}

func (p *packing) relativeFor(c deberta.Config, longest int) deberta.Relative {
	r, ok := p.relative[longest]
	if !ok {
		r = c.RelativeFor(longest)
		p.relative[longest] = r
	}
	return r
}

// grow makes room for so many bytes.
func (p *packing) grow(size int) error {
	if p.memory != nil && len(p.memory.Bytes()) >= size {
		return nil
	}
	fresh, err := ort.NewBuffer(size)
	if err != nil {
		return err
	}
	old := p.memory
	p.memory = fresh
	p.generation++ // programs bound to the old one bind anew before they run again
	clear(p.sizes)
	if old != nil {
		return old.Free()
	}
	return nil
}

func (p *packing) close() error {
	if p.memory == nil {
		return nil
	}
	return p.memory.Free()
}

func newPacking() packing {
	return packing{relative: map[int]deberta.Relative{}, sizes: map[packedSize]packedTensors{}}
}

// packedGraph returns the graph of a kind for so many rows.
func (h *host) packedGraph(k kind, rows int) *deberta.Graph {
	switch k {
	case training:
		return h.model.PackedTraining(rows, h.kernels, dropoutDrawn)
	case accumulating:
		return h.model.PackedAccumulating(rows, h.kernels, dropoutDrawn)
	}
	return h.model.PackedEvaluation(rows, h.kernels)
}

// dropoutDrawn says how operators draw the masks of package dropout.
func dropoutDrawn(p float64) (threshold int, scale float64) {
	return dropout.Threshold(p), dropoutScale(p)
}

// loadPacked copies a batch into the tensors, row by row without padding. Rows that are
// missing are empty.
func (p *program) loadPacked(b Batch, lengths []int) {
	ids, offsets, at := p.ids.Int64(), p.offsets.Int64(), 0
	for r := range p.rows {
		offsets[r] = int64(at)
		if r < b.Rows {
			at += copy(ids[at:], b.InputIDs[r*b.Length:][:lengths[r]])
		}
	}
	offsets[p.rows] = int64(at)
	clear(ids[at:])
	p.loadLabels(b)
}
