package criteria

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/study"
)

// trial is the plan of a run that is one of a study.
type trial struct {
	study  *studyRun
	record *study.Trial
	values hyperparameters
}

func (t *trial) describe(info *RunInfo, _ *Dataset) {
	n := t.record.Number()
	info.Name = fmt.Sprintf("trial-%d", n)
	info.Description = fmt.Sprintf("Trial %d of study %s.", n, t.study.config.HPO.StudyName)
	info.Parent = t.study.runID
	info.Tags["stage"], info.Tags["trial_number"] = "hpo", fmt.Sprint(n)
	info.Params = t.values.params()
}

func (t *trial) keepsModel() bool { return t.study.config.HPO.SaveModels }

// keepsResumePoints: a trial that is interrupted is tried again or replaced.
func (t *trial) keepsResumePoints() bool { return false }

// afterEpoch reports the scores and gives the trial up if the pruner says so.
func (t *trial) afterEpoch(ctx context.Context, e EpochScores) error {
	if err := t.record.Report(ctx, e.Epoch, e.Val.MacroF1); err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	prune, err := t.record.ShouldPrune(ctx)
	if err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	if prune {
		return study.ErrPruned
	}
	return nil
}

// errBrokenOff is what a trial ended with that ran into a panic, which the search
// turns into the trial's error.
var errBrokenOff = errors.New("criteria: the trial ran into a panic")

// runTrial is the objective, in the order of Optuna's _run_trial: ask for values, run,
// tell what came of it.
func (r *studyRun) runTrial(ctx context.Context, record *study.Trial) (value float64, err error) {
	one, err := r.ask(ctx, record)
	if err != nil {
		return 0, err
	}
	ended := errBrokenOff
	defer func() { one.tell(ctx, ended) }()
	if ended = r.train(ctx, one, record); ended != nil {
		return 0, ended
	}
	return one.loop.progress.state.best().Val.MacroF1, nil
}

// ask draws the values of a trial and returns a run with them, which shares with the
// study what is the same for all.
func (r *studyRun) ask(ctx context.Context, record *study.Trial) (*run, error) {
	h, err := r.config.HPO.SearchSpace.suggest(ctx, record)
	if err != nil {
		return nil, fmt.Errorf("criteria: %w", err)
	}
	r.log.Info(fmt.Sprintf("trial %d: %s", record.Number(), h))
	s := r.settings
	s.config = h.apply(r.config)
	s.config.Train.Threads = r.threads
	s.log = r.log.With("trial", record.Number())
	s.hooks = []Hooks{r.trialHooks(record.Number())}
	if r.config.HPO.SaveModels {
		s.outputDir = filepath.Join(r.outputDir, trialsDir, fmt.Sprintf("%04d", record.Number()))
	}
	one := newRun(newJob(&s, &trial{study: r, record: record, values: h}))
	one.use(r.base.splits)
	one.base = r.base.base
	return one, nil
}

// train trains a trial. Unlike a training on its own it leaves nothing but scores, and
// does not look at the test split.
func (r *studyRun) train(ctx context.Context, one *run, record *study.Trial) (err error) {
	closers := closers{}
	defer func() { err = errors.Join(err, closers.close()) }()
	if err := one.makeOutputDir(); err != nil {
		return err
	}
	if r.tracker != nil {
		if err := one.record.start(ctx, one.splits.data, ""); err != nil {
			return err
		}
	}
	attrs := map[string]string{attrWorker: r.worker}
	if id := one.record.tracked.ID(); id != "" {
		attrs[attrRunID] = id
	}
	for key, value := range attrs { // where the trial runs and is recorded
		if err := record.SetAttr(ctx, key, value); err != nil {
			return fmt.Errorf("criteria: %w", err)
		}
	}
	if _, err := one.openSession(ctx, &closers); err != nil {
		return err
	}
	if err := one.loop.planSchedule(); err != nil {
		return err
	}
	return one.loop.train(ctx)
}

// tell closes the tracked run of a trial. What goes wrong is not worth more than a
// warning: the trial is what it is.
func (r *run) tell(ctx context.Context, err error) {
	state, status := TrialCompleted, RunFinished
	switch {
	case errors.Is(err, study.ErrPruned):
		state = TrialPruned
	case interrupted(ctx, err):
		state, status = TrialFailed, RunKilled
	case err != nil:
		state, status = TrialFailed, RunFailed
	}
	ctx, cancel := endContext(ctx)
	defer cancel()
	tracked, s := r.record.tracked, &r.loop.progress.state
	errs := []error{tracked.SetTags(ctx, map[string]string{"trial_status": string(state)})}
	if s.BestEpoch > 0 {
		best := map[string]float64{"best_" + objective: s.best().Val.MacroF1}
		errs = append(errs, tracked.LogMetrics(ctx, len(s.History), best))
	}
	if err := errors.Join(append(errs, tracked.End(ctx, status))...); err != nil {
		r.log.Warn("the tracked run of the trial could not be closed", "error", err)
	}
}

