package criteria

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/optunadb"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/redact"
	"github.com/criteria-go/criteria/internal/report"
	"github.com/criteria-go/criteria/internal/study"
)

// Names in the output directory of a study, and of its artifacts.
const (
	bestTrialFile   = "best_trial_config.yaml"
	historyFile     = "optimization_history.png"
	importancesFile = "param_importances.png"
	parallelFile    = "parallel_coordinate.png"
	sliceFile       = "slice.png"
	trialsDir       = "trials" // models, if they are kept
)

// Attributes of studies and trials in the storage.
const (
	attrOrigin   = "criteria"         // of a study: a studyOrigin
	attrRunID    = "mlflow_run_id"    // of both: the tracked run
	attrRunClaim = "mlflow_run_claim" // of a study: the process that creates its run
	attrWorker   = "worker"           // of a trial: the process that runs it
)

// objective is what a study maximizes.
const objective = "val_macro_f1"

// studyRun is one run of a study, from reading the data to the pictures.
type studyRun struct {
	*studySettings
	// base has what is done once for all trials: data, tokens and the tracked run
	// of the study. It does not train.
	base    *run
	worker  string // name of this process, different from all others
	options study.Options
	core    *study.Study
	closers closers
	threads int // of a trial

	mu   sync.Mutex // held while a trial that has ended is taken down
	best int        // number of the best trial that was recorded; -1: none
}

func newStudyRun(s *studySettings) *studyRun {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	r := &studyRun{
		studySettings: s, base: newRun(&s.settings), best: -1,
		worker: fmt.Sprintf("%s-%d-%08x", host, os.Getpid(), rand.Uint32()),
	}
	r.base.info = r.info
	return r
}

