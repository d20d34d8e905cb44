package study

import (
	"context"
	"math"
	"testing"

	"gonum.org/v1/gonum/stat"
)

// surrogate stands for a search as ours are: ten parameters, of which a few
// matter much. Its best value is 0.90.
func surrogate(ctx context.Context, t *Trial) (float64, error) {
	var err error
	number := func(name string, d FloatDistribution) (x float64) {
		if err == nil {
			x, err = t.SuggestFloat(ctx, name, d)
		}
		return x
	}
	whole := func(name string, d IntDistribution) (n int) {
		if err == nil {
			n, err = t.SuggestInt(ctx, name, d)
		}
		return n
	}
	choice := func(name string, penalties ...float64) float64 {
		indices := make([]int, len(penalties))
		for i := range indices {
			indices[i] = i
		}
		i := 0
		if err == nil {
			i, err = SuggestChoice(ctx, t, name, indices...)
		}
		return penalties[i]
	}
	square := func(x float64) float64 { return x * x }

	layers := whole("head_layers", IntDistribution{Low: 0, High: 3})
	dim := whole("hidden_dim", IntDistribution{Low: 64, High: 1024, Log: true})
	pooling := choice("pooling_strategy", .006, 0, .015)
	activation := choice("activation", .003, 0, .008)
	dropout := number("dropout", FloatDistribution{Low: 0, High: .5})
	rate := number("learning_rate", FloatDistribution{Low: 1e-6, High: 1e-4, Log: true})
	batch := choice("batch_size", .02, .006, 0, .008, .025)
	warmup := number("warmup_ratio", FloatDistribution{Low: 0, High: .3})
	decay := number("weight_decay", FloatDistribution{Low: 0, High: .1})
	scheduler := choice("scheduler", .002, 0, .009)
	if err != nil {
		return 0, err
	}

	f := .90 - .18*square(math.Log10(rate/2e-5)) - batch - []float64{.020, 0, .004, .014}[layers]
	if layers > 0 {
		f -= .0025*square(math.Log2(float64(dim)/384))*(1+.3*float64(layers-1)) + activation
	}
	f -= pooling + .03*square((dropout-.15)/.35) + .15*square(warmup-.1) + .8*square(decay-.02) + scheduler
	if rate > 4e-5 && (batch == .02 || batch == .006) {
		f -= .02
	}
	return max(0, f), nil
}

// BenchmarkSurrogate reports the mean best of 30 trials over 100 seeds. What
// Optuna itself reaches says testdata/surrogate.py.
func BenchmarkSurrogate(b *testing.B) {
	const seeds, trials = 100, 30
	samplers := map[string]func(seed uint64) Sampler{
		"TPE":    func(seed uint64) Sampler { return NewTPE(seed) },
		"random": func(seed uint64) Sampler { return Random{seed} },
	}
	for name, sampler := range samplers {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				var best []float64
				for seed := range uint64(seeds) {
					s := mustStudy(b, Options{Storage: &Memory{}, Trials: trials, Sampler: sampler(seed)})
					if err := s.Run(b.Context(), 1, surrogate); err != nil {
						b.Fatal(err)
					}
					all := mustTrials(b, s)
					top, _ := Best(all, Maximize)
					best = append(best, top.Value)
				}
				mean, deviation := stat.MeanStdDev(best, nil)
				b.ReportMetric(mean, "best")
				b.ReportMetric(deviation/math.Sqrt(seeds), "stderr")
			}
		})
	}
}
