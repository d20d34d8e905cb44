package study

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Objective trains with the parameters that it asks trial for, reports on the
// way, and returns the value to be optimised. If trial.ShouldPrune says so, it
// returns ErrPruned, wrapped or not. It ends soon after ctx does,
// with an error. Several workers call it at the same time.
type Objective func(ctx context.Context, trial *Trial) (float64, error)

// Options configure a Study.
type Options struct {
	// Name of the study. Workers that give the same name and storage share it.
	Name string
	// Direction defaults to maximize.
	Direction Direction
	// Storage is required.
	Storage Storage
	// Sampler draws the parameters that Relative leaves. Default: NewTPE(0).
	Sampler Sampler
	// Relative draws parameters together. Default: Sampler, if it can do that.
	Relative RelativeSampler
	// Space is what Relative draws. Default: what all finished trials have in
	// common, so that nothing is drawn together at first. Goptuna's Sobol sampler
	// needs it to be known before.
	Space map[string]Distribution
	// Pruner defaults to none.
	Pruner Pruner

	// Trials is the number of trials, complete or pruned, that the study is to
	// have in the end, over all processes and resumptions. Required.
	Trials int
	// TrialsHere limits the trials that one Run starts. 0: no limit.
	TrialsHere int
	// FailureLimit is the number of failed trials at which a Run gives up.
	// Default 10. Trials that were killed or interrupted do not count.
	FailureLimit int
	// Retries is how often a trial that was killed or interrupted is run again
	// with the same parameters. Default 0: it just failed, and another trial
	// takes its place.
	Retries int
	// Heartbeat is the interval of signs of life. Default 15 s.
	Heartbeat time.Duration
	// Grace is the silence after which other workers take a trial for dead.
	// Default 2 min, with which Optuna's heartbeats of up to 60 s go well.
	Grace time.Duration

	// Logger defaults to none.
	Logger *slog.Logger
	// Finished is called after each trial that ended here, by its worker, with
	// the context of that, which may have ended. Optional.
	Finished func(context.Context, FrozenTrial)
	// Abandoned is called for each trial of a dead worker that this one has
	// failed. Optional.
	Abandoned func(context.Context, FrozenTrial)
}

// Study is one search for hyperparameters.
type Study struct{ o Options }

// New checks the options. It opens nothing.
func New(o Options) (*Study, error) {
	if o.Direction == "" {
		o.Direction = Maximize
	}
	if o.Sampler == nil {
		o.Sampler = NewTPE(0)
	}
	if o.Relative == nil {
		o.Relative, _ = o.Sampler.(RelativeSampler)
	}
	if o.FailureLimit == 0 {
		o.FailureLimit = 10
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 15 * time.Second
	}
	if o.Grace == 0 {
		o.Grace = 2 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("study: "+format, args...))
		}
	}
	check(o.Name != "" && len(o.Name) <= 512, "a name of %d bytes: want 1 to 512", len(o.Name))
	check(o.Direction == Maximize || o.Direction == Minimize,
		"direction %q: want %q or %q", o.Direction, Maximize, Minimize)
	check(o.Storage != nil, "no storage")
	check(o.Trials > 0, "%d trials: want at least 1", o.Trials)
	check(o.TrialsHere >= 0 && o.FailureLimit > 0 && o.Retries >= 0, "negative numbers of trials, failures or retries")
	check(o.Heartbeat > 0 && o.Grace >= 2*o.Heartbeat,
		"heartbeats every %v and a grace of %v: want a grace of at least two heartbeats", o.Heartbeat, o.Grace)
	for name, d := range o.Space {
		if err := d.Validate(); err != nil {
			check(false, "parameter %s: %v", name, err)
		}
	}
	if v, ok := o.Pruner.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			check(false, "%v", err)
		}
	}
	return &Study{o}, errors.Join(errs...)
}

// FailuresError ends a Run in which too many trials failed.
type FailuresError struct {
	Count int
	Last  error // of the last trial
}

// Error implements error.
func (e *FailuresError) Error() string {
	return fmt.Sprintf("study: %d trials failed, the last one with: %v", e.Count, e.Last)
}

// Unwrap returns the error of the last trial.
func (e *FailuresError) Unwrap() error { return e.Last }

// Trials returns the trials of the study, in the order of their numbers, which
// it creates if it is new.
func (s *Study) Trials(ctx context.Context) ([]FrozenTrial, error) {
	id, err := s.o.Storage.OpenStudy(ctx, s.o.Name, s.o.Direction)
	if err != nil {
		return nil, err
	}
	return s.o.Storage.Trials(ctx, id)
}

