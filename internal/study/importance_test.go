package study

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
)

func TestGoldenImportance(t *testing.T) {
	for _, file := range golden.Glob(t, "optuna/importance/*.json") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			var g struct {
				Direction Direction
				Space     map[string]json.RawMessage
				Trials    []goldenTrial
				Fanova    struct{ Mean, Min, Max map[string]float64 }
				PED       struct{ Values, Raw map[string]float64 } `json:"ped_anova"`
			}
			readGolden(t, file, &g)
			space := goldenSpace(t, g.Space)
			var trials []FrozenTrial
			for _, trial := range g.Trials {
				trials = append(trials, trial.frozen(t, space))
			}
			direction := Direction(strings.ToLower(string(g.Direction)))
			if len(g.Fanova.Mean) == 0 || len(g.PED.Values) == 0 {
				t.Fatal("no reference values")
			}
			t.Run("fANOVA", func(t *testing.T) {
				// Forests differ, so the mean of five is compared with Optuna's.
				const seeds = 5
				got := map[string]float64{}
				for seed := range seeds {
					shares, err := FANOVA(trials, uint64(seed))
					if err != nil {
						t.Fatal(err)
					}
					for _, i := range shares {
						got[i.Name] += i.Share / seeds
					}
				}
				checkNames(t, g.Fanova.Mean, got)
				for name, want := range g.Fanova.Mean {
					bound := max(0.05, 2*(g.Fanova.Max[name]-g.Fanova.Min[name]))
					if !(math.Abs(got[name]-want) <= bound) {
						t.Errorf("%s: %.4f, want %.4f ± %.4f", name, got[name], want, bound)
					}
				}
				want := ranked(g.Fanova.Mean)
				if lead := g.Fanova.Mean[want[0]] - g.Fanova.Mean[want[1]]; lead > 0.1 && ranked(got)[0] != want[0] {
					t.Errorf("%s is first, want %s", ranked(got)[0], want[0])
				}
			})
			t.Run("PED-ANOVA", func(t *testing.T) {
				const tolerance = 1e-9
				shares, err := PEDANOVA(trials, direction)
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]float64{}
				for _, i := range shares {
					got[i.Name] = i.Share
				}
				raw, err := pedAnova(trials, direction)
				if err != nil {
					t.Fatal(err)
				}
				checkNames(t, g.PED.Values, got)
				for name, want := range g.PED.Values {
					if !(math.Abs(got[name]-want) <= tolerance) {
						t.Errorf("%s: share %.12f, want %.12f", name, got[name], want)
					}
					if want := g.PED.Raw[name]; !(math.Abs(raw[name]-want) <= tolerance) {
						t.Errorf("%s: %.12f, want %.12f", name, raw[name], want)
					}
				}
			})
		})
	}
}

func checkNames(t *testing.T, want, got map[string]float64) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
}

func ranked(m map[string]float64) []string {
	names := slices.Collect(maps.Keys(m))
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case m[a] > m[b]:
			return -1
		case m[a] < m[b]:
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

// linear returns trials of y = 4·a + 2·b + 0·c, over the grid of all values.
func linear() []FrozenTrial {
	var trials []FrozenTrial
	unit := FloatDistribution{Low: 0, High: 1}
	dists := map[string]any{"a": unit, "b": unit, "c": Categorical("x", "y"), "one": IntDistribution{Low: 3, High: 3}}
	for i := range 8 {
		for k := range 8 {
			for c := range 2 {
				a, b := (float64(i)+.5)/8, (float64(k)+.5)/8
				trials = append(trials, FrozenTrial{
					Number: len(trials), State: Complete, Value: 4*a + 2*b,
					InternalParams: map[string]float64{"a": a, "b": b, "c": float64(c), "one": 3}, Distributions: dists,
				})
			}
		}
	}
	return trials
}

// TestFANOVAOfKnownFunction uses that the parts of a linear function have
// variances in the ratio of the squared slopes.
func TestFANOVAOfKnownFunction(t *testing.T) {
	shares, err := FANOVA(linear(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{"a": 0.8, "b": 0.2, "c": 0, "one": 0}
	for _, i := range shares {
		if math.Abs(i.Share-want[i.Name]) > 0.03 {
			t.Errorf("%s: %.3f, want %.3f", i.Name, i.Share, want[i.Name])
		}
	}
	again, err := FANOVA(linear(), 1)
	if diff := cmp.Diff(shares, again); err != nil || diff != "" {
		t.Errorf("the same seed gives something else (%v):\n%s", err, diff)
	}
}

func TestImportanceNeedsTrials(t *testing.T) {
	trials := linear()
	for i := range trials[1:] {
		trials[1+i].State = Pruned
	}
	if _, err := FANOVA(trials, 1); !errors.Is(err, ErrTooFewTrials) {
		t.Errorf("fANOVA of one trial: %v, want ErrTooFewTrials", err)
	}
	if _, err := PEDANOVA(trials, Maximize); !errors.Is(err, ErrTooFewTrials) {
		t.Errorf("PED-ANOVA of one trial: %v, want ErrTooFewTrials", err)
	}
	trials = linear()
	for i := range trials {
		trials[i].Value = 1
	}
	if _, err := FANOVA(trials, 1); !errors.Is(err, ErrNoVariance) {
		t.Errorf("fANOVA of equal trials: %v, want ErrNoVariance", err)
	}
	shares, err := PEDANOVA(trials, Maximize)
	if err != nil || shares[0].Share != 0.25 {
		t.Errorf("PED-ANOVA of equal trials: %v, %v, want equal shares", shares, err)
	}
}

func BenchmarkFANOVA(b *testing.B) {
	trials := linear()
	for range b.N {
		if _, err := FANOVA(trials, 1); err != nil {
			b.Fatal(err)
		}
	}
}
