package criteria

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/modelstore"
)

// CheckpointError says why a run cannot be resumed, or why a checkpoint could
// not be written.
type CheckpointError struct {
	Dir       string // checkpoint, or output directory
	Key       string // setting or data file that is not what it was; "" if it is not about one
	Want, Got string // at the start of the run, and now
	Err       error  // anything else; nil if Key is set
}

func (e *CheckpointError) Error() string {
	if e.Key != "" {
		return fmt.Sprintf("criteria: resume %s: %s is %s, but the run was started with %s; "+
			"resume with the same or start a new run",
			e.Dir, e.Key, e.Got, e.Want)
	}
	return fmt.Sprintf("criteria: checkpoint %s: %v", e.Dir, e.Err)
}

// Is reports whether target is [ErrCheckpoint].
func (e *CheckpointError) Is(target error) bool { return target == ErrCheckpoint }

// Unwrap returns the cause.
func (e *CheckpointError) Unwrap() error { return e.Err }

// WithResume goes on with the run whose output directory is dir, from its last
// checkpoint that is intact: as if nothing had happened, the weights and scores
// come out bit for bit as those of a run that was never interrupted. It takes
// the place of [WithOutputDir]. Configuration, data and base checkpoint must be
// those of that run, or Run returns a [*CheckpointError] that names the difference; only
// what has no influence on the results may change: train.threads, the keys of
// checkpoints, data.dataloader but for group_by_length, the place of the data files,
// hpo and mlflow. A run that an earlier version began keeps the order in which that
// version drew batches.
func WithResume(dir string) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.resumeDir = dir
		if dir == "" {
			return &OptionError{Option: "WithResume", Value: `""`, Reason: "want the output directory of the run"}
		}
		return nil
	})
}

// mayChange are the settings that may change when a run is resumed, with all below them.
var mayChange = []string{
	"train.threads", "train.checkpoint_steps", "train.checkpoint_minutes", "train.keep_checkpoints",
	"data.redsm5_dir", "data.dsm5_criteria_path", "hpo", "mlflow",
	"data.dataloader.num_workers", "data.dataloader.pin_memory", "data.dataloader.persistent_workers",
}

// resumePoints are those of a run: the one that it continues from, and those that it
// writes into the folder checkpoints of the output directory.
type resumePoints struct {
	*job
	from  *resumePoint // nil if the run begins at the start
	saved savedPoint
}

// savedPoint is the last one that was written, or that was read.
type savedPoint struct {
	step int
	at   time.Time
	dir  string // "" before the first
}

func (p *resumePoints) root() string { return filepath.Join(p.outputDir, checkpointsDir) }

// wanted reports whether any are written.
func (p *resumePoints) wanted() bool {
	return p.plan.keepsResumePoints() && p.cfg.Train.KeepCheckpoints > 0
}

// due reports whether it is time for another one after so many updates.
func (p *resumePoints) due(step int) bool {
	t := p.cfg.Train
	if !p.wanted() || step == p.saved.step {
		return false
	}
	return t.CheckpointSteps > 0 && step%t.CheckpointSteps == 0 ||
		t.CheckpointMinutes > 0 && p.now().Sub(p.saved.at).Minutes() >= t.CheckpointMinutes
}

// write writes one more and removes what is no longer kept.
func (p *resumePoints) write(ctx context.Context, session Session, state resumeState) error {
	root, step := p.root(), state.Training.Step
	dir := filepath.Join(root, fmt.Sprintf("%s%08d", resumePrefix, step))
	err := os.MkdirAll(root, 0o755)
	if err == nil {
		err = writeResumePoint(context.WithoutCancel(ctx), dir, session, state, p.cfg)
	}
	if err == nil {
		err = pruneResumePoints(root, p.cfg.Train.KeepCheckpoints)
	}
	if err != nil {
		return &CheckpointError{Dir: dir, Err: err}
	}
	p.saved = savedPoint{step, p.now(), dir}
	p.log.Debug("checkpoint", "step", step, "dir", dir)
	return nil
}

