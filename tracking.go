package criteria

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/redact"
)

// Where runs are recorded if neither the caller nor the environment says it.
const (
	defaultTrackingURI = "sqlite:///mlflow.db"
	defaultExperiment  = "debertav3-criteria"
)

// MLflowTracker records runs in MLflow, so that MLflow's own client and pages
// show them like runs of its own. It is safe for concurrent use.
//
// A store that is away when a run starts is an error. One that goes away later
// is not: what it has missed waits in the folder .mlflow of the run's output
// directory, in order, and is sent as soon as the store answers again. If it
// does not until the end of the run, the run ends with a warning, and
// [SyncTracking] delivers the rest some other day. A run whose process was
// killed is marked as KILLED when the next one starts in the same output
// directory.
//
// A training that is resumed goes on in the run in which it began: what its
// process could not send any more is sent, its status is RUNNING again, and no
// point is lost or there twice. If MLflow does not have that run any more,
// because it was deleted or another store is used now, a new one takes its
// place, with all metrics from the first epoch on and the tag resumed_from.
//
// The time, the user, the program and, every ten seconds, the load of the
// machine are recorded too.
type MLflowTracker struct {
	uri, experiment string
	named           string // by an option; "" if the environment or the default names the store
	log             *slog.Logger
	sampling        time.Duration // of system metrics; 0: none
	getenv          func(string) string
	maxRetries      int
	patience        time.Duration // at the end of a run; 0: the recorder's default
	openStore       func(ctx context.Context, uri string) (mlflow.Store, error)

	mu           sync.Mutex // held while the store is opened and closed
	store        mlflow.Store
	experimentID string // in the store, while it is open
	users        int    // runs that use the store: the last one closes it
	runIDTaken   bool   // a run has asked for MLFLOW_RUN_ID
}

// TrackerOption configures [NewMLflowTracker] and [SyncTracking].
type TrackerOption interface{ applyTracker(*MLflowTracker) error }

type trackerOption func(*MLflowTracker) error

func (f trackerOption) applyTracker(t *MLflowTracker) error { return f(t) }

// WithSystemMetrics sets how often the load of processor, memory, disk, network
// and, if there are any, NVIDIA GPUs is recorded; 0 turns it off. Default 10 s,
// or off if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false.
func WithSystemMetrics(every time.Duration) TrackerOption {
	return trackerOption(func(t *MLflowTracker) error {
		t.sampling = every
		if every != 0 && every < 100*time.Millisecond {
			return &OptionError{Option: "WithSystemMetrics", Value: every, Reason: "want 0 or at least 100ms"}
		}
		return nil
	})
}

// NewMLflowTracker returns a tracker for the store that [WithTrackingURI] names:
//
//	sqlite:///mlflow.db     a database file; it is created, and may be open in `mlflow server` meanwhile
//	http://host:5000        a tracking server; also https, also with a path prefix
//	./mlruns, file:///dir   a folder of files, which MLflow 3 opens with MLFLOW_ALLOW_FILE_STORE=true only
//
// Without it, or if it is empty, the store is that of MLFLOW_TRACKING_URI or else
// sqlite:///mlflow.db; without [WithExperiment], the experiment is that of
// MLFLOW_EXPERIMENT_NAME or else debertav3-criteria. MLFLOW_EXPERIMENT_ID and
// MLFLOW_RUN_ID, the run to record in, count as with MLflow's own client.
// Credentials, certificates and retries come from the
// variables that MLflow's own client reads (MLFLOW_TRACKING_USERNAME,
// _PASSWORD, _TOKEN, _SERVER_CERT_PATH and so on). Nothing is opened before a
// run starts.
func NewMLflowTracker(opts ...TrackerOption) (*MLflowTracker, error) {
	t := &MLflowTracker{
		log: slog.New(slog.DiscardHandler), sampling: 10 * time.Second, getenv: os.Getenv, maxRetries: 2,
	}
	t.openStore = t.open
	if strings.EqualFold(t.getenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"), "false") {
		t.sampling = 0
	}
	if err := applyAll(t, opts, TrackerOption.applyTracker); err != nil {
		return nil, err
	}
	t.named = t.uri
	t.uri = cmp.Or(t.uri, t.getenv("MLFLOW_TRACKING_URI"), defaultTrackingURI)
	t.experiment = cmp.Or(t.experiment, t.getenv("MLFLOW_EXPERIMENT_NAME"), defaultExperiment)
	return t, nil
}

