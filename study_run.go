package criteria

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/criteria-go/criteria/internal/optunadb"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/redact"
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
	core    *study.Study
	closers closers
	runID   string // of the tracked run of the study; "" until it is known
	workers int    // trials that run at the same time
	threads int    // of a trial

	mu   sync.Mutex // held while a trial that has ended is taken down
	best int        // number of the best trial that was recorded; -1: none
}

func newStudyRun(s *studySettings) *studyRun {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	r := &studyRun{studySettings: s, best: -1, worker: fmt.Sprintf("%s-%d-%08x", host, os.Getpid(), rand.Uint32())}
	r.base = newRun(newJob(&s.settings, search{r}))
	return r
}

// search is the plan of the tracked run of a study, which is no training of its own.
type search struct{ of *studyRun }

func (search) keepsModel() bool                              { return false }
func (search) keepsResumePoints() bool                       { return false }
func (search) afterEpoch(context.Context, EpochScores) error { return nil }

func (p search) describe(info *RunInfo, d *Dataset) {
	r := p.of
	c := r.config.HPO
	sampler, pruner := r.algorithms()
	info.Name = cmp.Or(info.Name, c.StudyName)
	info.Description = fmt.Sprintf("Search for hyperparameters of %s on %s: study %s.",
		r.config.Model.Checkpoint, d.Name, c.StudyName)
	info.Tags["stage"], info.Tags["study_name"] = "hpo", c.StudyName
	if info.ResumeRunID != "" {
		return // its parameters are those of the beginning
	}
	info.Params = map[string]string{
		"n_trials": formatValue(c.NTrials), "sampler": sampler, "pruner": pruner, "study_name": c.StudyName,
		"epochs": formatValue(r.config.Train.Epochs), "seed": fmt.Sprint(r.config.Train.Seed),
		"checkpoint": r.config.Model.Checkpoint,
	}
}

// run is the order of work: what is cheap and may be wrong comes first.
func (r *studyRun) run(ctx context.Context) error {
	if err := r.base.makeOutputDir(); err != nil {
		return err
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
	if err := r.core.Run(ctx, r.workers, r.runTrial); err != nil {
		return fmt.Errorf("criteria: study %s: %w", r.config.HPO.StudyName, err)
	}
	return nil
}

// openStudy connects to the storage.
func (r *studyRun) openStudy(ctx context.Context) (err error) {
	c := r.config.HPO
	sampler, relative := r.samplers()
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	options := study.Options{
		Name: c.StudyName, Storage: &study.Memory{}, Sampler: sampler, Relative: relative, Pruner: r.prunerOf(),
		Trials: c.NTrials, FailureLimit: c.MaxFailures, Retries: c.Retries,
		Heartbeat: seconds(c.HeartbeatInterval), Grace: seconds(c.GracePeriod), Logger: r.log,
		Finished: r.finished, Abandoned: r.abandoned,
	}
	if r.sampler != nil || r.relative != nil {
		// Samplers of goptuna want to know the space before the first trial.
		options.Space = c.SearchSpace.distributions()
		delete(options.Space, paramHiddenDim)
	}
	if c.Storage != "" {
		db, err := optunadb.Open(ctx, c.Storage, optunadb.Options{Logger: r.log})
		if err != nil {
			return fmt.Errorf("criteria: hpo.storage: %w", err)
		}
		r.closers.add(db.Close)
		options.Storage = db
	}
	if r.core, err = study.New(options); err != nil {
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
	now := studyOrigin{Config: string(r.config.Redacted().YAML()), Splits: r.base.splits.data.digests()}
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
		r.log.Warn("the study was created with another setting: the scores of its trials may not compare",
			"key", d.key, "was", d.was, "is", d.is)
	}
	return nil
}

// claimPatience is how long another process may take to create the tracked run.
const claimPatience = time.Minute

// findTrackedRun finds the tracked run of the study. Of processes that begin at the
// same time one is to create it, and the others wait for that.
func (r *studyRun) findTrackedRun(ctx context.Context) error {
	for began := time.Now(); ; {
		known, err := r.core.Attr(ctx, attrRunID, &r.runID)
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
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startTracking starts the tracked run of the study or continues it.
func (r *studyRun) startTracking(ctx context.Context) error {
	if r.tracker == nil {
		return nil
	}
	if err := r.findTrackedRun(ctx); err != nil {
		return err
	}
	record := r.base.record
	if err := record.start(ctx, r.base.splits.data, r.runID); err != nil {
		return err
	}
	record.announce()
	was, is := r.runID, record.tracked.ID()
	tags := map[string]string{"n_trials": formatValue(r.config.HPO.NTrials)}
	switch was {
	case "":
		if err := r.core.InitAttr(ctx, attrRunID, is, &was); err != nil {
			return fmt.Errorf("criteria: %w", err)
		}
	case is:
	default:
		r.log.Info("the tracker cannot continue the run of the study: this is a new one", "resumed_from", was)
		tags["resumed_from"] = was
	}
	r.runID = is
	if err := record.tracked.SetTags(ctx, tags); err != nil {
		return trackingError("set tags", err)
	}
	return nil
}

// prepare does what all trials need: it finds the model, encodes the data, sends
// one batch through, and decides how many trials run at the same time.
func (r *studyRun) prepare(ctx context.Context) error {
	base := r.base
	if err := base.findBase(ctx); err != nil {
		return err
	}
	splits := slices.DeleteFunc(base.splits.data.splits(), func(s namedSplit) bool { return s.phase == PhaseTest })
	if err := base.splits.tokenize(ctx, base.base.Dir, splits, &r.closers); err != nil {
		return err
	}
	if err := base.openModel(ctx, &r.closers); err != nil {
		return err
	}
	if err := base.loop.planSchedule(); err != nil {
		return err
	}
	if err := base.loop.dryRun(ctx); err != nil {
		return err
	}
	if _, err := base.splits.wait(PhaseVal); err != nil {
		return err
	}
	if err := base.loop.closeSession(); err != nil {
		return fmt.Errorf("criteria: close the session of the dry run: %w", err)
	}
	r.workers = r.jobs(ctx)
	r.threads = max(1, cmp.Or(r.config.Train.Threads, ort.DefaultThreads())/r.workers)
	return nil
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
		e := &InterruptedError{Study: r.config.HPO.StudyName, Dir: r.outputDir, Cause: interruption(ctx)}
		if result != nil {
			e.Trials = result.finished()
		}
		err = e
	case err == nil && reportErr == nil && result.Best == nil:
		err = fmt.Errorf("criteria: study %s: no trial is complete: nothing is known of any values",
			r.config.HPO.StudyName)
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
