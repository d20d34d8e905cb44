package study

import (
	"errors"
	"math"
	"slices"

	"github.com/c-bata/goptuna"
)

// MedianPruner gives a trial up whose best value so far is worse than the median
// of what complete trials had at the same step. It is Optuna's; a trial that
// only equals the median goes on.
//
// goptuna's pruner of this name waits one warm-up step longer, and one NaN
// decides it.
type MedianPruner struct {
	// StartupTrials must be complete before any trial is pruned. NewMedianPruner
	// sets 5.
	StartupTrials int
	// WarmupSteps: a trial is not pruned before this step. Default 0.
	WarmupSteps int
	// IntervalSteps is the distance of the steps at which trials are judged,
	// counted from WarmupSteps. 0 stands for 1.
	IntervalSteps int
	// MinTrials must have reported at the step. 0 stands for 1.
	MinTrials int
}

// NewMedianPruner returns a pruner with Optuna's defaults.
func NewMedianPruner() MedianPruner {
	return MedianPruner{StartupTrials: 5, IntervalSteps: 1, MinTrials: 1}
}

var _ Pruner = MedianPruner{}

// Validate reports settings that make no sense.
func (p MedianPruner) Validate() error {
	if p.StartupTrials < 0 || p.WarmupSteps < 0 || p.IntervalSteps < 0 || p.MinTrials < 0 {
		return errors.New("median pruner: negative settings")
	}
	return nil
}

// Prune implements goptuna.Pruner. It judges the last step that trial reported.
func (p MedianPruner) Prune(study *goptuna.Study, trial FrozenTrial) (bool, error) {
	trials, err := study.GetTrials()
	if err != nil {
		return false, err
	}
	step := lastStep(trial)
	if step < p.WarmupSteps || !p.due(trial, step) {
		return false, nil
	}
	complete, others := 0, []float64(nil)
	for _, t := range trials {
		if t.State != Complete {
			continue
		}
		complete++
		if v, ok := t.IntermediateValues[step]; ok {
			others = append(others, v)
		}
	}
	if complete == 0 || complete < p.StartupTrials {
		return false, nil
	}
	worse := func(a, b float64) bool { return a > b }
	if study.Direction() == Maximize {
		worse = func(a, b float64) bool { return a < b }
	}
	best := math.NaN()
	for _, v := range trial.IntermediateValues {
		if math.IsNaN(best) || worse(best, v) {
			best = v
		}
	}
	if math.IsNaN(best) {
		return true, nil // nothing but NaN
	}
	if len(others) < p.MinTrials {
		return false, nil
	}
	return worse(best, median(others)), nil // nothing is worse than NaN
}

// due reports whether no earlier step of the trial lies in the same interval.
func (p MedianPruner) due(trial FrozenTrial, step int) bool {
	interval := max(p.IntervalSteps, 1)
	first := (step-p.WarmupSteps)/interval*interval + p.WarmupSteps
	for s := range trial.IntermediateValues {
		if s != step && s >= first {
			return false
		}
	}
	return true
}

// median ignores NaN; with nothing left it is NaN.
func median(values []float64) float64 {
	values = slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	i := (len(values) - 1) / 2
	low, high := values[i], values[min(i+1, len(values)-1)]
	// Written as numpy's percentile is, so that ties stay ties and infinite
	// values give the same NaN.
	if len(values)%2 == 1 {
		return low + (high-low)*0
	}
	return high - (high-low)*0.5
}