// Start implements [Tracker]. A nested run, one with a parent, may start while
// the store is away: its ID then begins with "pending-" until the store has
// answered.
func (t *MLflowTracker) Start(ctx context.Context, info RunInfo) (TrackedRun, error) {
	if t.openStore == nil {
		return nil, errors.New("criteria: this MLflowTracker comes from nowhere: use what NewMLflowTracker returns")
	}
	nested := info.Parent != ""
	store, experiment, err := t.acquire(ctx)
	if err != nil {
		return nil, err
	}
	dir := info.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "criteria-run-"); err != nil {
			return nil, errors.Join(fmt.Errorf("criteria: %w", err), t.release())
		}
	}
	opts := mlflow.RecorderOptions{Dir: dir, Deferred: nested, Logger: t.log, Patience: t.patience}
	batch := mlflow.Batch{Params: sortedParams(info.Params)}
	resumed, given := info.ResumeRunID, ""
	if resumed == "" && !nested {
		if given, err = t.takeRunID(ctx, store, experiment); err != nil {
			return nil, errors.Join(err, t.release())
		}
		resumed = given
	}
	rec, err := t.resume(ctx, store, resumed, opts)
	if err == nil && rec == nil && given != "" {
		err = fmt.Errorf("criteria: MLFLOW_RUN_ID=%s names a run that was deleted: unset it, or restore the run", given)
	}
	if err != nil {
		return nil, errors.Join(err, t.release())
	}
	// Only after that: the journal of the run to go on with is none of an
	// earlier one.
	t.recoverRuns(ctx, dir, store)
	if rec != nil {
		batch.Tags = slices.DeleteFunc(runTags(info), func(tag mlflow.Tag) bool {
			return tag.Key == mlflow.TagNote // which people edit
		})
	} else {
		started := info.Started
		if started.IsZero() {
			started = time.Now()
		}
		rec, err = mlflow.Start(ctx, store, mlflow.RunSpec{
			ExperimentID: experiment, Name: info.Name, User: userName(t.getenv), Start: started, Tags: runTags(info),
		}, opts)
		if err != nil {
			return nil, errors.Join(err, t.release())
		}
	}
	run := &mlflowRun{tracker: t, rec: rec, dir: dir, temporary: info.Dir == ""}
	if !nested && t.sampling > 0 {
		run.monitor(t.sampling)
	}
	if err := errors.Join(rec.Log(batch), rec.LogInputs(datasetInputs(info.Datasets))); err != nil {
		return nil, errors.Join(err, run.End(ctx, RunFailed))
	}
	return run, nil
}

// resume goes on with the run of that ID. If there is none, or the store does
// not have it any more, it returns nil: a new run is to be started.
func (t *MLflowTracker) resume(ctx context.Context, store mlflow.Store, id string, opts mlflow.RecorderOptions) (*mlflow.Recorder, error) {
	if id == "" {
		return nil, nil
	}
	rec, err := mlflow.Resume(ctx, store, id, opts)
	switch {
	case err == nil:
		t.log.Info("going on with the run in MLflow", "run_id", rec.RunID(), "tracking_uri", store.URI())
	case errors.Is(err, mlflow.ErrRejected):
		t.log.Warn("MLflow cannot go on with the run, it was deleted or is in another store: a new run is recorded",
			"run_id", id, "tracking_uri", store.URI(), "error", err)
		return nil, nil
	case errors.Is(err, mlflow.ErrInUse):
		return nil, fmt.Errorf("%w: wait for it or stop it; two trainings cannot share an output directory", err)
	}
	return rec, err
}

// acquire opens the store for the first of several runs.
func (t *MLflowTracker) acquire(ctx context.Context) (mlflow.Store, string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == 0 {
		store, err := t.openStore(ctx, t.uri)
		if err != nil {
			return nil, "", err
		}
		id, err := t.findExperiment(ctx, store)
		if err != nil {
			return nil, "", errors.Join(err, store.Close())
		}
		t.store, t.experimentID = store, id
	}
	t.users++
	return t.store, t.experimentID, nil
}

