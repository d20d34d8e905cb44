package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/weights"
)

// trainer is what an engine holds for training only.
type trainer struct {
	*Engine
	spec      Training
	optimizer optimizer
	updates   int // optimizer steps taken

	gradients   *ort.Buffer // flat, laid out like the parameters
	accumulated int         // micro-batches in gradients

	scratch    *ort.Buffer // gradients of looked-up rows and dropout masks of the running micro-batch
	generation int         // counts the buffers of scratch memory, so that programs bind anew

	words  *embeddings
	zero   func(block int) bool // of words, made once
	logits []float32            // of the last micro-batch
}

var errNotTraining = errors.New("engine: opened for inference only")

func newTrainer(e *Engine, spec Training) (_ *trainer, err error) {
	if spec.Accumulation < 1 {
		return nil, fmt.Errorf("engine: gradient accumulation over %d micro-batches, want at least 1", spec.Accumulation)
	}
	t := &trainer{Engine: e, spec: spec}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("engine: preparing to train %d parameters: %w", e.Parameters(), err), t.close())
		}
	}()
	if t.gradients, err = ort.NewBuffer(4 * e.layout.size); err != nil {
		return nil, err
	}
	t.words = newEmbeddings(e.layout, t.gradients)
	t.zero = t.words.zero
	t.optimizer, err = newOptimizer(e, t.gradients, t.words, spec)
	return t, err
}

func (t *trainer) close() error {
	var errs []error
	if t.optimizer != nil {
		errs = append(errs, t.optimizer.close())
	}
	for _, b := range []*ort.Buffer{t.gradients, t.scratch} {
		if b != nil {
			errs = append(errs, b.Free())
		}
	}
	return errors.Join(errs...)
}

// dropoutScale is what dropout multiplies with, so that the expectation stays.
func dropoutScale(p float64) float64 { return 1 / dropout.KeepProbability(p) }

// bindGradients binds the inputs and outputs that only training has. The
// gradients of all parameters go to their places in the flat buffer, except the
// word embeddings', which come as rows: see [trainer.bindScratch].
func (t *trainer) bindGradients(p *program, k kind) error {
	if err := p.binding.BindInput(deberta.LossScale, p.lossScale); err != nil {
		return err
	}
	for _, w := range p.graph.Weights {
		if !w.Trained || w.Name == deberta.WordEmbeddings {
			continue
		}
		view, err := t.layout.view(t.gradients, w)
		if err != nil {
			return err
		}
		if k == accumulating {
			if err := p.binding.BindInput(deberta.SumOf(w.Name), view); err != nil {
				return err
			}
		}
		if err := p.binding.BindOutput(deberta.GradientOf(w.Name), view); err != nil {
			return err
		}
	}
	return nil
}

// Accumulate runs forward and backward over a micro-batch with dropout and adds
// its gradients. step and micro number the update and the micro-batch within
// it: together with the seed they decide the dropout masks.
//
// After an error, and if ctx ends, nothing is accumulated: the engine is as it
// was after the last Update. The logits are overwritten by the next call.
func (e *Engine) Accumulate(ctx context.Context, b Batch, step, micro int) (Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.checkAccumulate(b); err != nil {
		return Result{}, err
	}
	if e.accelerator != nil {
		return waited(e.accelerator.accumulate(ctx, b, step, micro))
	}
	result, err := e.trainer.accumulate(ctx, b, step, micro)
	if err != nil {
		e.trainer.discard()
	}
	return result, err
}

func (e *Engine) checkAccumulate(b Batch) error {
	switch {
	case e.closed:
		return errClosed
	case !e.trains():
		return errNotTraining
	case b.Labels == nil:
		return errors.New("engine: a batch without labels cannot be trained on")
	}
	return nil
}

func (t *trainer) accumulate(ctx context.Context, b Batch, step, micro int) (Result, error) {
	k := training
	if t.accumulated > 0 {
		k = accumulating
	}
	if t.accumulated == t.spec.Accumulation {
		return Result{}, fmt.Errorf("engine: more than %d micro-batches without an update", t.spec.Accumulation)
	}
	p, err := t.program(k, b)
	if err != nil {
		return Result{}, err
	}
	p.load(b)
	t.settle(p.ids.Int64())
	p.lossScale.Float32()[0] = 1
	if err := t.prepare(p, step, micro); err != nil {
		return Result{}, err
	}
	if err := p.binding.Run(ctx); err != nil {
		return Result{}, fmt.Errorf("engine: training on a batch of %d × %d tokens: %w", b.Rows, b.Length, err)
	}
	t.words.add(p.ids.Int64(), p.mask.Int64(), p.rowGradients.Float32())
	t.accumulated++
	r := p.resultIn(t.logits, b)
	t.logits = r.Logits
	return r, nil
}

// prepare makes room for what the running micro-batch alone needs, and draws its
// dropout masks there.
func (t *trainer) prepare(p *program, step, micro int) error {
	size := rowGradientBytes(p, t.model.Config.HiddenSize)
	for _, m := range p.graph.Masks {
		size += roundUp(volume(m.Shape), alignment)
	}
	if t.scratch == nil || len(t.scratch.Bytes()) < size {
		buffer, err := ort.NewBuffer(size)
		if err != nil {
			return fmt.Errorf("engine: memory for dropout masks and gradients of rows: %w", err)
		}
		old := t.scratch
		t.scratch = buffer
		t.generation++
		if old != nil {
			// Programs bound to it bind anew before they run again.
			if err := old.Free(); err != nil {
				return err
			}
		}
	}
	if p.scratch != t.generation {
		if err := t.bindScratch(p); err != nil {
			return err
		}
		p.scratch = t.generation
	}
	offset := rowGradientBytes(p, t.model.Config.HiddenSize)
	for site, m := range p.graph.Masks {
		n := volume(m.Shape)
		key := dropout.Key{Seed: t.spec.Seed, Step: uint64(step)<<16 | uint64(micro), Site: uint64(site)}
		dropout.Fill(t.scratch.Bytes()[offset:offset+n], key, m.Drop, t.threads)
		offset += roundUp(n, alignment)
	}
	return nil
}

