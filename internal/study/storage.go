package study

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"
)

// Storage keeps studies and their trials. Any number of workers, in any number
// of processes, use one study at the same time. See [Memory] for one process, and
// package optunadb for databases.
//
// Studies and trials are known by the ids that the storage gives them. All
// methods are safe for concurrent use, and may be tried again after an error.
type Storage interface {
	// OpenStudy returns the id of the study called name, which it creates if
	// there is none. A study of the other direction is an ErrOtherDirection.
	OpenStudy(ctx context.Context, name string, direction Direction) (study int, err error)
	// InitStudyAttr gives a study a user attribute, as JSON, unless it has it. It
	// returns the value that the study has then: of several workers, all get the
	// first one's. With an empty value it only looks, and returns "" if there is
	// none.
	InitStudyAttr(ctx context.Context, study int, key, value string) (stored string, err error)
	// Trials returns all trials of a study in the order of their numbers. What
	// it returns is shared and must not be changed.
	Trials(ctx context.Context, study int) ([]FrozenTrial, error)

	// Claim returns a trial for the caller to run, which is then RUNNING and has
	// a heartbeat: the first that waits, or a new one of the next number. It
	// returns nil if the finished and running trials use up the budget. A trial
	// is claimed once.
	Claim(ctx context.Context, study, budget int) (*FrozenTrial, Tally, error)
	// Enqueue adds a trial that waits, with the parameters and attributes of the
	// given one, and returns its number.
	Enqueue(ctx context.Context, study int, trial FrozenTrial) (number int, err error)
	// FailStale fails the running trials whose heartbeat is older than grace, and
	// enqueues what Retry makes of them. It returns those it has failed.
	FailStale(ctx context.Context, study int, grace time.Duration, retries int) ([]FrozenTrial, error)

	// The methods below change a running trial. If it runs no more, they return
	// ErrNotRunning.

	// Beat renews the heartbeat.
	Beat(ctx context.Context, trial int) error
	// SetParam sets a parameter by its internal value.
	SetParam(ctx context.Context, trial int, name string, internal float64, d Distribution) error
	// Report sets the objective's value at a step.
	Report(ctx context.Context, trial, step int, value float64) error
	// SetUserAttr sets an attribute, as JSON.
	SetUserAttr(ctx context.Context, trial int, key, value string) error
	// SetSystemAttr sets an attribute that belongs to algorithms, as JSON.
	SetSystemAttr(ctx context.Context, trial int, key, value string) error
	// Finish ends a trial as complete, pruned or failed. NaN is no value.
	Finish(ctx context.Context, trial int, state State, value float64) error
}

// Tally counts the trials of a study.
type Tally struct {
	Finished int // complete or pruned
	Running  int
	Beating  int // running, with a heartbeat: their end can be waited for
	Waiting  int
	Failed   int
}

// Count adds trials of a state.
func (t *Tally) Count(state State, n int) {
	switch state {
	case Complete, Pruned:
		t.Finished += n
	case Running:
		t.Running += n
	case Waiting:
		t.Waiting += n
	case Failed:
		t.Failed += n
	}
}

// ErrNotRunning is returned for a trial that has ended: most often, because this
// worker was silent for so long that another has failed the trial.
var ErrNotRunning = errors.New("the trial is not running (any more)")

// ErrOtherDirection is returned for a study that exists with another direction.
var ErrOtherDirection = errors.New("the study exists and has another direction")

// The attributes that Optuna and this package give to trials.
const (
	attrFixedParams  = "fixed_params"  // system: external values of an enqueued trial
	attrFailedTrial  = "failed_trial"  // system: number of the trial first tried
	attrRetryHistory = "retry_history" // system: numbers of all trials tried before
	AttrFailReason   = "fail_reason"   // user: why a trial failed
)

// Retry returns the trial to be enqueued in place of a failed one: with the same
// parameters, and attributes that name its predecessors, as those of Optuna's
// RetryHeartbeatStaleTrialCallback do. If it has been retried often enough,
// there is none.
func Retry(failed FrozenTrial, retries int) (again FrozenTrial, ok bool) {
	var history []int
	if text, ok := failed.SystemAttrs[attrRetryHistory]; ok && json.Unmarshal([]byte(text), &history) != nil {
		history = nil // written by something else
	}
	history = append(history, failed.Number)
	if len(history) > retries {
		return FrozenTrial{}, false
	}
	again = newFrozen()
	again.State = Waiting
	maps.Copy(again.InternalParams, failed.InternalParams)
	maps.Copy(again.Params, failed.Params)
	maps.Copy(again.Distributions, failed.Distributions)
	maps.Copy(again.UserAttrs, failed.UserAttrs)
	maps.Copy(again.SystemAttrs, failed.SystemAttrs)
	delete(again.UserAttrs, AttrFailReason)
	if _, ok := again.SystemAttrs[attrFailedTrial]; !ok {
		again.SystemAttrs[attrFailedTrial] = fmt.Sprint(failed.Number)
	}
	text, _ := json.Marshal(history) // integers cannot fail
	again.SystemAttrs[attrRetryHistory] = string(text)
	return again, true
}

// newFrozen returns an empty trial.
func newFrozen() FrozenTrial {
	return FrozenTrial{
		Value:              math.NaN(),
		IntermediateValues: map[int]float64{},
		InternalParams:     map[string]float64{},
		Params:             map[string]any{},
		Distributions:      map[string]any{},
		UserAttrs:          map[string]string{},
		SystemAttrs:        map[string]string{},
	}
}

// clone returns a copy that shares no maps.
func clone(t FrozenTrial) FrozenTrial {
	t.IntermediateValues = maps.Clone(t.IntermediateValues)
	t.InternalParams = maps.Clone(t.InternalParams)
	t.Params = maps.Clone(t.Params)
	t.Distributions = maps.Clone(t.Distributions)
	t.UserAttrs = maps.Clone(t.UserAttrs)
	t.SystemAttrs = maps.Clone(t.SystemAttrs)
	return t
}

// Best returns the complete trial of the best value, of equal ones the first.
func Best(trials []FrozenTrial, direction Direction) (best FrozenTrial, ok bool) {
	for _, t := range trials {
		if t.State != Complete || math.IsNaN(t.Value) {
			continue
		}
		better := t.Value < best.Value
		if direction == Maximize {
			better = t.Value > best.Value
		}
		if !ok || better {
			best, ok = t, true
		}
	}
	return best, ok
}