// open opens a store. A recorder tries again by itself and says earlier that
// the store is away, so that there are few retries below it.
func (t *MLflowTracker) open(ctx context.Context, uri string) (mlflow.Store, error) {
	return mlflow.Open(ctx, uri, mlflow.Options{Getenv: t.getenv, MaxRetries: t.maxRetries, Logger: t.log})
}

func (t *MLflowTracker) release() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users--; t.users > 0 {
		return nil
	}
	store := t.store
	t.store = nil
	return store.Close()
}

// recoverRuns delivers what earlier runs left in the output directory for this
// store, and ends those whose process was killed. It must not keep a new run
// from starting.
func (t *MLflowTracker) recoverRuns(ctx context.Context, dir string, store mlflow.Store) {
	runs, err := mlflow.Sync(ctx, dir, func(_ context.Context, uri string) (mlflow.Store, error) {
		if uri != store.URI() {
			return nil, mlflow.ErrSkip
		}
		return borrowedStore{store}, nil
	}, t.log)
	if err != nil {
		t.log.Warn("an earlier run in this output directory could not be delivered to MLflow", "dir", dir, "error", err)
	}
	t.report(runs)
}

func (t *MLflowTracker) report(runs []mlflow.SyncedRun) {
	for _, r := range runs {
		what := "delivered the rest of an earlier run to MLflow"
		if r.Killed {
			what = "an earlier run had ended without a word: it is marked as KILLED in MLflow"
		}
		t.log.Info(what, "run_id", r.ID, "name", r.Name, "tracking_uri", r.URI)
	}
}

// borrowedStore is closed by somebody else.
type borrowedStore struct{ mlflow.Store }

func (borrowedStore) Close() error { return nil }

// SyncTracking delivers what runs below dir could not send to MLflow before
// they ended, and marks runs whose process was killed as KILLED. Runs that are
// still being recorded are left alone. Each is delivered to the store in which it
// was started, unless [WithTrackingURI] names another; if that is a server, it must
// be the one that MLFLOW_TRACKING_URI names, or there must be no credentials for
// one. It returns the IDs of the runs that are now complete.
func SyncTracking(ctx context.Context, dir string, opts ...TrackerOption) (runIDs []string, err error) {
	t, err := NewMLflowTracker(opts...)
	if err != nil {
		return nil, err
	}
	t.maxRetries = 0 // as often as MLflow does: nobody else tries again
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("criteria: deliver to MLflow: %w", err)
	}
	var errs []error
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		runs, err := mlflow.Sync(ctx, p, func(ctx context.Context, from string) (mlflow.Store, error) {
			if t.named != "" {
				return t.openStore(ctx, t.named)
			}
			trusted, err := mlflow.Trusted(from, t.getenv)
			if err != nil {
				return nil, err
			}
			return t.openStore(ctx, trusted)
		}, t.log)
		errs = append(errs, err)
		t.report(runs)
		for _, r := range runs {
			runIDs = append(runIDs, r.ID)
		}
		return nil
	})
	return runIDs, errors.Join(append(errs, err)...)
}

// runTags are the tags that MLflow's pages give a meaning, and those of info.
func runTags(info RunInfo) []mlflow.Tag {
	tags := map[string]string{mlflow.TagSourceType: "LOCAL", mlflow.TagSourceName: programName()}
	for key, value := range info.Tags {
		tags[mlflow.CleanKey(key)] = value
	}
	for from, to := range map[string]string{"git.commit": mlflow.TagGitCommit, "git.branch": mlflow.TagGitBranch} {
		if v := info.Tags[from]; v != "" && v != "unknown" {
			tags[to] = v
		}
	}
	if info.Description != "" {
		tags[mlflow.TagNote] = info.Description
	}
	if info.Parent != "" {
		tags[mlflow.TagParentRun] = info.Parent
	}
	return sortedTags(tags)
}

func sortedTags(m map[string]string) []mlflow.Tag {
	var out []mlflow.Tag
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, mlflow.Tag{Key: mlflow.CleanKey(key), Value: m[key]})
	}
	return out
}

func sortedParams(m map[string]string) []mlflow.Param {
	var out []mlflow.Param
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, mlflow.Param{Key: mlflow.CleanKey(key), Value: m[key]})
	}
	return out
}

// programName is the import path of the program, or its name if it was built
// without module information. A path on this machine says nothing elsewhere.
func programName() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Path != "" && info.Path != "command-line-arguments" {
		return info.Path
	}
	return filepath.Base(os.Args[0])
}

