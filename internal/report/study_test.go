package report_test

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/report"
)

// space has every kind of axis.
var space = []report.Param{
	{Name: "head_layers", Low: 0, High: 3},
	{Name: "hidden_dim", Low: 64, High: 1024, Log: true},
	{Name: "pooling_strategy", Choices: []any{"cls", "mean", "max"}},
	{Name: "activation", Choices: []any{"relu", "gelu", "tanh"}},
	{Name: "dropout", Low: 0, High: 0.5},
	{Name: "learning_rate", Low: 1e-6, High: 1e-4, Log: true},
	{Name: "batch_size", Choices: []any{4, 8, 16, 32, 64}},
	{Name: "warmup_ratio", Low: 0, High: 0.3},
	{Name: "weight_decay", Low: 0, High: 0.1},
	{Name: "scheduler", Choices: []any{"linear", "cosine", "constant"}},
}

// search invents a search that gets better with time.
func search(n int) report.Search {
	rng := rand.New(rand.NewPCG(1, 2))
	s := report.Search{Title: "Search debertav3-criteria-hpo: " + fmt.Sprint(n) + " trials", Objective: "best_val_macro_f1", Maximize: true, Params: space}
	for i := range n {
		pull := math.Min(1, float64(i)/20)
		lr := math.Pow(10, -6+2*rng.Float64()*(1-pull)+1.3*pull)
		t := report.Trial{Number: i, State: report.Complete, Params: map[string]any{
			"head_layers":      rng.IntN(4),
			"pooling_strategy": []any{"cls", "mean", "max"}[rng.IntN(3)],
			"activation":       []any{"relu", "gelu", "tanh"}[rng.IntN(3)],
			"dropout":          rng.Float64() / 2,
			"learning_rate":    lr,
			"batch_size":       4 << rng.IntN(5),
			"warmup_ratio":     rng.Float64() * 0.3,
			"weight_decay":     rng.Float64() * 0.1,
			"scheduler":        []any{"linear", "cosine", "constant"}[rng.IntN(3)],
		}}
		if t.Params["head_layers"] != 0 { // conditional
			t.Params["hidden_dim"] = int(math.Exp2(6 + 4*rng.Float64()))
		}
		t.Value = 0.93 - 0.12*math.Pow(math.Log10(lr)+4.6, 2) - 0.05*rng.Float64()
		switch rng.IntN(6) {
		case 0:
			t.State, t.Value = report.Pruned, t.Value-0.08
		case 1:
			if rng.IntN(3) == 0 {
				t.State, t.Value = report.Failed, math.NaN()
			}
		}
		s.Trials = append(s.Trials, t)
	}
	return s
}

func with(s report.Search, change func(*report.Search)) report.Search {
	change(&s)
	return s
}

// searches are what the pictures must bear.
func searches() map[string]report.Search {
	one := func(t report.Trial) []report.Trial { return []report.Trial{t} }
	params := map[string]any{"learning_rate": 1e-5, "batch_size": 16}
	return map[string]report.Search{
		"many": search(30),
		"most": search(150),
		"few":  search(4),
		"minimize": with(search(30), func(s *report.Search) {
			s.Maximize, s.Objective = false, "val_loss"
			for i := range s.Trials {
				s.Trials[i].Value = 1 - s.Trials[i].Value
			}
		}),
		"one":    {Title: "One trial", Objective: "f1", Params: space, Trials: one(report.Trial{Number: 7, State: report.Complete, Value: 0.5, Params: params})},
		"pruned": {Title: "Only pruned", Objective: "f1", Params: space, Trials: one(report.Trial{State: report.Pruned, Value: 0.5, Params: params})},
		"failed": {Title: "Only failed", Objective: "f1", Params: space, Trials: one(report.Trial{State: report.Failed, Value: math.NaN(), Params: params})},
		"none":   {Title: "None", Objective: "f1", Params: space},
		"plain":  with(search(10), func(s *report.Search) { s.Params = nil }),
		"narrow": with(search(25), func(s *report.Search) {
			s.Params = []report.Param{{Name: "learning_rate", Low: 1.2e-5, High: 4.5e-5, Log: true}, {Name: "dropout", Low: 0.1, High: 0.1}}
			for i := range s.Trials {
				s.Trials[i].Params = map[string]any{"learning_rate": 1.2e-5 * (1 + float64(i)/10), "dropout": 0.1}
			}
		}),
		"equal": with(search(10), func(s *report.Search) {
			for i := range s.Trials {
				s.Trials[i].Value = 0
			}
		}),
		"infinite": with(search(10), func(s *report.Search) {
			for i := range s.Trials {
				s.Trials[i].Value = []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0.3}[i%4]
				s.Trials[i].Params["dropout"] = math.NaN()
			}
		}),
		// The choices are integers, one of which is not among them any more, and
		// JSON made floats of some.
		"integers": with(search(12), func(s *report.Search) {
			s.Params = []report.Param{{Name: "batch_size", Choices: []any{4, 8, 16, 32}}, {Name: "flag", Choices: []any{true, false, nil}}, {Name: "only", Choices: []any{"one"}}}
			for i := range s.Trials {
				s.Trials[i].Params = map[string]any{"batch_size": []any{4, 8.0, 16, 64}[i%4], "flag": []any{true, false, nil}[i%3], "only": "one"}
			}
		}),
	}
}

