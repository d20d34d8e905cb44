package criteria

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/criteria-go/criteria/internal/modelstore"
)

// Names in the output directory.
const (
	bestModelDir   = "best_model"
	cardFile       = "README.md"            // in best_model: the model card
	configFile     = "training_config.yaml" // in best_model: how it was trained
	confusionFile  = "confusion_matrix.png"
	curvesFile     = "training_curves.png"
	reportFile     = "classification_report.json"
	configArtifact = "config/config.yaml"
	modelArtifact  = "model"
)

// endTimeout is what a tracker gets to close a run whose context has ended.
const endTimeout = 10 * time.Second

// run is one training, from reading the data to the reports.
type run struct {
	*job
	record *record
	splits *splits
	base   modelstore.Base // the base checkpoint
	points *resumePoints
	loop   *loop
	tested tally // of the test split
}

func newRun(j *job) *run {
	r := &run{job: j, record: &record{job: j, tracked: untracked{}}, points: &resumePoints{job: j}}
	r.loop = &loop{job: j, record: r.record, saver: r}
	return r
}

// run is the order of work: what is cheap and may be wrong comes first. Whatever it
// opened it closes before it returns.
func (r *run) run(ctx context.Context) (err error) {
	closers := closers{}
	defer func() { err = errors.Join(err, closers.close()) }()
	if err := r.begin(ctx); err != nil {
		return err
	}
	if err := r.open(ctx, &closers); err != nil {
		return err
	}
	if err := r.loop.dryRun(ctx); err != nil {
		return err
	}
	err = r.loop.train(ctx)
	r.saveAfter(ctx, err)
	if err != nil {
		return err
	}
	if err := r.testBest(ctx, &closers); err != nil {
		return err
	}
	return r.report(ctx)
}

// begin reads the data and starts the tracked run, both of which are compared with
// those of the run that is resumed.
func (r *run) begin(ctx context.Context) error {
	if err := r.makeOutputDir(); err != nil {
		return err
	}
	if err := r.findResumePoint(); err != nil {
		return err
	}
	if err := r.readData(ctx); err != nil {
		return err
	}
	if err := r.points.checkData(r.splits.data); err != nil {
		return err
	}
	if err := r.startTracking(ctx); err != nil {
		return err
	}
	return r.startResumePoints(ctx)
}

// open finds and opens the base checkpoint, in the state of the run that is resumed,
// and tokenizes meanwhile.
func (r *run) open(ctx context.Context, closers *closers) error {
	if err := r.findBase(ctx); err != nil {
		return err
	}
	if err := r.points.checkBase(r.base); err != nil {
		return err
	}
	if err := r.splits.tokenize(ctx, r.base.Dir, r.splits.data.splits(), closers); err != nil {
		return err
	}
	if err := r.openModel(ctx, closers); err != nil {
		return err
	}
	if err := r.loadResumePoint(ctx); err != nil {
		return err
	}
	if err := r.loop.planSchedule(); err != nil {
		return err
	}
	return r.points.checkPosition(r.loop.microBatches())
}

func (r *run) makeOutputDir() error {
	if err := os.MkdirAll(r.outputDir, 0o755); err != nil {
		return fmt.Errorf("criteria: output directory: %w", err)
	}
	return nil
}

func (r *run) readData(ctx context.Context) error {
	s, err := readSplits(ctx, r.job)
	if err != nil {
		return err
	}
	r.use(s)
	return nil
}

// use makes the run one on these data.
func (r *run) use(s *splits) { r.splits, r.loop.splits = s, s }

// startTracking comes before anything that takes long: a store that is unreachable
// must not cost an epoch.
func (r *run) startTracking(ctx context.Context) error {
	if r.tracker == nil {
		return nil
	}
	from := r.points.from
	was := ""
	if from != nil {
		was = from.state.RunID
	}
	if err := r.record.start(ctx, r.splits.data, was); err != nil {
		return err
	}
	r.record.announce()
	if from == nil {
		return nil
	}
	return r.record.catchUp(ctx, was, from.state.Training.History)
}

// findBase finds the base checkpoint. A reproduction has done that before.
func (r *run) findBase(ctx context.Context) (err error) {
	if r.base.Dir != "" {
		return nil
	}
	r.base, err = modelstore.FindBase(ctx, r.cfg.Model.Checkpoint, func(file string, done, total int64) {
		r.events.Download(DownloadEvent{File: file, Done: done, Total: total})
	})
	if err != nil {
		return fmt.Errorf("criteria: %w", err)
	}
	return nil
}

