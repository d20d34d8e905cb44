package study

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c-bata/goptuna"

	"github.com/criteria-go/criteria/internal/golden"
)

// These read reference results that Optuna computed.

// goldenFloat is a float64 whose JSON may be "nan", "inf" or "-inf", or null
// for NaN.
type goldenFloat float64

func (f *goldenFloat) UnmarshalJSON(text []byte) error {
	switch strings.Trim(string(text), `"`) {
	case "nan", "null":
		*f = goldenFloat(math.NaN())
	case "inf":
		*f = goldenFloat(math.Inf(1))
	case "-inf":
		*f = goldenFloat(math.Inf(-1))
	default:
		return json.Unmarshal(text, (*float64)(f))
	}
	return nil
}

// goldenReport is a step and the value reported there.
type goldenReport struct {
	Step  int
	Value float64
}

func (r *goldenReport) UnmarshalJSON(text []byte) error {
	var pair [2]goldenFloat
	if err := json.Unmarshal(text, &pair); err != nil {
		return err
	}
	r.Step, r.Value = int(pair[0]), float64(pair[1])
	return nil
}

type goldenTrial struct {
	Number  int
	State   string
	Value   goldenFloat
	Params  map[string]any
	Reports []goldenReport `json:"intermediate_values"`
}

var goldenStates = map[string]State{
	"RUNNING":  Running,
	"COMPLETE": Complete,
	"PRUNED":   Pruned,
	"FAIL":     Failed,
	"WAITING":  Waiting,
}

// frozen returns the trial with parameters of the given space.
func (g goldenTrial) frozen(t *testing.T, space map[string]Distribution) FrozenTrial {
	t.Helper()
	state, ok := goldenStates[g.State]
	if !ok {
		t.Fatalf("trial %d: unknown state %q", g.Number, g.State)
	}
	f := FrozenTrial{
		ID: g.Number, Number: g.Number, State: state, Value: float64(g.Value),
		Params: map[string]any{}, InternalParams: map[string]float64{}, Distributions: map[string]any{},
		IntermediateValues: map[int]float64{},
	}
	for name, external := range g.Params {
		x, err := space[name].ToInternalRepr(external)
		if err != nil {
			t.Fatalf("trial %d: %s: %v", g.Number, name, err)
		}
		f.Params[name], f.InternalParams[name], f.Distributions[name] = external, x, space[name]
	}
	for _, r := range g.Reports {
		f.IntermediateValues[r.Step] = r.Value
	}
	return f
}

// readGolden reads a file of the folder optuna into v.
func readGolden(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func goldenSpace(t *testing.T, raw map[string]json.RawMessage) map[string]Distribution {
	t.Helper()
	space := map[string]Distribution{}
	for name, text := range raw {
		d, err := UnmarshalDistribution(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		space[name] = d
	}
	return space
}

// plainStudy returns a study of goptuna with the given trials.
func plainStudy(t testing.TB, direction Direction, trials []FrozenTrial) *goptuna.Study {
	t.Helper()
	storage := goptuna.NewInMemoryStorage()
	for _, trial := range trials {
		if _, err := storage.CloneTrial(goptuna.InMemoryStorageStudyID, trial); err != nil {
			t.Fatal(err)
		}
	}
	s, err := goptuna.CreateStudy("plain", goptuna.StudyOptionStorage(storage),
		goptuna.StudyOptionDirection(direction), goptuna.StudyOptionLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGoldenTPE(t *testing.T) {
	const tolerance = 1e-9
	for _, file := range golden.Glob(t, "optuna/tpe*.json") {
		var g struct {
			Space map[string]json.RawMessage
			Cases []struct {
				Name   string
				Below  []int `json:"below_numbers"`
				Trials []goldenTrial
				Joint  struct {
					Order      []string
					Candidates [][]float64 `json:"candidates_internal"`
					L          []float64   `json:"log_l"`
					G          []float64   `json:"log_g"`
				}
				Single map[string]struct {
					Candidates []float64 `json:"candidates_internal"`
					L          []float64 `json:"log_l"`
					G          []float64 `json:"log_g"`
				}
			}
		}
		readGolden(t, file, &g)
		space := goldenSpace(t, g.Space)
		if len(g.Cases) == 0 {
			t.Errorf("%s has no cases", file)
		}
		for _, c := range g.Cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".json")+"/"+c.Name, func(t *testing.T) {
				below := map[int]bool{}
				for _, n := range c.Below {
					below[n] = true
				}
				var good, bad []FrozenTrial
				for _, trial := range c.Trials {
					f := trial.frozen(t, space)
					if below[f.Number] {
						good = append(good, f)
					} else {
						bad = append(bad, f)
					}
				}
				compare := func(what string, names []string, candidates [][]float64, wantL, wantG []float64) {
					if len(candidates) == 0 || len(candidates) != len(wantL) || len(candidates) != len(wantG) {
						t.Fatalf("%s: %d candidates with %d and %d densities", what, len(candidates), len(wantL), len(wantG))
					}
					var dists []Distribution
					for _, name := range names {
						dists = append(dists, space[name])
					}
					l := newParzen(dists, observations(good, names, dists))
					g := newParzen(dists, observations(bad, names, dists))
					for i, x := range candidates {
						if got := l.logDensity(x); !(math.Abs(got-wantL[i]) <= tolerance) {
							t.Errorf("%s: candidate %d: log l = %.15g, want %.15g", what, i, got, wantL[i])
						}
						if got := g.logDensity(x); !(math.Abs(got-wantG[i]) <= tolerance) {
							t.Errorf("%s: candidate %d: log g = %.15g, want %.15g", what, i, got, wantG[i])
						}
					}
				}
				compare("joint", c.Joint.Order, c.Joint.Candidates, c.Joint.L, c.Joint.G)
				for name, s := range c.Single {
					var column [][]float64
					for _, x := range s.Candidates {
						column = append(column, []float64{x})
					}
					compare(name, []string{name}, column, s.L, s.G)
				}

				// The division into good and bad, in whichever direction gives it:
				// the file does not say which was meant.
				var all []FrozenTrial
				for _, trial := range c.Trials {
					all = append(all, trial.frozen(t, space))
				}
				divided := func(direction Direction) bool {
					good, _ := split(all, direction, -1)
					for _, f := range good {
						if !below[f.Number] {
							return false
						}
					}
					return len(good) == len(below)
				}
				if !divided(Maximize) && !divided(Minimize) {
					t.Errorf("split gives other good trials than %v", c.Below)
				}
			})
		}
	}
}
