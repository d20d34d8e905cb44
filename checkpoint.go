package criteria

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// A checkpoint is a folder checkpoints/step-NNNNNNNN of the output directory.
// It appears in one piece, and whatever happens to it later shows, because it
// holds the checksums of all its files.
const (
	checkpointsDir   = "checkpoints"
	checkpointPrefix = "step-"
	sessionDir       = "session"     // weights and optimizer state, as the engine writes them
	stateFile        = "state.json"  // a checkpointState
	runConfigFile    = "config.yaml" // the resolved configuration, without secrets

	checkpointFormat = 1
	maxStateBytes    = 64 << 20 // of state.json and config.yaml: far more than 100 000 epochs need
)

// checkpointState is what a checkpoint knows besides weights and optimizer.
type checkpointState struct {
	Format   int               `json:"format"`
	RunID    string            `json:"run_id"`   // of the tracker; "" without one
	Data     map[string]string `json:"data"`     // SHA-256 of each file that was read
	Splits   map[Phase]string  `json:"splits"`   // digest of each split
	Model    map[string]string `json:"model"`    // SHA-256 of each file of the base checkpoint; empty before it was opened
	Versions map[string]string `json:"versions"` // of what computes
	Training trainState        `json:"training"`
}

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
		return fmt.Sprintf("criteria: resume %s: %s is %s, but the run was started with %s; resume with the same or start a new run",
			e.Dir, e.Key, e.Got, e.Want)
	}
	return fmt.Sprintf("criteria: checkpoint %s: %v", e.Dir, e.Err)
}

// Unwrap returns the cause.
func (e *CheckpointError) Unwrap() error { return e.Err }

// WithResume goes on with the run whose output directory is dir, from its last
// checkpoint that is intact: as if nothing had happened, the weights and scores
// come out bit for bit as those of a run that was never interrupted. It takes
// the place of [WithOutputDir]. Configuration, data and base checkpoint must be
// those of that run, or Run returns a [*CheckpointError] that names the difference; only
// what has no influence on the results may change: train.threads, the keys of
// checkpoints, data.dataloader, the place of the data files, hpo and mlflow.
func WithResume(dir string) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.resumeDir = dir
		if dir == "" {
			return &OptionError{Option: "WithResume", Value: `""`, Reason: "want the output directory of the run"}
		}
		return nil
	})
}

// free are the settings that may change when a run is resumed, with all below them.
var free = []string{
	"train.threads", "train.checkpoint_steps", "train.checkpoint_minutes", "train.keep_checkpoints",
	"data.redsm5_dir", "data.dsm5_criteria_path", "data.dataloader", "hpo", "mlflow",
}

// keepsCheckpoints reports whether checkpoints are written. Trials of a study have
// none: what is interrupted is tried again or replaced.
func (r *run) keepsCheckpoints() bool { return r.trial == nil && r.cfg.Train.KeepCheckpoints > 0 }

// saveCheckpoint writes where the training stands after its last update and
// removes what is no longer kept. The start of a run, step 0, needs no weights:
// they are a function of the configuration.
func (r *run) saveCheckpoint(ctx context.Context) error {
	if !r.keepsCheckpoints() {
		return nil
	}
	s := r.boundary
	root := filepath.Join(r.outputDir, checkpointsDir)
	dir := filepath.Join(root, fmt.Sprintf("%s%08d", checkpointPrefix, s.Step))
	err := os.MkdirAll(root, 0o755)
	if err == nil {
		err = atomicfile.ReplaceDir(dir, func(tmp string) error { return r.fillCheckpoint(context.WithoutCancel(ctx), tmp, s) })
	}
	if err == nil {
		err = pruneCheckpoints(root, r.cfg.Train.KeepCheckpoints)
	}
	if err != nil {
		return &CheckpointError{Dir: dir, Err: err}
	}
	r.savedStep, r.savedAt, r.savedDir = s.Step, r.now(), dir
	r.log.Debug("checkpoint", "step", s.Step, "dir", dir)
	return nil
}

func (r *run) fillCheckpoint(ctx context.Context, tmp string, s trainState) error {
	if s.Step > 0 {
		dir := filepath.Join(tmp, sessionDir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := r.session.SaveState(ctx, dir); err != nil {
			return err
		}
	}
	state := checkpointState{
		Format: checkpointFormat, RunID: r.tracked.ID(), Data: r.data.Hashes, Splits: r.data.digests(), Model: r.base.Hashes, Versions: r.versions, Training: s,
	}
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, stateFile), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, runConfigFile), r.cfg.Redacted().YAML(), 0o644); err != nil {
		return err
	}
	return sumfile.Write(tmp)
}

