package criteria

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/criteria-go/criteria/internal/engine"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// The words of the key device.
const (
	deviceCPU  = "cpu"
	deviceCUDA = "cuda" // the first GPU; cuda:1 is the second
)

// cudaOrdinal returns the number of the GPU that a device names.
func cudaOrdinal(device string) (n int, ok bool) {
	rest, isCUDA := strings.CutPrefix(device, deviceCUDA)
	if !isCUDA {
		return 0, false
	}
	if rest == "" {
		return 0, true
	}
	digits, colon := strings.CutPrefix(rest, ":")
	n, err := strconv.Atoi(digits)
	return n, colon && err == nil && n >= 0 && n < maxWorkers && strconv.Itoa(n) == digits
}

// engineOn returns the default engine for a device that the configuration names.
func engineOn(device string) Engine {
	if n, ok := cudaOrdinal(device); ok {
		return ONNXRuntimeCUDA("", n)
	}
	return ONNXRuntime("")
}

// WithCUDA computes on an NVIDIA GPU, by its number from 0 (device=cuda:0 for a
// trainer). Where there is none, or something of what it needs is missing,
// opening the model fails with a [*RuntimeError] that says what and how to get
// it; nothing is ever computed on the CPU instead. See docs/gpu.md.
func WithCUDA(ordinal int) Option {
	return option(func(s *settings) error {
		s.device = deviceCUDA + ":" + strconv.Itoa(ordinal)
		s.edits = append(s.edits, func(c *Config) { c.Device = s.device })
		if ordinal < 0 || ordinal >= maxWorkers {
			return &OptionError{Option: "WithCUDA", Value: ordinal, Reason: "want the number of a GPU, from 0"}
		}
		return nil
	})
}

// ONNXRuntimeCUDA returns the [Engine] that device=cuda stands for: the one of
// [ONNXRuntime] on the GPU with this number. Parameters, gradients and moments
// stay in the GPU's memory during the whole run.
//
// library is an ONNX Runtime with its CUDA provider beside it. If it is empty,
// it is looked for where CRITERIA_CUDA_ORT_LIB says, in the user's cache folder,
// where `make deps-cuda` puts it, and where the system keeps its libraries.
// NVIDIA's own libraries are looked for in the folder CRITERIA_CUDA_LIB, in the
// cache folder and where the system keeps them.
func ONNXRuntimeCUDA(library string, ordinal int) Engine {
	return cudaRuntime{library, ordinal}
}

type cudaRuntime struct {
	library string
	ordinal int
}

func (r cudaRuntime) Open(ctx context.Context, spec ModelSpec) (Session, error) {
	o := spec.Optimizations
	device := &engine.DeviceSpec{
		Low:     graph.Float32,
		Flash:   o.AttentionImplementation == attentionFlash,
		Pinned:  spec.PinMemory,
		Capture: o.UseCompile && o.CompileMode == compileReduceOverhead,
		CUDA: ort.CUDAOptions{
			Ordinal:  r.ordinal,
			TF32:     o.EnableTF32,
			TuneGEMM: o.UseCompile && o.CompileMode == compileMaxAutotune,
		},
	}
	if o.UseAMP {
		low, err := graph.LowPrecision(o.AMPDtype)
		if err != nil {
			return nil, fmt.Errorf("criteria: train.optimizations.amp_dtype: %w", err)
		}
		device.Low = low
	}
	return openEngine(ctx, spec, device, r.library)
}

// OutOfMemoryError says that the GPU has too little memory for a batch, or for
// the model itself. [InterruptedError] aside, a run that ends with it can be
// resumed with other settings.
type OutOfMemoryError struct {
	Rows, Length int  // of the batch: pairs, and tokens of the longest; 0: it was for the model
	Training     bool // whether the batch was trained on or only evaluated
	Wanted       int  // bytes of the allocation that failed; 0 if it is not known
	Free, Total  int  // bytes of the GPU that nobody used, and all
	Err          error
}

func (e *OutOfMemoryError) Error() string {
	const gib = 1 << 30
	what := "the model"
	switch {
	case e.Rows > 0 && e.Training:
		what = fmt.Sprintf("training on a batch of %d × %d tokens", e.Rows, e.Length)
	case e.Rows > 0:
		what = fmt.Sprintf("evaluating a batch of %d × %d tokens", e.Rows, e.Length)
	case e.Training:
		what = "the optimizer"
	}
	return fmt.Sprintf("criteria: the GPU is out of memory for %s (%.1f of %.1f GiB are free);"+
		" lower train.batch_size (raising train.gradient_accumulation_steps by as much leaves the updates as they are),"+
		" set train.optimizations.gradient_checkpointing=true,"+
		" or take train.optimizer_type=adamw_bnb_8bit: %v",
		what, float64(e.Free)/gib, float64(e.Total)/gib, e.Err)
}

// Unwrap returns the cause.
func (e *OutOfMemoryError) Unwrap() error { return e.Err }

// memoryError turns the engine's error about memory into ours.
func memoryError(err error) error {
	var memory *engine.MemoryError
	var cause *ort.OutOfMemoryError
	if !errors.As(err, &memory) || !errors.As(err, &cause) {
		return err
	}
	return &OutOfMemoryError{Rows: memory.Rows, Length: memory.Length, Training: memory.Training,
		Wanted: cause.Wanted, Free: cause.Free, Total: cause.Total, Err: err}
}
