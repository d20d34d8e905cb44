package engine

import (
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/ort"
)

// kind tells the graphs of a model apart.
type kind int

const (
	evaluation   kind = iota
	training          // the first micro-batch of an update
	accumulating      // the others, whose gradients are added to the first one's
	explanation
)

// String says what a run of such a graph does with a batch.
func (k kind) String() string {
	switch k {
	case training, accumulating:
		return "training on"
	case explanation:
		return "explaining"
	default:
		return "evaluating"
	}
}

type programKey struct {
	kind         kind
	rows, length int // length is 0 for packed batches
}

func (k programKey) packed() bool { return k.length == 0 }

func (k programKey) String() string {
	if k.packed() {
		return fmt.Sprintf("%d rows", k.rows)
	}
	return fmt.Sprintf("%d × %d tokens", k.rows, k.length)
}

// program is a graph compiled for one shape of batch, or for one number of rows if
// batches are packed, with the memory of its inputs and outputs.
type program struct {
	graph   *deberta.Graph
	session *ort.Session
	binding *ort.Binding

	memory *ort.Buffer // of all tensors below but rowGradients
	batchTensors
	lossScale    ort.Tensor // training only
	scores       ort.Tensor // explanation only
	rowGradients ort.Tensor // training only: in the trainer's scratch memory
	scratch      int        // generation of the scratch memory that is bound; 0: none

	offsets, key ort.Tensor  // of packed batches; key: training only
	bound        boundPacked // what ids and rowGradients, which are shared, are bound to
}

// batchTensors are what a graph reads of a batch and what it computes for it.
type batchTensors struct {
	rows, length          int
	position              ort.Tensor // int64 [1]; of a device that draws its dropout from it
	ids, mask, labels     ort.Tensor
	weights, loss, logits ort.Tensor
}

// Lengths, in tokens, are rounded up to multiples of LengthStep: few shapes, little
// padding. On a device, whose kernels work on larger tiles, it is deviceLengthStep.
const (
	LengthStep       = 16
	deviceLengthStep = 32
)

// program returns the compiled graph for a batch, which it compiles when the
// shape is met for the first time, or again after a long time.
func (h *host) program(k kind, b Batch) (*program, error) {
	if err := h.check(b); err != nil {
		return nil, err
	}
	key := programKey{k, roundRows(b.Rows), roundUp(b.Length, LengthStep)}
	h.programs.met(key)
	return h.compiled(key)
}

func (h *host) compiled(key programKey) (*program, error) {
	if p, ok := h.programs.get(key); ok {
		return p, nil
	}
	p, err := h.compile(key)
	if err != nil {
		return nil, fmt.Errorf("engine: preparing batches of %v: %w", key, err)
	}
	return p, h.programs.add(key, p)
}

// roundRows fills a short batch up to a number of rows that others share: 1, 2
// or a multiple of 4. It depends on nothing else, because dropout masks and the
// order of sums depend on the shape: a resumed run must meet the same ones.
func roundRows(rows int) int {
	if rows <= 2 {
		return rows
	}
	return roundUp(rows, 4)
}