// run is the order of work: what is cheap and may be wrong comes first.
func (r *studyRun) run(ctx context.Context) error {
	if err := os.MkdirAll(r.outputDir, 0o755); err != nil {
		return fmt.Errorf("criteria: output directory: %w", err)
	}
	if err := r.base.readData(ctx); err != nil {
		return err
	}
	if err := r.openStudy(ctx); err != nil {
		return err
	}
	if err := r.checkStudy(ctx); err != nil {
		return err
	}
	if err := r.startTracking(ctx); err != nil {
		return err
	}
	trials, err := r.core.Trials(ctx)
	if err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	done := finishedTrials(trials)
	r.log.Info("study "+r.config.HPO.StudyName, "storage", cmp.Or(redact.URL(r.config.HPO.Storage), "memory"),
		"trials", r.config.HPO.NTrials, "done", done)
	if done >= r.config.HPO.NTrials {
		return nil
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if err := r.core.Run(ctx, r.try); err != nil {
		return fmt.Errorf("criteria: study %s: %w", r.config.HPO.StudyName, err)
	}
	return nil
}

// openStudy connects to the storage.
func (r *studyRun) openStudy(ctx context.Context) error {
	c := r.config.HPO
	sampler, relative := r.samplers()
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	r.options = study.Options{
		Name: c.StudyName, Storage: &study.Memory{}, Sampler: sampler, Relative: relative, Pruner: r.prunerOf(),
		Trials: c.NTrials, FailureLimit: c.MaxFailures, Retries: c.Retries,
		Heartbeat: seconds(c.HeartbeatInterval), Grace: seconds(c.GracePeriod), Logger: r.log,
		Finished:  func(t study.FrozenTrial) { r.finished(ctx, t) },
		Abandoned: func(t study.FrozenTrial) { r.abandoned(ctx, t) },
	}
	if r.sampler != nil || r.relative != nil {
		// Samplers of goptuna want to know the space before the first trial.
		r.options.Space = c.SearchSpace.distributions()
		delete(r.options.Space, paramHiddenDim)
	}
	if c.Storage != "" {
		db, err := optunadb.Open(ctx, c.Storage, optunadb.Options{Logger: r.log})
		if err != nil {
			return fmt.Errorf("criteria: hpo.storage: %w", err)
		}
		r.closers.add(db.Close)
		r.options.Storage = db
	}
	return r.newCore()
}

func (r *studyRun) newCore() (err error) {
	if r.core, err = study.New(r.options); err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	return nil
}

// studyOrigin says what a study searches in. It is kept with the study, because
// values that come from other data do not compare.
type studyOrigin struct {
	Config string           `json:"config"` // as YAML
	Splits map[Phase]string `json:"splits"` // digests
}

// checkStudy finds out whether the study, if it exists, is this one.
func (r *studyRun) checkStudy(ctx context.Context) error {
	now := studyOrigin{Config: string(r.config.Redacted().YAML()), Splits: r.base.data.digests()}
	var was studyOrigin
	if err := r.core.InitAttr(ctx, attrOrigin, now, &was); err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	fail := func(key, was, is string) error {
		return &StudyError{
			Study: r.config.HPO.StudyName, Storage: redact.URL(r.config.HPO.Storage), Key: key, Want: was, Got: is,
		}
	}
	for _, phase := range slices.Sorted(maps.Keys(now.Splits)) {
		if was.Splits[phase] != now.Splits[phase] {
			return fail(fmt.Sprintf("the %s split", phase), "another, "+was.Splits[phase], now.Splits[phase])
		}
	}
	trials, err := r.core.Trials(ctx)
	if err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	if key, was, is := checkSpace(r.config.HPO.SearchSpace, trials); key != "" {
		return fail(key, fmt.Sprintf("%+v", was), fmt.Sprintf("%+v", is))
	}
	before, err := ParseConfig([]byte(was.Config))
	if err != nil {
		r.log.Warn("the study was created by another version: its settings are not known", "error", err)
		return nil
	}
	// What trials vary is not a difference.
	var none hyperparameters
	for _, d := range differences(none.apply(before), none.apply(r.config.Redacted())) {
		r.log.Warn("the study was created with another setting: the scores of its trials may not compare", "key", d.key, "was", d.was, "is", d.is)
	}
	return nil
}

// info describes the study to the tracker.
func (r *studyRun) info(info *RunInfo) {
	c := r.config.HPO
	sampler, pruner := r.algorithms()
	info.Name = cmp.Or(info.Name, c.StudyName)
	info.Description = fmt.Sprintf("Search for hyperparameters of %s on %s: study %s.", r.config.Model.Checkpoint, r.base.data.Name, c.StudyName)
	info.Tags["stage"], info.Tags["study_name"] = "hpo", c.StudyName
	if info.ResumeRunID = r.base.parentID; info.ResumeRunID != "" {
		return // its parameters are those of the beginning
	}
	info.Params = map[string]string{
		"n_trials": formatValue(c.NTrials), "sampler": sampler, "pruner": pruner, "study_name": c.StudyName,
		"epochs": formatValue(r.config.Train.Epochs), "seed": fmt.Sprint(r.config.Train.Seed), "checkpoint": r.config.Model.Checkpoint,
	}
}

// claimPatience is how long another process may take to create the tracked run.
const claimPatience = time.Minute

// startTracking starts the tracked run of the study or goes on with it. Of
// processes that begin at the same time one creates it.
func (r *studyRun) startTracking(ctx context.Context) error {
	if r.tracker == nil {
		return nil
	}
	for began := time.Now(); ; {
		known, err := r.core.Attr(ctx, attrRunID, &r.base.parentID)
		if err != nil {
			return fmt.Errorf("criteria: %w", err)
		}
		var claimed string
		if !known {
			if err := r.core.InitAttr(ctx, attrRunClaim, r.worker, &claimed); err != nil {
				return fmt.Errorf("criteria: %w", err)
			}
		}
		if known || claimed == r.worker || time.Since(began) > claimPatience {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := r.base.startTracking(ctx); err != nil {
		return err
	}
	was, is := r.base.parentID, r.base.tracked.ID()
	tags := map[string]string{"n_trials": formatValue(r.config.HPO.NTrials)}
	switch was {
	case "":
		if err := r.core.InitAttr(ctx, attrRunID, is, &was); err != nil {
			return fmt.Errorf("criteria: %w", err)
		}
	case is:
	default:
		r.log.Info("the tracker cannot go on with the run of the study: this is a new one", "resumed_from", was)
		tags["resumed_from"] = was
	}
	r.base.parentID = is
	if err := r.base.tracked.SetTags(ctx, tags); err != nil {
		return trackingError("set tags", err)
	}
	return nil
}

// prepare does what all trials need: it finds the model, encodes the data, sends
// one batch through, and decides how many trials run at the same time.
func (r *studyRun) prepare(ctx context.Context) (err error) {
	base := r.base
	if err := base.findModel(ctx); err != nil {
		return err
	}
	splits := slices.DeleteFunc(base.data.splits(), func(s namedSplit) bool { return s.phase == PhaseTest })
	if err := base.tokenize(ctx, base.base.Dir, splits, &r.closers); err != nil {
		return err
	}
	if err := base.openModel(ctx, &r.closers); err != nil {
		return err
	}
	if base.train, err = base.tokenized(PhaseTrain); err != nil {
		return err
	}
	if err := base.planSchedule(); err != nil {
		return err
	}
	if err := base.dryRun(ctx); err != nil {
		return err
	}
	if base.val, err = base.tokenized(PhaseVal); err != nil {
		return err
	}
	if err := base.closeSession(); err != nil {
		return fmt.Errorf("criteria: close the session of the dry run: %w", err)
	}
	r.options.Workers = r.jobs(ctx)
	r.threads = max(1, cmp.Or(r.config.Train.Threads, ort.DefaultThreads())/r.options.Workers)
	return r.newCore()
}

// trial is what a run has that is one of a study.
type trial struct {
	number     int
	keepsModel bool
	record     *study.Trial
}

// judge reports the scores of an epoch and says whether the trial is given up.
func (t *trial) judge(ctx context.Context, e EpochScores) error {
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

// try is the objective: it trains with the values that it draws for a trial.
func (r *studyRun) try(ctx context.Context, record *study.Trial) (value float64, err error) {
	h, err := r.config.HPO.SearchSpace.suggest(ctx, record)
	if err != nil {
		return 0, fmt.Errorf("criteria: %w", err)
	}
	one := r.newTrial(record, h)
	r.log.Info(fmt.Sprintf("trial %d: %s", record.Number(), h))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("criteria: panic: %v\n%s", p, debug.Stack())
		}
		one.endTrial(ctx, err)
	}()
	if err := one.try(ctx, r.worker); err != nil {
		return 0, err
	}
	return one.state.best().Val.MacroF1, nil
}

// newTrial returns a run that shares with the study what is the same for all.
func (r *studyRun) newTrial(record *study.Trial, h hyperparameters) *run {
	s, base := r.settings, r.base
	s.config = h.apply(r.config)
	s.config.Train.Threads = r.threads
	s.log = r.log.With("trial", record.Number())
	one := newRun(&s)
	one.trial = &trial{number: record.Number(), keepsModel: r.config.HPO.SaveModels, record: record}
	one.data, one.classWeights, one.train, one.val = base.data, base.classWeights, base.train, base.val
	one.base, one.engine, one.tokenizer = base.base, base.engine, base.tokenizer
	one.parentID = base.parentID
	one.info = func(info *RunInfo) {
		info.Name = fmt.Sprintf("trial-%d", record.Number())
		info.Description = fmt.Sprintf("Trial %d of study %s.", record.Number(), r.config.HPO.StudyName)
		info.Parent = base.parentID
		info.Tags["stage"], info.Tags["trial_number"] = "hpo", fmt.Sprint(record.Number())
		info.Params = h.params()
	}
	if one.trial.keepsModel {
		one.outputDir = filepath.Join(r.outputDir, trialsDir, fmt.Sprintf("%04d", record.Number()))
	}
	one.hooks = r.trialHooks()
	return one
}

// trialHooks are those of the study, called one at a time. Steps of trials that
// run at the same time would only confuse.
func (r *studyRun) trialHooks() Hooks {
	all := r.base.hooks
	hooks := Hooks{
		Epoch:      func(e EpochEvent) { r.locked(func() { all.Epoch(e) }) },
		Checkpoint: func(e CheckpointEvent) { r.locked(func() { all.Checkpoint(e) }) },
	}
	if r.options.Workers == 1 {
		hooks.Step = all.Step
	}
	return JoinHooks(hooks)
}

func (r *studyRun) locked(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// try trains. Unlike a training on its own it leaves nothing but scores, and does
// not look at the test split.
func (r *run) try(ctx context.Context, worker string) (err error) {
	closers := closers{}
	defer func() { err = errors.Join(err, closers.close()) }()
	if err := os.MkdirAll(r.outputDir, 0o755); err != nil {
		return fmt.Errorf("criteria: output directory: %w", err)
	}
	if err := r.startTracking(ctx); err != nil {
		return err
	}
	if err := r.recordTrial(ctx, worker); err != nil {
		return err
	}
	if _, err := r.openSession(ctx, &closers); err != nil {
		return err
	}
	if err := r.planSchedule(); err != nil {
		return err
	}
	return r.trainAll(ctx)
}

// recordTrial tells the storage where the trial runs and is recorded.
func (r *run) recordTrial(ctx context.Context, worker string) error {
	attrs := map[string]string{attrWorker: worker}
	if id := r.tracked.ID(); id != "" {
		attrs[attrRunID] = id
	}
	for key, value := range attrs {
		if err := r.trial.record.SetAttr(ctx, key, value); err != nil {
			return fmt.Errorf("criteria: %w", err)
		}
	}
	return nil
}

// endTrial closes the tracked run of a trial. What goes wrong is not worth more
// than a warning: the trial is what it is.
func (r *run) endTrial(ctx context.Context, err error) {
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
	errs := []error{r.tracked.SetTags(ctx, map[string]string{"trial_status": string(state)})}
	if r.state.BestEpoch > 0 {
		errs = append(errs, r.tracked.LogMetrics(ctx, len(r.state.History), map[string]float64{"best_" + objective: r.state.best().Val.MacroF1}))
	}
	if err := errors.Join(append(errs, r.tracked.End(ctx, status))...); err != nil {
		r.log.Warn("the tracked run of the trial could not be closed", "error", err)
	}
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
	r.base.hooks.Trial(e)
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
	if err := r.base.tracked.LogArtifact(ctx, bestTrialFile, bytes.NewReader(text)); err != nil {
		return trackingError("store "+bestTrialFile, err)
	}
	// Another best trial means that one more has ended: no step comes again.
	if err := r.base.tracked.LogMetrics(ctx, endedTrials(trials), map[string]float64{
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
	tags := map[string]string{"stage": "hpo", "trial_number": fmt.Sprint(frozen.Number), "trial_status": string(TrialFailed)}
	tracked, err := r.tracker.Start(ctx, RunInfo{
		Name: fmt.Sprintf("trial-%d", frozen.Number), Parent: r.base.parentID, ResumeRunID: id, Tags: tags, Started: frozen.DatetimeStart, Dir: r.outputDir,
	})
	if err == nil {
		err = errors.Join(tracked.SetTags(ctx, tags), tracked.End(ctx, RunKilled))
	}
	if err != nil {
		r.log.Warn("the tracked run of an abandoned trial could not be closed", "trial", frozen.Number, "run_id", id, "error", err)
	}
}

// end writes what the study came to and closes everything, however it ended.
func (r *studyRun) end(ctx context.Context, err error) (*StudyResult, error) {
	cut := interrupted(ctx, err)
	reporting, cancel := ctx, func() {}
	if err != nil { // perhaps the storage is away: it is not waited for again
		reporting, cancel = context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	}
	result, running, reportErr := r.report(reporting)
	cancel()
	status := RunFinished
	switch {
	case cut:
		status = RunKilled
		if running {
			status = RunRunning
		}
		e := &InterruptedError{Study: r.config.HPO.StudyName, Dir: r.outputDir, Cause: context.Cause(ctx)}
		if result != nil {
			e.Trials = result.finished()
		}
		err = e
	case err == nil && reportErr == nil && result.Best == nil:
		err = fmt.Errorf("criteria: study %s: no trial is complete: nothing is known of any values", r.config.HPO.StudyName)
	}
	if reportErr != nil && cut {
		r.log.Warn("what the study came to could not be recorded in full", "error", reportErr)
	} else {
		err = errors.Join(err, reportErr)
	}
	if err != nil && !cut {
		status = RunFailed
	}
	err = r.base.endAs(ctx, status, err)
	return result, errors.Join(err, r.closers.close())
}

// report makes the result and its files. It says whether trials still run, in
// other processes.
func (r *studyRun) report(ctx context.Context) (result *StudyResult, running bool, err error) {
	if r.core == nil {
		return nil, false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	trials, err := r.core.Trials(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("criteria: %w", err)
	}
	result = &StudyResult{
		Study: r.config.HPO.StudyName, RunID: r.base.tracked.ID(), Dir: r.outputDir, Elapsed: r.now().Sub(r.base.began),
	}
	for _, t := range trials {
		result.Trials = append(result.Trials, newTrialRecord(t))
		running = running || t.State == study.Running
	}
	if best, ok := study.Best(trials, study.Maximize); ok {
		record := newTrialRecord(best)
		result.Best = &record
		if h, err := readHyperparameters(best.Params); err == nil {
			config := h.apply(r.config)
			result.Config = &config
		}
	}
	if result.Importances, err = r.importances(trials); err != nil {
		return result, running, err
	}
	if err := r.recordBest(ctx, trials); err != nil {
		return result, running, err
	}
	return result, running, r.draw(ctx, result)
}

// importances says how much each hyperparameter mattered; nothing if there are
// too few trials to say it.
func (r *studyRun) importances(trials []study.FrozenTrial) ([]Importance, error) {
	var shares []study.Importance
	var err error
	if r.config.HPO.Importance == importancePEDANOVA {
		shares, err = study.PEDANOVA(trials, study.Maximize)
	} else {
		shares, err = study.FANOVA(trials, r.config.Train.Seed)
	}
	if errors.Is(err, study.ErrTooFewTrials) || errors.Is(err, study.ErrNoVariance) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("criteria: importances: %w", err)
	}
	list := make([]Importance, len(shares))
	for i, s := range shares {
		list[i] = Importance(s)
	}
	return list, nil
}

// draw makes the pictures.
func (r *studyRun) draw(ctx context.Context, result *StudyResult) error {
	search := report.Search{
		Title: "Study " + result.Study, Objective: objective, Maximize: true, Params: r.config.HPO.SearchSpace.axes(),
	}
	states := map[TrialState]report.TrialState{TrialCompleted: report.Complete, TrialPruned: report.Pruned, TrialFailed: report.Failed}
	for _, t := range result.Trials {
		search.Trials = append(search.Trials, report.Trial{Number: t.Number, State: states[t.State], Value: t.Value, Params: t.Params})
	}
	var shares []report.Importance
	for _, i := range result.Importances {
		shares = append(shares, report.Importance(i))
	}
	evaluator := map[string]string{importanceFANOVA: "fANOVA", importancePEDANOVA: "PED-ANOVA"}[r.config.HPO.Importance]
	for _, f := range []reportPart{
		{historyFile, func() ([]byte, error) { return report.OptimizationHistory(search) }},
		{importancesFile, func() ([]byte, error) {
			return report.ParamImportances("Study "+result.Study, objective, evaluator, shares)
		}},
		{parallelFile, func() ([]byte, error) { return report.ParallelCoordinate(search) }},
		{sliceFile, func() ([]byte, error) { return report.Slice(search) }},
	} {
		if err := r.base.reportFile(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// finished counts the complete and pruned trials.
func (r *StudyResult) finished() int {
	n := 0
	for _, t := range r.Trials {
		if t.State == TrialCompleted || t.State == TrialPruned {
			n++
		}
	}
	return n
}

// endedTrials counts those that change no more.
func endedTrials(trials []study.FrozenTrial) int {
	n := 0
	for _, t := range trials {
		if t.State.IsFinished() {
			n++
		}
	}
	return n
}

// finishedTrials counts those that are complete or pruned.
func finishedTrials(trials []study.FrozenTrial) int {
	var tally study.Tally
	for _, t := range trials {
		tally.Count(t.State, 1)
	}
	return tally.Finished
}

// newTrialRecord turns the record of a trial into ours.
func newTrialRecord(t study.FrozenTrial) Trial {
	return Trial{
		Number: t.Number,
		State: map[study.State]TrialState{
			study.Running: TrialRunning, study.Waiting: TrialWaiting, study.Complete: TrialCompleted,
			study.Pruned: TrialPruned, study.Failed: TrialFailed,
		}[t.State],
		Value: valueOf(t), Params: maps.Clone(t.Params), Scores: maps.Clone(t.IntermediateValues),
		Reason: stringAttr(t, study.AttrFailReason), RunID: stringAttr(t, attrRunID),
		Started: t.DatetimeStart, Ended: t.DatetimeComplete,
	}
}

func valueOf(t study.FrozenTrial) float64 {
	if t.State == study.Complete || t.State == study.Pruned {
		return t.Value
	}
	return math.NaN()
}

// stringAttr returns a user attribute that is a text; "" if there is none.
func stringAttr(t study.FrozenTrial, key string) string {
	var text string
	if json.Unmarshal([]byte(t.UserAttrs[key]), &text) != nil {
		return ""
	}
	return text
}
