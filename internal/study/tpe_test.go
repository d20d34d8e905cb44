package study

import (
	"math"
	"slices"
	"testing"

	"github.com/c-bata/goptuna"
	"github.com/google/go-cmp/cmp"
)

func TestRandomReachesBothBounds(t *testing.T) {
	const draws = 12000
	tests := map[string]struct {
		dist Distribution
		want []float64 // the probability of each internal value, in order
	}{
		"int":         {IntDistribution{Low: 0, High: 3}, []float64{.25, .25, .25, .25}},
		"int step":    {IntDistribution{Low: 2, High: 7, Step: 2}, []float64{1. / 3, 1. / 3, 1. / 3}},
		"float step":  {FloatDistribution{Low: 0, High: .2, Step: .1}, []float64{1. / 3, 1. / 3, 1. / 3}},
		"categorical": {Categorical(4, 8, 16), []float64{1. / 3, 1. / 3, 1. / 3}},
		"int log": {IntDistribution{Low: 1, High: 3, Log: true}, []float64{
			math.Log(1.5/.5) / math.Log(3.5/.5), math.Log(2.5/1.5) / math.Log(3.5/.5), math.Log(3.5/2.5) / math.Log(3.5/.5),
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := test.dist.Validate(); err != nil {
				t.Fatal(err)
			}
			counts := map[float64]int{}
			for n := range draws {
				x, err := Random{Seed: 1}.Sample(nil, FrozenTrial{Number: n}, "x", test.dist)
				if err != nil {
					t.Fatal(err)
				}
				counts[x]++
			}
			if len(counts) != len(test.want) {
				t.Errorf("%d different values, want %d: %v", len(counts), len(test.want), counts)
			}
			var values []float64
			for x := range counts {
				values = append(values, x)
				if !test.dist.Contains(x) {
					t.Errorf("%v is not in %+v", x, test.dist)
				}
			}
			slices.Sort(values)
			for i, want := range test.want {
				got := float64(counts[values[i]]) / draws
				if bound := 5 * math.Sqrt(want*(1-want)/draws); math.Abs(got-want) > bound {
					t.Errorf("%v has a share of %.4f, want %.4f ± %.4f", values[i], got, want, bound)
				}
			}
		})
	}
}

// history returns n complete trials of two parameters, drawn at random, whose
// value is highest at x = 0.7, n = 12.
func history(t testing.TB, n int) []FrozenTrial {
	t.Helper()
	var trials []FrozenTrial
	for i := range n {
		f := FrozenTrial{
			ID: i, Number: i, State: Complete,
			InternalParams: map[string]float64{}, Distributions: map[string]any{},
		}
		for name, d := range twoParams {
			x, err := Random{Seed: 3}.Sample(nil, f, name, d)
			if err != nil {
				t.Fatal(err)
			}
			f.InternalParams[name], f.Distributions[name] = x, d
		}
		f.Value = -math.Abs(f.InternalParams["x"]-0.7) - math.Abs(math.Log(f.InternalParams["n"]/12))
		trials = append(trials, f)
	}
	return trials
}

var twoParams = map[string]any{
	"x": FloatDistribution{Low: 0, High: 1},
	"n": IntDistribution{Low: 1, High: 1000, Log: true},
}

func relative(t testing.TB, s *TPE, number int, trials []FrozenTrial) map[string]float64 {
	t.Helper()
	current := FrozenTrial{ID: len(trials), Number: number, State: Running}
	study := plainStudy(t, Maximize, append(trials[:len(trials):len(trials)], FrozenTrial{
		ID: len(trials), Number: number, State: Running, SystemAttrs: map[string]string{},
	}))
	params, err := s.SampleRelative(study, current, twoParams)
	if err != nil {
		t.Fatal(err)
	}
	return params
}

