package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/weights"
)

// DeviceSpec says on which device a model is computed, and how.
type DeviceSpec struct {
	CUDA ort.CUDAOptions
	// Low is the precision of products: graph.Float32, Float16 or BFloat16.
	Low graph.Type
	// Capture repeats the launches of a graph instead of making them anew, where
	// no random numbers would be repeated with them.
	Capture bool
	// Pinned keeps what is copied to the device in pages that stay in place.
	Pinned bool

	// Flash computes attention by our own fused kernels; opening fails where there
	// are none for the model or for the device.
	Flash bool

	// Host computes on the host what was written for a device: for tests of the
	// arithmetic.
	Host bool
	// Profile, if not empty, is the prefix of the files that the times of the nodes
	// are written to when the engine is closed.
	Profile string
	// Standard does without kernels of our own: for checks of these.
	Standard bool
}

// profile is the prefix for one graph; two that were begun in the same second would
// write the same file.
func (s DeviceSpec) profile(graph string) string {
	if s.Profile == "" {
		return ""
	}
	return s.Profile + "-" + graph
}

// accelerator computes an engine's model on a device. Parameters, gradients and
// moments stay in its memory; a step copies ids, masks, labels and two numbers
// there, and the loss, the logits and the norm back. Whoever wants these waits for
// them alone, as late as he likes: the device goes on. The engine's own parameters
// are a copy that is brought up to date before it is written.
type accelerator struct {
	*Engine
	spec    DeviceSpec
	device  *ort.Device
	kernels graph.Kernels // operators of the device beside those of ONNX

	weights  *ort.Buffer  // the parameters, laid out like the engine's
	low      *ort.Buffer  // a copy of the last of them in low precision, which products read; nil: there is none
	rounding *ort.Session // of the graph that makes the copy, where the optimizer does not
	rounded  *ort.Binding // of the same
	programs programs[*deviceProgram]

	// For training only:
	gradients   *ort.Buffer
	moments     [2]*ort.Buffer // float32, or
	quantized   *ort.Buffer    // both in 8 bits
	numbers     *exchange      // scalars of the optimizer's graph
	session     *ort.Session
	optimizer   *ort.Binding
	accumulated int
}

// A deviceProgram is a graph compiled for one shape of batch.
type deviceProgram struct {
	graph   *deberta.Graph
	session *ort.Session
	binding *ort.Binding
	batch   *exchange
	here    [halves]batchTensors // in the halves of batch
}

func (p *deviceProgram) close() error {
	var errs []error
	if p.session != nil {
		errs = append(errs, p.session.Close())
	}
	return errors.Join(append(errs, p.batch.close())...)
}

func newAccelerator(e *Engine, spec Spec) (_ *accelerator, err error) {
	a := &accelerator{Engine: e, spec: *spec.Device, programs: newPrograms[*deviceProgram]()}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	cuda := a.spec.CUDA
	cuda.Attention = a.spec.Flash
	if a.spec.Host {
		a.device = ort.HostDevice()
	} else if a.device, err = e.runtime.OpenCUDA(cuda); err != nil {
		return nil, err
	}
	if !a.spec.Standard {
		a.kernels = graph.Kernels{}
		for _, name := range a.device.Operators() {
			a.kernels[name] = true
		}
	}
	if a.spec.Flash {
		if !a.kernels[graph.FlashAttention] {
			return nil, fmt.Errorf("engine: train.optimizations.attention_implementation=flash_attention_2 needs kernels of our own, and there are none on the %v: take sdpa", a.device)
		}
		if err := e.model.Config.CheckFlash(); err != nil {
			return nil, fmt.Errorf("engine: %w", err)
		}
	}
	vector := func() (b *ort.Buffer) {
		if err == nil {
			b, err = a.device.NewBuffer(4 * e.layout.size)
		}
		return b
	}
	a.weights = vector()
	if a.spec.Low.IsLow() && err == nil {
		a.low, err = a.device.NewBuffer(a.spec.Low.Size() * (e.layout.size - e.layout.copied))
	}
	if spec.Training != nil {
		a.gradients = vector()
		if spec.Training.Optimizer != adamW8bit {
			a.moments[0], a.moments[1] = vector(), vector()
		} else if err == nil {
			_, size := placeQuantized(e.layout.params)
			a.quantized, err = a.device.NewBuffer(size)
		}
	}
	if err != nil {
		return nil, &MemoryError{Err: fmt.Errorf("engine: memory of the device for %d parameters: %w", e.Parameters(), err)}
	}
	if a.spec.Low.IsLow() {
		if err := a.prepareLow(); err != nil {
			return nil, err
		}
	}
	if err := a.push(); err != nil {
		return nil, err
	}
	if spec.Training != nil {
		return a, a.prepareOptimizer(*spec.Training)
	}
	return a, nil
}

