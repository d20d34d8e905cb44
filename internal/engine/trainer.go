package engine

import (
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/ort"
)

// trainer is what a host holds for training only.
type trainer struct {
	*core
	optimizer optimizer
	updates   int // optimizer steps taken

	gradients *ort.Buffer // flat, laid out like the parameters

	scratch    *ort.Buffer // gradients of looked-up rows and dropout masks of the running micro-batch
	generation int         // counts the buffers of scratch memory, so that programs bind anew

	// masksByBatch draws dropout as versions before did, by the places of elements in a
	// padded batch: for runs that began so; see [dropout.Fill].
	masksByBatch bool

	words  *embeddings
	zero   func(block int) bool // of words, made once
	logits []float32            // of the last micro-batch
}

func newTrainer(c *core) (_ *trainer, err error) {
	t := &trainer{core: c}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("engine: preparing to train %d parameters: %w", c.Parameters(), err), t.close())
		}
	}()
	if t.gradients, err = ort.NewBuffer(4 * c.layout.size); err != nil {
		return nil, err
	}
	t.words = newEmbeddings(c.layout, t.gradients)
	t.zero = t.words.zero
	t.optimizer, err = newOptimizer(c, t.gradients, t.words)
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

// prepare makes room for what the running micro-batch alone needs, and draws its
// dropout masks there.
func (t *trainer) prepare(p *program, key dropout.Key) error {
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
		key.Site = uint64(site)
		t.fill(t.scratch.Bytes()[offset:offset+n], key, m, p.rows)
		offset += roundUp(n, alignment)
	}
	return nil
}

// fill draws a mask for a batch of so many rows.
func (t *trainer) fill(dst []byte, key dropout.Key, m deberta.Mask, rows int) {
	const attention = 4 // dimensions
	switch {
	case t.masksByBatch:
		dropout.Fill(dst, key, m.Drop, t.threads)
	case m.Table != nil:
		dropout.FillTable(dst, key, m.Table, m.Drop)
	case len(m.Shape) == attention:
		dropout.FillScores(dst, key, m.Shape[0], m.Shape[1], m.Shape[2], m.Drop, t.threads)
	default:
		dropout.FillTokens(dst, key, rows, m.Drop, t.threads)
	}
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
func (t *trainer) discard() { t.words.clear() }

func volume(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