func TestTPEDependsOnSeedAndNumber(t *testing.T) {
	trials := history(t, 20)
	first := relative(t, NewTPE(7), 20, trials)
	if diff := cmp.Diff(first, relative(t, NewTPE(7), 20, trials)); diff != "" {
		t.Errorf("the same seed and number draw something else:\n%s", diff)
	}
	if cmp.Equal(first, relative(t, NewTPE(8), 20, trials)) {
		t.Error("another seed draws the same")
	}
	if cmp.Equal(first, relative(t, NewTPE(7), 21, trials)) {
		t.Error("another trial draws the same")
	}
}

func TestTPEStartsAtRandom(t *testing.T) {
	if got := relative(t, NewTPE(7), 9, history(t, 9)); got != nil {
		t.Errorf("with 9 trials the parameters together are %v, want none", got)
	}
	if got := relative(t, NewTPE(7), 10, history(t, 10)); len(got) != 2 {
		t.Errorf("with 10 trials the parameters together are %v, want two", got)
	}
}

func TestTPESearchesWhereItIsGood(t *testing.T) {
	trials := history(t, 60)
	distance := func(draw func(number int) map[string]float64) (sum float64) {
		const n = 40
		for i := range n {
			p := draw(1000 + i)
			sum += (math.Abs(p["x"]-0.7) + math.Abs(math.Log(p["n"]/12))) / n
		}
		return sum
	}
	random := distance(func(number int) map[string]float64 {
		p := map[string]float64{}
		for name, d := range twoParams {
			p[name], _ = Random{Seed: 5}.Sample(nil, FrozenTrial{Number: number}, name, d)
		}
		return p
	})
	tpe := distance(func(number int) map[string]float64 { return relative(t, NewTPE(5), number, trials) })
	if tpe > random/2 {
		t.Errorf("TPE draws %.2f from the best point, random search %.2f: want at most half", tpe, random)
	}
}

// TestConstantLiar checks that a running trial pushes others away, whether its
// parameters are set or only announced.
func TestConstantLiar(t *testing.T) {
	set := FrozenTrial{Number: 60, State: Running, InternalParams: map[string]float64{"x": .7, "n": 12}}
	announced := FrozenTrial{Number: 60, State: Running,
		SystemAttrs: map[string]string{relativeParamsKey(0): `{"x": 0.7, `, relativeParamsKey(1): `"n": 12}`}}
	names := []string{"n", "x"}
	_, dists, err := toSpace(twoParams)
	if err != nil {
		t.Fatal(err)
	}
	density := func(extra ...FrozenTrial) float64 {
		_, bad := split(append(history(t, 60), extra...), Maximize, 61)
		return newParzen(dists, observations(bad, names, dists)).logDensity([]float64{12, .7})
	}
	alone, withSet, withAnnounced := density(), density(set), density(announced)
	if !(withSet > alone) {
		t.Errorf("log density of the bad trials at a running one: %v with it, %v without: want more", withSet, alone)
	}
	if withSet != withAnnounced {
		t.Errorf("announced parameters count %v, set ones %v", withAnnounced, withSet)
	}
	torn := announced
	torn.SystemAttrs = map[string]string{relativeParamsKey(0): `{"x": 0.7, `}
	if got := density(torn); got != alone {
		t.Errorf("half an announcement changes the density from %v to %v", alone, got)
	}
	torn.Number = 61 // the trial that is sampled
	torn.InternalParams = set.InternalParams
	if got := density(torn); got != alone {
		t.Errorf("the trial itself counts: %v, without %v", got, alone)
	}
}

