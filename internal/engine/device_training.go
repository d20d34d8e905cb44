package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/ort"
)

// Places of the optimizer's scalars, in bytes. What the host writes and what it
// reads are neighbours.
const (
	numberStep  = 0  // float64
	numberRate  = 8  // float64, written by the host
	numberMicro = 16 // written by the host
	numberScale = 20 // read by the host, like the next two
	numberGood  = 24
	numberNorm  = 28
	numbersSize = 32
)

func (d *device) prepareOptimizer(spec Training) (err error) {
	if spec.Optimizer == adamW8bit && !d.kernels[graph.AdamW8bit] {
		return fmt.Errorf("engine: train.optimizer_type=%s needs a custom kernel, and there is none on the %v: take %s", adamW8bit, d.device, adamWFused)
	}
	if d.numbers, err = newExchange(d.device, true, numbersSize, span{numberRate, numberScale}, span{numberScale, numbersSize}); err != nil {
		return err
	}
	if err := d.setState(deviceState{scale: d.initialScale()}); err != nil {
		return err
	}
	o := deviceOptimizer{decayed: d.layout.decayed, size: d.layout.size, low: d.spec.Low, copied: d.layout.copied,
		weightDecay: spec.WeightDecay, maxGradNorm: spec.MaxGradNorm, scaled: d.spec.Low == graph.Float16, adamW: optim.DefaultAdamW(), kernels: d.kernels}
	if spec.DecayAll {
		o.decayed = o.size
	}
	if spec.Optimizer == adamW8bit {
		o.quantized = quantizedFor(d.layout, o.decayed)
	}
	options := ort.SessionOptions{Device: d.device, Optimization: ort.OptimizeBasic, Capture: d.spec.Capture, Threads: d.threads, Profile: d.spec.profile("optimizer")}
	if d.session, err = d.runtime.NewSession(o.graph().Encode(), options); err != nil {
		return fmt.Errorf("engine: preparing the optimizer: %w", err)
	}
	if d.optimizer, err = d.session.NewBinding(); err != nil {
		return err
	}
	inputs := map[string]ort.Tensor{}
	outputs := map[string]ort.Tensor{}
	number := func(name string, dtype ort.DType, place int) {
		if err == nil {
			inputs[name], err = d.numbers.there.Tensor(dtype, place/dtype.Size(), 1)
			outputs[updated(name)] = inputs[name]
		}
	}
	number(devStep, ort.Float64, numberStep)
	number(devLearningRate, ort.Float64, numberRate)
	number(devMicro, ort.Float32, numberMicro)
	number(devScale, ort.Float32, numberScale)
	number(devGood, ort.Float32, numberGood)
	vector := func(name string, b *ort.Buffer, dtype ort.DType, first int) { // of the parameters from first on
		for _, part := range []struct {
			suffix   string
			from, to int
		}{{decayedPart, 0, o.decayed}, {plainPart, o.decayed, o.size}, {"", 0, o.size}} {
			if err == nil && b != nil {
				from := max(part.from, first)
				inputs[name+part.suffix], err = b.Tensor(dtype, from-first, part.to-from)
				outputs[updated(name+part.suffix)] = inputs[name+part.suffix]
			}
		}
	}
	vector(optParam, d.weights, ort.Float32, 0)
	vector(optGradient, d.gradients, ort.Float32, 0)
	vector(optMoment1, d.moments[0], ort.Float32, 0)
	vector(optMoment2, d.moments[1], ort.Float32, 0)
	vector(optLow, d.low, ort.DType(d.spec.Low), d.layout.copied)
	if err == nil && o.quantized != nil {
		inputs[optState], err = whole(d.quantized, o.quantized.bytes)
		outputs[updated(optState)] = inputs[optState]
	}
	if err == nil {
		outputs[devNorm], err = d.numbers.there.Tensor(ort.Float32, numberNorm/4, 1)
	}
	if err != nil {
		return err
	}
	for _, v := range d.session.Inputs() {
		if err := d.optimizer.BindInput(v.Name, inputs[v.Name]); err != nil {
			return err
		}
	}
	for _, v := range d.session.Outputs() {
		if err := d.optimizer.BindOutput(v.Name, outputs[v.Name]); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) initialScale() float32 {
	if d.spec.Low == graph.Float16 {
		return initialLossScale
	}
	return 1
}

// deviceState is what the device counts by itself.
type deviceState struct {
	steps       float64
	scale, good float32
}

func (d *device) setState(s deviceState) error {
	here, err := ort.NewBuffer(numbersSize)
	if err != nil {
		return err
	}
	here.Float64()[numberStep/8] = s.steps
	here.Float32()[numberScale/4], here.Float32()[numberGood/4] = s.scale, s.good
	return errors.Join(d.move(d.numbers.there, here, numbersSize), here.Free())
}

func (d *device) state() (deviceState, error) {
	here, err := ort.NewBuffer(numbersSize)
	if err != nil {
		return deviceState{}, err
	}
	err = d.move(here, d.numbers.there, numbersSize)
	numbers := here.Float32()
	s := deviceState{here.Float64()[numberStep/8], numbers[numberScale/4], numbers[numberGood/4]}
	return s, errors.Join(err, here.Free())
}

func (d *device) accumulate(ctx context.Context, b Batch, step, micro, before int) (none pending[Result], err error) {
	p, err := d.program(training, b)
	if err != nil {
		return none, err
	}
	if before == 0 {
		all, err := whole(d.gradients, 4*d.layout.size)
		if err != nil {
			return none, err
		}
		if err := d.device.Clear(all); err != nil {
			return none, err
		}
	}
	return d.run(ctx, training, p, b, dropoutPosition(step, micro))
}

// dropoutPosition numbers the micro-batches of a training, as the masks of the
// CPU are numbered.
func dropoutPosition(step, micro int) int64 { return int64(step)<<16 | int64(micro) }

// update yields the norm, or 0 for an update that was skipped because its scaled
// gradients left the range of float16.
func (d *device) update(ctx context.Context, learningRate float64, micro int) (pending[float64], error) {
	norm, err := exchanged(d.numbers,
		func(half int) {
			here := d.numbers.here[half].memory
			here.Float64()[numberRate/8] = learningRate
			here.Float32()[numberMicro/4] = float32(micro)
		},
		func() error { return d.optimizer.Run(context.WithoutCancel(ctx)) },
		func(half int) float64 {
			numbers := d.numbers.here[half].memory.Float32()
			norm, scale := float64(numbers[numberNorm/4]), numbers[numberScale/4]
			if norm-norm != 0 && d.spec.Low == graph.Float16 && scale >= 1 {
				return 0
			}
			return norm
		})
	if err != nil {
		err = fmt.Errorf("engine: optimizer: %w", err)
		var memory *ort.OutOfMemoryError
		if errors.As(err, &memory) {
			err = &MemoryError{Training: true, Err: err}
		}
	}
	return norm, err
}

// gradient divides the loss scale out.
func (d *device) gradient(i int) ([]float32, error) {
	s, err := d.state()
	if err != nil {
		return nil, err
	}
	there, err := d.layout.tensor(d.gradients, i)
	if err != nil {
		return nil, err
	}
	here, err := ort.NewTensor(ort.Float32, d.layout.params[i].Shape...)
	if err != nil {
		return nil, err
	}
	err = errors.Join(d.device.Copy(here, there), d.device.Wait())
	g := make([]float32, here.Len())
	for i, x := range here.Float32() {
		g[i] = x / s.scale
	}
	return g, errors.Join(err, here.Buffer().Free())
}