// MemoryError says that a device had too little memory, and for what.
type MemoryError struct {
	Training     bool // whether the batch was trained on or only evaluated
	Rows, Length int  // of the batch; 0: it was for the model itself
	Err          error
}

func (e *MemoryError) Error() string { return e.Err.Error() }

// Unwrap returns the cause, which is an [ort.OutOfMemoryError].
func (e *MemoryError) Unwrap() error { return e.Err }

// failed describes what went wrong with a batch.
func failed(err error, k kind, b Batch) error {
	doing := "evaluating"
	if k == training {
		doing = "training on"
	}
	err = fmt.Errorf("engine: %s a batch of %d × %d tokens: %w", doing, b.Rows, b.Length, err)
	var memory *ort.OutOfMemoryError
	if errors.As(err, &memory) {
		return &MemoryError{Training: k == training, Rows: b.Rows, Length: b.Length, Err: err}
	}
	return err
}

func whole(b *ort.Buffer, bytes int) (ort.Tensor, error) { return b.Tensor(ort.Uint8, 0, bytes) }

// prepareLow makes what rounds the parameters to low precision.
func (a *accelerator) prepareLow() (err error) {
	n := a.layout.size - a.layout.copied
	options := ort.SessionOptions{Device: a.device, Threads: a.threads}
	if a.rounding, err = a.runtime.NewSession(rounding(n, a.spec.Low).Encode(), options); err != nil {
		return fmt.Errorf("engine: preparing low precision: %w", err)
	}
	if a.rounded, err = a.rounding.NewBinding(); err != nil {
		return err
	}
	from, err := a.weights.Tensor(ort.Float32, a.layout.copied, n)
	if err != nil {
		return err
	}
	to, err := a.low.Tensor(ort.DType(a.spec.Low), 0, n)
	if err != nil {
		return err
	}
	return errors.Join(a.rounded.BindInput(optParam, from), a.rounded.BindOutput(optLow, to))
}

// rounding returns the graph that rounds n parameters.
func rounding(n int, low graph.Type) *graph.Graph {
	g := graph.New("low_precision", nil)
	g.Output(optLow, g.Cast(g.Input(optParam, graph.Float32, n), low))
	return g
}

// push copies the engine's parameters to the device, in all precisions.
func (a *accelerator) push() error {
	if err := a.move(a.weights, a.params, 4*a.layout.size); err != nil || a.low == nil {
		return err
	}
	return errors.Join(a.rounded.Run(context.Background()), a.device.Wait())
}

// fetch brings the engine's copy of the parameters up to date.
func (a *accelerator) fetch() error { return a.move(a.params, a.weights, 4*a.layout.size) }

// move copies bytes after all work before it, and waits for them.
func (a *accelerator) move(to, from *ort.Buffer, bytes int) error {
	t, err := whole(to, bytes)
	if err != nil {
		return err
	}
	f, err := whole(from, bytes)
	if err != nil {
		return err
	}
	return errors.Join(a.device.Copy(t, f), a.device.Wait())
}

