package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

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
	err = fmt.Errorf("engine: %s a batch of %d × %d tokens: %w", k, b.Rows, b.Length, err)
	var memory *ort.OutOfMemoryError
	if errors.As(err, &memory) {
		return &MemoryError{Training: k == training, Rows: b.Rows, Length: b.Length, Err: err}
	}
	return err
}

func (d *device) program(k kind, b Batch) (*deviceProgram, error) {
	if err := d.check(b); err != nil {
		return nil, err
	}
	key := programKey{k, roundRows(b.Rows), roundUp(b.Length, deviceLengthStep)}
	if p, ok := d.programs.get(key); ok {
		return p, nil
	}
	p := &deviceProgram{}
	if err := d.compile(p, key); err != nil {
		return nil, errors.Join(failed(err, k, b), p.close())
	}
	d.programs.met(key)
	// Results of the one that makes room for it arrived long ago.
	return p, d.programs.add(key, p)
}

func (d *device) compile(p *deviceProgram, key programKey) (err error) {
	options := deberta.DeviceOptions{Low: d.spec.Low, Kernels: d.kernels, Flash: d.spec.Flash}
	session := ort.SessionOptions{Device: d.device, Optimization: ort.OptimizeBasic, Capture: d.spec.Capture, Threads: d.threads, Profile: d.spec.profile("batch")}
	if key.kind == training {
		options.Seed = d.training.Seed
		p.graph = d.model.DeviceTraining(key.rows, key.length, options)
		if c := d.model.Config; !d.kernels[graph.PhiloxDropout] && (c.HiddenDropout > 0 || c.AttentionDropout > 0 || d.model.Head.Dropout > 0) {
			session.Capture = false // every step would drop the same elements
		}
	} else {
		p.graph = d.model.DeviceEvaluation(key.rows, key.length, options)
	}
	if p.session, err = d.runtime.NewSession(p.graph.Encode(), session); err != nil {
		return err
	}
	if p.binding, err = p.session.NewBinding(); err != nil {
		return err
	}
	if err := d.allocate(p, key); err != nil {
		return err
	}
	for i, param := range d.layout.params {
		if err := d.bindParameter(p, i); err != nil {
			return err
		}
		if key.kind != training {
			continue
		}
		t, err := d.layout.tensor(d.gradients, i)
		if err != nil {
			return err
		}
		if err := errors.Join(p.binding.BindInput(deberta.SumOf(param.Name), t), p.binding.BindOutput(deberta.GradientOf(param.Name), t)); err != nil {
			return err
		}
	}
	if key.kind == training {
		scale, err := d.numbers.there.Tensor(ort.Float32, numberScale/4)
		if err != nil {
			return err
		}
		return p.binding.BindInput(deberta.LossScale, scale)
	}
	return nil
}

// bindParameter binds what a graph reads of parameter i: itself, its copy in low
// precision, or both.
func (d *device) bindParameter(p *deviceProgram, i int) error {
	param := d.layout.params[i]
	if p.graph.HasInput(param.Name) {
		t, err := d.layout.tensor(d.weights, i)
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
	t, err := d.low.Tensor(ort.DType(d.spec.Low), d.layout.offsets[i]-d.layout.copied, param.Shape...)
	if err != nil {
		return err
	}
	return p.binding.BindInput(low, t)
}

// positionSize is the room for the position in front of a batch: there its
// address is a multiple of 16, as the kernels want it, and what follows is aligned.
const positionSize = 16

// allocate makes the tensors of a batch on both sides and binds the device's.
func (d *device) allocate(p *deviceProgram, key programKey) (err error) {
	rows, length := key.rows, key.length
	inputs := positionSize + 8*(2*rows*length+rows) + 4*rows
	outputs := 4 * (1 + rows*deberta.Classes)
	size := inputs + outputs
	if p.batch, err = newExchange(d.device, d.spec.Pinned, size, span{0, inputs}, span{inputs, size}); err != nil {
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
func (d *device) run(ctx context.Context, k kind, p *deviceProgram, b Batch, position int64) (pending[Result], error) {
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
		return r, failed(err, k, b)
	}
	return r, nil
}
