package study

import (
	"math"
	"testing"

	"github.com/c-bata/goptuna"
	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/memwatch"
)

func TestDistributionJSON(t *testing.T) {
	tests := []struct {
		dist Distribution
		want string
	}{
		{IntDistribution{Low: 64, High: 1024, Step: 1, Log: true}, `{"name":"IntDistribution","attributes":{"high":1024,"log":true,"low":64,"step":1}}`},
		{IntDistribution{Low: 0, High: 6, Step: 3}, `{"name":"IntDistribution","attributes":{"high":6,"log":false,"low":0,"step":3}}`},
		{FloatDistribution{Low: 1e-6, High: 1e-4, Log: true}, `{"name":"FloatDistribution","attributes":{"high":0.0001,"log":true,"low":0.000001,"step":null}}`},
		{FloatDistribution{Low: 0, High: 1, Step: .5}, `{"name":"FloatDistribution","attributes":{"high":1.0,"log":false,"low":0.0,"step":0.5}}`},
		{CategoricalDistribution{Choices: []any{nil, true, 4, 4.5, 5.0, "cls"}}, `{"name":"CategoricalDistribution","attributes":{"choices":[null,true,4,4.5,5.0,"cls"]}}`},
	}
	for _, test := range tests {
		got, err := MarshalDistribution(test.dist)
		if err != nil {
			t.Errorf("%+v: %v", test.dist, err)
			continue
		}
		if diff := cmp.Diff(test.want, string(got)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.dist, diff)
		}
		back, err := UnmarshalDistribution(got)
		if err != nil {
			t.Errorf("%s: %v", got, err)
		}
		if diff := cmp.Diff(test.dist, back); diff != "" {
			t.Errorf("%s (-want +got):\n%s", got, diff)
		}
	}
	for _, bad := range []string{
		``, `[]`, `{}`, `{"name":"NormalDistribution","attributes":{}}`,
		`{"name":"IntDistribution","attributes":{"low":1}}`,
		`{"name":"IntDistribution","attributes":{"low":1.5,"high":3}}`,
		`{"name":"IntDistribution","attributes":{"low":0,"high":3,"log":true}}`,
		`{"name":"IntDistribution","attributes":{"low":0,"high":1e300}}`,
		`{"name":"FloatDistribution","attributes":{"low":2,"high":1}}`,
		`{"name":"FloatDistribution","attributes":{"low":1,"high":2,"step":-1}}`,
		`{"name":"CategoricalDistribution","attributes":{"choices":[]}}`,
		`{"name":"CategoricalDistribution","attributes":{"choices":[[1]]}}`,
		`{"name":"CategoricalDistribution","attributes":{"choices":[1,1.0]}}`,
	} {
		if d, err := UnmarshalDistribution([]byte(bad)); err == nil {
			t.Errorf("%s is read as %+v, want an error", bad, d)
		}
	}
}