func (a *accelerator) close() error {
	errs := []error{a.programs.close()}
	for _, s := range []*ort.Session{a.session, a.rounding} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	errs = append(errs, a.numbers.close())
	for _, b := range []*ort.Buffer{a.weights, a.low, a.gradients, a.moments[0], a.moments[1], a.quantized} {
		if b != nil {
			errs = append(errs, b.Free())
		}
	}
	if a.device != nil {
		errs = append(errs, a.device.Close())
	}
	return errors.Join(errs...)
}

// --- batches ----------------------------------------------------------------------

func (a *accelerator) program(k kind, b Batch) (*deviceProgram, error) {
	if err := a.check(b); err != nil {
		return nil, err
	}
	key := programKey{k, roundRows(b.Rows), roundUp(b.Length, deviceLengthStep)}
	if p, ok := a.programs.get(key); ok {
		return p, nil
	}
	p := &deviceProgram{}
	if err := a.compile(p, key); err != nil {
		return nil, errors.Join(failed(err, k, b), p.close())
	}
	// Results of the one that makes room for it arrived long ago.
	return p, a.programs.add(key, p)
}

func (a *accelerator) compile(p *deviceProgram, key programKey) (err error) {
	options := deberta.DeviceOptions{Low: a.spec.Low, Kernels: a.kernels, Flash: a.spec.Flash}
	session := ort.SessionOptions{Device: a.device, Optimization: ort.OptimizeBasic, Capture: a.spec.Capture, Threads: a.threads, Profile: a.spec.profile("batch")}
	if key.kind == training {
		options.Seed = a.training.Seed
		p.graph = a.model.DeviceTraining(key.rows, key.length, options)
		if c := a.model.Config; !a.kernels[graph.PhiloxDropout] && (c.HiddenDropout > 0 || c.AttentionDropout > 0 || a.model.Head.Dropout > 0) {
			session.Capture = false // every step would drop the same elements
		}
	} else {
		p.graph = a.model.DeviceEvaluation(key.rows, key.length, options)
	}
	if p.session, err = a.runtime.NewSession(p.graph.Encode(), session); err != nil {
		return err
	}
	if p.binding, err = p.session.NewBinding(); err != nil {
		return err
	}
	if err := a.allocate(p, key); err != nil {
		return err
	}
	for i, param := range a.layout.params {
		if err := a.bindParameter(p, i); err != nil {
			return err
		}
		if key.kind != training {
			continue
		}
		t, err := a.layout.tensor(a.gradients, i)
		if err != nil {
			return err
		}
		if err := errors.Join(p.binding.BindInput(deberta.SumOf(param.Name), t), p.binding.BindOutput(deberta.GradientOf(param.Name), t)); err != nil {
			return err
		}
	}
	if key.kind == training {
		scale, err := a.numbers.there.Tensor(ort.Float32, numberScale/4)
		if err != nil {
			return err
		}
		return p.binding.BindInput(deberta.LossScale, scale)
	}
	return nil
}

// bindParameter binds what a graph reads of parameter i: itself, its copy in low
// precision, or both.
func (a *accelerator) bindParameter(p *deviceProgram, i int) error {
	param := a.layout.params[i]
	if p.graph.HasInput(param.Name) {
		t, err := a.layout.tensor(a.weights, i)
		if err != nil {
			return err
		}
		if err := p.binding.BindInput(param.Name, t); err != nil {
			return err
		}
	}
	low := deberta.LowOf(param.Name)
	if !p.graph.HasInput(low) {
		return nil
	}
	t, err := a.low.Tensor(ort.DType(a.spec.Low), a.layout.offsets[i]-a.layout.copied, param.Shape...)
	if err != nil {
		return err
	}
	return p.binding.BindInput(low, t)
}

// positionSize is the room for the position in front of a batch: there its
// address is a multiple of 16, as our kernels want it, and what follows is aligned.
const positionSize = 16

