package study

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Memory is a Storage that lasts as long as the process. Its zero value is ready.
type Memory struct {
	mu      sync.Mutex
	studies []memoryStudy
	trials  []*memoryTrial // of all studies; the index is the id
}

type memoryStudy struct {
	name      string
	direction Direction
	attrs     map[string]string
	trials    []*memoryTrial // the index is the number
}

type memoryTrial struct {
	FrozenTrial
	beat time.Time
}

var _ Storage = (*Memory)(nil)

// OpenStudy implements Storage.
func (m *Memory) OpenStudy(_ context.Context, name string, direction Direction) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, s := range m.studies {
		if s.name == name {
			if s.direction != direction {
				return 0, fmt.Errorf("study %q: %w: %s", name, ErrOtherDirection, s.direction)
			}
			return id, nil
		}
	}
	m.studies = append(m.studies, memoryStudy{name: name, direction: direction, attrs: map[string]string{}})
	return len(m.studies) - 1, nil
}

// InitStudyAttr implements Storage.
func (m *Memory) InitStudyAttr(_ context.Context, study int, key, value string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	attrs := m.studies[study].attrs
	if _, ok := attrs[key]; !ok && value != "" {
		attrs[key] = value
	}
	return attrs[key], nil
}

// Trials implements Storage.
func (m *Memory) Trials(_ context.Context, study int) ([]FrozenTrial, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	trials := make([]FrozenTrial, 0, len(m.studies[study].trials))
	for _, t := range m.studies[study].trials {
		if t.State.IsFinished() {
			trials = append(trials, t.FrozenTrial) // changes no more
		} else {
			trials = append(trials, clone(t.FrozenTrial))
		}
	}
	return trials, nil
}

// Claim implements Storage.
func (m *Memory) Claim(_ context.Context, study, budget int) (*FrozenTrial, Tally, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var tally Tally
	var next *memoryTrial
	for _, t := range m.studies[study].trials {
		tally.Count(t.State, 1)
		if t.State == Waiting && next == nil {
			next = t
		}
	}
	tally.Beating = tally.Running
	if tally.Finished+tally.Running >= budget {
		return nil, tally, nil
	}
	if next == nil {
		next = m.add(study, newFrozen())
	}
	next.State, next.DatetimeStart, next.beat = Running, time.Now(), time.Now()
	claimed := clone(next.FrozenTrial)
	return &claimed, tally, nil
}

// add appends a trial to a study.
func (m *Memory) add(study int, trial FrozenTrial) *memoryTrial {
	s := &m.studies[study]
	t := &memoryTrial{FrozenTrial: clone(trial)}
	t.ID, t.StudyID, t.Number = len(m.trials), study, len(s.trials)
	m.trials = append(m.trials, t)
	s.trials = append(s.trials, t)
	return t
}

// Enqueue implements Storage.
func (m *Memory) Enqueue(_ context.Context, study int, trial FrozenTrial) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	trial.State = Waiting
	return m.add(study, trial).Number, nil
}

// FailStale implements Storage.
func (m *Memory) FailStale(_ context.Context, study int, grace time.Duration, retries int) ([]FrozenTrial, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var failed []FrozenTrial
	for _, t := range m.studies[study].trials { // not those that are added below
		if t.State != Running || time.Since(t.beat) <= grace {
			continue
		}
		t.State, t.DatetimeComplete = Failed, time.Now()
		failed = append(failed, t.FrozenTrial)
		if again, ok := Retry(t.FrozenTrial, retries); ok {
			m.add(study, again)
		}
	}
	return failed, nil
}

// change calls f with a running trial.
func (m *Memory) change(trial int, f func(*memoryTrial)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trials[trial]
	if t.State != Running {
		return fmt.Errorf("trial %d: %w", t.Number, ErrNotRunning)
	}
	f(t)
	return nil
}

// Beat implements Storage.
func (m *Memory) Beat(_ context.Context, trial int) error {
	return m.change(trial, func(t *memoryTrial) { t.beat = time.Now() })
}

// SetParam implements Storage.
func (m *Memory) SetParam(_ context.Context, trial int, name string, internal float64, d Distribution) error {
	return m.change(trial, func(t *memoryTrial) {
		t.InternalParams[name], t.Params[name], t.Distributions[name] = internal, d.ToExternalRepr(internal), d
	})
}

// Report implements Storage.
func (m *Memory) Report(_ context.Context, trial, step int, value float64) error {
	return m.change(trial, func(t *memoryTrial) { t.IntermediateValues[step] = value })
}

// SetUserAttr implements Storage.
func (m *Memory) SetUserAttr(_ context.Context, trial int, key, value string) error {
	return m.change(trial, func(t *memoryTrial) { t.UserAttrs[key] = value })
}

// SetSystemAttr implements Storage.
func (m *Memory) SetSystemAttr(_ context.Context, trial int, key, value string) error {
	return m.change(trial, func(t *memoryTrial) { t.SystemAttrs[key] = value })
}

// Finish implements Storage.
func (m *Memory) Finish(_ context.Context, trial int, state State, value float64) error {
	return m.change(trial, func(t *memoryTrial) {
		t.State, t.Value, t.DatetimeComplete = state, value, time.Now()
	})
}