func FuzzUnmarshalDistribution(f *testing.F) {
	f.Add([]byte(`{"name": "IntDistribution", "attributes": {"log": true, "step": 1, "low": 64, "high": 1024}}`))
	f.Add([]byte(`{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-06, "high": 0.0001, "log": true}}`))
	f.Add([]byte(`{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8.0, "x", null, true]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		memwatch.Start(t, len(text))
		d, err := UnmarshalDistribution(text)
		if err != nil {
			return
		}
		again, err := MarshalDistribution(d)
		if err != nil {
			t.Fatalf("%s is read but not written: %v", text, err)
		}
		back, err := UnmarshalDistribution(again)
		if err != nil || !sameDistribution(d, back) {
			t.Fatalf("%s becomes %s, which is %+v (%v)", text, again, back, err)
		}
		if x := nearest(d, 0); !d.Contains(x) {
			t.Fatalf("%s: the value nearest to 0 is %v, which is outside", text, x)
		}
	})
}

func TestRepresentations(t *testing.T) {
	tests := []struct {
		dist     Distribution
		external any
		internal float64
		ok       bool
	}{
		{IntDistribution{Low: 1, High: 5}, 5, 5, true},
		{IntDistribution{Low: 1, High: 5}, 6, 6, true}, // out of range, but a number
		{IntDistribution{Low: 1, High: 5, Log: true}, 0, 0, false},
		{FloatDistribution{Low: 1, High: 5}, math.NaN(), 0, false},
		{IntDistribution{Low: 1, High: 5, Step: 2}, 4, 4, true},
		{IntDistribution{Low: 1, High: 5}, "5", 0, false},
		{FloatDistribution{Low: 0, High: 1}, 0.25, 0.25, true},
		{FloatDistribution{Low: 0, High: 1, Step: .1}, .1 + .1 + .1, .1 + .1 + .1, true},
		{FloatDistribution{Low: 0, High: 1}, true, 0, false},
		{Categorical("a", "b"), "b", 1, true},
		{Categorical("a", "b"), "c", 0, false},
		{Categorical(4, 8), 8.0, 1, true}, // as JSON has it
		{Categorical(4, 8), "8", 0, false},
		{Categorical(true, false), false, 1, true},
	}
	for _, test := range tests {
		got, err := test.dist.ToInternalRepr(test.external)
		if (err == nil) != test.ok || got != test.internal {
			t.Errorf("%v in %+v is %v (%v), want %v, %v", test.external, test.dist, got, err, test.internal, test.ok)
			continue
		}
		if test.ok && !sameChoice(test.dist.ToExternalRepr(got), test.external) {
			t.Errorf("%v in %+v comes back as %v", test.external, test.dist, test.dist.ToExternalRepr(got))
		}
	}
}

func TestCheckCompatible(t *testing.T) {
	float, logFloat := FloatDistribution{Low: 1, High: 2}, FloatDistribution{Low: 1, High: 2, Log: true}
	tests := []struct {
		old, new Distribution
		ok       bool
	}{
		{float, FloatDistribution{Low: 0, High: 9}, true},
		{float, logFloat, false},
		{float, IntDistribution{Low: 1, High: 2}, false},
		{IntDistribution{Low: 1, High: 2}, IntDistribution{Low: 1, High: 2, Log: true}, false},
		{Categorical(1, 2), Categorical(1., 2.), true},
		{Categorical(1, 2), Categorical(1, 2, 3), false},
		{Categorical(1, 2), float, false},
	}
	for _, test := range tests {
		if err := CheckCompatible(test.old, test.new); (err == nil) != test.ok {
			t.Errorf("%+v after %+v: %v, want ok: %v", test.new, test.old, err, test.ok)
		}
	}
}

// TestForGoptuna checks that goptuna's own random sampler, given a translated
// range, draws both bounds of integers; of its integer ranges it never draws the
// upper one.
func TestForGoptuna(t *testing.T) {
	random := goptuna.NewRandomSampler(goptuna.RandomSamplerOptionSeed(1))
	for _, d := range []Distribution{
		IntDistribution{Low: 0, High: 3}, IntDistribution{Low: 0, High: 7, Step: 3},
		IntDistribution{Low: 1, High: 4, Log: true}, FloatDistribution{Low: 0, High: .3, Step: .1}, Categorical(4, 8),
	} {
		seen := map[float64]bool{}
		for range 1000 {
			x, err := random.Sample(nil, FrozenTrial{}, "x", d.forGoptuna())
			if err != nil {
				t.Fatal(err)
			}
			seen[nearest(d, x)] = true
		}
		low, high, step, _ := grid(d)
		if want := int((high-low)/step + 1.5); len(seen) != want || !seen[low] {
			t.Errorf("%+v: goptuna draws %v, want %d values", d, seen, want)
		}
		back, err := toDistribution(d.forGoptuna())
		if err != nil || back.Validate() != nil {
			t.Errorf("%+v as goptuna has it is not read: %v", d, err)
		}
	}
}
