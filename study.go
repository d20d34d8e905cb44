package criteria

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/c-bata/goptuna"

	"github.com/criteria-go/criteria/internal/study"
)

// Study searches for the hyperparameters with the best macro-F1 on the
// validation split. Each of its trials is a training with values that the
// sampler drew from the search space.
type Study struct {
	settings *studySettings
	used     atomic.Bool
}

// StudyOption configures [NewStudy]. Every [TrainerOption] is one: it sets what
// all trials have in common. Where it sets what the search space varies, the
// trials' values come instead.
type StudyOption interface{ applyStudy(*studySettings) error }

type studyOption func(*studySettings) error

func (f studyOption) applyStudy(s *studySettings) error { return f(s) }

// studySettings is what the options of a study write to.
type studySettings struct {
	settings
	sampler  goptuna.Sampler         // nil: that of the configuration
	relative goptuna.RelativeSampler // nil: sampler, if it can do that
	pruner   goptuna.Pruner          // nil: that of the configuration
}

// WithSampler replaces the sampler that hpo.sampler names by any of goptuna's. If
// it is a [goptuna.RelativeSampler] too, it draws together the hyperparameters
// that every trial has.
func WithSampler(s goptuna.Sampler) StudyOption {
	return studyOption(func(o *studySettings) error {
		o.sampler = s
		return notNil("WithSampler", s == nil)
	})
}

// WithRelativeSampler sets what draws together the hyperparameters that every
// trial has, such as goptuna's CMA-ES. What it leaves to others is drawn by the
// sampler.
func WithRelativeSampler(s goptuna.RelativeSampler) StudyOption {
	return studyOption(func(o *studySettings) error {
		o.relative = s
		return notNil("WithRelativeSampler", s == nil)
	})
}

// WithPruner replaces the pruner that hpo.pruner names by any of goptuna's. Step n
// of a trial is its epoch n, from 1.
func WithPruner(p goptuna.Pruner) StudyOption {
	return studyOption(func(o *studySettings) error {
		o.pruner = p
		return notNil("WithPruner", p == nil)
	})
}

// NewStudy checks the options and the configuration that they make up, and
// returns all that is wrong with them, joined, as [NewTrainer] does. It opens and
// reads nothing; that is for [Study.Run].
func NewStudy(opts ...StudyOption) (*Study, error) {
	s := &studySettings{settings: *newSettings()}
	err := applyAll(s, opts, StudyOption.applyStudy)
	if s.resumeDir != "" {
		err = errors.Join(err, &OptionError{Option: "WithResume", Value: s.resumeDir, Reason: "a study is continued by its name and storage, not by a folder"})
		s.resumeDir = ""
	}
	if err := errors.Join(err, s.finish()); err != nil {
		return nil, err
	}
	return &Study{settings: s}, nil
}

// Config returns the configuration of the study, with defaults and options
// merged: a copy.
func (s *Study) Config() Config { return s.settings.config.clone() }

// Run runs trials until the study has hpo.n_trials of them that are complete or
// pruned. The trials that it has already count, and are not repeated; other
// processes may run some at the same time, and Run waits for these.
//
// The data are read and tokenized once. A trial trains as a [Trainer] does, but
// leaves nothing but its scores, is given up when the pruner says so, and is not
// tested. One that fails does not end the study; hpo.max_failures of them do.
//
// The output directory receives, after each improvement, best_trial_config.yaml,
// with which the best trial can be trained again to the same scores, bit for bit,
// and at the end the pictures of the search. A tracker is told of one run for the
// study and of one nested run for each trial. Processes that share a study share
// its run.
//
// If ctx ends, the updates at hand are finished, and the trials that ran have
// failed, or are tried again later if hpo.retries allows. Run then returns an
// [*InterruptedError] together with the result so far; after any other error the
// result may be nil. It can be called once; after that it returns [ErrReused].
func (s *Study) Run(ctx context.Context) (_ *StudyResult, err error) {
	if s.used.Swap(true) {
		return nil, ErrReused
	}
	// Processes that work on the same study may share a directory.
	unlock, err := lockOutputDir(&s.settings.settings, s.settings.config.HPO.Storage != "")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	r := newStudyRun(s.settings)
	defer func() { _ = r.closers.close() }() // closed already unless a hook panicked
	defer r.base.record.endPanicking(ctx)
	err = r.run(ctx)
	return r.end(ctx, err)
}

// TrialState is what became of a trial.
type TrialState string

// The states of a trial.
const (
	TrialRunning   TrialState = "running"
	TrialWaiting   TrialState = "waiting" // for a process to run it
	TrialCompleted TrialState = "completed"
	TrialPruned    TrialState = "pruned" // given up, because its scores stayed behind
	TrialFailed    TrialState = "failed"
)

