package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/weights"
)

// An optimizer updates the flat parameters by the flat gradients.
type optimizer interface {
	// step takes the t-th step, counted from 1, with gradients multiplied by
	// gradScale.
	step(ctx context.Context, t int, learningRate float64, gradScale float32) error
	stateful
	close() error
}

// stateful is the part of an optimizer that files hold: state lists its tensors,
// restore reads them back.
type stateful interface {
	state() []weights.Source
	restore(file *weights.File) error
}

// The optimizers, by the names that Hugging Face gives them.
const (
	adamW      = "adamw"             // the portable graph, run by ONNX Runtime
	adamWFused = "adamw_torch_fused" // the same arithmetic in one pass of a kernel in C
	adamW8bit  = "adamw_bnb_8bit"    // moments in 8 bits
)

var optimizerNames = []string{adamW, adamWFused, adamW8bit}

// Optimizers lists the optimizers by the names that Hugging Face gives them.
func Optimizers() []string { return slices.Clone(optimizerNames) }

func newOptimizer(c *core, gradients *ort.Buffer, words *embeddings) (optimizer, error) {
	spec := c.training
	base := flat{core: c, gradients: gradients, weightDecay: spec.WeightDecay, decayed: c.layout.decayed, adamW: optim.DefaultAdamW()}
	if spec.DecayAll {
		base.decayed = c.layout.size
	}
	if spec.Optimizer == adamW8bit {
		return newQuantized(base)
	}
	var err error
	if base.m, err = ort.NewBuffer(4 * c.layout.size); err != nil {
		return nil, err
	}
	if base.v, err = ort.NewBuffer(4 * c.layout.size); err != nil {
		return nil, errors.Join(err, base.close())
	}
	switch spec.Optimizer {
	case adamWFused:
		words.lazy = newLazyRows(words, c.params.Float32(), base.m.Float32(), base.v.Float32(), c.threads)
		return &fused{base, words}, nil
	case adamW:
		return newPortable(base)
	}
	return nil, errors.Join(fmt.Errorf("unknown optimizer %q, want one of %s", spec.Optimizer, strings.Join(optimizerNames, ", ")), base.close())
}

// flat is what the optimizers with float32 moments have in common.
type flat struct {
	core        *core
	gradients   *ort.Buffer
	m, v        *ort.Buffer // first and second moment, laid out like the parameters
	weightDecay float64
	decayed     int // elements before this one decay
	adamW       optim.AdamW
}

func (o *flat) update(t int, learningRate float64, gradScale float32, weightDecay float64) optim.Update {
	return optim.Update{Step: t, LR: learningRate, WeightDecay: weightDecay, GradScale: gradScale, Threads: o.core.threads}
}

// Names of the moments in a saved state, those of torch.optim.AdamW.
const moment1, moment2 = "exp_avg.", "exp_avg_sq."

func (o *flat) state() []weights.Source {
	return append(o.core.sources(o.m.Float32(), moment1), o.core.sources(o.v.Float32(), moment2)...)
}

