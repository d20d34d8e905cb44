package criteria

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// What went wrong, by kind. Use [errors.Is] for these, and [errors.As] with the
// types below where a program can act on the details.
var (
	// ErrInvalidOption: an option was given a value that it cannot take. See [OptionError].
	ErrInvalidOption = errors.New("criteria: invalid option")
	// ErrInvalidConfig: the configuration has unknown keys or bad values. See [ConfigError].
	ErrInvalidConfig = errors.New("criteria: invalid configuration")
	// ErrReused: Run was called twice on one Trainer or Study.
	ErrReused = errors.New("criteria: Run was called before; make a new Trainer or Study for a new run")
	// ErrClosed: the Classifier was closed.
	ErrClosed = errors.New("criteria: the classifier is closed")
	// ErrOverloaded: the Classifier has more to do than it was allowed to put off. See [OverloadError].
	ErrOverloaded = errors.New("criteria: overloaded")
	// ErrInvalidData: a data file or a model file is not what it must be. See [DataError].
	ErrInvalidData = errors.New("criteria: invalid data")
	// ErrCheckpoint: a run cannot be resumed. See [CheckpointError].
	ErrCheckpoint = errors.New("criteria: the run cannot be resumed")
	// ErrStudy: a study cannot be continued with these settings. See [StudyError].
	ErrStudy = errors.New("criteria: the study cannot be continued")
	// ErrInterrupted: the context ended before the run did. See [InterruptedError].
	ErrInterrupted = errors.New("criteria: interrupted")
	// ErrOutOfMemory: the GPU has too little memory. See [OutOfMemoryError].
	ErrOutOfMemory = errors.New("criteria: the GPU is out of memory")
	// ErrDiverged: the loss became NaN or infinite. See [DivergedError].
	ErrDiverged = errors.New("criteria: training diverged")
)

// OptionError says which option was given what. It is [ErrInvalidOption].
// A constructor returns all of them, joined.
type OptionError struct {
	Option string // e.g. WithThreads
	Value  any
	Reason string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("criteria: %s(%v): %s", e.Option, e.Value, e.Reason)
}

// Is reports whether target is [ErrInvalidOption].
func (e *OptionError) Is(target error) bool { return target == ErrInvalidOption }

// ConfigError lists everything that is wrong with a configuration. It is
// [ErrInvalidConfig].
type ConfigError struct {
	Problems []ConfigProblem
	Err      error // of the YAML reader; nil if the document could be read
}

// ConfigProblem is one fault of a configuration.
type ConfigProblem struct {
	Key        string // e.g. train.learning_rate
	Value      string // what was given
	Want       string // what would be right: a type, a range or the allowed words
	Unknown    bool   // whether there is no such key
	DidYouMean string // a key or word spelled alike; "" if there is none
	Line       int    // in the document; 0 if there is none
}

func (p ConfigProblem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", p.Line)
	}
	switch {
	case p.Unknown && p.DidYouMean != "":
		fmt.Fprintf(&b, "%s: unknown key, did you mean %s?", p.Key, p.DidYouMean)
	case p.Unknown:
		fmt.Fprintf(&b, "%s: unknown key, want %s", p.Key, p.Want)
	default:
		fmt.Fprintf(&b, "%s = %s: want %s", p.Key, p.Value, p.Want)
		if p.DidYouMean != "" {
			fmt.Fprintf(&b, "; did you mean %s?", p.DidYouMean)
		}
	}
	return b.String()
}