func (h *host) compile(key programKey) (_ *program, err error) {
	p := &program{}
	switch {
	case key.packed():
		p.graph = h.packedGraph(key.kind, key.rows)
	case key.kind == training:
		p.graph = h.model.Training(key.rows, key.length, h.kernels, dropoutScale)
	case key.kind == accumulating:
		p.graph = h.model.Accumulating(key.rows, key.length, h.kernels, dropoutScale)
	case key.kind == explanation:
		p.graph = h.model.Explanation(key.rows, key.length, h.kernels)
	default:
		p.graph = h.model.Evaluation(key.rows, key.length, h.kernels)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.session, err = h.runtime.NewSession(p.graph.Encode(), ort.SessionOptions{Threads: h.threads}); err != nil {
		return nil, err
	}
	if p.binding, err = p.session.NewBinding(); err != nil {
		return nil, err
	}
	if err := h.allocate(p, key); err != nil {
		return nil, err
	}
	if err := h.bindBatch(p, p.binding); err != nil {
		return nil, err
	}
	switch key.kind {
	case training, accumulating:
		return p, h.trainer.bindGradients(p, key.kind)
	case explanation:
		return p, p.binding.BindOutput(deberta.TokenScores, p.scores)
	}
	return p, nil
}

// allocate makes the tensors of a program, all in one buffer.
func (h *host) allocate(p *program, key programKey) (err error) {
	rows, length := key.rows, key.length
	p.rows, p.length = rows, length
	tokens := rows * length
	// In elements of four bytes; int64 tensors come first, for alignment.
	size := 2*(2*tokens+rows) + rows + 1 + rows*deberta.Classes
	if key.packed() {
		size += 2 * (rows + 1 + 1) // offsets and key
	}
	switch key.kind {
	case training, accumulating:
		size++
	case explanation:
		size += tokens
	}
	if p.memory, err = ort.NewBuffer(4 * size); err != nil {
		return err
	}
	offset := 0 // in bytes
	take := func(t *ort.Tensor, dtype ort.DType, shape ...int) {
		if err != nil {
			return
		}
		if *t, err = p.memory.Tensor(dtype, offset/dtype.Size(), shape...); err == nil {
			offset += t.Len() * dtype.Size()
		}
	}
	if key.packed() {
		take(&p.offsets, ort.Int64, rows+1)
		take(&p.key, ort.Int64, 1)
	} else {
		take(&p.ids, ort.Int64, rows, length)
		take(&p.mask, ort.Int64, rows, length)
	}
	take(&p.labels, ort.Int64, rows)
	take(&p.weights, ort.Float32, rows)
	take(&p.loss, ort.Float32)
	take(&p.logits, ort.Float32, rows, deberta.Classes)
	switch key.kind {
	case training, accumulating:
		take(&p.lossScale, ort.Float32)
	case explanation:
		take(&p.scores, ort.Float32, rows, length)
	}
	return err
}

// inputs are those that a batch is loaded into, but for what a packed batch has of a size
// of its own.
func (p *program) inputs() map[string]ort.Tensor {
	inputs := map[string]ort.Tensor{deberta.Labels: p.labels, deberta.SampleWeights: p.weights}
	if p.length > 0 {
		inputs[deberta.InputIDs], inputs[deberta.AttentionMask] = p.ids, p.mask
		return inputs
	}
	inputs[deberta.Offsets] = p.offsets
	if p.graph.HasInput(deberta.DropoutKey) {
		inputs[deberta.DropoutKey] = p.key
	}
	return inputs
}

// bindBatch binds what both graphs read and write.
func (h *host) bindBatch(p *program, b *ort.Binding) error {
	for name, t := range p.inputs() {
		if err := b.BindInput(name, t); err != nil {
			return err
		}
	}
	for _, w := range p.graph.Weights {
		t, err := h.layout.view(h.params, w)
		if err != nil {
			return err
		}
		if err := b.BindInput(w.Name, t); err != nil {
			return err
		}
	}
	if err := b.BindOutput(deberta.Loss, p.loss); err != nil {
		return err
	}
	return b.BindOutput(deberta.Logits, p.logits)
}

// load copies a batch into the tensors. Rows and columns that are
// missing become padding; a row of padding has one token, so that its softmax
// has something to attend to, and weight 0.
func (t *batchTensors) load(b Batch) {
	ids, mask, length := t.ids.Int64(), t.mask.Int64(), t.length
	clear(ids)
	clear(mask)
	for r := range t.rows {
		if r >= b.Rows {
			mask[r*length] = 1
			continue
		}
		copy(ids[r*length:], b.InputIDs[r*b.Length:(r+1)*b.Length])
		copy(mask[r*length:], b.AttentionMask[r*b.Length:(r+1)*b.Length])
	}
	t.loadLabels(b)
}

// loadLabels copies labels and weights, if there are any; rows that are missing have
// weight 0.
func (t *batchTensors) loadLabels(b Batch) {
	clear(t.labels.Int64())
	clear(t.weights.Float32())
	if b.Labels != nil {
		copy(t.labels.Int64(), b.Labels)
		copy(t.weights.Float32(), b.SampleWeights)
	}
}

// result copies what a run computed for the rows of b.
func (t *batchTensors) result(b Batch) Result { return t.resultIn(nil, b) }

// resultIn is result in the memory of earlier logits.
func (t *batchTensors) resultIn(logits []float32, b Batch) Result {
	r := Result{Logits: append(logits[:0], t.logits.Float32()[:b.Rows*deberta.Classes]...)}
	if b.Labels != nil {
		r.Loss = float64(t.loss.Float32()[0])
	}
	return r
}

func (p *program) close() error {
	var errs []error
	if p.session != nil {
		errs = append(errs, p.session.Close()) // and its bindings
	}
	if p.memory != nil {
		errs = append(errs, p.memory.Free())
	}
	return errors.Join(errs...)
}