func (o *flat) restore(file *weights.File) error {
	for i, p := range o.core.layout.params {
		err := errors.Join(
			file.ReadFloat32(moment1+p.Name, o.core.layout.slice(o.m.Float32(), i)),
			file.ReadFloat32(moment2+p.Name, o.core.layout.slice(o.v.Float32(), i)))
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *flat) close() error {
	var errs []error
	for _, b := range []*ort.Buffer{o.m, o.v} {
		if b != nil {
			errs = append(errs, b.Free())
		}
	}
	return errors.Join(errs...)
}

// fused is AdamW in one pass over all four vectors, but for the rows of the word
// embeddings that no batch has had: see [lazyRows].
type fused struct {
	flat
	words *embeddings
}

func (o *fused) step(_ context.Context, t int, learningRate float64, gradScale float32) error {
	p, m, v, g := o.core.params.Float32(), o.m.Float32(), o.v.Float32(), o.gradients.Float32()
	part := func(from, to int, weightDecay float64) {
		if from < to {
			o.adamW.Step(p[from:to], m[from:to], v[from:to], g[from:to], o.update(t, learningRate, gradScale, weightDecay))
		}
	}
	from := 0
	if lazy := o.words.lazy; lazy != nil {
		lazy.step(o.adamW, o.update(t, learningRate, gradScale, o.weightDecay))
		from = o.words.end()
	}
	part(from, o.decayed, o.weightDecay)
	part(o.decayed, len(p), 0)
	return nil
}

// portable is AdamW as a graph of standard operators, which any execution
// provider runs. It walks over the vectors in chunks.
type portable struct {
	flat
	session *ort.Session
	binding *ort.Binding
	scalars *ort.Buffer
}

// scalarInputs of the optimizer's graph, in the order of their values.
var scalarInputs = []string{optGradScale, optKeep, optBeta1, optBeta2, optStepSize, optCorrection2, optEps}

func newPortable(base flat) (_ *portable, err error) {
	o := &portable{flat: base}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	if o.scalars, err = ort.NewBuffer(4 * len(scalarInputs)); err != nil {
		return nil, err
	}
	if o.session, err = base.core.runtime.NewSession(adamWGraph(chunk).Encode(), ort.SessionOptions{Threads: base.core.threads}); err != nil {
		return nil, err
	}
	if o.binding, err = o.session.NewBinding(); err != nil {
		return nil, err
	}
	for i, name := range scalarInputs {
		t, err := o.scalars.Tensor(ort.Float32, i, 1)
		if err != nil {
			return nil, err
		}
		if err := o.binding.BindInput(name, t); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (o *portable) step(ctx context.Context, t int, learningRate float64, gradScale float32) error {
	a := o.adamW
	s := o.scalars.Float32()
	copy(s, []float32{gradScale, 1, float32(a.Beta1), float32(a.Beta2),
		float32(learningRate / (1 - math.Pow(a.Beta1, float64(t)))),
		float32(1 / math.Sqrt(1-math.Pow(a.Beta2, float64(t)))), float32(a.Eps)})
	// A step is all or nothing: a cancelled one would leave half the
	// parameters of the next step behind.
	ctx = context.WithoutCancel(ctx)
	for from := 0; from < o.core.layout.size; from += chunk {
		s[slices.Index(scalarInputs, optKeep)] = 1
		if from < o.decayed {
			s[slices.Index(scalarInputs, optKeep)] = float32(1 - learningRate*o.weightDecay)
		}
		if err := o.bind(from); err != nil {
			return fmt.Errorf("engine: optimizer: %w", err)
		}
		if err := o.binding.Run(ctx); err != nil {
			return fmt.Errorf("engine: optimizer: %w", err)
		}
	}
	return nil
}

// bind points the graph at the chunk that starts at an element. It writes in
// place: every output element depends on the same element of the inputs alone.
func (o *portable) bind(from int) error {
	for _, b := range []struct {
		in, out string
		buffer  *ort.Buffer
	}{
		{optParam, outParam, o.core.params},
		{optGradient, "", o.gradients},
		{optMoment1, outMoment1, o.m},
		{optMoment2, outMoment2, o.v},
	} {
		t, err := b.buffer.Tensor(ort.Float32, from, chunk)
		if err != nil {
			return err
		}
		if err := o.binding.BindInput(b.in, t); err != nil {
			return err
		}
		if b.out == "" {
			continue
		}
		if err := o.binding.BindOutput(b.out, t); err != nil {
			return err
		}
	}
	return nil
}

func (o *portable) close() error {
	var errs []error
	if o.session != nil {
		errs = append(errs, o.session.Close())
	}
	if o.scalars != nil {
		errs = append(errs, o.scalars.Free())
	}
	return errors.Join(append(errs, o.flat.close())...)
}

// quantized is AdamW with moments in 8 bits for every tensor of at least
// [optim.MinQuantized] elements; smaller ones keep float32, as in bitsandbytes.
type quantized struct {
	flat   // its moments are unused
	adamW  *optim.AdamW8bit
	memory *ort.Buffer
	codes  []optim.State8bit // of the large tensors
	floats [][2][]float32    // moments of the small ones
}

func newQuantized(base flat) (*quantized, error) {
	params := base.core.layout.params
	o := &quantized{flat: base, adamW: optim.NewAdamW8bit(base.adamW, optim.RoundByTable),
		codes: make([]optim.State8bit, len(params)), floats: make([][2][]float32, len(params))}
	places, size := placeQuantized(params)
	var err error
	if o.memory, err = ort.NewBuffer(size); err != nil {
		return nil, err
	}
	floats, codes := o.memory.Float32(), o.memory.Bytes()
	for i, p := range params {
		n, at := p.Size(), places[i]
		if at.codes < 0 {
			o.floats[i] = [2][]float32{slice(floats, at.floats, n), slice(floats, at.floats+n, n)}
			continue
		}
		blocks := optim.Blocks(n)
		o.codes[i] = optim.State8bit{M: slice(codes, at.codes, n), V: slice(codes, at.codes+n, n),
			MScale: slice(floats, at.floats, blocks), VScale: slice(floats, at.floats+blocks, blocks)}
	}
	return o, nil
}

func slice[T any](s []T, from, n int) []T { return s[from : from+n : from+n] }

// quantizedPlace says where the state of a tensor lies: its scales, or its moments
// in float32, as an index of float32s, its codes as one of bytes, -1 if it has
// none. What belongs to the second moment follows what belongs to the first.
type quantizedPlace struct{ floats, codes int }

// placeQuantized returns the places of all tensors' states in one piece of memory,
// and its size in bytes. Scales and float32 moments come first, so that they are
// aligned.
func placeQuantized(params []deberta.Param) (places []quantizedPlace, size int) {
	places = make([]quantizedPlace, len(params))
	floats := 0
	for i, p := range params {
		n := p.Size()
		places[i] = quantizedPlace{floats, -1}
		if n >= optim.MinQuantized {
			n = optim.Blocks(n)
		}
		floats += 2 * n
	}
	size = 4 * floats
	for i, p := range params {
		if n := p.Size(); n >= optim.MinQuantized {
			places[i].codes = size
			size += 2 * n
		}
	}
	return places, size
}

func (o *quantized) step(_ context.Context, t int, learningRate float64, gradScale float32) error {
	l := o.core.layout
	for i := range l.params {
		weightDecay := 0.0
		if l.offsets[i] < o.decayed {
			weightDecay = o.weightDecay
		}
		p, g := l.slice(o.core.params.Float32(), i), l.slice(o.gradients.Float32(), i)
		u := o.update(t, learningRate, gradScale, weightDecay)
		if o.codes[i].M == nil {
			o.flat.adamW.Step(p, o.floats[i][0], o.floats[i][1], g, u)
		} else {
			o.adamW.Step(p, g, o.codes[i], u)
		}
	}
	return nil
}

// Names of the 8-bit state in a file, those of bitsandbytes.
const state1, state2, absmax1, absmax2 = "state1.", "state2.", "absmax1.", "absmax2."

func (o *quantized) state() []weights.Source {
	var sources []weights.Source
	for i, p := range o.core.layout.params {
		shape := int64s(p.Shape)
		if c := o.codes[i]; c.M == nil {
			sources = append(sources,
				weights.Float32s(moment1+p.Name, shape, o.floats[i][0]),
				weights.Float32s(moment2+p.Name, shape, o.floats[i][1]))
		} else {
			scales := []int64{int64(len(c.MScale))}
			sources = append(sources,
				weights.Bytes(state1+p.Name, weights.U8, shape, c.M),
				weights.Bytes(state2+p.Name, weights.U8, shape, c.V),
				weights.Float32s(absmax1+p.Name, scales, c.MScale),
				weights.Float32s(absmax2+p.Name, scales, c.VScale))
		}
	}
	return sources
}

func (o *quantized) restore(file *weights.File) error {
	for i, p := range o.core.layout.params {
		var err error
		if c := o.codes[i]; c.M == nil {
			err = errors.Join(
				file.ReadFloat32(moment1+p.Name, o.floats[i][0]),
				file.ReadFloat32(moment2+p.Name, o.floats[i][1]))
		} else {
			err = errors.Join(
				file.ReadBytes(state1+p.Name, c.M),
				file.ReadBytes(state2+p.Name, c.V),
				file.ReadFloat32(absmax1+p.Name, c.MScale),
				file.ReadFloat32(absmax2+p.Name, c.VScale))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *quantized) close() error { return o.memory.Free() }
