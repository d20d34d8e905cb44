package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/optim"
)

// host is the backend that computes on the CPU, straight from and into the
// parameters of the core.
type host struct {
	*core
	kernels  graph.Kernels // operators of the host beside those of ONNX
	programs programs[*program]
	packing  packing
	trainer  *trainer // nil for inference
}

func newHost(c *core) (*host, error) {
	h := &host{core: c, kernels: graph.Kernels{}, programs: newPrograms[*program](), packing: newPacking()}
	for _, name := range c.runtime.Operators() {
		h.kernels[name] = true
	}
	if !c.trains() {
		return h, nil
	}
	var err error
	if h.trainer, err = newTrainer(c); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *host) close() error {
	err := errors.Join(h.programs.close(), h.packing.close())
	if h.trainer != nil {
		err = errors.Join(err, h.trainer.close())
	}
	return err
}

func (h *host) name() string { return "" }

func (h *host) memoryInUse() (int, error) { return 0, nil }

func (h *host) largest() (rows, length int) {
	return h.programs.largest.rows, h.programs.largest.length
}

func (h *host) evaluate(ctx context.Context, b Batch) (Result, error) {
	p, err := h.forward(ctx, evaluation, b)
	if err != nil {
		return Result{}, err
	}
	return p.result(b), nil
}

func (h *host) explain(ctx context.Context, b Batch) (Result, []float32, error) {
	p, err := h.forward(ctx, explanation, b)
	if err != nil {
		return Result{}, nil, err
	}
	scores := make([]float32, 0, b.Rows*b.Length)
	for row := range b.Rows {
		scores = append(scores, p.scores.Float32()[row*p.graph.Length:][:b.Length]...)
	}
	return p.result(b), scores, nil
}

// forward runs a graph that needs nothing but the batch.
func (h *host) forward(ctx context.Context, k kind, b Batch) (*program, error) {
	p, err := h.ready(k, b)
	if err != nil {
		return nil, err
	}
	if err := p.binding.Run(ctx); err != nil {
		return nil, fmt.Errorf("engine: %s a batch of %d × %d tokens: %w", k, b.Rows, b.Length, err)
	}
	return p, nil
}

func (h *host) accumulate(ctx context.Context, b Batch, step, micro, before int) (pending[Result], error) {
	r, err := h.train(ctx, b, step, micro, before)
	if err != nil {
		h.trainer.discard()
	}
	return pending[Result]{result: r}, err
}

func (h *host) train(ctx context.Context, b Batch, step, micro, before int) (Result, error) {
	t, k := h.trainer, training
	if before > 0 {
		k = accumulating
	}
	if before == h.training.Accumulation {
		return Result{}, fmt.Errorf("engine: more than %d micro-batches without an update", h.training.Accumulation)
	}
	p, err := h.ready(k, b)
	if err != nil {
		return Result{}, err
	}
	p.lossScale.Float32()[0] = 1
	var mask []int64 // a packed batch has no padding
	key := dropout.Key{Seed: h.training.Seed, Step: uint64(step)<<16 | uint64(micro)}
	if p.length == 0 {
		p.key.Int64()[0] = key.State()
	} else {
		mask = p.mask.Int64()
		if err := t.prepare(p, key); err != nil {
			return Result{}, err
		}
	}
	if err := p.binding.Run(ctx); err != nil {
		return Result{}, fmt.Errorf("engine: %s a batch of %d × %d tokens: %w", k, b.Rows, b.Length, err)
	}
	t.words.add(p.ids.Int64(), mask, p.rowGradients.Float32())
	r := p.resultIn(t.logits, b)
	t.logits = r.Logits
	return r, nil
}

func (h *host) update(ctx context.Context, learningRate float64, micro int) (pending[float64], error) {
	t := h.trainer
	defer t.discard()
	share := 1 / float64(micro)
	norm := optim.GlobalNorm(t.gradients.Float32(), t.zero, h.threads) * share
	if norm-norm != 0 { // NaN or infinite
		return pending[float64]{result: norm}, nil
	}
	t.updates++
	scale := optim.ClipScale(norm, h.training.MaxGradNorm) * float32(share)
	return pending[float64]{result: norm}, t.optimizer.step(ctx, t.updates, learningRate, scale)
}

func (h *host) gradient(i int) ([]float32, error) {
	return slices.Clone(h.layout.slice(h.trainer.gradients.Float32(), i)), nil
}

func (h *host) fetch() error {
	if lazy := h.lazy(); lazy != nil {
		lazy.settleAll()
	}
	return nil
}

func (h *host) save(path string) error {
	masks := map[string]string{dropoutKey: dropoutByRow}
	if h.trainer.masksByBatch {
		masks = nil
	}
	return writeState(path, h.training.Optimizer, h.trainer.updates, h.trainer.optimizer, masks)
}

func (h *host) restore(path string) error {
	updates, metadata, err := readState(path, h.training.Optimizer, h.trainer.optimizer)
	if err != nil {
		return err
	}
	rule, ok := metadata[dropoutKey]
	if ok && rule != dropoutByRow {
		return fmt.Errorf("engine: %s: dropout is drawn %q, which this version does not know: "+
			"resume with the version that wrote it", path, rule)
	}
	h.trainer.masksByBatch = !ok
	h.trainer.discard()
	if lazy := h.lazy(); lazy != nil {
		lazy.forget() // what was read is up to date
	}
	h.trainer.updates = updates
	return nil
}

// settle brings the rows of the word embeddings up to date that a batch looks up.
func (h *host) settle(ids []int64) {
	lazy := h.lazy()
	if lazy == nil {
		return
	}
	for _, id := range ids {
		lazy.settle(id)
	}
}

// lazy returns the rows of the word embeddings that may have updates to catch up
// with; nil: there are none.
func (h *host) lazy() *lazyRows {
	if h.trainer == nil {
		return nil
	}
	return h.trainer.words.lazy
}