func (e *ConfigError) Error() string {
	switch {
	case e.Err != nil:
		return "criteria: configuration: " + e.Err.Error()
	case len(e.Problems) == 1:
		return "criteria: configuration: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "criteria: configuration: %d problems", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// Is reports whether target is [ErrInvalidConfig].
func (e *ConfigError) Is(target error) bool { return target == ErrInvalidConfig }

// Unwrap returns the error of the YAML reader, if any.
func (e *ConfigError) Unwrap() error { return e.Err }

// DataError says where in the data something is wrong. It is [ErrInvalidData].
type DataError struct {
	File  string // "" if the fault is in no file
	Line  int    // from 1; 0 if it has no line
	Field string // column, JSON key or configuration key; may be ""
	Err   error  // what was found, what was wanted, what to do
}

func (e *DataError) Error() string { return "criteria: data: " + causeText(e.Err) }

// Is reports whether target is [ErrInvalidData].
func (e *DataError) Is(target error) bool { return target == ErrInvalidData }

// Unwrap returns the cause.
func (e *DataError) Unwrap() error { return e.Err }

// OverloadError says how much was waiting when a call of [Classifier.Predict]
// was refused. Nothing of the call was computed; it can be made again later. It
// is [ErrOverloaded].
type OverloadError struct {
	Waiting int // pairs in the queue
	Limit   int // of [WithMaxQueue]
}

func (e *OverloadError) Error() string {
	return fmt.Sprintf("criteria: overloaded: %d pairs are waiting, and WithMaxQueue allows %d; try again later", e.Waiting, e.Limit)
}

// Is reports whether target is [ErrOverloaded].
func (e *OverloadError) Is(target error) bool { return target == ErrOverloaded }

// DivergedError says where training left the numbers. It is [ErrDiverged].
type DivergedError struct {
	Epoch        int     // from 1; 0 in the dry run
	Step         int     // updates done before
	Loss         float64 // of the micro-batch, or
	GradNorm     float64 // of the update that came out NaN or infinite
	LearningRate float64 // at that step
}

func (e *DivergedError) Error() string {
	what := fmt.Sprintf("loss %v", e.Loss)
	if e.GradNorm != 0 {
		what = fmt.Sprintf("gradient norm %v", e.GradNorm)
	}
	if e.Epoch == 0 {
		return fmt.Sprintf("criteria: training diverged: %s before the first step; the weights of model.checkpoint are not finite", what)
	}
	return fmt.Sprintf("criteria: training diverged: %s in epoch %d at step %d with learning rate %s;"+
		" lower train.learning_rate or raise train.warmup_ratio", what, e.Epoch, e.Step, pythonFloat(e.LearningRate))
}

// Is reports whether target is [ErrDiverged].
func (e *DivergedError) Is(target error) bool { return target == ErrDiverged }

// InterruptedError says that the context ended before the run did.
// It is [ErrInterrupted] and [context.Canceled], and [context.DeadlineExceeded] if
// that ended it.
type InterruptedError struct {
	Study      string // name of the study that was interrupted; "" for a training
	Trials     int    // trials of the study that are complete or pruned
	Dir        string // output directory: what [WithResume] takes
	Checkpoint string // folder of the last checkpoint; "" if there is none to resume from
	Epoch      int    // the epoch that was not finished, from 1; 0: before the first
	Step       int    // updates done
	Cause      error  // [context.Cause] of the run's context
}

func (e *InterruptedError) Error() string {
	if e.Study != "" {
		return fmt.Sprintf("criteria: study %s: interrupted with %d trials done: %v", e.Study, e.Trials, e.Cause)
	}
	if e.Epoch == 0 {
		return fmt.Sprintf("criteria: interrupted before the first epoch: %v", e.Cause)
	}
	return fmt.Sprintf("criteria: interrupted in epoch %d after %d steps: %v", e.Epoch, e.Step, e.Cause)
}

// Is reports whether target is [ErrInterrupted] or [context.Canceled], whatever the
// cause.
func (e *InterruptedError) Is(target error) bool {
	return target == ErrInterrupted || target == context.Canceled
}

// interruption returns the cause of a context's end, which is also
// [context.DeadlineExceeded] if that is what happened.
func interruption(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return withCause(ctx, cause)
	}
	return cause
}

// Unwrap returns the cause.
func (e *InterruptedError) Unwrap() error { return e.Cause }

// causeText is what err says; the zero value of an error type has none.
func causeText(err error) string {
	if err == nil {
		return "unknown cause"
	}
	return err.Error()
}
