package metrics

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestBestThreshold(t *testing.T) {
	logit := func(p float64) float64 { return math.Log(p / (1 - p)) }
	for name, tc := range map[string]struct {
		probabilities []float64
		labels        []int
		threshold, f1 float64
	}{
		"already best":                  {[]float64{0.1, 0.3, 0.7, 0.9}, []int{0, 0, 1, 1}, 0.5, 1},
		"all scores low":                {[]float64{0.1, 0.2, 0.3, 0.4}, []int{0, 0, 1, 1}, 0.25, 1},
		"all scores high":               {[]float64{0.6, 0.7, 0.8, 0.9}, []int{0, 0, 1, 1}, 0.75, 1},
		"the nearer of two":             {[]float64{0.6, 0.7, 0.8, 0.9}, []int{0, 1, 0, 1}, 0.65, 11.0 / 15},
		"equal scores go together":      {[]float64{0.2, 0.2, 0.8, 0.8}, []int{0, 1, 0, 1}, 0.5, 0.5},
		"one class only":                {[]float64{0.2, 0.3}, []int{0, 0}, 0.5, 0.5},
		"one example, of the other one": {[]float64{0.2}, []int{1}, 0.1, 0.5},
	} {
		margins := make([]float64, len(tc.probabilities))
		for i, p := range tc.probabilities {
			margins[i] = logit(p)
		}
		threshold, f1, err := BestThreshold(margins, tc.labels)
		if err != nil || math.Abs(threshold-tc.threshold) > 1e-9 || math.Abs(f1-tc.f1) > 1e-9 {
			t.Errorf("%s: threshold %v with macro-F1 %v, %v; want %v with %v", name, threshold, f1, err, tc.threshold, tc.f1)
		}
	}
}

// TestBestThresholdIsBest compares with trying every threshold there is.
func TestBestThresholdIsBest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n := 1 + random.IntN(30)
		margins, labels := make([]float64, n), make([]int, n)
		for i := range margins {
			margins[i] = math.Round(random.NormFloat64()*4) / 2 // with ties
			labels[i] = random.IntN(2)
		}
		f1At := func(threshold float64) float64 {
			var c Confusion
			for i, m := range margins {
				p := 0
				if logistic(m) > threshold {
					p = 1
				}
				c[labels[i]][p]++
			}
			return c.Macro().F1
		}
		best := f1At(0)
		for _, m := range margins {
			best = max(best, f1At(logistic(m)))
		}
		threshold, f1, err := BestThreshold(margins, labels)
		if err != nil || f1 != best || f1At(threshold) != best {
			t.Fatalf("threshold %v with macro-F1 %v (really %v), %v; the best is %v", threshold, f1, f1At(threshold), err, best)
		}
		if f1At(0.5) == best && threshold != 0.5 {
			t.Fatalf("threshold %v, but 0.5 is as good", threshold)
		}
	}
}

func TestTemperature(t *testing.T) {
	// Labels drawn from the probabilities that the margins stand for, which are
	// then made too bold by a factor.
	random := rand.New(rand.NewPCG(3, 4))
	margins, labels := make([]float64, 20000), make([]int, 20000)
	for i := range margins {
		m := random.NormFloat64() * 2
		if random.Float64() < logistic(m) {
			labels[i] = 1
		}
		margins[i] = 3 * m
	}
	got, err := Temperature(margins, labels)
	if err != nil || math.Abs(got-3) > 0.1 {
		t.Errorf("temperature %v, %v; want about 3", got, err)
	}
	least := NLL(margins, labels, got)
	for _, other := range []float64{0.5, 1, got * 0.99, got * 1.01, 5} {
		if NLL(margins, labels, other) <= least {
			t.Errorf("temperature %v is better than %v", other, got)
		}
	}
	for name, tc := range map[string]struct {
		margins []float64
		labels  []int
		want    float64
	}{
		"without a fault":    {[]float64{-2, 2}, []int{0, 1}, MinTemperature},
		"worse than chance":  {[]float64{-2, 2}, []int{1, 0}, MaxTemperature},
		"margins of nothing": {[]float64{0, 0}, []int{1, 0}, MaxTemperature},
	} {
		if got, err := Temperature(tc.margins, tc.labels); err != nil || got != tc.want {
			t.Errorf("%s: temperature %v, %v; want %v", name, got, err, tc.want)
		}
	}
}

func TestDecisionRefuses(t *testing.T) {
	for _, tc := range []struct {
		margins []float64
		labels  []int
	}{
		{nil, nil},
		{[]float64{1}, []int{0, 1}},
		{[]float64{math.NaN()}, []int{0}},
		{[]float64{math.Inf(1)}, []int{0}},
		{[]float64{1}, []int{2}},
	} {
		if _, _, err := BestThreshold(tc.margins, tc.labels); err == nil {
			t.Errorf("BestThreshold(%v, %v): no error", tc.margins, tc.labels)
		}
		if _, err := Temperature(tc.margins, tc.labels); err == nil {
			t.Errorf("Temperature(%v, %v): no error", tc.margins, tc.labels)
		}
	}
}

// Probabilities that round to 0 or 1 must not make a threshold of 0 or 1.
func TestBestThresholdStaysInside(t *testing.T) {
	for _, labels := range [][]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}} {
		threshold, _, err := BestThreshold([]float64{-1000, 1000}, labels)
		if err != nil || threshold != 0.5 {
			t.Errorf("labels %v: threshold %v, %v; want 0.5", labels, threshold, err)
		}
	}
}

func TestNLLDoesNotOverflow(t *testing.T) {
	if got := NLL([]float64{1000, -1000}, []int{0, 0}, 1); got != 500 {
		t.Errorf("NLL() = %v; want 500", got)
	}
}
