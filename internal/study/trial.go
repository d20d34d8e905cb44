package study

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/c-bata/goptuna"
)

// Trial is one run of the objective, in the objective's hands. It is not for
// concurrent use.
type Trial struct {
	run       *run
	frozen    FrozenTrial
	history   []FrozenTrial  // as it was when the trial began
	fixed     map[string]any // external values of an enqueued trial
	space     map[string]Distribution
	together  map[string]float64 // drawn together, for space
	snapshots [2]*snapshot       // of history: for this package's algorithms, for others
}

// Number counts the trials of a study from 0.
func (t *Trial) Number() int { return t.frozen.Number }

// Params returns the external values drawn so far.
func (t *Trial) Params() map[string]any { return clone(t.frozen).Params }

// begin draws the parameters that are drawn together.
func (t *Trial) begin(ctx context.Context) error {
	var err error
	if t.history, err = t.run.Storage.Trials(ctx, t.run.id); err != nil {
		return err
	}
	if text, ok := t.frozen.SystemAttrs[attrFixedParams]; ok {
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		dec.UseNumber()
		if err := dec.Decode(&t.fixed); err != nil {
			return fmt.Errorf("the attribute %s of trial %d: %w", attrFixedParams, t.Number(), err)
		}
	}
	relative := t.run.Relative
	if relative == nil {
		return nil
	}
	if t.space = t.run.Space; t.space == nil {
		common, err := intersection(t.history, Complete, Pruned)
		if err != nil {
			return err
		}
		t.space = map[string]Distribution{}
		for name, d := range common {
			t.space[name] = d.(Distribution)
		}
	}
	s, err := t.snapshot(ctx, relative)
	if err != nil {
		return err
	}
	space := map[string]any{}
	for name, d := range t.space {
		if !d.Single() {
			space[name] = s.dist(d)
		}
	}
	if len(space) == 0 {
		return nil
	}
	current, err := s.current(t.frozen)
	if err != nil {
		return err
	}
	t.together, err = relative.SampleRelative(s.study, current, space)
	if err != nil && !errors.Is(err, goptuna.ErrUnsupportedSearchSpace) {
		return fmt.Errorf("draw the parameters of trial %d: %w", t.Number(), err)
	}
	return nil
}

// snapshot returns the history as algorithm expects it.
func (t *Trial) snapshot(ctx context.Context, algorithm any) (*snapshot, error) {
	_, known := algorithm.(native)
	kept := &t.snapshots[0]
	if !known {
		kept = &t.snapshots[1]
	}
	if *kept == nil {
		s, err := newSnapshot(t.run.Name, t.run.Direction, t.history, !known, func(key, value string) error {
			return t.run.Storage.SetSystemAttr(ctx, t.frozen.ID, key, value)
		})
		if err != nil {
			return nil, err
		}
		*kept = s
	}
	return *kept, nil
}

// dist returns a range as the snapshot's algorithm knows it.
func (s *snapshot) dist(d Distribution) any {
	if s.foreign {
		return d.forGoptuna()
	}
	return d
}

// SuggestFloat draws a number.
func (t *Trial) SuggestFloat(ctx context.Context, name string, d FloatDistribution) (float64, error) {
	x, err := t.suggest(ctx, name, d)
	return x, err
}

// SuggestInt draws a whole number.
func (t *Trial) SuggestInt(ctx context.Context, name string, d IntDistribution) (int, error) {
	x, err := t.suggest(ctx, name, d)
	return int(x), err
}

// SuggestChoice draws one of some choices.
func SuggestChoice[T bool | int | float64 | string](ctx context.Context, t *Trial, name string, choices ...T) (T, error) {
	i, err := t.suggest(ctx, name, Categorical(choices...))
	if err != nil {
		var none T
		return none, err
	}
	return choices[int(i)], nil
}

