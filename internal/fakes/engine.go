// Package fakes stands in for what a run needs from outside: an engine that
// learns in microseconds, a tokenizer without a vocabulary, a tracker that
// writes down what it is told, and data to learn from. Tests use it, inside
// and outside of this module's packages.
package fakes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/criteria-go/criteria"
)

const (
	vocabulary = 1024
	modelFile  = "fake_model.json"
)

// Engine computes a linear model on the set of tokens, by plain gradient
// descent. It is a real learner, and everything it does is a function of its
// inputs, so that whatever holds for the loop around an engine can be tested
// with it. Its zero value is ready for use.
type Engine struct {
	// Before, if set, is called before each operation ("open", "accumulate",
	// "update", "evaluate", "save", "save state", "load state", "close"). Its
	// error is returned instead of doing the operation.
	Before func(op string) error
	// Result, if set, may change what Accumulate and Evaluate return.
	Result func(op string, b criteria.Batch, r *criteria.BatchResult)
	// Async makes sessions that begin work and yield its results later, as those
	// on a device do.
	Async bool

	mu    sync.Mutex
	specs []criteria.ModelSpec
	steps []Step
	open  int
}

// Step is one call of Accumulate or Update or, of an asynchronous session, of what
// waits for its result.
type Step struct {
	Op           string // "accumulate", "update", "wait for accumulate" or "wait for update"
	Step, Micro  int    // of Accumulate
	Rows         int    // of Accumulate
	LearningRate float64
}

// Specs returns what Open was called with.
func (e *Engine) Specs() []criteria.ModelSpec {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]criteria.ModelSpec(nil), e.specs...)
}

// Steps returns the calls in order.
func (e *Engine) Steps() []Step {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Step(nil), e.steps...)
}

// OpenSessions returns how many sessions have not been closed.
func (e *Engine) OpenSessions() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open
}

func (e *Engine) before(op string) error {
	if e.Before == nil {
		return nil
	}
	return e.Before(op)
}