// clear removes those of an earlier run in this folder, with which those of this one
// must not be mixed up.
func (p *resumePoints) clear() error {
	root := p.root()
	old := filepath.Join(p.outputDir, "."+checkpointsDir+".old")
	err := os.RemoveAll(old)
	if err == nil {
		switch err = os.Rename(root, old); {
		case err == nil: // removed in one step, as far as a resumed run can see
			p.log.Warn("removing the checkpoints of an earlier run in this folder", "dir", root)
			err = os.RemoveAll(old)
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
	}
	if err != nil {
		return &CheckpointError{Dir: root, Err: err}
	}
	return nil
}

// find reads the last one that is intact. It removes those after it, which are not:
// what the run writes from now on replaces them.
func (p *resumePoints) find() error {
	root := p.root()
	names, err := resumePointDirs(root)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no checkpoint in it: %w", fs.ErrNotExist)
	}
	if err != nil {
		err = fmt.Errorf("nothing to resume: %w; start the run anew, without resuming", err)
		return &CheckpointError{Dir: root, Err: err}
	}
	var broken []error
	for i, name := range names {
		dir := filepath.Join(root, name)
		state, config, err := readResumePoint(dir)
		if err != nil && !damaged(err) {
			err = fmt.Errorf("%w: whether it is damaged is not known, so nothing is removed", err)
			return &CheckpointError{Dir: dir, Err: err}
		}
		if err != nil {
			p.log.Warn("this checkpoint is damaged, trying the one before", "dir", dir, "error", err)
			broken = append(broken, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if err := p.check(dir, state, config); err != nil {
			return err
		}
		for _, newer := range names[:i] {
			if err := os.RemoveAll(filepath.Join(root, newer)); err != nil {
				return &CheckpointError{Dir: dir, Err: err}
			}
		}
		p.from = &resumePoint{dir, state}
		p.saved = savedPoint{step: state.Training.Step, dir: dir}
		return nil
	}
	err = fmt.Errorf("every checkpoint is damaged: %w; start the run anew", errors.Join(broken...))
	return &CheckpointError{Dir: root, Err: err}
}

// check compares what was written with what there is now.
func (p *resumePoints) check(dir string, state resumeState, config Config) error {
	if err := compareConfigs(dir, config, p.cfg.Redacted()); err != nil {
		return err
	}
	if state.Training.BestEpoch == 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(p.outputDir, bestModelDir)); err != nil {
		return &CheckpointError{Dir: dir, Err: fmt.Errorf("the best model so far is gone: %w; start the run anew", err)}
	}
	return nil
}

// compareConfigs returns an error that names the first setting that is not what
// it was, except those that may change.
func compareConfigs(dir string, was, is Config) error {
	for _, d := range differences(was, is) {
		return &CheckpointError{Dir: dir, Key: d.key, Want: d.was, Got: d.is}
	}
	return nil
}

// difference is a setting that is not what it was.
type difference struct{ key, was, is string }

// differences lists what may change the results.
func differences(was, is Config) []difference {
	var out []difference
	var walk func(prefix string, was, is reflect.Value)
	walk = func(prefix string, was, is reflect.Value) {
		for i := range was.NumField() {
			key := joinKey(prefix, was.Type().Field(i).Tag.Get("yaml"))
			a, b := was.Field(i), is.Field(i)
			switch {
			case slices.Contains(mayChange, key):
			case a.Kind() == reflect.Struct:
				walk(key, a, b)
			default:
				if a, b := formatValue(a.Interface()), formatValue(b.Interface()); a != b {
					out = append(out, difference{key, a, b})
				}
			}
		}
	}
	walk("", reflect.ValueOf(was), reflect.ValueOf(is))
	return out
}

// checkData compares the data with those of the run that is resumed. Files are
// named where files were read; the splits decide.
func (p *resumePoints) checkData(d *Dataset) error {
	if p.from == nil {
		return nil
	}
	was := p.from.state
	for _, file := range slices.Sorted(maps.Keys(was.Data)) {
		if got := cmp.Or(d.Hashes[file], "absent"); got != was.Data[file] {
			return p.differs("the SHA-256 of data file "+file, was.Data[file], got)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(d.Hashes)) {
		if was.Data[file] == "" {
			return p.differs("the SHA-256 of data file "+file, "absent", d.Hashes[file])
		}
	}
	for phase, digest := range d.digests() {
		if was.Splits[phase] != digest {
			return p.differs(fmt.Sprintf("the digest of the %s split", phase), was.Splits[phase], digest)
		}
	}
	return nil
}

// checkBase compares the base checkpoint with that of the run that is resumed.
func (p *resumePoints) checkBase(b modelstore.Base) error {
	if p.from == nil {
		return nil
	}
	was := p.from.state.Model
	for _, file := range slices.Sorted(maps.Keys(was)) {
		if got := cmp.Or(b.Hashes[file], "absent"); got != was[file] {
			return p.differs("the SHA-256 of "+filepath.Join(b.Dir, file), was[file], got)
		}
	}
	return nil
}

// checkPosition refuses a position that an epoch of so many micro-batches has not.
func (p *resumePoints) checkPosition(micro int) error {
	if p.from == nil || p.from.state.Training.Micro <= micro {
		return nil
	}
	err := fmt.Errorf("micro-batch %d of an epoch that has %d", p.from.state.Training.Micro, micro)
	return &CheckpointError{Dir: p.from.dir, Err: err}
}

func (p *resumePoints) differs(key, want, got string) error {
	return &CheckpointError{Dir: p.from.dir, Key: key, Want: want, Got: got}
}

// compareVersions warns of what computes in another version than at the start.
func (p *resumePoints) compareVersions(is map[string]string) {
	was := p.from.state.Versions
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] != was[name] {
			p.log.Warn("the run was started with another version: the last bits of the results may differ",
				"of", name, "was", was[name], "is", cmp.Or(is[name], "none"))
		}
	}
}