func userName(getenv func(string) string) string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(getenv("USER"), getenv("USERNAME"), "unknown")
}

func datasetInputs(datasets []DatasetInfo) []mlflow.DatasetInput {
	asJSON := func(key string, value any) string {
		b, err := json.Marshal(map[string]any{key: value})
		if err != nil {
			return "{}" // not for strings and numbers
		}
		return string(b)
	}
	var out []mlflow.DatasetInput
	for _, d := range datasets {
		out = append(out, mlflow.DatasetInput{
			Name: cmp.Or(d.Name, "data"), Digest: cmp.Or(d.Digest, "unknown"), SourceType: "local",
			Source: asJSON("uri", d.Source), Profile: asJSON("num_rows", d.Rows),
			Tags: []mlflow.Tag{{Key: mlflow.TagDataContext, Value: d.Context}},
		})
	}
	return out
}

// mlflowRun adapts a recorder to [TrackedRun]. Its methods only write down
// what they are given, so they need no context and do not wait for the store.
type mlflowRun struct {
	tracker   *MLflowTracker
	rec       *mlflow.Recorder
	dir       string
	temporary bool // dir was made for what waits to be sent
	ended     atomic.Bool

	stopMonitor func() // nil without system metrics
}

// monitor records the load of the machine until End.
func (r *mlflowRun) monitor(every time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r.stopMonitor = func() { cancel(); <-done }
	go func() {
		defer close(done)
		sampler := mlflow.NewSystemSampler(ctx, r.dir)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for step := r.rec.SystemStep(); ; step++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if err := r.LogMetrics(ctx, step, sampler.Sample(ctx)); err != nil {
				r.tracker.log.Warn("the load of the machine is no longer recorded", "error", err)
				return
			}
		}
	}()
}

func (r *mlflowRun) ID() string { return r.rec.RunID() }

func (r *mlflowRun) LogParams(_ context.Context, params map[string]string) error {
	return r.rec.Log(mlflow.Batch{Params: sortedParams(params)})
}

func (r *mlflowRun) SetTags(_ context.Context, tags map[string]string) error {
	return r.rec.Log(mlflow.Batch{Tags: sortedTags(tags)})
}

func (r *mlflowRun) LogMetrics(_ context.Context, step int, metrics map[string]float64) error {
	now := time.Now()
	b := mlflow.Batch{Metrics: make([]mlflow.Metric, 0, len(metrics))}
	for _, key := range slices.Sorted(maps.Keys(metrics)) {
		b.Metrics = append(b.Metrics, mlflow.Metric{Key: mlflow.CleanKey(key), Value: metrics[key], Time: now, Step: int64(step)})
	}
	return r.rec.Log(b)
}

func (r *mlflowRun) LogArtifact(_ context.Context, path string, content io.Reader) error {
	return r.rec.LogArtifact(path, content)
}

func (r *mlflowRun) LogArtifacts(_ context.Context, dir, path string) error {
	return r.rec.LogArtifacts(path, dir)
}

// End waits until all has been sent, as long as the store answers and ctx
// allows. What is left then is not lost: the warning says where it waits.
func (r *mlflowRun) End(ctx context.Context, status RunStatus) error {
	if r.ended.Swap(true) {
		return errors.New("criteria: the tracked run has ended already")
	}
	if r.stopMonitor != nil {
		r.stopMonitor()
	}
	err := r.rec.End(ctx, mlflow.Status(status), time.Now())
	var spooled *mlflow.SpooledError
	var rejected *mlflow.RejectedError
	switch {
	case errors.As(err, &spooled):
		r.tracker.log.Warn("MLflow has not received all of this run: the rest is kept and can be delivered later (criteria.SyncTracking, or go run ./examples/sync DIR)",
			"dir", r.dir, "run_id", r.ID(), "tracking_uri", redact.URL(r.tracker.uri), "error", spooled.Err)
		err = nil
	case errors.As(err, &rejected):
		r.tracker.log.Warn("MLflow has refused a part of this run, which is kept", "file", rejected.File, "run_id", r.ID(), "error", rejected.Errors[0])
		err = nil
	}
	if r.temporary && spooled == nil && rejected == nil {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return errors.Join(err, r.tracker.release())
}
