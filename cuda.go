package criteria

import (
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

// WithDevice sets the device that computes: cpu, cuda for the first NVIDIA GPU or
// cuda:1 for the second (device for a trainer). Default cpu. Where there is no
// such GPU, or something of what it needs is missing, opening the model fails
// with a [*RuntimeError] that says what and how to get it; nothing is ever
// computed on the CPU instead. See docs/gpu.md.
func WithDevice(device string) ModelOption {
	return modelOption{func(s *settings) error {
		s.device = device
		s.edits = append(s.edits, func(c *Config) { c.Device = device })
		if !isDevice(device) {
			return &OptionError{Option: "WithDevice", Value: strconv.Quote(device), Reason: wantDevice}
		}
		return nil
	}}
}

const wantDevice = "want cpu, cuda, or cuda:N for GPU number N"

// isDevice reports whether a word names a device.
func isDevice(device string) bool {
	_, cuda := cudaOrdinal(device)
	return cuda || device == deviceCPU
}

// cudaDevice describes GPU number ordinal and how it is to compute.
func cudaDevice(spec ModelSpec, ordinal int) (*engine.DeviceSpec, error) {
	o := spec.Optimizations
	device := &engine.DeviceSpec{
		Low:     graph.Float32,
		Flash:   o.AttentionImplementation == attentionFlash,
		Pinned:  spec.PinMemory,
		Capture: o.UseCompile && o.CompileMode == compileReduceOverhead,
		CUDA: ort.CUDAOptions{
			Ordinal:  ordinal,
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
	return device, nil
}

// OutOfMemoryError says that the GPU has too little memory for a batch, or for
// the model itself. [InterruptedError] aside, a run that ends with it can be
// resumed with other settings. It is [ErrOutOfMemory].
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

// Is reports whether target is [ErrOutOfMemory].
func (e *OutOfMemoryError) Is(target error) bool { return target == ErrOutOfMemory }

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
