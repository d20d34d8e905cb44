//go:build unix

package criteria_test

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// BenchmarkTracking trains the sample's tiny model twice in turn, with and
// without a tracker. waiting-% is the part of the steps' time in which the
// training waits for the tracker. The other two compare both trainings, and need
// an idle machine: overhead-% their time, cpu-overhead-% the work of all
// threads, also of those that send to MLflow meanwhile. A step of this model
// takes milliseconds; one of deberta-v3-base takes seconds, with the same logging.
func BenchmarkTracking(b *testing.B) {
	const epochs, pairs, batch = 3, 120, 4
	config := criteria.DefaultConfig()
	config.Train.Epochs, config.Train.BatchSize, config.Train.KeepCheckpoints = epochs, batch, 0
	config.Model.Tokenizer.MaxLength = 64
	checkpoint, err := filepath.Abs("testdata/sample/tiny-deberta")
	if err != nil {
		b.Fatal(err)
	}
	train := func(opts ...criteria.TrainerOption) (wall, cpu time.Duration) {
		var wallStart time.Time
		var cpuStart time.Duration
		hooks := criteria.Hooks{
			Start: func(criteria.StartEvent) { wallStart, cpuStart = time.Now(), cpuTime(b) },
			Epoch: func(criteria.EpochEvent) { wall, cpu = time.Since(wallStart), cpuTime(b)-cpuStart },
		}
		trainer, err := criteria.NewTrainer(append([]criteria.TrainerOption{
			criteria.WithConfig(config), criteria.WithCheckpoint(checkpoint), criteria.WithDataset(fakes.Dataset(pairs/3, 3, 3, 1)),
			criteria.WithOutputDir(b.TempDir()), criteria.WithHooks(hooks),
		}, opts...)...)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := trainer.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
		return wall, cpu
	}
	dir := b.TempDir()
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI("sqlite:///"+filepath.Join(dir, "mlflow.db")), criteria.WithExperiment("bench"), criteria.WithSystemMetrics(time.Second))
	if err != nil {
		b.Fatal(err)
	}
	b.Chdir(dir) // MLflow's artifacts belong there
	var waiting time.Duration
	var without, with [2]time.Duration
	runs := 0
	for b.Loop() {
		wall, cpu := train()
		without[0], without[1] = without[0]+wall, without[1]+cpu
		wall, cpu = train(criteria.WithTracker(timedTracker{tracker, &waiting}))
		with[0], with[1] = with[0]+wall, with[1]+cpu
		runs++
	}
	percent := func(i int) float64 { return 100 * (float64(with[i])/float64(without[i]) - 1) }
	b.ReportMetric(float64(without[0])/float64(runs*epochs*pairs/batch), "ns/step")
	b.ReportMetric(100*float64(waiting)/float64(with[0]), "waiting-%")
	b.ReportMetric(percent(0), "overhead-%")
	b.ReportMetric(percent(1), "cpu-overhead-%")
}

// timedTracker adds up for how long metrics are waited for.
type timedTracker struct {
	criteria.Tracker
	waiting *time.Duration
}

func (t timedTracker) Start(ctx context.Context, info criteria.RunInfo) (criteria.TrackedRun, error) {
	run, err := t.Tracker.Start(ctx, info)
	return timedRun{run, t.waiting}, err
}

type timedRun struct {
	criteria.TrackedRun
	waiting *time.Duration
}

func (r timedRun) LogMetrics(ctx context.Context, step int, metrics map[string]float64) error {
	began := time.Now()
	defer func() { *r.waiting += time.Since(began) }()
	return r.TrackedRun.LogMetrics(ctx, step, metrics)
}

// cpuTime is what all threads of the process have worked.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
