package criteria

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Trainer fine-tunes a classifier and keeps the best one of all epochs.
type Trainer struct {
	settings *settings
	used     atomic.Bool
}

// NewTrainer checks the options and the configuration that they make up, and
// returns all that is wrong with them, joined: [*OptionError]s and a
// [*ConfigError]. It opens and reads nothing; that is for [Trainer.Run].
func NewTrainer(opts ...TrainerOption) (*Trainer, error) {
	s := newSettings()
	err := applyAll(s, opts, TrainerOption.applyTrainer)
	if err := errors.Join(err, s.finish()); err != nil {
		return nil, err
	}
	return &Trainer{settings: s}, nil
}

// Config returns the configuration of the run, with defaults and options
// merged: a copy.
func (t *Trainer) Config() Config { return t.settings.config.clone() }

// Run does the whole job: it reads and splits the data, loads the checkpoint,
// trains, evaluates after each epoch, keeps the model with the best macro-F1 on
// the validation split (of equals, the first), stops when that has not improved
// for train.early_stopping_patience epochs, and tests the best model. Its
// folder, the result's ModelDir, is replaced in one piece: it never holds half
// a model.
//
// Run opens, owns and closes everything but what was injected by options. It
// can be called once; after that it returns [ErrReused].
//
// If ctx ends, Run finishes the update at hand, writes a checkpoint, ends the
// tracked run as KILLED and returns an [*InterruptedError]. Other errors end it
// as FAILED: among them [*DataError], [*DivergedError], [*CheckpointError] and
// those of the ports. Checkpoints are in the folder checkpoints of the output
// directory; [WithResume] goes on from them, and a new run there removes them.
func (t *Trainer) Run(ctx context.Context) (_ *Result, err error) {
	if t.used.Swap(true) {
		return nil, ErrReused
	}
	unlock, err := lockOutputDir(t.settings, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	r := newRun(newJob(t.settings, training{t.settings.config}))
	defer r.record.endPanicking(ctx)
	err = r.run(ctx)
	if err = r.end(ctx, err); err != nil {
		return nil, err
	}
	return r.result(), nil
}

// StopReason says why a training ended. Errors are not among the reasons.
type StopReason int

// The reasons for which a training ends.
const (
	Completed    StopReason = iota // all epochs are done
	EarlyStopped                   // the validation score no longer improved
)

func (s StopReason) String() string {
	switch s {
	case Completed:
		return "completed"
	case EarlyStopped:
		return "stopped early"
	}
	return fmt.Sprintf("StopReason(%d)", int(s))
}

// Result is what a training came to.
type Result struct {
	RunID   string        // of the tracker; "" without one
	Dir     string        // output directory
	Best    EpochScores   // of the epoch with the best validation macro-F1
	Test    Scores        // of that epoch's model on the test split
	History []EpochScores // of every epoch
	Stop    StopReason
	Epochs  int // epochs done
	Steps   int // optimizer updates done
	Elapsed time.Duration

	settings *settings
}

// ModelDir returns the folder of the best model, which [Load] reads; "" if r does
// not come from a training.
func (r *Result) ModelDir() string {
	if r.Dir == "" {
		return ""
	}
	return filepath.Join(r.Dir, bestModelDir)
}

// Classifier loads the best model. Device, engine, tokenizer, logger and threads are
// those of the training unless opts say otherwise. It is an error if r does not
// come from [Trainer.Run].
func (r *Result) Classifier(ctx context.Context, opts ...LoadOption) (*Classifier, error) {
	if r.settings == nil {
		return nil, errors.New("criteria: this Result comes from no training: " +
			"use what Trainer.Run returns, or Load with a folder")
	}
	c := r.settings.config
	inherited := []LoadOption{WithLogger(r.settings.log), WithThreads(c.Train.Threads), WithDevice(c.Device)}
	if r.settings.engine != nil {
		inherited = append(inherited, WithEngine(r.settings.engine))
	}
	if r.settings.tokenizer != nil {
		inherited = append(inherited, WithTokenizer(r.settings.tokenizer))
	}
	return Load(ctx, r.ModelDir(), append(inherited, opts...)...)
}
