package engine

import (
	"context"
	"fmt"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/weights"
)

// core is what an engine and its backend both know: the model, how it is trained and
// where its parameters lie in the host's memory.
type core struct {
	model    deberta.Model
	training *Training // nil: inference only
	threads  int
	runtime  *ort.Runtime
	layout   layout
	params   *ort.Buffer // the engine frees it
}

// trains reports whether the model was opened for training.
func (c *core) trains() bool { return c.training != nil }

// untrained returns a core of the same model and parameters for inference alone.
func (c *core) untrained() *core {
	inference := *c
	inference.training = nil
	return &inference
}

// Parameters returns the number of trainable parameters.
func (c *core) Parameters() int {
	n := 0
	for _, p := range c.layout.params {
		n += p.Size()
	}
	return n
}

// check reports what is wrong with a batch.
func (c *core) check(b Batch) error {
	n, vocabulary := b.Rows*b.Length, c.model.Config.VocabSize
	switch {
	case b.Rows < 1 || b.Length < 1:
		return fmt.Errorf("engine: a batch of %d × %d tokens", b.Rows, b.Length)
	case len(b.InputIDs) != n || len(b.AttentionMask) != n:
		return fmt.Errorf("engine: a batch of %d × %d tokens has %d ids and a mask of %d", b.Rows, b.Length, len(b.InputIDs), len(b.AttentionMask))
	case b.Labels != nil && (len(b.Labels) != b.Rows || len(b.SampleWeights) != b.Rows):
		return fmt.Errorf("engine: a batch of %d rows has %d labels and %d weights", b.Rows, len(b.Labels), len(b.SampleWeights))
	}
	for i, id := range b.InputIDs {
		if id < 0 || id >= int64(vocabulary) {
			return fmt.Errorf("engine: token id %d in row %d, but the model's vocabulary has %d entries: the tokenizer is not the checkpoint's", id, i/b.Length, vocabulary)
		}
	}
	return nil
}

// read fills parameters, all or some, from a file.
func (c *core) read(ctx context.Context, file *weights.File, wanted func(deberta.Param) bool) error {
	flat := c.params.Float32()
	for i, p := range c.layout.params {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("engine: loading %s: %w", file.Path(), context.Cause(ctx))
		}
		if !wanted(p) {
			continue
		}
		name, err := findParam(file, p)
		if err != nil {
			return err
		}
		if err := file.ReadFloat32(name, c.layout.slice(flat, i)); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	return nil
}

// sources lists a flat vector by parameters for writing, under their names behind a
// prefix.
func (c *core) sources(flat []float32, prefix string) []weights.Source {
	sources := make([]weights.Source, len(c.layout.params))
	for i, p := range c.layout.params {
		sources[i] = weights.Float32s(prefix+p.Name, int64s(p.Shape), c.layout.slice(flat, i))
	}
	return sources
}
