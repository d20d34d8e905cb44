package study

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Importance says how much a hyperparameter mattered: a share, all of which add
// up to 1.
type Importance struct {
	Name  string
	Share float64
}

// ErrTooFewTrials is returned where importances are asked of fewer than two
// complete trials with finite values.
var ErrTooFewTrials = errors.New("importances need at least two complete trials")

// ErrNoVariance is returned where all trials have the same value, so that
// nothing can be said.
var ErrNoVariance = errors.New("importances need trials of different values")

// judged returns the complete trials with finite values.
func judged(trials []FrozenTrial) ([]FrozenTrial, error) {
	var kept []FrozenTrial
	for _, t := range trials {
		if t.State == Complete && isFinite(t.Value) {
			kept = append(kept, t)
		}
	}
	if len(kept) < 2 {
		return nil, fmt.Errorf("%w, there are %d", ErrTooFewTrials, len(kept))
	}
	return kept, nil
}

// distributionOf returns the range that a trial drew a parameter from, or nil.
func distributionOf(t FrozenTrial, name string) (Distribution, error) {
	raw, ok := t.Distributions[name]
	if !ok {
		return nil, nil
	}
	d, err := toDistribution(raw)
	if err != nil {
		return nil, fmt.Errorf("trial %d: parameter %s: %w", t.Number, name, err)
	}
	return d, nil
}

// intersection returns the parameters that all finished trials of the given
// states have, with one and the same range.
func intersection(trials []FrozenTrial, states ...State) (map[string]any, error) {
	var space map[string]any
	for _, t := range trials {
		if !slices.Contains(states, t.State) {
			continue
		}
		if space == nil {
			space = map[string]any{}
			for name := range t.Distributions {
				d, err := distributionOf(t, name)
				if err != nil {
					return nil, err
				}
				space[name] = d
			}
			continue
		}
		for name, d := range space {
			other, err := distributionOf(t, name)
			if err != nil {
				return nil, err
			}
			if other == nil || !sameDistribution(d.(Distribution), other) {
				delete(space, name)
			}
		}
	}
	return space, nil
}

// shares normalises importances and sorts them, the largest first. If all are 0,
// each has the same share.
func shares(raw map[string]float64) []Importance {
	sum := 0.0
	list := make([]Importance, 0, len(raw))
	for name, v := range raw {
		list = append(list, Importance{name, v})
	}
	// Sorted before they are added up: a map's order would show in the last bit.
	slices.SortFunc(list, func(a, b Importance) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name))
	})
	for _, i := range list {
		sum += i.Share
	}
	for i := range list {
		if sum > 0 {
			list[i].Share /= sum
		} else {
			list[i].Share = 1 / float64(len(list))
		}
	}
	return list
}