// rowGradientBytes is what the gradients of looked-up rows take, which begin the
// scratch memory.
func rowGradientBytes(p *program, width int) int {
	return roundUp(4*p.rows*p.length*width, alignment)
}

func (t *trainer) bindScratch(p *program) (err error) {
	width := t.model.Config.HiddenSize
	if p.rowGradients, err = t.scratch.Tensor(ort.Float32, 0, p.rows*p.length, width); err != nil {
		return err
	}
	if err := p.binding.BindOutput(deberta.GradientOf(deberta.WordEmbeddings), p.rowGradients); err != nil {
		return err
	}
	offset := rowGradientBytes(p, width)
	for _, m := range p.graph.Masks {
		view, err := t.scratch.Tensor(ort.Bool, offset, m.Shape...)
		if err != nil {
			return err
		}
		if err := p.binding.BindInput(m.Name, view); err != nil {
			return err
		}
		offset += roundUp(volume(m.Shape), alignment)
	}
	return nil
}

// discard forgets the accumulated gradients. Those of parameters other than
// the word embeddings are overwritten by the next micro-batch.
func (t *trainer) discard() {
	t.words.clear()
	t.accumulated = 0
}

// Update averages the gradients over the micro-batches that were accumulated
// (the last window of an epoch may have fewer than the others), clips them to
// the global norm, takes one optimizer step at the given learning rate and
// forgets them. It returns the norm before clipping, which is not finite if the
// run has diverged: then the parameters are left as they are.
func (e *Engine) Update(ctx context.Context, learningRate float64) (gradNorm float64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.checkUpdate(ctx); err != nil {
		return 0, err
	}
	if e.accelerator != nil {
		return waited(e.accelerator.update(ctx, learningRate))
	}
	t := e.trainer
	defer t.discard()
	share := 1 / float64(t.accumulated)
	norm := optim.GlobalNorm(t.gradients.Float32(), t.zero, t.threads) * share
	if norm-norm != 0 { // NaN or infinite
		return norm, nil
	}
	t.updates++
	return norm, t.optimizer.step(ctx, t.updates, learningRate, optim.ClipScale(norm, t.spec.MaxGradNorm)*float32(share))
}

func (e *Engine) checkUpdate(ctx context.Context) error {
	switch {
	case e.closed:
		return errClosed
	case !e.trains():
		return errNotTraining
	case e.accumulated() == 0:
		return errors.New("engine: update without gradients")
	case ctx.Err() != nil:
		return fmt.Errorf("engine: update: %w", context.Cause(ctx))
	}
	return nil
}

// updatesKey is the metadata entry that counts the optimizer's steps.
const (
	updatesKey   = "updates"
	optimizerKey = "optimizer"
)

// accumulated counts the micro-batches since the last update.
func (e *Engine) accumulated() int {
	if e.accelerator != nil {
		return e.accelerator.accumulated
	}
	return e.trainer.accumulated
}

// save writes the optimizer's state.
func (t *trainer) save(path string) error {
	return writeState(path, t.spec.Optimizer, t.updates, t.optimizer, nil)
}

// writeState writes the state of an optimizer, by its name, after so many
// updates, with more metadata.
func writeState(path, name string, updates int, o stateful, more map[string]string) error {
	metadata := map[string]string{updatesKey: strconv.Itoa(updates), optimizerKey: name}
	maps.Copy(metadata, more)
	if err := weights.WriteSafetensors(path, metadata, o.state()); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// restore reads what save wrote.
func (t *trainer) restore(path string) error {
	updates, _, err := readState(path, t.spec.Optimizer, t.optimizer)
	if err != nil {
		return err
	}
	t.discard()
	if t.words.lazy != nil {
		t.words.lazy.forget() // what was read is up to date
	}
	t.updates = updates
	return nil
}

// readState reads what writeState wrote.
func readState(path, name string, o stateful) (updates int, metadata map[string]string, err error) {
	file, err := weights.Open(path)
	if err != nil {
		return 0, nil, fmt.Errorf("engine: %w", err)
	}
	defer file.Close()
	metadata = file.Metadata()
	if got := metadata[optimizerKey]; got != name {
		return 0, nil, fmt.Errorf("engine: %s holds the state of optimizer %q, but train.optimizer_type is %q: resume with the same optimizer", path, got, name)
	}
	updates, err = strconv.Atoi(metadata[updatesKey])
	if err != nil || updates < 0 {
		return 0, nil, fmt.Errorf("engine: %s: metadata %s is %q, want a number of steps", path, updatesKey, metadata[updatesKey])
	}
	if err := o.restore(file); err != nil {
		return 0, nil, fmt.Errorf("engine: %s: %w", path, err)
	}
	return updates, metadata, nil
}

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// Optimizers lists the optimizers by the names that Hugging Face gives them.
func Optimizers() []string { return slices.Clone(optimizerNames) }
