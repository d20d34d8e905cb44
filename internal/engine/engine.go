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
	"io/fs"
	"sync"

	"github.com/criteria-go/criteria/internal/deberta"
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

// Engine is one model in memory: what callers may do, and when; what is computed, and
// where, its backend knows.
type Engine struct {
	*core
	config []byte // config.json as it was read

	mu          sync.Mutex // one run at a time: a run already uses all threads
	closed      bool
	backend     backend
	accumulated int // micro-batches since the last update
}

// Open loads the checkpoint in spec.Dir. The library says where ONNX Runtime
// is; see [ort.FindLibrary] for what an empty one means.
//
// A head that the checkpoint brings is loaded if it has the shape of the one
// asked for; otherwise a new one is drawn from the seed.
func Open(ctx context.Context, spec Spec, library string) (*Engine, error) {
	config, raw, err := readConfig(ctx, spec.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("engine: %w: model.checkpoint must name a folder with config.json and weights", err)
	} else if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if err := checkWeights(config, spec.Dir); err != nil {
		return nil, err
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
	c := &core{
		model:    deberta.Model{Config: config, Head: spec.Head},
		training: spec.Training,
		threads:  spec.Threads,
		runtime:  rt,
	}
	e := &Engine{core: c, config: raw}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if c.threads == 0 {
		c.threads = ort.DefaultThreads()
	}
	c.layout = newLayout(c.model.Params())
	if c.params, err = ort.NewBuffer(4 * c.layout.size); err != nil {
		return nil, fmt.Errorf("engine: memory for the parameters: %w", err)
	}
	if err := fill(e); err != nil {
		return nil, err
	}
	if spec.Training != nil {
		c.model.Recompute = spec.Training.Recompute
		if spec.Training.Accumulation < 1 {
			return nil, fmt.Errorf("engine: gradient accumulation over %d micro-batches, want at least 1", spec.Training.Accumulation)
		}
	}
	e.backend, err = newBackend(c, spec.Device)
	return e, err
}

// newBackend opens what computes: the device, or the host if there is none.
func newBackend(c *core, spec *DeviceSpec) (backend, error) {
	if spec != nil {
		d, err := newDevice(c, *spec)
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	h, err := newHost(c)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Model returns the encoder's configuration and the head.
func (e *Engine) Model() deberta.Model { return e.model }

// Runtime describes the ONNX Runtime in use.
func (e *Engine) Runtime() ort.RuntimeInfo { return e.runtime.Info() }

// Device describes the device that computes; "" means the CPU.
func (e *Engine) Device() string { return e.backend.name() }

// Packs reports whether rows of any lengths are computed together without padding.
func (e *Engine) Packs() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, ok := e.backend.(*host)
	return ok && h.packs()
}

// Evaluate runs forward without dropout. It may be called by several
// goroutines, which take turns.
func (e *Engine) Evaluate(ctx context.Context, b Batch) (Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return Result{}, errClosed
	}
	return e.backend.evaluate(ctx, b)
}

// Explain runs forward without dropout, as Evaluate does, and backward to the
// word embeddings. scores are [Rows·Length]: how much each token speaks for
// class 1; see [deberta.Model.Explanation]. The host computes it, whatever
// computes the rest.
func (e *Engine) Explain(ctx context.Context, b Batch) (result Result, scores []float32, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return Result{}, nil, errClosed
	}
	return e.backend.explain(ctx, b)
}

// Close frees everything. It waits for a run in progress; closing twice does
// nothing.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	var errs []error
	if e.backend != nil {
		errs = append(errs, e.backend.close())
	}
	if e.params != nil {
		errs = append(errs, e.params.Free())
	}
	return errors.Join(append(errs, e.runtime.Close())...)
}

// Errors of the methods of an engine: after Close, and of one that does not train.
var (
	errClosed      = errors.New("engine: already closed")
	errNotTraining = errors.New("engine: opened for inference only")
)
