package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
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

	// Flash computes attention by fused kernels; opening fails where there
	// are none for the model or for the device.
	Flash bool

	// Host computes on the host what was written for a device: for tests of the
	// arithmetic.
	Host bool
	// Profile, if not empty, is the prefix of the files that the times of the nodes
	// are written to when the engine is closed.
	Profile string
	// Standard does without custom kernels: for checks of these.
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

// device is the backend that computes on a device. Parameters, gradients and
// moments stay in its memory; a step copies ids, masks, labels and two numbers
// there, and the loss, the logits and the norm back. Whoever wants these waits for
// them alone, as late as he likes: the device continues. The core's own parameters
// are a copy that is brought up to date before it is written.
type device struct {
	*core
	spec    DeviceSpec
	device  *ort.Device
	kernels graph.Kernels // operators of the device beside those of ONNX
	host    *host         // computes what no graph for a device does

	weights  *ort.Buffer  // the parameters, laid out like the core's
	low      *ort.Buffer  // a copy of the last of them in low precision, which products read; nil: there is none
	rounding *ort.Session // of the graph that makes the copy, where the optimizer does not
	rounded  *ort.Binding // of the same
	programs programs[*deviceProgram]

	// For training only:
	gradients *ort.Buffer
	moments   [2]*ort.Buffer // float32, or
	quantized *ort.Buffer    // both in 8 bits
	numbers   *exchange      // scalars of the optimizer's graph
	session   *ort.Session
	optimizer *ort.Binding
}

func newDevice(c *core, spec DeviceSpec) (_ *device, err error) {
	d := &device{core: c, spec: spec, programs: newPrograms[*deviceProgram]()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := d.open(); err != nil {
		return nil, err
	}
	if d.host, err = newHost(c.untrained()); err != nil {
		return nil, err
	}
	if err := d.allocateVectors(); err != nil {
		return nil, &MemoryError{Err: fmt.Errorf("engine: memory of the device for %d parameters: %w", c.Parameters(), err)}
	}
	if spec.Low.IsLow() {
		if err := d.prepareLow(); err != nil {
			return nil, err
		}
	}
	if err := d.push(); err != nil {
		return nil, err
	}
	if c.trains() {
		return d, d.prepareOptimizer(*c.training)
	}
	return d, nil
}

// open opens the device and finds out what it has beside ONNX's operators.
func (d *device) open() (err error) {
	cuda := d.spec.CUDA
	cuda.Attention = d.spec.Flash
	if d.spec.Host {
		d.device = ort.HostDevice()
	} else if d.device, err = d.runtime.OpenCUDA(cuda); err != nil {
		return err
	}
	if !d.spec.Standard {
		d.kernels = graph.Kernels{}
		for _, name := range d.device.Operators() {
			d.kernels[name] = true
		}
	}
	if !d.spec.Flash {
		return nil
	}
	if !d.kernels[graph.FlashAttention] {
		return fmt.Errorf("engine: train.optimizations.attention_implementation=flash_attention_2 needs custom kernels, and there are none on the %v: take sdpa", d.device)
	}
	if err := d.model.Config.CheckFlash(); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// allocateVectors takes the device's memory for the parameters and for what training
// has as large as these.
func (d *device) allocateVectors() (err error) {
	buffer := func(size int) (b *ort.Buffer) {
		if err == nil {
			b, err = d.device.NewBuffer(size)
		}
		return b
	}
	size := 4 * d.layout.size
	d.weights = buffer(size)
	if d.spec.Low.IsLow() {
		d.low = buffer(d.spec.Low.Size() * (d.layout.size - d.layout.copied))
	}
	if !d.trains() {
		return err
	}
	d.gradients = buffer(size)
	if d.training.Optimizer == adamW8bit {
		_, size := placeQuantized(d.layout.params)
		d.quantized = buffer(size)
	} else {
		d.moments[0], d.moments[1] = buffer(size), buffer(size)
	}
	return err
}

func whole(b *ort.Buffer, bytes int) (ort.Tensor, error) { return b.Tensor(ort.Uint8, 0, bytes) }

// prepareLow makes what rounds the parameters to low precision.
func (d *device) prepareLow() (err error) {
	n := d.layout.size - d.layout.copied
	options := ort.SessionOptions{Device: d.device, Threads: d.threads}
	if d.rounding, err = d.runtime.NewSession(rounding(n, d.spec.Low).Encode(), options); err != nil {
		return fmt.Errorf("engine: preparing low precision: %w", err)
	}
	if d.rounded, err = d.rounding.NewBinding(); err != nil {
		return err
	}
	from, err := d.weights.Tensor(ort.Float32, d.layout.copied, n)
	if err != nil {
		return err
	}
	to, err := d.low.Tensor(ort.DType(d.spec.Low), 0, n)
	if err != nil {
		return err
	}
	return errors.Join(d.rounded.BindInput(optParam, from), d.rounded.BindOutput(optLow, to))
}

// rounding returns the graph that rounds n parameters.
func rounding(n int, low graph.Type) *graph.Graph {
	g := graph.New("low_precision", nil)
	g.Output(optLow, g.Cast(g.Input(optParam, graph.Float32, n), low))
	return g
}

// push copies the core's parameters to the device, in all precisions.
func (d *device) push() error {
	if err := d.move(d.weights, d.params, 4*d.layout.size); err != nil || d.low == nil {
		return err
	}
	return errors.Join(d.rounded.Run(context.Background()), d.device.Wait())
}

// fetch brings the core's copy of the parameters up to date.
func (d *device) fetch() error { return d.move(d.params, d.weights, 4*d.layout.size) }

// move copies bytes after all work before it, and waits for them.
func (d *device) move(to, from *ort.Buffer, bytes int) error {
	t, err := whole(to, bytes)
	if err != nil {
		return err
	}
	f, err := whole(from, bytes)
	if err != nil {
		return err
	}
	return errors.Join(d.device.Copy(t, f), d.device.Wait())
}

func (d *device) close() error {
	errs := []error{d.programs.close()}
	if d.host != nil {
		errs = append(errs, d.host.close())
	}
	for _, s := range []*ort.Session{d.session, d.rounding} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	errs = append(errs, d.numbers.close())
	for _, b := range []*ort.Buffer{d.weights, d.low, d.gradients, d.moments[0], d.moments[1], d.quantized} {
		if b != nil {
			errs = append(errs, b.Free())
		}
	}
	if d.device != nil {
		errs = append(errs, d.device.Close())
	}
	return errors.Join(errs...)
}

func (d *device) name() string { return d.device.String() }

func (d *device) memoryInUse() (int, error) { return d.device.MemoryInUse() }

func (d *device) largest() (rows, length int) {
	return d.programs.largest.rows, d.programs.largest.length
}

func (d *device) evaluate(ctx context.Context, b Batch) (Result, error) {
	p, err := d.program(evaluation, b)
	if err != nil {
		return Result{}, err
	}
	r, err := d.run(ctx, evaluation, p, b, 0)
	if err != nil {
		return Result{}, err
	}
	return r.wait()
}

// explain computes on the host with the parameters that the device has now.
func (d *device) explain(ctx context.Context, b Batch) (Result, []float32, error) {
	if d.trains() {
		if err := d.fetch(); err != nil {
			return Result{}, nil, err
		}
	}
	return d.host.explain(ctx, b)
}