// allocate makes the tensors of a batch on both sides and binds the device's.
func (a *accelerator) allocate(p *deviceProgram, key programKey) (err error) {
	rows, length := key.rows, key.length
	inputs := positionSize + 8*(2*rows*length+rows) + 4*rows
	outputs := 4 * (1 + rows*deberta.Classes)
	size := inputs + outputs
	if p.batch, err = newExchange(a.device, a.spec.Pinned, size, span{0, inputs}, span{inputs, size}); err != nil {
		return err
	}
	offset := 0
	take := func(pick func(*batchTensors) *ort.Tensor, bind func(string, ort.Tensor) error, name string, dtype ort.DType, shape ...int) {
		for i := range p.here {
			if err == nil {
				*pick(&p.here[i]), err = p.batch.here[i].memory.Tensor(dtype, offset/dtype.Size(), shape...)
			}
		}
		if err != nil {
			return
		}
		var there ort.Tensor
		if there, err = p.batch.there.Tensor(dtype, offset/dtype.Size(), shape...); err == nil {
			offset += there.Len() * dtype.Size()
			err = bind(name, there)
		}
	}
	for i := range p.here {
		p.here[i].rows, p.here[i].length = rows, length
	}
	in, out := p.binding.BindInput, p.binding.BindOutput
	if p.graph.HasInput(deberta.DropoutPosition) {
		take(func(t *batchTensors) *ort.Tensor { return &t.position }, in, deberta.DropoutPosition, ort.Int64, 1)
	}
	offset = positionSize
	take(func(t *batchTensors) *ort.Tensor { return &t.ids }, in, deberta.InputIDs, ort.Int64, rows, length)
	take(func(t *batchTensors) *ort.Tensor { return &t.mask }, in, deberta.AttentionMask, ort.Int64, rows, length)
	take(func(t *batchTensors) *ort.Tensor { return &t.labels }, in, deberta.Labels, ort.Int64, rows)
	take(func(t *batchTensors) *ort.Tensor { return &t.weights }, in, deberta.SampleWeights, ort.Float32, rows)
	take(func(t *batchTensors) *ort.Tensor { return &t.loss }, out, deberta.Loss, ort.Float32)
	take(func(t *batchTensors) *ort.Tensor { return &t.logits }, out, deberta.Logits, ort.Float32, rows, deberta.Classes)
	return err
}

// run has a batch computed; the result comes later. The position is what dropout
// depends on.
func (a *accelerator) run(ctx context.Context, k kind, p *deviceProgram, b Batch, position int64) (*pending[Result], error) {
	r, err := exchanged(p.batch,
		func(half int) {
			here := &p.here[half]
			here.load(b)
			if here.position.Buffer() != nil {
				here.position.Int64()[0] = position
			}
		},
		func() error { return p.binding.Run(ctx) },
		func(half int) Result { return p.here[half].result(b) })
	if err != nil {
		return nil, failed(err, k, b)
	}
	return r, nil
}

func (a *accelerator) evaluate(ctx context.Context, b Batch) (Result, error) {
	p, err := a.program(evaluation, b)
	if err != nil {
		return Result{}, err
	}
	return waited(a.run(ctx, evaluation, p, b, 0))
}

// --- training ---------------------------------------------------------------------

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

