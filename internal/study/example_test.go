package study_test

import (
	"context"
	"fmt"
	"math"

	"github.com/criteria-go/criteria/internal/study"
)

func ExampleStudy_Run() {
	storage := &study.Memory{}
	s, err := study.New(study.Options{
		Name:    "example",
		Storage: storage,
		Sampler: study.NewTPE(42),
		Pruner:  study.NewMedianPruner(),
		Trials:  30,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	train := func(ctx context.Context, t *study.Trial) (float64, error) {
		rate, err := t.SuggestFloat(ctx, "learning_rate", study.FloatDistribution{Low: 1e-6, High: 1e-4, Log: true})
		if err != nil {
			return 0, err
		}
		batch, err := study.SuggestChoice(ctx, t, "batch_size", 8, 16, 32)
		if err != nil {
			return 0, err
		}
		final := 0.9 - 0.2*math.Abs(math.Log10(rate/2e-5)) - 0.01*math.Abs(float64(batch-16))
		for epoch := range 5 {
			if err := t.Report(ctx, epoch, final*float64(epoch+1)/5); err != nil {
				return 0, err
			}
			prune, err := t.ShouldPrune(ctx)
			if err != nil {
				return 0, err
			}
			if prune {
				return 0, study.ErrPruned
			}
		}
		return final, nil
	}
	if err := s.Run(context.Background(), 1, train); err != nil {
		fmt.Println(err)
		return
	}
	trials, err := s.Trials(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	best, _ := study.Best(trials, study.Maximize)
	fmt.Printf("%d trials; above 0.8: %v; batch_size %v\n", len(trials), best.Value > 0.8, best.Params["batch_size"])
	// Output: 30 trials; above 0.8: true; batch_size 16
}