func TestSearchPictures(t *testing.T) {
	for picture, render := range map[string]func(report.Search) ([]byte, error){
		"history":  report.OptimizationHistory,
		"slice":    report.Slice,
		"parallel": report.ParallelCoordinate,
	} {
		for name, s := range searches() {
			t.Run(picture+"/"+name, func(t *testing.T) {
				t.Parallel()
				first, err := render(s)
				if err != nil {
					t.Fatal(err)
				}
				decode(t, picture+"_"+name+".png", first)
				for i, j := 0, len(s.Trials)-1; i < j; i, j = i+1, j-1 { // the order must not matter
					s.Trials[i], s.Trials[j] = s.Trials[j], s.Trials[i]
				}
				again, err := render(s)
				if err != nil || !bytes.Equal(first, again) {
					t.Errorf("the same trials gave two different pictures (%v)", err)
				}
			})
		}
	}
}

// TestHistoryFollowsDirection looks for the line of the best value so far: with
// the largest best it only rises, with the smallest it only falls.
func TestHistoryFollowsDirection(t *testing.T) {
	s := report.Search{Objective: "f1", Maximize: true}
	for i, v := range []float64{0.2, 0.8, 0.1, 0.9, 0.5} {
		s.Trials = append(s.Trials, report.Trial{Number: i, State: report.Complete, Value: v})
	}
	up, err := report.OptimizationHistory(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Maximize = false
	down, err := report.OptimizationHistory(s)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := orangeNearRight(t, up), orangeNearRight(t, down); a >= b {
		t.Errorf("the line ends %d pixels below the top if the largest value is best, %d if the smallest is", a, b)
	}
}

// orangeNearRight returns the row of the first orange pixel, left of the right
// end of the line and below the legend.
func orangeNearRight(t *testing.T, content []byte) int {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for y := 140; y < img.Bounds().Dy(); y++ {
		for x := 1100; x < 1170; x++ {
			if r, g, b, _ := img.At(x, y).RGBA(); r>>8 == 0xd9 && g>>8 == 0x6b && b>>8 == 0x1e {
				return y
			}
		}
	}
	t.Fatal("no line of the best value")
	return 0
}

func TestSearchPicturesRefuse(t *testing.T) {
	for name, tc := range map[string]struct {
		param report.Param
		value any
		want  string
	}{
		"text":     {report.Param{Name: "dropout", Low: 0, High: 1}, "high", "dropout of trial 3 is high, want a number"},
		"zero":     {report.Param{Name: "rate", Log: true}, 0.0, "rate of trial 3 is 0, want a positive number"},
		"negative": {report.Param{Name: "rate", Low: -1, High: 1, Log: true}, 0.5, "from -1, want a positive bound"},
	} {
		s := report.Search{Objective: "f1", Params: []report.Param{tc.param}, Trials: []report.Trial{
			{Number: 3, State: report.Complete, Value: 1, Params: map[string]any{tc.param.Name: tc.value}},
		}}
		for picture, render := range map[string]func(report.Search) ([]byte, error){"slice": report.Slice, "parallel": report.ParallelCoordinate} {
			if _, err := render(s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s of %s: error %v, want %q", picture, name, err, tc.want)
			}
		}
	}
}

func TestParamImportances(t *testing.T) {
	names := make([]report.Importance, len(space))
	rest := 1.0
	for i, p := range space {
		share := rest * 0.55
		rest -= share
		names[(i*7+3)%len(space)] = report.Importance{Name: p.Name, Share: share}
	}
	for name, list := range map[string][]report.Importance{
		"many":   names,
		"one":    {{Name: "learning_rate", Share: 1}},
		"zero":   {{Name: "learning_rate"}, {Name: "dropout"}},
		"even":   {{"a", 0.25}, {"b", 0.25}, {"c", 0.25}, {"d", 0.25}},
		"none":   nil,
		"prefix": {{"a_parameter_with_a_name_that_is_far_too_long_for_any_picture", 0.9}, {"b", 0.1}},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := report.ParamImportances("Which hyperparameters mattered", "best_val_macro_f1", "fANOVA", list)
			if err != nil {
				t.Fatal(err)
			}
			decode(t, "importances_"+name+".png", content)
		})
	}
	other, err := report.ParamImportances("Which hyperparameters mattered", "best_val_macro_f1", "PED-ANOVA", names)
	if err != nil {
		t.Fatal(err)
	}
	same, err := report.ParamImportances("Which hyperparameters mattered", "best_val_macro_f1", "fANOVA", names)
	if err != nil || bytes.Equal(other, same) {
		t.Errorf("the evaluator is not in the picture (%v)", err)
	}
	for _, share := range []float64{math.NaN(), -0.1, 1.5} {
		if _, err := report.ParamImportances("", "f1", "fANOVA", []report.Importance{{"a", share}}); err == nil {
			t.Errorf("importance %v: no error", share)
		}
	}
}