func (a *accelerator) prepareOptimizer(spec Training) (err error) {
	if spec.Accumulation < 1 {
		return fmt.Errorf("engine: gradient accumulation over %d micro-batches, want at least 1", spec.Accumulation)
	}
	if spec.Optimizer == adamW8bit && !a.kernels[graph.AdamW8bit] {
		return fmt.Errorf("engine: train.optimizer_type=%s needs a kernel of our own, and there is none on the %v: take %s", adamW8bit, a.device, adamWFused)
	}
	if a.numbers, err = newExchange(a.device, true, numbersSize, span{numberRate, numberScale}, span{numberScale, numbersSize}); err != nil {
		return err
	}
	if err := a.setState(deviceState{scale: a.initialScale()}); err != nil {
		return err
	}
	o := deviceOptimizer{decayed: a.layout.decayed, size: a.layout.size, low: a.spec.Low, copied: a.layout.copied,
		weightDecay: spec.WeightDecay, maxGradNorm: spec.MaxGradNorm, scaled: a.spec.Low == graph.Float16, adamW: optim.DefaultAdamW(), kernels: a.kernels}
	if spec.DecayAll {
		o.decayed = o.size
	}
	if spec.Optimizer == adamW8bit {
		o.quantized = quantizedFor(a.layout, o.decayed)
	}
	options := ort.SessionOptions{Device: a.device, Optimization: ort.OptimizeBasic, Capture: a.spec.Capture, Threads: a.threads, Profile: a.spec.profile("optimizer")}
	if a.session, err = a.runtime.NewSession(o.graph().Encode(), options); err != nil {
		return fmt.Errorf("engine: preparing the optimizer: %w", err)
	}
	if a.optimizer, err = a.session.NewBinding(); err != nil {
		return err
	}
	inputs := map[string]ort.Tensor{}
	outputs := map[string]ort.Tensor{}
	number := func(name string, dtype ort.DType, place int) {
		if err == nil {
			inputs[name], err = a.numbers.there.Tensor(dtype, place/dtype.Size(), 1)
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
	vector(optParam, a.weights, ort.Float32, 0)
	vector(optGradient, a.gradients, ort.Float32, 0)
	vector(optMoment1, a.moments[0], ort.Float32, 0)
	vector(optMoment2, a.moments[1], ort.Float32, 0)
	vector(optLow, a.low, ort.DType(a.spec.Low), a.layout.copied)
	if err == nil && o.quantized != nil {
		inputs[optState], err = whole(a.quantized, o.quantized.bytes)
		outputs[updated(optState)] = inputs[optState]
	}
	if err == nil {
		outputs[devNorm], err = a.numbers.there.Tensor(ort.Float32, numberNorm/4, 1)
	}
	if err != nil {
		return err
	}
	for _, v := range a.session.Inputs() {
		if err := a.optimizer.BindInput(v.Name, inputs[v.Name]); err != nil {
			return err
		}
	}
	for _, v := range a.session.Outputs() {
		if err := a.optimizer.BindOutput(v.Name, outputs[v.Name]); err != nil {
			return err
		}
	}
	return nil
}

func (a *accelerator) initialScale() float32 {
	if a.spec.Low == graph.Float16 {
		return initialLossScale
	}
	return 1
}

// deviceState is what the device counts by itself.
type deviceState struct {
	steps       float64
	scale, good float32
}

func (a *accelerator) setState(s deviceState) error {
	here, err := ort.NewBuffer(numbersSize)
	if err != nil {
		return err
	}
	here.Float64()[numberStep/8] = s.steps
	here.Float32()[numberScale/4], here.Float32()[numberGood/4] = s.scale, s.good
	return errors.Join(a.move(a.numbers.there, here, numbersSize), here.Free())
}

func (a *accelerator) state() (deviceState, error) {
	here, err := ort.NewBuffer(numbersSize)
	if err != nil {
		return deviceState{}, err
	}
	err = a.move(here, a.numbers.there, numbersSize)
	numbers := here.Float32()
	s := deviceState{here.Float64()[numberStep/8], numbers[numberScale/4], numbers[numberGood/4]}
	return s, errors.Join(err, here.Free())
}

func (a *accelerator) accumulate(ctx context.Context, b Batch, step, micro int) (_ *pending[Result], err error) {
	defer func() {
		if err != nil {
			a.accumulated = 0
		}
	}()
	p, err := a.program(training, b)
	if err != nil {
		return nil, err
	}
	if a.accumulated == 0 {
		all, err := whole(a.gradients, 4*a.layout.size)
		if err != nil {
			return nil, err
		}
		if err := a.device.Clear(all); err != nil {
			return nil, err
		}
	}
	r, err := a.run(ctx, training, p, b, dropoutPosition(step, micro))
	if err == nil {
		a.accumulated++
	}
	return r, err
}

// dropoutPosition numbers the micro-batches of a training, as the masks of the
// CPU are numbered.
func dropoutPosition(step, micro int) int64 { return int64(step)<<16 | int64(micro) }

// update yields the norm, or 0 for an update that was skipped because its scaled
// gradients left the range of float16.
func (a *accelerator) update(ctx context.Context, learningRate float64) (*pending[float64], error) {
	micro := a.accumulated
	a.accumulated = 0
	norm, err := exchanged(a.numbers,
		func(half int) {
			here := a.numbers.here[half].memory
			here.Float64()[numberRate/8] = learningRate
			here.Float32()[numberMicro/4] = float32(micro)
		},
		func() error { return a.optimizer.Run(context.WithoutCancel(ctx)) },
		func(half int) float64 {
			numbers := a.numbers.here[half].memory.Float32()
			norm, scale := float64(numbers[numberNorm/4]), numbers[numberScale/4]
			if norm-norm != 0 && a.spec.Low == graph.Float16 && scale >= 1 {
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
		return nil, err
	}
	return norm, nil
}

// --- files ------------------------------------------------------------------------

const lossScaleKey = "loss_scale"

// save writes the optimizer's state as the CPU's would be.
func (a *accelerator) save(dir string) error {
	o, err := a.hostState()
	if err != nil {
		return err
	}
	defer o.close()
	for _, part := range o.parts {
		if err := a.move(part.here, part.there, part.bytes); err != nil {
			return err
		}
	}
	s, err := a.state()
	if err != nil {
		return err
	}
	return writeState(filepath.Join(dir, optimizerFile), a.training.Optimizer, int(s.steps), o,
		map[string]string{lossScaleKey: fmt.Sprint(s.scale)})
}

// restore takes back what save, or the CPU, wrote, together with the parameters
// that the engine has read.
func (a *accelerator) restore(dir string) error {
	o, err := a.hostState()
	if err != nil {
		return err
	}
	defer o.close()
	updates, metadata, err := readState(filepath.Join(dir, optimizerFile), a.training.Optimizer, o)
	if err != nil {
		return err
	}
	scale := float64(a.initialScale())
	if text, ok := metadata[lossScaleKey]; ok && a.spec.Low == graph.Float16 {
		if _, err := fmt.Sscan(text, &scale); err != nil || !(scale > 0) || math.IsInf(scale, 0) {
			return fmt.Errorf("engine: %s: metadata %s is %q, want a positive number", dir, lossScaleKey, text)
		}
	}
	a.accumulated = 0
	for _, part := range o.parts {
		if err := a.move(part.there, part.here, part.bytes); err != nil {
			return err
		}
	}
	return errors.Join(a.push(), a.setState(deviceState{steps: float64(updates), scale: float32(scale)}))
}

// hostState is room for the optimizer's state on the host, and which of it is
// where on the device.
type hostState struct {
	stateful
	close func() error
	parts []statePart
}

type statePart struct {
	here, there *ort.Buffer
	bytes       int
}

func (a *accelerator) hostState() (_ hostState, err error) {
	base := flat{engine: a.Engine}
	if a.quantized != nil {
		o, err := newQuantized(base)
		if err != nil {
			return hostState{}, err
		}
		_, size := placeQuantized(a.layout.params)
		return hostState{o, o.close, []statePart{{o.memory, a.quantized, size}}}, nil
	}
	o, size := &base, 4*a.layout.size
	if o.m, err = ort.NewBuffer(size); err != nil {
		return hostState{}, err
	}
	if o.v, err = ort.NewBuffer(size); err != nil {
		return hostState{}, errors.Join(err, o.close())
	}
	return hostState{o, o.close, []statePart{{o.m, a.moments[0], size}, {o.v, a.moments[1], size}}}, nil
}

// stateful is the part of an optimizer that files hold.
type stateful interface {
	state() []weights.Source
	restore(file *weights.File) error
}