// Open reads the weights of a model that was saved before, or starts with
// weights 0.
func (e *Engine) Open(ctx context.Context, spec criteria.ModelSpec) (criteria.Session, error) {
	if err := errors.Join(ctx.Err(), e.before("open")); err != nil {
		return nil, err
	}
	s := &session{engine: e, training: spec.Training}
	if err := s.load(filepath.Join(spec.Dir, modelFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.specs = append(e.specs, spec)
	e.open++
	if e.Async {
		return asyncSession{s}, nil
	}
	return s, nil
}

// asyncSession computes at once, but does not tell before it is asked.
type asyncSession struct{ *session }

func (s asyncSession) AccumulateAsync(ctx context.Context, b criteria.Batch, step, micro int) (func() (criteria.BatchResult, error), error) {
	r, err := s.Accumulate(ctx, b, step, micro)
	return func() (criteria.BatchResult, error) {
		s.note(Step{Op: "wait for accumulate", Step: step, Micro: micro, Rows: b.Rows})
		return r, nil
	}, err
}

func (s asyncSession) UpdateAsync(ctx context.Context, learningRate float64) (func() (float64, error), error) {
	norm, err := s.Update(ctx, learningRate)
	return func() (float64, error) {
		s.note(Step{Op: "wait for update", LearningRate: learningRate})
		return norm, nil
	}, err
}

// note keeps a call.
func (s *session) note(step Step) {
	s.engine.mu.Lock()
	defer s.engine.mu.Unlock()
	s.engine.steps = append(s.engine.steps, step)
}

type session struct {
	engine   *Engine
	training *criteria.TrainingSpec
	closed   bool

	weights  [2][vocabulary]float64
	gradient [2][vocabulary]float64
	micro    int // micro-batches in gradient
}

func (s *session) Accumulate(ctx context.Context, b criteria.Batch, step, micro int) (criteria.BatchResult, error) {
	if err := errors.Join(ctx.Err(), s.engine.before("accumulate")); err != nil {
		return criteria.BatchResult{}, err
	}
	if s.training == nil {
		return criteria.BatchResult{}, errors.New("fakes: Accumulate without training")
	}
	s.note(Step{Op: "accumulate", Step: step, Micro: micro, Rows: b.Rows})
	// "Dropout": which tokens count depends on seed, step and micro-batch.
	keep := func(id int64) bool {
		return (uint64(id)*31+s.training.Seed*17+uint64(step)*13+uint64(micro)*7)%10 != 0
	}
	r := s.run(b, keep, true)
	s.micro++
	if s.engine.Result != nil {
		s.engine.Result("accumulate", b, &r)
	}
	return r, nil
}

func (s *session) Update(ctx context.Context, learningRate float64) (float64, error) {
	if err := errors.Join(ctx.Err(), s.engine.before("update")); err != nil {
		return 0, err
	}
	s.note(Step{Op: "update", LearningRate: learningRate})
	var norm float64
	for c := range s.gradient {
		for i, g := range s.gradient[c] {
			g /= float64(s.micro)
			norm += g * g
			// The rates of a transformer are far too small for this model.
			s.weights[c][i] -= 2e5 * learningRate * g
		}
	}
	s.gradient, s.micro = [2][vocabulary]float64{}, 0
	return math.Sqrt(norm), nil
}

func (s *session) Evaluate(ctx context.Context, b criteria.Batch) (criteria.BatchResult, error) {
	if err := errors.Join(ctx.Err(), s.engine.before("evaluate")); err != nil {
		return criteria.BatchResult{}, err
	}
	r := s.run(b, func(int64) bool { return true }, false)
	if s.engine.Result != nil {
		s.engine.Result("evaluate", b, &r)
	}
	return r, nil
}

func (s *session) run(b criteria.Batch, keep func(id int64) bool, train bool) criteria.BatchResult {
	var lossSum, weightSum float64
	for _, w := range b.SampleWeights {
		weightSum += float64(w)
	}
	r := criteria.BatchResult{Logits: make([]float32, 2*b.Rows)}
	for row := range b.Rows {
		seen := make(map[int64]bool)
		var logits [2]float64
		for i := row * b.Length; i < (row+1)*b.Length; i++ {
			id := b.InputIDs[i] % vocabulary
			if b.AttentionMask[i] == 0 || seen[id] || !keep(id) {
				continue
			}
			seen[id] = true
			for c := range logits {
				logits[c] += s.weights[c][id]
			}
		}
		r.Logits[2*row], r.Logits[2*row+1] = float32(logits[0]), float32(logits[1])
		if b.Labels == nil {
			continue
		}
		top := max(logits[0], logits[1])
		normalizer := top + math.Log(math.Exp(logits[0]-top)+math.Exp(logits[1]-top))
		weight := float64(b.SampleWeights[row]) / weightSum
		lossSum += weight * (normalizer - logits[b.Labels[row]])
		if !train {
			continue
		}
		for c := range logits {
			g := weight * math.Exp(logits[c]-normalizer)
			if int(b.Labels[row]) == c {
				g -= weight
			}
			for id := range seen {
				s.gradient[c][id] += g
			}
		}
	}
	r.Loss = lossSum
	return r
}

// Explain implements [criteria.Explainer]: in a linear model a token matters by
// its weight, wherever it stands.
func (s *session) Explain(ctx context.Context, b criteria.Batch) (criteria.BatchResult, []float32, error) {
	r, err := s.Evaluate(ctx, b)
	scores := make([]float32, len(b.InputIDs))
	for i, id := range b.InputIDs {
		if b.AttentionMask[i] != 0 {
			scores[i] = float32(s.weights[1][id%vocabulary] - s.weights[0][id%vocabulary])
		}
	}
	return r, scores, err
}

func (s *session) SaveModel(ctx context.Context, dir string) error {
	if err := errors.Join(ctx.Err(), s.engine.before("save")); err != nil {
		return err
	}
	return s.save(filepath.Join(dir, modelFile))
}

func (s *session) SaveState(ctx context.Context, dir string) error {
	if err := errors.Join(ctx.Err(), s.engine.before("save state")); err != nil {
		return err
	}
	return s.save(filepath.Join(dir, modelFile))
}

func (s *session) LoadState(ctx context.Context, dir string) error {
	if err := errors.Join(ctx.Err(), s.engine.before("load state")); err != nil {
		return err
	}
	return s.load(filepath.Join(dir, modelFile))
}

func (s *session) save(path string) error {
	text, err := json.Marshal(s.weights)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func (s *session) load(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &s.weights); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (s *session) Describe() criteria.SessionInfo {
	return criteria.SessionInfo{
		Device: "fake", Parameters: 2 * vocabulary, Versions: map[string]string{"engine": "1"},
	}
}

func (s *session) Close() error {
	if s.closed {
		return errors.New("fakes: session closed twice")
	}
	s.closed = true
	s.engine.mu.Lock()
	s.engine.open--
	s.engine.mu.Unlock()
	return s.engine.before("close")
}
