// Package engine trains and evaluates one model: it holds the parameters,
// compiles a graph for every shape of batch that it meets, runs it with ONNX
// Runtime and applies the optimizer.
//
// All parameters lie in one flat buffer, and so do their gradients and the
// optimizer's moments. The tensors of a graph are views of these buffers, so
// nothing is copied between a backward pass, the optimizer and the next step.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// Spec says which model to open.
type Spec struct {
	// Dir holds config.json and the weights.
	Dir string
	// Head is the head to train. For inference it is ignored: the head is the
	// one that was trained.
	Head     deberta.Head
	Training *Training // nil: inference only
	// Device computes instead of the CPU; nil: the CPU. Its library must be an
	// ONNX Runtime with a CUDA provider.
	Device  *DeviceSpec
	Threads int // of the operators and the optimizer; 0: one per physical core
}

// Training is what an engine needs in addition in order to train.
type Training struct {
	Seed        uint64 // of the initial head weights and the dropout masks
	Optimizer   string // one of Optimizers
	WeightDecay float64
	DecayAll    bool    // also biases and LayerNorms, as torch does by default
	MaxGradNorm float64 // 0: gradients are not clipped
	// Accumulation is the largest number of micro-batches whose gradients an
	// update averages, at least 1.
	Accumulation int
	// Recompute computes the activations of every layer again in the backward
	// pass instead of keeping them (gradient checkpointing).
	Recompute bool
}

// Batch is a micro-batch of token ids, padded to one length, row by row. A
// label without a weight does not count.
type Batch struct {
	Rows, Length  int
	InputIDs      []int64   // [Rows·Length]
	AttentionMask []int64   // [Rows·Length]
	Labels        []int64   // [Rows], or nil
	SampleWeights []float32 // [Rows], or nil
}

// Result is what was computed for a batch.
type Result struct {
	Loss   float64   // Σ w·nll / Σ w; 0 without labels
	Logits []float32 // [Rows·2]
}

// Engine is one model in memory.
type Engine struct {
	model    deberta.Model
	config   []byte // config.json as it was read
	training *Training
	threads  int
	runtime  *ort.Runtime
	kernels  graph.Kernels

	mu       sync.Mutex // one run at a time: a run already uses all threads
	closed   bool
	layout   layout
	params   *ort.Buffer
	programs programs[*program]
	trainer  *trainer // nil for inference, and on a device

	accelerator *accelerator // nil on the CPU
}

// Open loads the checkpoint in spec.Dir. The library says where ONNX Runtime
// is; see [ort.FindLibrary] for what an empty one means.
//
// A head that the checkpoint brings is loaded if it has the shape of the one
// asked for; otherwise a new one is drawn from the seed.
func Open(ctx context.Context, spec Spec, library string) (*Engine, error) {
	raw, err := os.ReadFile(filepath.Join(spec.Dir, configFile))
	if err != nil {
		return nil, fmt.Errorf("engine: %w: model.checkpoint must name a folder with config.json and weights", err)
	}
	config, err := deberta.ParseConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("engine: %s: %w", spec.Dir, err)
	}
	if spec.Training == nil {
		if spec.Head, err = readHead(raw); err != nil {
			return nil, fmt.Errorf("engine: %s: %w", spec.Dir, err)
		}
	}
	if err := spec.Head.Validate(); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return open(config, raw, spec, library, func(e *Engine) error { return e.load(ctx, spec.Dir) })
}

// open makes an engine whose parameters, all 0 at first, fill sets.
func open(config deberta.Config, raw []byte, spec Spec, library string, fill func(*Engine) error) (_ *Engine, err error) {
	rt, err := ort.Acquire(ort.Options{Library: library, CUDA: spec.Device != nil && !spec.Device.Host, Threads: spec.Threads})
	if err != nil {
		return nil, err
	}
	e := &Engine{
		model:    deberta.Model{Config: config, Head: spec.Head},
		config:   raw,
		training: spec.Training,
		threads:  spec.Threads,
		runtime:  rt,
		kernels:  graph.Kernels{},
		programs: newPrograms[*program](),
	}
	for _, name := range rt.Operators() {
		e.kernels[name] = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if e.threads == 0 {
		e.threads = ort.DefaultThreads()
	}
	e.layout = newLayout(e.model.Params())
	if e.params, err = ort.NewBuffer(4 * e.layout.size); err != nil {
		return nil, fmt.Errorf("engine: memory for the parameters: %w", err)
	}
	if err := fill(e); err != nil {
		return nil, err
	}
	if spec.Training != nil {
		e.model.Recompute = spec.Training.Recompute
	}
	if spec.Device != nil {
		e.accelerator, err = newAccelerator(e, spec)
		return e, err
	}
	if spec.Training != nil {
		if e.trainer, err = newTrainer(e, *spec.Training); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Model returns the encoder's configuration and the head.
func (e *Engine) Model() deberta.Model { return e.model }

// Runtime describes the ONNX Runtime in use.
func (e *Engine) Runtime() ort.RuntimeInfo { return e.runtime.Info() }

// Device describes the device that computes; "" means the CPU.
func (e *Engine) Device() string {
	if e.accelerator == nil {
		return ""
	}
	return e.accelerator.device.String()
}

// trains tells whether the engine was opened for training.
func (e *Engine) trains() bool { return e.training != nil }

// Parameters returns the number of trainable parameters.
func (e *Engine) Parameters() int {
	n := 0
	for _, p := range e.layout.params {
		n += p.Size()
	}
	return n
}

// Evaluate runs forward without dropout. It may be called by several
// goroutines, which take turns.
func (e *Engine) Evaluate(ctx context.Context, b Batch) (Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return Result{}, errClosed
	}
	if e.accelerator != nil {
		return e.accelerator.evaluate(ctx, b)
	}
	p, err := e.program(evaluation, b)
	if err != nil {
		return Result{}, err
	}
	p.load(b)
	e.settle(p.ids.Int64())
	if err := p.binding.Run(ctx); err != nil {
		return Result{}, fmt.Errorf("engine: evaluating a batch of %d × %d tokens: %w", b.Rows, b.Length, err)
	}
	return p.result(b), nil
}

// errClosed is returned by the methods of an engine after Close.
var errClosed = errors.New("engine: already closed")

// Close frees everything. It waits for a run in progress; closing twice does
// nothing.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	errs := []error{e.programs.close()}
	if e.accelerator != nil {
		errs = append(errs, e.accelerator.close())
	}
	if e.trainer != nil {
		errs = append(errs, e.trainer.close())
	}
	if e.params != nil {
		errs = append(errs, e.params.Free())
	}
	return errors.Join(append(errs, e.runtime.Close())...)
}
