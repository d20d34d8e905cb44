package criteria

import (
	"context"
	"fmt"
	"time"

	"github.com/criteria-go/criteria/internal/data"
)

// plan says what kind of run a [job] is, and so what is done otherwise than in other
// runs.
type plan interface {
	// describe completes what the tracker is told of the run.
	describe(info *RunInfo, d *Dataset)
	// keepsModel reports whether best_model/ is written.
	keepsModel() bool
	// keepsResumePoints reports whether the run can be resumed.
	keepsResumePoints() bool
	// afterEpoch is told how an epoch came out. Its error ends the training.
	afterEpoch(ctx context.Context, scores EpochScores) error
}

// job is what a run is given: its settings and its plan.
type job struct {
	*settings
	cfg    Config
	plan   plan
	events Hooks // all hooks of the settings
	began  time.Time
	order  data.Order // of the batches of an epoch
}

func newJob(s *settings, p plan) *job {
	return &job{settings: s, cfg: s.config.clone(), plan: p, events: joinHooks(s.hooks...), began: s.now(),
		order: orderOf(s.config)}
}

// backend returns what computes: the engine that was injected, or that of the
// device.
func (j *job) backend() Engine {
	if j.engine != nil {
		return j.engine
	}
	return ONNXRuntime("")
}

// training is the plan of a run of a [Trainer].
type training struct{ cfg Config }

func (p training) describe(info *RunInfo, d *Dataset) {
	info.Description = fmt.Sprintf("Fine-tuning of %s on %s.", p.cfg.Model.Checkpoint, d.Name)
	info.Tags["stage"] = "train"
	info.Params = p.cfg.params()
}

func (training) keepsModel() bool                              { return true }
func (training) keepsResumePoints() bool                       { return true }
func (training) afterEpoch(context.Context, EpochScores) error { return nil }
