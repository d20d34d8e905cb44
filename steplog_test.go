package criteria_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/criteria-go/criteria"
)

// stepKeys are what is logged every few updates; pairs_per_second is another time
// again in every run.
var stepKeys = []string{"loss", "learning_rate", "grad_norm"}

// Every few updates the mean loss since the last point is logged, with what the
// update before it was made with.
func TestStepsAreLogged(t *testing.T) {
	for _, async := range []bool{false, true} {
		b := smallBench(t) // three epochs of five micro-batches, in updates of 2, 2 and 1
		b.engine.Async = async
		b.config.MLflow.LogEvery = 2
		type point struct{ loss, rate, norm float64 }
		want := make(map[int]point)
		sum, n, updates := 0.0, 0, 0
		b.run(t, criteria.WithHooks(criteria.Hooks{Step: func(e criteria.StepEvent) {
			if e.Phase != criteria.PhaseTrain {
				return
			}
			sum, n = sum+e.Loss, n+1
			if e.Step > updates && e.Step%2 == 0 {
				want[e.Step] = point{sum / float64(n), e.LearningRate, e.GradNorm}
				sum, n = 0, 0
			}
			updates = e.Step
		}}))
		metrics := b.tracker.Runs()[0].Metrics
		if len(want) != 4 {
			t.Fatalf("%d points, want 4 of 9 updates", len(want))
		}
		for step := 1; step <= 9; step++ {
			got, logged := metrics[step]["loss"]
			p, due := want[step]
			if logged != due {
				t.Errorf("async %t: update %d is logged: %t, want %t", async, step, logged, due)
			} else if due && (math.Abs(got-p.loss) > 1e-12 || metrics[step]["learning_rate"] != p.rate ||
				metrics[step]["grad_norm"] != p.norm || !(metrics[step]["pairs_per_second"] > 0)) {
				t.Errorf("async %t: update %d is logged as %v, want %v", async, step, metrics[step], p)
			}
		}
	}
}

// Interrupted anywhere and resumed, a run has the points of one that was not.
func TestResumedRunsLogTheSameSteps(t *testing.T) {
	whole := smallBench(t)
	whole.config.Train.Epochs = 2
	whole.config.MLflow.LogEvery = 2
	events := 0
	whole.run(t, criteria.WithHooks(criteria.Hooks{Step: func(criteria.StepEvent) { events++ }}))
	want := whole.tracker.Runs()[0].Metrics
	for at := 1; at < events; at++ {
		b := whole.again(t)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := b.trainer(t, criteria.WithHooks(criteria.Hooks{Step: func(criteria.StepEvent) {
			if n++; n == at {
				cancel()
			}
		}})).Run(ctx)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		b.run(t, criteria.WithResume(b.dir))
		got := b.tracker.Runs()[0].Metrics
		for step := 1; step <= 6; step++ {
			for _, key := range stepKeys {
				if got[step][key] != want[step][key] {
					t.Errorf("interrupted at event %d: %s of update %d is %v, want %v", at, key, step, got[step][key], want[step][key])
				}
			}
		}
	}
}

// Nothing is logged where nothing is asked for.
func TestNoStepsAreLogged(t *testing.T) {
	b := smallBench(t)
	b.config.MLflow.LogEvery = 0
	b.run(t)
	for step, metrics := range b.tracker.Runs()[0].Metrics {
		if _, ok := metrics["loss"]; ok {
			t.Errorf("update %d is logged: %v", step, metrics)
		}
	}
}