func TestSplit(t *testing.T) {
	trial := func(number int, state State, value float64, reports map[int]float64) FrozenTrial {
		return FrozenTrial{Number: number, State: state, Value: value, IntermediateValues: reports}
	}
	nan := math.NaN()
	trials := []FrozenTrial{
		trial(0, Pruned, nan, map[int]float64{0: .9}),
		trial(1, Pruned, nan, map[int]float64{0: .1, 3: nan}),
		trial(2, Pruned, nan, map[int]float64{0: .1, 3: .2}),
		trial(3, Pruned, nan, nil),
		trial(4, Running, nan, map[int]float64{9: 1}),
		trial(5, Failed, nan, nil),
		trial(6, Waiting, nan, nil),
	}
	for i := range 17 {
		state := Pruned
		reports := map[int]float64{1: float64(i)}
		if i == 0 {
			state = Complete
		}
		trials = append(trials, trial(10+i, state, float64(i), reports))
	}
	numbers := func(trials []FrozenTrial) (n []int) {
		for _, f := range trials {
			n = append(n, f.Number)
		}
		return n
	}
	// 21 are finished, so 3 are good: the complete one, then the pruned ones that
	// came to step 3, a number before none.
	good, bad := split(trials, Maximize, -1)
	if diff := cmp.Diff([]int{1, 2, 10}, numbers(good)); diff != "" {
		t.Errorf("good trials (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{0, 3, 4, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26}, numbers(bad)); diff != "" {
		t.Errorf("bad trials (-want +got):\n%s", diff)
	}
}

// TestConditional checks that a parameter only some trials have is estimated
// from these alone, and that one of a single value is not drawn.
func TestConditional(t *testing.T) {
	trials := history(t, 30)
	for i := range trials {
		if i%3 == 0 {
			trials[i].InternalParams["depth"] = 2
			trials[i].Distributions["depth"] = IntDistribution{Low: 0, High: 9}
		}
	}
	study := plainStudy(t, Maximize, trials)
	counts := map[float64]int{}
	for n := range 100 {
		x, err := NewTPE(1).Sample(study, FrozenTrial{Number: 100 + n}, "depth", IntDistribution{Low: 0, High: 9})
		if err != nil {
			t.Fatal(err)
		}
		counts[x]++
	}
	if counts[2] > 20 {
		t.Errorf("2, which nine of ten trials showed to be bad, is drawn %d times of 100: %v", counts[2], counts)
	}
	x, err := NewTPE(1).Sample(study, FrozenTrial{Number: 30}, "one", IntDistribution{Low: 5, High: 5})
	if err != nil || x != 5 {
		t.Errorf("a range of one value gives %v, %v", x, err)
	}
}

// TestPlainGoptuna checks that TPE drives a study of goptuna, whose ranges and
// storage are its own.
func TestPlainGoptuna(t *testing.T) {
	tpe := NewTPE(1)
	space := map[string]any{
		"x": goptuna.UniformDistribution{Low: -5, High: 5},
		"y": goptuna.IntUniformDistribution{Low: -5, High: 5},
		"z": goptuna.CategoricalDistribution{Choices: []string{"a", "b"}},
	}
	study, err := goptuna.CreateStudy("plain", goptuna.StudyOptionSampler(tpe), goptuna.StudyOptionRelativeSampler(tpe),
		goptuna.StudyOptionDefineSearchSpace(space), goptuna.StudyOptionLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	err = study.Optimize(func(trial goptuna.Trial) (float64, error) {
		x, err := trial.SuggestFloat("x", -5, 5)
		if err != nil {
			return 0, err
		}
		y, err := trial.SuggestInt("y", -5, 5)
		if err != nil {
			return 0, err
		}
		z, err := trial.SuggestCategorical("z", []string{"a", "b"})
		if err != nil {
			return 0, err
		}
		loss := math.Pow(x-1, 2) + math.Pow(float64(y-3), 2)
		if z == "a" {
			loss += 5
		}
		return loss, nil
	}, 60)
	if err != nil {
		t.Fatal(err)
	}
	best, err := study.GetBestValue()
	if err != nil || best > 1 {
		t.Errorf("after 60 trials the best loss is %v (%v), want below 1", best, err)
	}
}

func BenchmarkTPE(b *testing.B) {
	trials := history(b, 100)
	study := plainStudy(b, Maximize, trials)
	tpe := NewTPE(1)
	b.ReportAllocs()
	for i := range b.N {
		if _, err := tpe.Sample(study, FrozenTrial{Number: 100 + i}, "x", twoParams["x"]); err != nil {
			b.Fatal(err)
		}
	}
}