// trialHooks are those of the study for a trial, called one at a time. Steps of trials
// that run at the same time would only confuse.
func (r *studyRun) trialHooks(number int) Hooks {
	all := r.base.events
	hooks := Hooks{
		Epoch:      func(e EpochEvent) { e.Trial = number; r.locked(func() { all.Epoch(e) }) },
		Checkpoint: func(e CheckpointEvent) { e.Trial = number; r.locked(func() { all.Checkpoint(e) }) },
	}
	if r.workers == 1 {
		hooks.Step = func(e StepEvent) { e.Trial = number; all.Step(e) }
	}
	return hooks
}

func (r *studyRun) locked(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// finished takes down a trial that has ended here.
func (r *studyRun) finished(ctx context.Context, frozen study.FrozenTrial) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := endContext(ctx)
	defer cancel()
	trials, err := r.core.Trials(ctx)
	if err == nil {
		err = r.recordBest(ctx, trials)
	}
	if err != nil { // the end of the run will try once more
		r.log.Warn("the best trial so far could not be recorded", "error", err)
	}
	e := TrialEvent{Trial: newTrialRecord(frozen), Finished: finishedTrials(trials), Trials: r.config.HPO.NTrials}
	line := fmt.Sprintf("trial %d %s", e.Trial.Number, e.Trial.State)
	if e.Trial.State == TrialFailed {
		reason, _, _ := strings.Cut(e.Trial.Reason, "\n")
		line += ", " + reason
	} else {
		line += fmt.Sprintf(" after epoch %d with %s %.4f", len(e.Trial.Scores), objective, e.Trial.Value)
	}
	if best, ok := study.Best(trials, study.Maximize); ok {
		record := newTrialRecord(best)
		e.Best = &record
		line += fmt.Sprintf("; best so far: trial %d with %.4f", best.Number, best.Value)
	}
	r.log.Info(fmt.Sprintf("%s (%d of %d trials done)", line, e.Finished, e.Trials))
	r.base.events.Trial(e)
}

// recordBest writes the configuration of the best trial if it is another one
// than last time.
func (r *studyRun) recordBest(ctx context.Context, trials []study.FrozenTrial) error {
	best, ok := study.Best(trials, study.Maximize)
	if !ok || best.Number == r.best {
		return nil
	}
	h, err := readHyperparameters(best.Params)
	if err != nil {
		return fmt.Errorf("criteria: trial %d: %w", best.Number, err)
	}
	text := h.apply(r.config).Redacted().YAML()
	if err := atomicfile.WriteFile(filepath.Join(r.outputDir, bestTrialFile), text); err != nil {
		return fmt.Errorf("criteria: write %s: %w", bestTrialFile, err)
	}
	if err := r.base.record.artifact(ctx, bestTrialFile, text); err != nil {
		return err
	}
	// Another best trial means that one more has ended: no step comes again.
	if err := r.base.record.tracked.LogMetrics(ctx, endedTrials(trials), map[string]float64{
		"best_trial_number": float64(best.Number), "best_trial_value": best.Value,
	}); err != nil {
		return trackingError("log the best trial", err)
	}
	r.best = best.Number
	return nil
}

// abandoned ends the tracked run of a trial whose process has died.
func (r *studyRun) abandoned(ctx context.Context, frozen study.FrozenTrial) {
	id := stringAttr(frozen, attrRunID)
	if r.tracker == nil || id == "" {
		return
	}
	tags := map[string]string{
		"stage": "hpo", "trial_number": fmt.Sprint(frozen.Number), "trial_status": string(TrialFailed),
	}
	tracked, err := r.tracker.Start(ctx, RunInfo{
		Name: fmt.Sprintf("trial-%d", frozen.Number), Parent: r.runID, ResumeRunID: id, Tags: tags,
		Started: frozen.DatetimeStart, Dir: r.outputDir,
	})
	if err == nil {
		err = errors.Join(tracked.SetTags(ctx, tags), tracked.End(ctx, RunKilled))
	}
	if err != nil {
		r.log.Warn("the tracked run of an abandoned trial could not be closed",
			"trial", frozen.Number, "run_id", id, "error", err)
	}
}
