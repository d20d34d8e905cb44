package criteria

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/engine"
	"github.com/criteria-go/criteria/internal/ort"
)

// ONNXRuntime returns the default [Engine]: it writes the model, gradients
// included, as ONNX graphs, which a stock ONNX Runtime (1.24 or newer) runs on
// the device that the [ModelSpec] names. Training needs four times the memory of
// the parameters (float32 weights, gradients and two moments) plus the
// activations of one micro-batch; on a GPU all of it stays in the GPU's memory
// during the whole run.
//
// library is the shared library or the folder that holds it. If it is empty,
// the library is looked for where CRITERIA_ORT_LIB says, in the user's cache
// folder, where `make deps` puts it, and where the system keeps its libraries.
//
// On a GPU it must have its CUDA provider beside it. If library is empty, it is
// looked for where CRITERIA_CUDA_ORT_LIB says, in the cache folder, where
// `make deps-cuda` puts it, and where the system keeps its libraries; NVIDIA's
// own libraries in the folder CRITERIA_CUDA_LIB, in the cache folder and where
// the system keeps them.
func ONNXRuntime(library string) Engine { return onnxRuntime{library} }

type onnxRuntime struct{ library string }

func (r onnxRuntime) Open(ctx context.Context, spec ModelSpec) (Session, error) {
	ordinal, cuda := cudaOrdinal(spec.Device)
	switch {
	case cuda:
		device, err := cudaDevice(spec, ordinal)
		if err != nil {
			return nil, err
		}
		return openEngine(ctx, spec, device, r.library)
	case spec.Device == "" || spec.Device == deviceCPU:
		return openEngine(ctx, spec, nil, r.library)
	}
	return nil, &OptionError{Option: "ModelSpec.Device", Value: strconv.Quote(spec.Device), Reason: wantDevice}
}

// openEngine opens a model on a device, nil for the CPU.
func openEngine(ctx context.Context, spec ModelSpec, device *engine.DeviceSpec, library string) (Session, error) {
	s := engineSpec(spec)
	s.Device = device
	e, err := engine.Open(ctx, s, library)
	if err != nil {
		return nil, publicError(err)
	}
	if device != nil {
		return deviceSession{ortSession{e}}, nil
	}
	return ortSession{e}, nil
}

func engineSpec(spec ModelSpec) engine.Spec {
	s := engine.Spec{
		Dir:     spec.Dir,
		Threads: spec.Threads,
		Head: deberta.Head{
			Pooling:    spec.Head.PoolingStrategy,
			HiddenDims: spec.Head.HiddenDims[:min(spec.Head.NumLayers, len(spec.Head.HiddenDims))],
			Activation: spec.Head.Activation,
			Dropout:    spec.Head.Dropout,
		},
	}
	if t := spec.Training; t != nil {
		s.Training = &engine.Training{
			Seed:         t.Seed,
			Optimizer:    t.Optimizer,
			WeightDecay:  t.WeightDecay,
			MaxGradNorm:  t.MaxGradNorm,
			Accumulation: t.Accumulation,
			Recompute:    spec.Optimizations.GradientCheckpointing,
		}
	}
	return s
}

// ortSession adapts an engine to [Session].
type ortSession struct{ *engine.Engine }

func (s ortSession) Accumulate(ctx context.Context, b Batch, step, micro int) (BatchResult, error) {
	r, err := s.Engine.Accumulate(ctx, engine.Batch(b), step, micro)
	return BatchResult(r), memoryError(err)
}

func (s ortSession) Evaluate(ctx context.Context, b Batch) (BatchResult, error) {
	r, err := s.Engine.Evaluate(ctx, engine.Batch(b))
	return BatchResult(r), memoryError(err)
}

func (s ortSession) Update(ctx context.Context, learningRate float64) (float64, error) {
	norm, err := s.Engine.Update(ctx, learningRate)
	return norm, memoryError(err)
}

// deviceSession is a session on a device that computes by itself.
type deviceSession struct{ ortSession }

func (s deviceSession) AccumulateAsync(ctx context.Context, b Batch, step, micro int) (func() (BatchResult, error), error) {
	wait, err := s.Engine.AccumulateAsync(ctx, engine.Batch(b), step, micro)
	return func() (BatchResult, error) {
		r, err := wait()
		return BatchResult(r), memoryError(err)
	}, memoryError(err)
}

func (s deviceSession) UpdateAsync(ctx context.Context, learningRate float64) (func() (float64, error), error) {
	wait, err := s.Engine.UpdateAsync(ctx, learningRate)
	return func() (float64, error) {
		norm, err := wait()
		return norm, memoryError(err)
	}, memoryError(err)
}

// RuntimeInfo describes the ONNX Runtime that was found.
type RuntimeInfo struct {
	Library   string   // path of the shared library
	Version   string   // e.g. "1.32.0"
	Providers []string // execution providers built into it, best first
	Tried     []string // where it was looked for, in order
	Threads   int      // that sessions share; 0 if the host program initialised the runtime
	// BLAS is the path or name of the library that computes matrix products. If
	// it is empty they are ONNX Runtime's own, and training is slower: install
	// OpenBLAS, or set CRITERIA_BLAS_LIB to its path or MKL's.
	BLAS string
}

// RuntimeError says why ONNX Runtime cannot be used. It is
// [ErrRuntimeMissing] if no library was found.
type RuntimeError struct {
	Library string   // the file in question; "" if none was found
	Want    string   // what is needed
	Got     string   // what was found instead
	Tried   []string // where the library was looked for, in order
	Err     error    // the cause, with the remedy
}

func (e *RuntimeError) Error() string { return "criteria: " + causeText(e.Err) }

// Unwrap returns the cause.
func (e *RuntimeError) Unwrap() error { return e.Err }

// Is reports whether target is [ErrRuntimeMissing] and no library was found.
func (e *RuntimeError) Is(target error) bool { return target == ErrRuntimeMissing && e.Library == "" }

// ErrRuntimeMissing says that ONNX Runtime's shared library was not found. See
// [RuntimeError] for the places where it was looked for.
var ErrRuntimeMissing = errors.New("criteria: ONNX Runtime was not found")

// publicError turns the runtime's error into ours.
func publicError(err error) error {
	var native *ort.RuntimeError
	if errors.As(err, &native) {
		return &RuntimeError{Library: native.Library, Want: native.Want, Got: native.Got, Tried: native.Tried, Err: err}
	}
	return memoryError(err)
}

// CheckRuntime finds and loads ONNX Runtime, as the first run would, and
// describes it: a check before anything expensive is started. library is as
// for [ONNXRuntime].
func CheckRuntime(ctx context.Context, library string) (RuntimeInfo, error) {
	if err := ctx.Err(); err != nil {
		return RuntimeInfo{}, withCause(ctx, fmt.Errorf("criteria: %w", err))
	}
	rt, err := ort.Acquire(ort.Options{Library: library})
	if err != nil {
		return RuntimeInfo{}, publicError(err)
	}
	info := rt.Info()
	out := RuntimeInfo{Library: info.Library, Version: info.Version, Providers: info.Providers, Tried: info.Tried, Threads: info.Threads, BLAS: info.BLAS}
	return out, rt.Close()
}
