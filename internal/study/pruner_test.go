package study

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
)

func TestGoldenPruner(t *testing.T) {
	for _, file := range golden.Glob(t, "optuna/pruner*.json") {
		var g struct {
			Scenarios []struct {
				ID, Note      string
				Direction     Direction
				StartupTrials int           `json:"n_startup_trials"`
				WarmupSteps   int           `json:"n_warmup_steps"`
				IntervalSteps int           `json:"interval_steps"`
				MinTrials     int           `json:"n_min_trials"`
				Others        []goldenTrial `json:"other_trials"`
				Reports       []goldenReport
				Want          []bool `json:"should_prune"`
			}
		}
		readGolden(t, file, &g)
		if len(g.Scenarios) == 0 {
			t.Errorf("%s has no scenarios", file)
		}
		for _, s := range g.Scenarios {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".json")+"/"+s.ID, func(t *testing.T) {
				if len(s.Reports) == 0 || len(s.Reports) != len(s.Want) {
					t.Fatalf("%d reports and %d answers", len(s.Reports), len(s.Want))
				}
				var trials []FrozenTrial
				for i, o := range s.Others {
					o.Number = i
					trials = append(trials, o.frozen(t, nil))
				}
				current := goldenTrial{Number: len(trials), State: "RUNNING"}.frozen(t, nil)
				study := plainStudy(t, s.Direction, append(trials, current))
				pruner := MedianPruner{s.StartupTrials, s.WarmupSteps, s.IntervalSteps, s.MinTrials}
				var got []bool
				for _, r := range s.Reports {
					if _, again := current.IntermediateValues[r.Step]; !again { // the first report of a step counts
						current.IntermediateValues[r.Step] = r.Value
					}
					prune, err := pruner.Prune(study, current)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, prune)
				}
				if diff := cmp.Diff(s.Want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", s.Note, diff)
				}
			})
		}
	}
}

func TestMedian(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	tests := []struct {
		values []float64
		want   float64 // what numpy.nanpercentile(values, 50) gives
	}{
		{nil, nan}, {[]float64{nan}, nan}, {[]float64{2}, 2}, {[]float64{3, 1}, 2}, {[]float64{nan, 3, 1, 2}, 2},
		{[]float64{inf}, nan}, {[]float64{1, 2, inf}, nan}, {[]float64{-inf, 1, 2}, 1}, {[]float64{-inf, 1}, -inf},
		{[]float64{1, inf}, nan}, {[]float64{1, 2, 3, inf}, 2.5}, {[]float64{1, inf, inf}, nan},
	}
	for _, test := range tests {
		got := median(test.values)
		if got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("median of %v = %v, want %v", test.values, got, test.want)
		}
	}
}