// Trial is one training of a study.
type Trial struct {
	Number int // from 0
	State  TrialState
	// Value is the best macro-F1 on the validation split of all epochs, or of a
	// pruned trial the last one. NaN if there is none.
	Value float64
	// Params are the hyperparameters by the names of hpo.search_space. A trial
	// without hidden layers has no hidden_dim.
	Params map[string]any
	// Scores are the macro-F1 on the validation split after each epoch, by the
	// number of the epoch, from 1.
	Scores         map[int]float64
	Reason         string // why it failed; "" if it did not
	RunID          string // of the tracker; "" without one
	Started, Ended time.Time
}

// Importance says how much a hyperparameter mattered in a study: the shares of
// all add up to 1.
type Importance struct {
	Name  string
	Share float64
}

// StudyResult is what a study came to.
type StudyResult struct {
	Study   string  // its name
	RunID   string  // of the tracker; "" without one
	Dir     string  // output directory
	Best    *Trial  // the complete trial of the best value, of equal ones the first; nil without any
	Config  *Config // with which Best was trained; nil without it
	Trials  []Trial // all, also those of other processes, by their numbers
	Elapsed time.Duration
	// Importances are sorted, the largest first; none if there are too few trials.
	Importances []Importance
}

// String returns a table of the trials and what is best, several lines.
func (r *StudyResult) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "trial\tstate\tval_macro_f1\tepochs\ttime\t%s\n", strings.Join(paramNames, "\t"))
	for _, t := range r.Trials {
		value, elapsed := "-", "-"
		if !math.IsNaN(t.Value) {
			value = fmt.Sprintf("%.4f", t.Value)
		}
		if !t.Ended.IsZero() && !t.Started.IsZero() {
			elapsed = t.Ended.Sub(t.Started).Round(time.Second).String()
		}
		mark := ""
		if r.Best != nil && t.Number == r.Best.Number {
			mark = " *"
		}
		fmt.Fprintf(w, "%d%s\t%s\t%s\t%d\t%s", t.Number, mark, t.State, value, len(t.Scores), elapsed)
		for _, name := range paramNames {
			fmt.Fprintf(w, "\t%s", shortParam(t.Params[name]))
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // the builder takes everything
	if r.Best == nil {
		b.WriteString("no trial is complete yet\n")
	} else {
		fmt.Fprintf(&b, "best: trial %d with val_macro_f1 %.4f\n", r.Best.Number, r.Best.Value)
	}
	return b.String()
}

// shortParam writes a hyperparameter with few digits.
func shortParam(x any) string {
	switch x := x.(type) {
	case nil:
		return "-"
	case float64:
		return fmt.Sprintf("%.3g", x)
	}
	return fmt.Sprint(x)
}

// StudyError says why a study that exists cannot be continued: it searches in
// other data or in another space.
type StudyError struct {
	Study, Storage string
	Key            string // what is not as it was
	Want, Got      string // when the study was created, and now
}

func (e *StudyError) Error() string {
	return fmt.Sprintf("criteria: study %s in %s: %s is %s, but the study was created with %s; go on with the same or choose another hpo.study_name",
		e.Study, e.Storage, e.Key, e.Got, e.Want)
}

// Is reports whether target is [ErrStudy].
func (e *StudyError) Is(target error) bool { return target == ErrStudy }

// samplers returns what draws the hyperparameters.
func (s *studySettings) samplers() (goptuna.Sampler, goptuna.RelativeSampler) {
	if s.sampler != nil {
		return s.sampler, s.relative
	}
	c := s.config.HPO.Sampler
	seed := rand.Uint64()
	if c.Seed != nil {
		seed = *c.Seed
	}
	if c.Type == samplerRandom {
		return study.Random{Seed: seed}, s.relative
	}
	tpe := study.NewTPE(seed)
	tpe.StartupTrials = c.NStartupTrials
	return tpe, s.relative
}

// prunerOf returns what judges running trials; nil if nothing does.
func (s *studySettings) prunerOf() goptuna.Pruner {
	c := s.config.HPO.Pruner
	switch {
	case s.pruner != nil:
		return s.pruner
	case c.Type == prunerNop:
		return nil
	}
	p := study.NewMedianPruner()
	p.StartupTrials, p.WarmupSteps, p.IntervalSteps = c.NStartupTrials, c.NWarmupSteps, c.IntervalSteps
	return p
}

// algorithms names sampler and pruner for the record.
func (s *studySettings) algorithms() (sampler, pruner string) {
	name := func(x any) string {
		t := reflect.TypeOf(x)
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		return t.String()
	}
	sampler, pruner = s.config.HPO.Sampler.Type, s.config.HPO.Pruner.Type
	if s.sampler != nil {
		sampler = name(s.sampler)
	}
	if s.relative != nil {
		sampler = name(s.relative)
	}
	if s.pruner != nil {
		pruner = name(s.pruner)
	}
	return sampler, pruner
}