// suggest returns the internal value of a parameter. In this order it is what
// the trial has already (because it is a retry, or was asked before), what it was
// enqueued with, what was drawn together with others, the only one possible, or
// one drawn on its own.
func (t *Trial) suggest(ctx context.Context, name string, d Distribution) (float64, error) {
	fail := func(err error) (float64, error) { return 0, fmt.Errorf("parameter %s: %w", name, err) }
	if name == "" || len(name) > 512 {
		return fail(fmt.Errorf("a name of %d bytes: want 1 to 512", len(name)))
	}
	if err := d.Validate(); err != nil {
		return fail(err)
	}
	if x, ok := t.frozen.InternalParams[name]; ok {
		old, err := distributionOf(t.frozen, name)
		if err != nil {
			return fail(err)
		}
		if CheckCompatible(old, d) == nil && d.Contains(x) {
			return x, nil
		}
	}
	for _, past := range t.history {
		if old, err := distributionOf(past, name); err != nil {
			return fail(err)
		} else if old != nil {
			if err := CheckCompatible(old, d); err != nil {
				return fail(err)
			}
			break
		}
	}
	x, err := t.draw(ctx, name, d)
	if err != nil {
		return fail(err)
	}
	if err := t.run.Storage.SetParam(ctx, t.frozen.ID, name, x, d); err != nil {
		return fail(err)
	}
	t.frozen.InternalParams[name], t.frozen.Params[name], t.frozen.Distributions[name] = x, d.ToExternalRepr(x), d
	return x, nil
}

func (t *Trial) draw(ctx context.Context, name string, d Distribution) (float64, error) {
	if external, ok := t.fixed[name]; ok {
		x, err := d.ToInternalRepr(external)
		if err != nil {
			return 0, fmt.Errorf("the enqueued value: %w", err)
		}
		if !d.Contains(x) { // which is up to who has enqueued it
			t.run.log.Warn("an enqueued value is out of range", "trial", t.Number(), "parameter", name, "value", external, "range", d)
		}
		return x, nil
	}
	if d.Single() {
		return nearest(d, math.Inf(-1)), nil
	}
	x, ok := t.together[name]
	if known, in := t.space[name]; !ok || !in || !sameDistribution(known, d) {
		s, err := t.snapshot(ctx, t.run.Sampler)
		if err != nil {
			return 0, err
		}
		current, err := s.current(t.frozen)
		if err != nil {
			return 0, err
		}
		if x, err = t.run.Sampler.Sample(s.study, current, name, s.dist(d)); err != nil {
			return 0, err
		}
	}
	// Other samplers know a coarser range, and may be a rounding error outside.
	if x = nearest(d, x); !d.Contains(x) {
		return 0, fmt.Errorf("the sampler %T drew %v, which is not in %+v", t.run.Sampler, x, d)
	}
	return x, nil
}

// Report sets the objective's value at a step, which is 0 or more and need not
// be the next. Of one step, the first report counts.
func (t *Trial) Report(ctx context.Context, step int, value float64) error {
	if step < 0 {
		return fmt.Errorf("report at step %d: want 0 or more", step)
	}
	if _, again := t.frozen.IntermediateValues[step]; again {
		t.run.log.Warn("a step is reported again, which is ignored", "trial", t.Number(), "step", step)
		return nil
	}
	if err := t.run.Storage.Report(ctx, t.frozen.ID, step, value); err != nil {
		return fmt.Errorf("report at step %d: %w", step, err)
	}
	t.frozen.IntermediateValues[step] = value
	return nil
}

// ShouldPrune reports whether, judged by its reports, the trial should be given
// up.
func (t *Trial) ShouldPrune(ctx context.Context) (bool, error) {
	if t.run.Pruner == nil {
		return false, nil
	}
	trials, err := t.run.Storage.Trials(ctx, t.run.id)
	if err != nil {
		return false, err
	}
	s, err := newSnapshot(t.run.Name, t.run.Direction, trials, false, func(key, value string) error {
		return t.run.Storage.SetSystemAttr(ctx, t.frozen.ID, key, value)
	})
	if err != nil {
		return false, err
	}
	current, err := s.current(t.frozen)
	if err != nil {
		return false, err
	}
	return t.run.Pruner.Prune(s.study, current)
}

// SetAttr gives the trial a user attribute.
func (t *Trial) SetAttr(ctx context.Context, key string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("attribute %s: %w", key, err)
	}
	if err := t.run.Storage.SetUserAttr(ctx, t.frozen.ID, key, string(text)); err != nil {
		return fmt.Errorf("attribute %s: %w", key, err)
	}
	t.frozen.UserAttrs[key] = string(text)
	return nil
}

// lastValue returns the last report, which is the value of a pruned trial.
func (t *Trial) lastValue() float64 {
	if step := lastStep(t.frozen); step >= 0 {
		return t.frozen.IntermediateValues[step]
	}
	return math.NaN()
}