// Enqueue adds a trial with some parameters given, by their external values, and
// returns its number. It is run before new ones are drawn.
func (s *Study) Enqueue(ctx context.Context, params map[string]any) (number int, err error) {
	text, err := json.Marshal(params)
	if err != nil {
		return 0, fmt.Errorf("study: %w", err)
	}
	id, err := s.o.Storage.OpenStudy(ctx, s.o.Name, s.o.Direction)
	if err != nil {
		return 0, err
	}
	trial := newFrozen()
	trial.SystemAttrs[attrFixedParams] = string(text)
	return s.o.Storage.Enqueue(ctx, id, trial)
}

// InitAttr gives the study a user attribute unless it has it, and decodes the
// one it has then into stored: of several workers, all get the first one's.
func (s *Study) InitAttr(ctx context.Context, key string, value, stored any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("study: attribute %s: %w", key, err)
	}
	id, err := s.o.Storage.OpenStudy(ctx, s.o.Name, s.o.Direction)
	if err != nil {
		return err
	}
	kept, err := s.o.Storage.InitStudyAttr(ctx, id, key, string(text))
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(kept), stored); err != nil {
		return fmt.Errorf("study: attribute %s is %s: %w", key, kept, err)
	}
	return nil
}

// Attr decodes a user attribute of the study into value and reports whether the
// study has it.
func (s *Study) Attr(ctx context.Context, key string, value any) (found bool, err error) {
	id, err := s.o.Storage.OpenStudy(ctx, s.o.Name, s.o.Direction)
	if err != nil {
		return false, err
	}
	text, err := s.o.Storage.InitStudyAttr(ctx, id, key, "")
	if err != nil || text == "" {
		return false, err
	}
	if err := json.Unmarshal([]byte(text), value); err != nil {
		return false, fmt.Errorf("study: attribute %s is %s: %w", key, text, err)
	}
	return true, nil
}