// findResumePoint makes the run continue another one, if it is to.
func (r *run) findResumePoint() error {
	if r.resumeDir == "" {
		return nil
	}
	if err := r.points.find(); err != nil {
		return err
	}
	p := &r.loop.progress
	p.state = r.points.from.state.Training
	p.boundary = p.state
	r.order = r.points.from.state.order()
	return nil
}

// startResumePoints writes the one of the start, unless the run continues another.
func (r *run) startResumePoints(ctx context.Context) error {
	if r.points.from != nil {
		r.points.saved.at = r.now()
		return nil
	}
	if err := r.points.clear(); err != nil {
		return err
	}
	return r.saveResumePoint(ctx)
}

// loadResumePoint puts the session where the training was.
func (r *run) loadResumePoint(ctx context.Context) error {
	from, now := r.points.from, r.loop.progress.state
	if from == nil {
		return nil
	}
	r.points.compareVersions(r.record.versions)
	if now.Step > 0 {
		if err := r.loop.session.LoadState(ctx, filepath.Join(from.dir, sessionDir)); err != nil {
			return &CheckpointError{Dir: from.dir, Err: err}
		}
	}
	if r.order == data.Chunked {
		r.log.Info("an earlier version began this run, and its batches are drawn as that one did, sorted by length: " +
			"a new run draws them at random")
	}
	r.log.Info("resuming", "checkpoint", from.dir, "epoch", max(1, now.Epoch), "step", now.Step)
	return nil
}

// resumePointDue implements saver.
func (r *run) resumePointDue(step int) bool { return r.points.due(step) }

// saveResumePoint implements saver.
func (r *run) saveResumePoint(ctx context.Context) error {
	if !r.points.wanted() {
		return nil
	}
	return r.points.write(ctx, r.loop.session, resumeState{
		Format: resumeFormat, RunID: r.record.tracked.ID(), Data: r.splits.data.Hashes, Splits: r.splits.data.digests(),
		Model: r.base.Hashes, Versions: r.record.versions, Order: r.order.String(),
		Training: r.loop.progress.boundary,
	})
}

// saveAfter saves what can be saved of a training that ended with an error.
func (r *run) saveAfter(ctx context.Context, err error) {
	var failed *CheckpointError
	if err == nil || r.loop.progress.unsound || r.loop.session == nil || errors.As(err, &failed) {
		return
	}
	if r.points.saved.dir != "" && r.points.saved.step == r.loop.progress.boundary.Step {
		return
	}
	if err := r.saveResumePoint(ctx); err != nil {
		r.log.Warn("the state of the run could not be saved, its earlier checkpoints are intact", "error", err)
	}
}

// digests returns the digest of each split.
func (d *Dataset) digests() map[Phase]string {
	digests := make(map[Phase]string)
	for _, s := range d.splits() {
		digests[s.phase] = s.digest()
	}
	return digests
}
