package criteria

import (
	"bytes"
	"context"
	"fmt"
	"maps"
)

// record is a run as its tracker has it.
type record struct {
	*job
	tracked  TrackedRun
	tags     map[string]string // that were set so far
	versions map[string]string // of what computes; nil until that is known
	returned bool              // whether the work came to an end, be it an error
}

// endPanicking, deferred, ends the tracked run as failed unless the work came to an
// end: in a panic of an injected part or a hook, which goes on, or by
// [runtime.Goexit]. Nobody would end it later.
func (r *record) endPanicking(ctx context.Context) {
	if r.returned {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := r.tracked.End(ctx, RunFailed); err != nil {
		r.log.Warn("the tracked run could not be ended", "status", RunFailed, "error", err)
	}
}

// start starts the tracked run, or continues with another one if resumeRunID is not
// empty, and stores the configuration.
func (r *record) start(ctx context.Context, d *Dataset, resumeRunID string) error {
	info := RunInfo{
		Name: r.cfg.MLflow.RunName, Tags: lineageTags(ctx, d), Started: r.began, Dir: r.outputDir,
		ResumeRunID: resumeRunID,
	}
	r.plan.describe(&info, d)
	r.tags = info.Tags
	for _, s := range d.splits() {
		info.Datasets = append(info.Datasets, DatasetInfo{
			Name: d.Name, Context: string(s.phase), Digest: s.digest(), Source: d.Source, Rows: len(s.examples),
		})
	}
	tracked, err := r.tracker.Start(ctx, info)
	if err != nil {
		return trackingError("start the run", err)
	}
	r.tracked = tracked
	return r.artifact(ctx, configArtifact, r.cfg.Redacted().YAML())
}

// announce logs where the run is recorded.
func (r *record) announce() { r.log.Info("tracking", "run_id", r.tracked.ID()) }

// catchUp tells the tracker what it may have missed of the run that is resumed, whose
// ID was was.
func (r *record) catchUp(ctx context.Context, was string, history []EpochScores) error {
	if was != "" && was != r.tracked.ID() {
		r.log.Info("the tracker cannot continue the run: this is a new one", "resumed_from", was)
		if err := r.tracked.SetTags(ctx, map[string]string{"resumed_from": was}); err != nil {
			return trackingError("set the tag resumed_from", err)
		}
	}
	// Whatever of it the tracker has received before, afterwards it has all.
	for _, e := range history {
		if err := r.epoch(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// session records on what, with which versions and, if it trains, from which base
// checkpoint the run computes.
func (r *record) session(ctx context.Context, info SessionInfo, base map[string]string) error {
	r.versions = info.Versions
	tags := map[string]string{"device": info.Device}
	for name, version := range info.Versions {
		tags["version."+name] = version
	}
	for file, hash := range base {
		tags[modelHash+file] = hash
	}
	if len(base) > 0 { // the run trains
		tags[orderTag] = r.order.String()
	}
	if err := r.tracked.SetTags(ctx, tags); err != nil {
		return trackingError("set the tags of model and versions", err)
	}
	if r.tags == nil {
		r.tags = make(map[string]string)
	}
	maps.Copy(r.tags, tags)
	return nil
}

// epoch records the scores of an epoch.
func (r *record) epoch(ctx context.Context, e EpochScores) error {
	metrics := make(map[string]float64)
	e.Train.addTo(metrics, "train_", false)
	e.Val.addTo(metrics, "val_", false)
	if err := r.tracked.LogMetrics(ctx, e.Epoch, metrics); err != nil {
		return trackingError(fmt.Sprintf("log the metrics of epoch %d", e.Epoch), err)
	}
	return nil
}

// step records what came of the updates up to one.
func (r *record) step(ctx context.Context, p *stepPoint) error {
	if err := r.tracked.LogMetrics(ctx, p.step, p.metrics); err != nil {
		return trackingError(fmt.Sprintf("log the metrics of update %d", p.step), err)
	}
	return nil
}

// test records the scores on the test split of the model of an epoch.
func (r *record) test(ctx context.Context, epoch int, scores Scores) error {
	metrics := make(map[string]float64)
	scores.addTo(metrics, "test_", true)
	if err := r.tracked.LogMetrics(ctx, epoch, metrics); err != nil {
		return trackingError("log the test metrics", err)
	}
	return nil
}

// artifact stores a file that is in memory.
func (r *record) artifact(ctx context.Context, name string, content []byte) error {
	if err := r.tracked.LogArtifact(ctx, name, bytes.NewReader(content)); err != nil {
		return trackingError("store "+name, err)
	}
	return nil
}

// end closes the tracked run of a run that ended with err, and returns what it ended
// with now.
func (r *record) end(ctx context.Context, status RunStatus, err error) error {
	r.returned = true
	ctx, cancel := endContext(ctx)
	defer cancel()
	switch endErr := r.tracked.End(ctx, status); {
	case endErr != nil && err == nil:
		return trackingError("end the run", endErr)
	case endErr != nil: // what went wrong before is what counts, and the cause of this as a rule
		r.log.Warn("the tracked run could not be ended", "status", status, "error", endErr)
	}
	return err
}

func trackingError(what string, err error) error {
	return fmt.Errorf("criteria: tracking: %s: %w", what, err)
}