// checkpointDirs lists the checkpoints below root, the last first.
func checkpointDirs(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	steps := make(map[string]int)
	var names []string
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), checkpointPrefix)
		if step, err := strconv.Atoi(digits); ok && err == nil && e.IsDir() {
			steps[e.Name()] = step
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(steps[b], steps[a]) })
	return names, nil
}

// pruneCheckpoints removes all but the last ones, and what a killed process
// left behind of one it was writing.
func pruneCheckpoints(root string, keep int) error {
	names, err := checkpointDirs(root)
	if err != nil {
		return err
	}
	rubbish, err := filepath.Glob(filepath.Join(root, "."+checkpointPrefix+"*"))
	errs := []error{err}
	for _, name := range names[min(keep, len(names)):] {
		rubbish = append(rubbish, filepath.Join(root, name))
	}
	for _, path := range rubbish {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// startCheckpoints writes the checkpoint of the start and removes those of an
// earlier run in this folder, with which this one must not be mixed up.
func (r *run) startCheckpoints(ctx context.Context) error {
	if r.resume != nil {
		r.savedAt = r.now()
		return nil
	}
	root := filepath.Join(r.outputDir, checkpointsDir)
	old := filepath.Join(r.outputDir, "."+checkpointsDir+".old")
	err := os.RemoveAll(old)
	if err == nil {
		switch err = os.Rename(root, old); {
		case err == nil: // removed in one step, as far as a resumed run can see
			r.log.Warn("removing the checkpoints of an earlier run in this folder", "dir", root)
			err = os.RemoveAll(old)
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
	}
	if err != nil {
		return &CheckpointError{Dir: root, Err: err}
	}
	return r.saveCheckpoint(ctx)
}

// resume is a checkpoint that was read.
type resume struct {
	dir   string
	state checkpointState
}

// findCheckpoint reads the last checkpoint of the run that is intact. It
// removes those after it, which are not: what the run writes from now on
// replaces them.
func (r *run) findCheckpoint() error {
	if r.resumeDir == "" {
		return nil
	}
	root := filepath.Join(r.outputDir, checkpointsDir)
	names, err := checkpointDirs(root)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("no checkpoint in it: %w", fs.ErrNotExist)
	}
	if err != nil {
		return &CheckpointError{Dir: root, Err: fmt.Errorf("nothing to resume: %w; start the run anew, without resuming", err)}
	}
	var broken []error
	for i, name := range names {
		dir := filepath.Join(root, name)
		state, config, err := readCheckpoint(dir)
		if err != nil {
			r.log.Warn("this checkpoint is damaged, trying the one before", "dir", dir, "error", err)
			broken = append(broken, fmt.Errorf("%s: %w", name, err))
			continue
		}
		if err := compareConfigs(dir, config, r.cfg.Redacted()); err != nil {
			return err
		}
		if best := filepath.Join(r.outputDir, bestModelDir); state.Training.BestEpoch > 0 {
			if _, err := os.Stat(best); err != nil {
				return &CheckpointError{Dir: dir, Err: fmt.Errorf("the best model so far is gone: %w; start the run anew", err)}
			}
		}
		for _, newer := range names[:i] {
			if err := os.RemoveAll(filepath.Join(root, newer)); err != nil {
				return &CheckpointError{Dir: dir, Err: err}
			}
		}
		r.resume = &resume{dir, state}
		r.state = state.Training
		r.boundary, r.savedStep, r.savedDir = r.state, r.state.Step, dir
		return nil
	}
	return &CheckpointError{Dir: root, Err: fmt.Errorf("every checkpoint is damaged: %w; start the run anew", errors.Join(broken...))}
}

// readCheckpoint reads a checkpoint and checks all of its files.
func readCheckpoint(dir string) (checkpointState, Config, error) {
	fail := func(err error) (checkpointState, Config, error) { return checkpointState{}, Config{}, err }
	listed, err := sumfile.Verify(dir)
	if err != nil {
		return fail(err)
	}
	for _, name := range []string{stateFile, runConfigFile} {
		if listed[name] == "" {
			return fail(fmt.Errorf("%s does not list %s", sumfile.Name, name))
		}
	}
	text, err := readSmall(filepath.Join(dir, stateFile))
	if err != nil {
		return fail(err)
	}
	state, err := parseState(text)
	if err != nil {
		return fail(err)
	}
	if text, err = readSmall(filepath.Join(dir, runConfigFile)); err != nil {
		return fail(err)
	}
	config, err := ParseConfig(text)
	if err != nil {
		return fail(err)
	}
	return state, config, nil
}

// readSmall reads a file that is known to be small.
func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxStateBytes+1))
	if err == nil && len(text) > maxStateBytes {
		err = fmt.Errorf("%s has more than %d bytes", path, maxStateBytes)
	}
	return text, err
}