// openModel opens a session that trains the base checkpoint, and says what it runs
// on.
func (r *run) openModel(ctx context.Context, closers *closers) error {
	head := r.cfg.Model.Head
	if len(head.HiddenDims) > head.NumLayers {
		r.log.Warn(fmt.Sprintf("model.head.hidden_dims has %d widths, but model.head.num_layers is %d: the rest is not used",
			len(head.HiddenDims), head.NumLayers))
	}
	info, err := r.openSession(ctx, closers)
	if err != nil {
		return err
	}
	r.log.Info("model", "checkpoint", r.cfg.Model.Checkpoint, "device", info.Device, "parameters", info.Parameters)
	if keys := r.cfg.withoutEffectOnCPU(); len(keys) > 0 && !info.GPU {
		r.log.Info("without effect on this device: " + strings.Join(keys, " "))
	}
	return nil
}

// modelSpec is the model that a configuration trains.
func (r *run) modelSpec(c Config) ModelSpec {
	t, head := c.Train, c.Model.Head
	head.HiddenDims = head.HiddenDims[:head.NumLayers]
	return ModelSpec{
		Dir:     r.base.Dir,
		Head:    head,
		Threads: t.Threads,
		Device:  c.Device,
		Training: &TrainingSpec{
			Seed: t.Seed, Optimizer: t.OptimizerType, WeightDecay: t.WeightDecay,
			MaxGradNorm: t.MaxGradNorm, Accumulation: t.GradientAccumulationSteps,
		},
		Optimizations: t.Optimizations,
		PinMemory:     c.Data.DataLoader.PinMemory,
	}
}

// openSession opens the session that trains.
func (r *run) openSession(ctx context.Context, closers *closers) (info SessionInfo, err error) {
	session, err := r.backend().Open(ctx, r.modelSpec(r.cfg))
	if err != nil {
		return info, openError(r.base.Dir, err)
	}
	r.loop.session = session
	closers.add(r.loop.closeSession)
	info = describe(session)
	return info, r.record.session(ctx, info, r.base.Hashes)
}

// end closes the tracked run with the status that err calls for, even though
// ctx may be over, and turns the end of ctx into an [*InterruptedError].
func (r *run) end(ctx context.Context, err error) error {
	status := RunFinished
	if err != nil {
		status = RunFailed
	}
	if interrupted(ctx, err) {
		now := r.loop.progress.state
		status = RunKilled
		err = &InterruptedError{
			Dir: r.outputDir, Checkpoint: r.points.saved.dir, Epoch: now.Epoch, Step: now.Step, Cause: interruption(ctx),
		}
	}
	return r.endAs(ctx, status, err)
}

// endAs closes the tracked run with a status.
func (r *run) endAs(ctx context.Context, status RunStatus, err error) error {
	err = r.record.end(ctx, status, r.withRemedy(err))
	r.events.End(EndEvent{Status: status, Err: err})
	return err
}

// interrupted reports whether it is the end of ctx that err speaks of.
func interrupted(ctx context.Context, err error) bool {
	ended := ctx.Err()
	return err != nil && ended != nil && (errors.Is(err, ended) || errors.Is(err, context.Cause(ctx)))
}

// endContext returns the context in which a run is closed, for a while if ctx is
// over. A run that was not interrupted may take its time: a large model is still
// on its way to the store, which the tracker watches over.
func endContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// withRemedy says what to do when the output directory cannot be written to.
func (r *run) withRemedy(err error) error { return withRemedy(err, r.outputDir, r.points.saved.dir) }

// withRemedy is [run.withRemedy] for a run that may be resumed from a folder, if any.
func withRemedy(err error, outputDir, resumable string) error {
	var remedy string
	var path *fs.PathError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		remedy = "make room on the disk or lower train.keep_checkpoints"
	case errors.Is(err, syscall.EROFS),
		errors.As(err, &path) && errors.Is(path, fs.ErrPermission) && strings.HasPrefix(path.Path, outputDir):
		remedy = "give an output directory that can be written to"
	default:
		return err
	}
	if resumable != "" {
		remedy += "; the run can be resumed from " + resumable
	}
	return fmt.Errorf("%w (output directory %s: %s)", err, outputDir, remedy)
}

func (r *run) result() *Result {
	s := r.loop.progress.state
	return &Result{
		RunID: r.record.tracked.ID(), Dir: r.outputDir,
		Best: s.best(), Test: r.tested.scores(), History: s.History,
		Stop: r.loop.stop, Epochs: len(s.History), Steps: s.Step, Elapsed: r.now().Sub(r.began),
		settings: r.settings,
	}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// round keeps four decimals, for the log.
func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// closers closes in reverse order what was opened.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	*c = nil
	return errors.Join(errs...)
}