// Run runs trials until the study has as many as it is to have, together with
// whoever else works on it; trials that run elsewhere are waited for, and done
// again if their worker dies. It returns nil then, or a *FailuresError, or the
// storage's error, or the cause of ctx's end; in the last case its running
// trials have failed, or wait to be retried.
//
// Trials that run without a heartbeat, such as those of a worker in Python that
// was not told to have one, count, but are not waited for.
//
// workers is the number of trials that run at the same time here; less than 1 is 1.
func (s *Study) Run(ctx context.Context, workers int, objective Objective) error {
	id, err := s.o.Storage.OpenStudy(ctx, s.o.Name, s.o.Direction)
	if err != nil {
		return err
	}
	r := &run{Options: s.o, id: id, objective: objective, log: s.o.Logger.With("study", s.o.Name)}
	group, gctx := errgroup.WithContext(ctx)
	for range max(1, workers) {
		group.Go(func() error { return r.work(gctx) })
	}
	err = group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// run is what the workers of one Run share.
type run struct {
	Options
	id        int
	objective Objective
	log       *slog.Logger
	started   atomic.Int64

	mu       sync.Mutex
	failures int
}

// work runs trials, one after the other.
func (r *run) work(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		stale, err := r.Storage.FailStale(ctx, r.id, r.Grace, r.Retries)
		if err != nil {
			return err
		}
		for _, t := range stale {
			r.log.Warn("a trial was abandoned by its worker", "trial", t.Number)
			if r.Abandoned != nil {
				r.Abandoned(ctx, clone(t))
			}
		}
		if r.TrialsHere > 0 && r.started.Add(1) > int64(r.TrialsHere) {
			return nil
		}
		trial, tally, err := r.Storage.Claim(ctx, r.id, r.Trials)
		if err != nil {
			return err
		}
		if trial != nil {
			if err := r.runTrial(ctx, *trial); err != nil {
				return err
			}
			continue
		}
		r.started.Add(-1)
		if tally.Finished >= r.Trials {
			return nil
		}
		if tally.Beating == 0 {
			r.log.Warn("the study ends short of its trials: others run without a heartbeat, "+
				"so that nobody knows whether they live",
				"finished", tally.Finished, "running", tally.Running, "want", r.Trials)
			return nil
		}
		// What runs elsewhere may still die.
		pause := time.Duration((0.5 + rand.Float64()) * float64(min(r.Heartbeat, time.Second)))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// runTrial runs a claimed trial to its end. Its error ends the Run.
func (r *run) runTrial(ctx context.Context, frozen FrozenTrial) error {
	log := r.log.With("trial", frozen.Number)
	log.Debug("trial starts")
	trial := &Trial{run: r, frozen: frozen}
	return r.tell(ctx, trial, r.compute(ctx, trial, log), log)
}

// outcome is what a trial came to.
type outcome struct {
	value float64
	err   error
	cause error // why its context ended; nil if it did not
}

// compute calls the objective while signs of life are given.
func (r *run) compute(ctx context.Context, trial *Trial, log *slog.Logger) outcome {
	tctx, cancel := context.WithCancelCause(ctx)
	var beats sync.WaitGroup
	id := trial.frozen.ID
	beats.Go(func() { r.beat(tctx, cancel, id, log) })
	value, err := trial.evaluate(tctx)
	cause := context.Cause(tctx)
	cancel(nil)
	beats.Wait()
	return outcome{value, err, cause}
}

// state returns the state in which the trial ends, the value that is recorded and the
// error that it failed with.
func (o outcome) state(ctx context.Context, trial *Trial) (State, float64, error) {
	switch {
	case errors.Is(o.err, ErrPruned):
		return Pruned, trial.lastValue(), nil
	case o.err != nil && ctx.Err() != nil:
		return Failed, math.NaN(), fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case o.err != nil:
		return Failed, math.NaN(), o.err
	case math.IsNaN(o.value):
		return Failed, o.value, errors.New("the objective is not a number")
	}
	return Complete, o.value, nil
}

// tell records what a trial came to. Its error ends the Run.
func (r *run) tell(ctx context.Context, trial *Trial, o outcome, log *slog.Logger) error {
	// A trial that has been trained is worth recording, even when ctx ends.
	end, stop := outlive(ctx, 10*time.Second)
	defer stop()
	if errors.Is(o.cause, ErrNotRunning) || errors.Is(o.err, ErrNotRunning) {
		log.Warn("another worker has ended the trial; its result here is dropped")
		return nil
	}
	interrupted := o.err != nil && !errors.Is(o.err, ErrPruned) && ctx.Err() != nil
	state, value, err := o.state(ctx, trial)
	if err != nil {
		if e := trial.SetAttr(end, AttrFailReason, err.Error()); e != nil && !errors.Is(e, ErrNotRunning) {
			return errors.Join(e, err)
		}
	}
	switch e := r.Storage.Finish(end, trial.frozen.ID, state, value); {
	case errors.Is(e, ErrNotRunning):
		log.Warn("another worker has ended the trial; its result here is dropped")
		return nil
	case e != nil:
		return errors.Join(e, err)
	}
	trial.frozen.State, trial.frozen.Value, trial.frozen.DatetimeComplete = state, value, time.Now()
	log.Debug("trial ended", "state", state, "value", value)
	if interrupted {
		r.retry(end, trial.frozen, log)
	}
	if r.Finished != nil {
		r.Finished(ctx, clone(trial.frozen))
	}
	if err == nil || interrupted {
		return nil // work sees that ctx has ended
	}
	log.Debug("trial failed", "err", err)
	return r.countFailure(trial.frozen.Number, err)
}

// retry enqueues an interrupted trial again, if it may be.
func (r *run) retry(ctx context.Context, frozen FrozenTrial, log *slog.Logger) {
	again, ok := Retry(frozen, r.Retries)
	if !ok {
		return
	}
	if _, err := r.Storage.Enqueue(ctx, r.id, again); err != nil {
		log.Warn("the interrupted trial cannot be enqueued again", "err", err)
	}
}

// countFailure returns an error when too many trials have failed.
func (r *run) countFailure(number int, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures++; r.failures >= r.FailureLimit {
		return &FailuresError{Count: r.failures, Last: fmt.Errorf("trial %d: %w", number, err)}
	}
	return nil
}

// beat shows that a trial is alive, until ctx ends. If it runs no more, because
// others took it for dead, it cancels the trial.
func (r *run) beat(ctx context.Context, cancel context.CancelCauseFunc, trial int, log *slog.Logger) {
	ticker := time.NewTicker(r.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		switch err := r.Storage.Beat(ctx, trial); {
		case errors.Is(err, ErrNotRunning):
			cancel(err)
			return
		case err != nil && ctx.Err() == nil:
			log.Warn("no heartbeat", "err", err)
		}
	}
}

// evaluate draws what is drawn together and calls the objective. A panic is an
// error: it must not take other trials along.
func (t *Trial) evaluate(ctx context.Context) (value float64, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := t.begin(ctx); err != nil {
		return 0, err
	}
	return t.run.objective(ctx, t)
}

// outlive returns a context that ends some time after ctx does.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	end, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var timer *time.Timer
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(grace, cancel)
	})
	return end, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}
