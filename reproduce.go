package criteria

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/modelstore"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// ReproduceMode says how much of a run [Reproduce] repeats.
type ReproduceMode string

// The modes of [Reproduce].
const (
	ReproduceEval  ReproduceMode = "eval"  // test the model that the run stored
	ReproduceTrain ReproduceMode = "train" // train it again, in full, and test that
)

// ReproduceOption configures [Reproduce]. Every [TrainerOption] is one: on top
// of the configuration of the run, they say for example where its data are now.
// WithConfig has no effect: the configuration is the run's. [WithTrackingURI] and
// [WithExperiment] say where the run is recorded, and where the new one is to be;
// by default that is what MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say.
type ReproduceOption interface{ applyReproduce(*reproduction) error }

type reproduceOption func(*reproduction) error

func (f reproduceOption) applyReproduce(p *reproduction) error { return f(p) }

// WithTolerance sets by how much a metric may differ. Default 0.005, half a
// percentage point.
func WithTolerance(t float64) ReproduceOption {
	return reproduceOption(func(p *reproduction) error {
		p.out.Tolerance = t
		if !(t >= 0 && t <= 1) {
			return &OptionError{Option: "WithTolerance", Value: t, Reason: "want a number from 0 to 1"}
		}
		return nil
	})
}

// WithMode sets how much is repeated. Default [ReproduceEval].
func WithMode(m ReproduceMode) ReproduceOption {
	return reproduceOption(func(p *reproduction) error {
		p.out.Mode = m
		if m != ReproduceEval && m != ReproduceTrain {
			return &OptionError{Option: "WithMode", Value: m, Reason: "want eval or train"}
		}
		return nil
	})
}

// Reproduction is what repeating a run came to.
type Reproduction struct {
	RunID         string // of the run that records it
	OriginalRunID string
	Dir           string // output directory
	Mode          ReproduceMode
	Tolerance     float64
	Metrics       []MetricComparison
	Passed        bool // whether every metric is within the tolerance
	// Differences lists what is not as it was, versions, device and settings:
	// likely reasons if the metrics differ.
	Differences []string
}

// MetricComparison compares one metric of the test split.
type MetricComparison struct {
	Name               string // e.g. test_accuracy
	Original, Replayed float64
	Delta              float64 // |Replayed − Original|
}

// compared are the metrics that decide, in the order of the table.
var compared = []string{"test_accuracy", "test_macro_f1", "test_weighted_f1", "test_precision", "test_recall"}

// String returns the table of all metrics and the verdict, several lines.
func (r *Reproduction) String() string {
	rule := strings.Repeat("=", 80)
	mark := map[bool]string{true: "✓", false: "✗"}
	tolerance := "±" + pythonFloat(math.Round(r.Tolerance*1e11)/1e9) + " pp"
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nMetric Comparison (SC-003: %s tolerance)\n%s\n", rule, tolerance, rule)
	for _, m := range r.Metrics {
		fmt.Fprintf(&b, "%s %-20s: Original=%.4f, Replayed=%.4f, Delta=%.4f\n",
			mark[m.Delta <= r.Tolerance], m.Name, m.Original, m.Replayed, m.Delta)
	}
	verdict := "PASSED\nAll metrics within " + tolerance + " tolerance"
	if !r.Passed {
		verdict = "FAILED\nSome metrics exceed " + tolerance + " tolerance"
	}
	fmt.Fprintf(&b, "\n%s\n%s REPRODUCIBILITY CHECK %s\n%s\n", rule, mark[r.Passed], verdict, rule)
	if !r.Passed && len(r.Differences) > 0 {
		fmt.Fprintf(&b, "\nLikely reasons:\n  %s\n", strings.Join(r.Differences, "\n  "))
	}
	return b.String()
}