// parseState reads a state and refuses one that no training can be in.
func parseState(text []byte) (checkpointState, error) {
	var c checkpointState
	if err := json.Unmarshal(text, &c); err != nil {
		return checkpointState{}, fmt.Errorf("%s: %w", stateFile, err)
	}
	s := c.Training
	ok := s.Step >= 0 && s.Micro >= 0 && s.Epoch >= 0 && s.Epoch <= maxEpochs && s.BestEpoch >= 0 && s.BestEpoch <= len(s.History) &&
		(len(s.History) == 0) == (s.BestEpoch == 0) &&
		(s.Epoch == len(s.History) && s.Micro == 0 || s.Epoch == len(s.History)+1 && s.Micro > 0) &&
		(s.Step == 0) == (s.Epoch == 0)
	for i, e := range s.History {
		ok = ok && e.Epoch == i+1
	}
	for _, row := range s.Tally.Confusion {
		ok = ok && row[0] >= 0 && row[1] >= 0
	}
	switch {
	case c.Format != checkpointFormat:
		return checkpointState{}, fmt.Errorf("%s has format %d, want %d: it was written by another version", stateFile, c.Format, checkpointFormat)
	case !ok || math.IsNaN(s.Tally.LossSum):
		return checkpointState{}, fmt.Errorf("%s: epoch %d, micro-batch %d, step %d and %d finished epochs do not go together",
			stateFile, s.Epoch, s.Micro, s.Step, len(s.History))
	}
	return c, nil
}

// compareConfigs returns an error that names the first setting that is not what
// it was, except those that are free.
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
			case slices.Contains(free, key):
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
func (r *run) checkData() error {
	if r.resume == nil {
		return nil
	}
	was, dir := r.resume.state, r.resume.dir
	for _, file := range slices.Sorted(maps.Keys(was.Data)) {
		if got := cmp.Or(r.data.Hashes[file], "absent"); got != was.Data[file] {
			return &CheckpointError{Dir: dir, Key: "the SHA-256 of data file " + file, Want: was.Data[file], Got: got}
		}
	}
	for _, file := range slices.Sorted(maps.Keys(r.data.Hashes)) {
		if was.Data[file] == "" {
			return &CheckpointError{Dir: dir, Key: "the SHA-256 of data file " + file, Want: "absent", Got: r.data.Hashes[file]}
		}
	}
	for phase, digest := range r.data.digests() {
		if was.Splits[phase] != digest {
			return &CheckpointError{Dir: dir, Key: fmt.Sprintf("the digest of the %s split", phase), Want: was.Splits[phase], Got: digest}
		}
	}
	return nil
}

// checkModel compares the base checkpoint with that of the run that is resumed.
func (r *run) checkModel() error {
	if r.resume == nil {
		return nil
	}
	was := r.resume.state.Model
	for _, file := range slices.Sorted(maps.Keys(was)) {
		if got := cmp.Or(r.base.Hashes[file], "absent"); got != was[file] {
			return &CheckpointError{Dir: r.resume.dir, Key: "the SHA-256 of " + filepath.Join(r.base.Dir, file), Want: was[file], Got: got}
		}
	}
	return nil
}

// loadCheckpoint puts the session where the training was.
func (r *run) loadCheckpoint(ctx context.Context) error {
	if r.resume == nil {
		return nil
	}
	was := r.resume.state
	for _, name := range slices.Sorted(maps.Keys(was.Versions)) {
		if is := r.versions[name]; is != was.Versions[name] {
			r.log.Warn("the run was started with another version: the last bits of the results may differ",
				"of", name, "was", was.Versions[name], "is", cmp.Or(is, "none"))
		}
	}
	if r.state.Step > 0 {
		if err := r.session.LoadState(ctx, filepath.Join(r.resume.dir, sessionDir)); err != nil {
			return &CheckpointError{Dir: r.resume.dir, Err: err}
		}
	}
	r.log.Info("resuming", "checkpoint", r.resume.dir, "epoch", max(1, r.state.Epoch), "step", r.state.Step)
	return nil
}

// checkpointDue reports whether it is time for another one after so many updates.
func (r *run) checkpointDue(step int) bool {
	t := r.cfg.Train
	if !r.keepsCheckpoints() || step == r.savedStep {
		return false
	}
	return t.CheckpointSteps > 0 && step%t.CheckpointSteps == 0 ||
		t.CheckpointMinutes > 0 && r.now().Sub(r.savedAt).Minutes() >= t.CheckpointMinutes
}

// saveAfter saves what can be saved of a training that ended with an error.
func (r *run) saveAfter(ctx context.Context, err error) {
	var failed *CheckpointError
	if err == nil || r.unsound || r.session == nil || errors.As(err, &failed) {
		return
	}
	if r.savedDir != "" && r.savedStep == r.boundary.Step {
		return
	}
	if err := r.saveCheckpoint(ctx); err != nil {
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