// Reproduce repeats a run that is recorded in MLflow and compares the metrics
// of the test split. Configuration and model are those that the run stored. The
// data must be those that it learned from: a file that has changed is a
// [*DataError] before anything is computed, and so is a file of the model that
// is not the one that was stored (mode eval) or of the base checkpoint that is
// not the one from which the run started (mode train).
//
// A run of its own, of stage reproducibility, records the comparison. That
// metrics differ by more than the tolerance is no error; see Passed.
func Reproduce(ctx context.Context, runID string, opts ...ReproduceOption) (_ *Reproduction, err error) {
	p := &reproduction{
		settings: newSettings(), out: Reproduction{OriginalRunID: runID, Mode: ReproduceEval, Tolerance: 0.005},
	}
	if err := applyAll(p, opts, ReproduceOption.applyReproduce); err != nil {
		return nil, err
	}
	if runID == "" {
		return nil, &OptionError{Option: "Reproduce", Value: `""`, Reason: "want the ID of a run"}
	}
	unlock, err := lockOutputDir(p.settings, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := p.fetch(ctx); err != nil {
		return nil, err
	}
	r, err := p.repeat(ctx)
	if r == nil {
		return nil, err
	}
	if err == nil {
		err = p.compare(ctx, r)
	}
	if err != nil && ctx.Err() == nil {
		tags := map[string]string{"reproducibility_status": "failed"}
		if tagErr := r.record.tracked.SetTags(ctx, tags); tagErr != nil {
			r.log.Warn("the tag reproducibility_status could not be set", "error", tagErr)
		}
	}
	if err = r.end(ctx, err); err != nil {
		return nil, err
	}
	return &p.out, nil
}

// repeat does the run again, in full or only its test. It returns no run if none was
// begun.
func (p *reproduction) repeat(ctx context.Context) (*run, error) {
	plan := repetition{training{p.config}, p}
	if p.out.Mode == ReproduceEval {
		r := newRun(newJob(p.settings, retest{plan}))
		defer r.record.endPanicking(ctx)
		err := r.retest(ctx)
		r.record.returned = true
		return r, err
	}
	r := newRun(newJob(p.settings, plan))
	r.order = p.order
	defer r.record.endPanicking(ctx)
	if err := p.checkBase(ctx, r); err != nil {
		r.record.returned = true
		return nil, err
	}
	err := r.run(ctx)
	r.record.returned = true
	return r, err
}

// reproduction is one call of [Reproduce].
type reproduction struct {
	*settings
	original mlflow.Run
	order    data.Order // in which it drew batches
	out      Reproduction
}

// fetch reads the run and all that is needed to repeat it, checks it, and sets
// up the settings.
func (p *reproduction) fetch(ctx context.Context) (err error) {
	tracker, err := NewMLflowTracker(
		WithTrackingURI(p.store.uri), WithExperiment(p.store.experiment), WithLogger(p.log), WithSystemMetrics(0))
	if err != nil {
		return err
	}
	if p.tracker == nil {
		p.tracker = tracker
	}
	store, err := mlflow.Open(ctx, tracker.uri, mlflow.Options{Getenv: tracker.getenv, Logger: p.log})
	if err != nil {
		return p.fail("open the store", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if p.original, err = store.Run(ctx, p.out.OriginalRunID); err != nil {
		return p.fail("find the run in "+store.URI(), err)
	}
	text, err := modelstore.ReadArtifact(ctx, store, p.original, configArtifact)
	if err != nil {
		return p.fail("read "+configArtifact, err)
	}
	recorded, err := ParseConfig(text)
	if err != nil {
		return p.fail("read "+configArtifact, err)
	}
	p.config = recorded.clone()
	if err := p.finish(); err != nil {
		return err
	}
	if p.order, err = recordedOrder(p.original, text, recorded); err != nil {
		return p.fail("read "+configArtifact, err)
	}
	if p.config.Data.DataLoader.GroupByLength != recorded.Data.DataLoader.GroupByLength {
		p.order = orderOf(p.config) // an option asks for it
	}
	for _, d := range differences(recorded, p.config) {
		p.differs("%s: was %s, is %s", d.key, d.was, d.is)
	}
	params := recorded.params()
	for _, key := range slices.Sorted(maps.Keys(params)) {
		if was, ok := p.original.Params[key]; ok && was != params[key] {
			p.differs("%s: the run was recorded with %s, but its stored configuration says %s", key, was, params[key])
		}
	}
	if err := p.readData(ctx); err != nil {
		return err
	}
	if p.out.Mode == ReproduceTrain {
		return nil
	}
	dir := filepath.Join(p.outputDir, bestModelDir)
	err = os.MkdirAll(p.outputDir, 0o755)
	if err == nil {
		err = modelstore.Stored{Store: store, Run: p.original, Path: modelArtifact}.Copy(ctx, dir)
	}
	if err != nil {
		return p.fail("fetch the model", err)
	}
	switch _, err := sumfile.Verify(dir); {
	case errors.Is(err, fs.ErrNotExist):
		p.log.Warn("the model was stored without checksums: whether it is what was stored is not known")
	case err != nil:
		err = fmt.Errorf("the model is not what was stored: %w", err)
		return p.fail("check the model", &DataError{File: dir, Err: err})
	}
	return nil
}

func (p *reproduction) fail(what string, err error) error {
	return fmt.Errorf("criteria: reproduce %s: %s: %w", p.out.OriginalRunID, what, err)
}

// differs notes something that is not as it was.
func (p *reproduction) differs(format string, args ...any) {
	note := fmt.Sprintf(format, args...)
	p.log.Warn("not as in the original run: " + note)
	p.out.Differences = append(p.out.Differences, note)
}

// readData reads the data and finds a file that has changed.
func (p *reproduction) readData(ctx context.Context) error {
	if p.dataset == nil {
		d, err := ReadDataset(ctx, p.config.Data, p.config.Train.Seed)
		if err != nil {
			return err
		}
		p.dataset = d
	}
	err := p.checkFiles(dataHash, p.dataset.Hashes, func(file, is, was string) error {
		err := fmt.Errorf("%s has SHA-256 %s, but run %s learned from one with %s; restore that file",
			file, is, p.out.OriginalRunID, was)
		return &DataError{File: file, Err: err}
	})
	if err != nil {
		return err
	}
	for _, s := range p.dataset.splits() {
		for _, in := range p.original.Inputs {
			for _, tag := range in.Tags {
				if tag.Key == mlflow.TagDataContext && tag.Value == string(s.phase) && in.Digest != s.digest() {
					p.differs("the %s split: was %s, is %s", s.phase, in.Digest, s.digest())
				}
			}
		}
	}
	return nil
}

// checkFiles compares the SHA-256 of files with those that the run recorded
// under a prefix, and returns changed of the first that is another one.
func (p *reproduction) checkFiles(prefix string, hashes map[string]string,
	changed func(file, is, was string) error) error {
	files := make(map[string]string) // by tag
	for file := range hashes {
		files[mlflow.CleanKey(prefix+file)] = file
	}
	known := 0
	for _, tag := range slices.Sorted(maps.Keys(p.original.Tags)) {
		name, ok := strings.CutPrefix(tag, prefix)
		if !ok {
			continue
		}
		known++
		file, ok := files[tag]
		delete(files, tag)
		if !ok && filepath.Ext(name) == "" {
			// Not a file of ours: whoever recorded the run gave names of his own.
			p.differs("%s: no file of that name is read, so that it is not known whether it has changed", tag)
			continue
		}
		was := strings.ToLower(strings.TrimPrefix(p.original.Tags[tag], "sha256:"))
		if is := hashes[file]; is != was {
			return changed(cmp.Or(file, name), cmp.Or(is, "(absent)"), was)
		}
	}
	if known == 0 {
		p.log.Warn("the run does not say what it learned from: it has no tag " + prefix + "*")
		return nil
	}
	for _, tag := range slices.Sorted(maps.Keys(files)) {
		p.differs("%s: the run did not know this file", files[tag])
	}
	return nil
}

// checkBase finds the base checkpoint of a run, and a file of it that has changed.
func (p *reproduction) checkBase(ctx context.Context, r *run) error {
	if err := r.findBase(ctx); err != nil {
		return err
	}
	return p.checkFiles(modelHash, r.base.Hashes, func(file, is, was string) error {
		path := filepath.Join(r.base.Dir, file)
		err := fmt.Errorf("%s has SHA-256 %s, but the run started from one with %s; "+
			"restore that file or set model.checkpoint to the folder that has it", path, is, was)
		return p.fail("check the base checkpoint", &DataError{File: path, Err: err})
	})
}

// repetition is the plan of a training that is done again.
type repetition struct {
	training
	of *reproduction
}

func (p repetition) describe(info *RunInfo, d *Dataset) {
	p.training.describe(info, d)
	info.Name = cmp.Or(info.Name, "reproduce-"+p.of.original.Name)
	info.Description = "Reproduction of run " + p.of.out.OriginalRunID + "."
	info.Tags["stage"] = "reproducibility"
	info.Tags["original_run_id"] = p.of.out.OriginalRunID
	info.Params["original_run_id"] = p.of.out.OriginalRunID
	info.Params["mode"] = string(p.of.out.Mode)
	info.Params["tolerance"] = pythonFloat(p.of.out.Tolerance)
}

// retest is the plan of a run that only tests the model which another one stored.
type retest struct{ repetition }

func (retest) keepsModel() bool        { return false }
func (retest) keepsResumePoints() bool { return false }

// retest tests the model that the original run stored.
func (r *run) retest(ctx context.Context) (err error) {
	closers := closers{}
	defer func() { err = errors.Join(err, closers.close()) }()
	if err := r.readData(ctx); err != nil {
		return err
	}
	if err := r.startTracking(ctx); err != nil {
		return err
	}
	model := filepath.Join(r.outputDir, bestModelDir)
	if err := r.splits.tokenize(ctx, model, []namedSplit{{PhaseTest, r.splits.data.Test}}, &closers); err != nil {
		return err
	}
	if err := r.testBest(ctx, &closers); err != nil {
		return err
	}
	return r.report(ctx)
}

// compare compares the metrics of both runs and records what came of it.
func (p *reproduction) compare(ctx context.Context, r *run) error {
	replayed, logged := make(map[string]float64), make(map[string]float64)
	r.tested.scores().addTo(replayed, "test_", true)
	p.out.Passed = true
	for _, name := range append(slices.Clone(compared), "test_loss") {
		original, ok := p.original.Metrics[name]
		if !ok {
			continue
		}
		m := MetricComparison{Name: name, Original: original.Value, Replayed: replayed[name]}
		m.Delta = math.Abs(m.Replayed - m.Original)
		logged["replayed_"+name], logged["original_"+name], logged["delta_"+name] = m.Replayed, m.Original, m.Delta
		if name != "test_loss" { // which has no unit in which to tolerate
			p.out.Metrics = append(p.out.Metrics, m)
			p.out.Passed = p.out.Passed && m.Delta <= p.out.Tolerance
		}
	}
	if len(p.out.Metrics) == 0 {
		names := strings.Join(compared, ", ")
		return p.fail("compare", fmt.Errorf("the run has none of the metrics %s: it was not tested", names))
	}
	for _, tag := range slices.Sorted(maps.Keys(r.record.tags)) {
		matters := tag == "device" || tag == "git.commit" || strings.HasPrefix(tag, "version.")
		if was, ok := p.original.Tags[tag]; ok && matters && was != r.record.tags[tag] {
			p.differs("%s: was %s, is %s", tag, was, r.record.tags[tag])
		}
	}
	status := "passed"
	if !p.out.Passed {
		status = "failed"
	}
	p.out.RunID, p.out.Dir = r.record.tracked.ID(), r.outputDir
	if err := r.record.tracked.LogMetrics(ctx, r.loop.progress.state.Epoch, logged); err != nil {
		return trackingError("log the comparison", err)
	}
	if err := r.record.tracked.SetTags(ctx, map[string]string{"reproducibility_status": status}); err != nil {
		return trackingError("set the tag reproducibility_status", err)
	}
	return nil
}
