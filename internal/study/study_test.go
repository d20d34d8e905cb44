package study

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c-bata/goptuna"
	"github.com/c-bata/goptuna/cmaes"
	"github.com/c-bata/goptuna/sobol"
	goptunatpe "github.com/c-bata/goptuna/tpe"
	"github.com/google/go-cmp/cmp"
)

// hill is highest, 0, at x = 2e-5, n = 384 and choice 16.
func hill(ctx context.Context, t *Trial) (float64, error) {
	x, err := t.SuggestFloat(ctx, "x", FloatDistribution{Low: 1e-6, High: 1e-4, Log: true})
	if err != nil {
		return 0, err
	}
	n, err := t.SuggestInt(ctx, "n", IntDistribution{Low: 64, High: 1024, Log: true})
	if err != nil {
		return 0, err
	}
	c, err := SuggestChoice(ctx, t, "c", 4, 8, 16, 32)
	if err != nil {
		return 0, err
	}
	return -math.Abs(math.Log10(x/2e-5)) - math.Abs(math.Log2(float64(n)/384)) - math.Abs(math.Log2(float64(c)/16)), nil
}

func mustStudy(t testing.TB, o Options) *Study {
	t.Helper()
	if o.Name == "" {
		o.Name = "test"
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustTrials(t testing.TB, s *Study) []FrozenTrial {
	t.Helper()
	trials, err := s.Trials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return trials
}

func mustRun(t testing.TB, o Options, objective Objective) []FrozenTrial {
	t.Helper()
	return mustRunWith(t, 1, o, objective)
}

func mustRunWith(t testing.TB, workers int, o Options, objective Objective) []FrozenTrial {
	t.Helper()
	s := mustStudy(t, o)
	if err := s.Run(t.Context(), workers, objective); err != nil {
		t.Fatal(err)
	}
	return mustTrials(t, s)
}

func countStates(trials []FrozenTrial) map[State]int {
	n := map[State]int{}
	for _, t := range trials {
		n[t.State]++
	}
	return n
}

func TestRunHasSoManyTrials(t *testing.T) {
	storage := &Memory{}
	var finished atomic.Int64
	o := Options{Storage: storage, Trials: 40, Finished: func(context.Context, FrozenTrial) { finished.Add(1) }}
	trials := mustRunWith(t, 8, o, hill)
	if diff := cmp.Diff(map[State]int{Complete: 40}, countStates(trials)); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	for i, trial := range trials {
		if trial.Number != i {
			t.Errorf("trial %d has number %d", i, trial.Number)
		}
	}
	if finished.Load() != 40 {
		t.Errorf("Finished was called %d times", finished.Load())
	}
	// A study that has them all runs none.
	o.Finished = func(_ context.Context, f FrozenTrial) { t.Errorf("trial %d was run", f.Number) }
	mustRunWith(t, 8, o, hill)
	// Of a larger one, TrialsHere is the share of one Run.
	if n := len(mustRunWith(t, 3, Options{Storage: storage, Trials: 100, TrialsHere: 7}, hill)); n != 47 {
		t.Errorf("after 7 more there are %d trials", n)
	}
}

// TestSeedRepeats checks that one worker repeats a study exactly, in one go or in
// three.
func TestSeedRepeats(t *testing.T) {
	params := func(seed uint64, stops ...int) (all []map[string]any) {
		storage := &Memory{}
		var trials []FrozenTrial
		for _, n := range append(stops, 25) {
			trials = mustRun(t, Options{Storage: storage, Trials: n, Sampler: NewTPE(seed)}, hill)
		}
		for _, trial := range trials {
			all = append(all, trial.Params)
		}
		return all
	}
	first := params(1)
	if diff := cmp.Diff(first, params(1)); diff != "" {
		t.Errorf("the same seed searches differently:\n%s", diff)
	}
	if diff := cmp.Diff(first, params(1, 4, 17)); diff != "" {
		t.Errorf("resumed, the same seed searches differently:\n%s", diff)
	}
	if cmp.Equal(first, params(2)) {
		t.Error("another seed searches the same")
	}
	seen := map[string]bool{}
	for _, p := range first[:10] {
		seen[fmt.Sprint(p["x"])] = true
	}
	if len(seen) != 10 {
		t.Errorf("of the first ten trials, %d differ", len(seen))
	}
}

func TestPruning(t *testing.T) {
	trials := mustRun(t, Options{Storage: &Memory{}, Trials: 30, Pruner: MedianPruner{StartupTrials: 5}},
		func(ctx context.Context, t *Trial) (float64, error) {
			v, err := hill(ctx, t)
			if err != nil {
				return 0, err
			}
			for step := range 4 {
				if err := t.Report(ctx, step, v-1/float64(step+1)); err != nil {
					return 0, err
				}
				prune, err := t.ShouldPrune(ctx)
				if err != nil {
					return 0, err
				}
				if prune {
					return 0, fmt.Errorf("at step %d: %w", step, ErrPruned)
				}
			}
			return v, nil
		})
	states := countStates(trials)
	if states[Pruned] < 5 || states[Complete] < 5 || len(trials) != 30 {
		t.Errorf("30 trials end as %v, want some of each", states)
	}
	for _, trial := range trials {
		last := lastStep(trial)
		if trial.State == Pruned && trial.Value != trial.IntermediateValues[last] {
			t.Errorf("pruned trial %d has value %v, its last report is %v", trial.Number, trial.Value, trial.IntermediateValues[last])
		}
	}
}

func TestFailures(t *testing.T) {
	boom := errors.New("out of memory")
	objective := func(_ context.Context, t *Trial) (float64, error) {
		switch t.Number() {
		case 0:
			return 0, boom
		case 1:
			panic("index out of range")
		case 2:
			return math.NaN(), nil
		}
		return 1, nil
	}
	trials := mustRun(t, Options{Storage: &Memory{}, Trials: 2}, objective)
	if len(trials) != 5 {
		t.Fatalf("%d trials, want three failed and two complete", len(trials))
	}
	for i, want := range []string{"out of memory", "index out of range", "not a number"} {
		if got := trials[i].UserAttrs[AttrFailReason]; trials[i].State != Failed || !strings.Contains(got, want) {
			t.Errorf("trial %d ended as %v, because %s; want a failure because %s", i, trials[i].State, got, want)
		}
		if !math.IsNaN(trials[i].Value) {
			t.Errorf("failed trial %d has value %v", i, trials[i].Value)
		}
	}

	s := mustStudy(t, Options{Storage: &Memory{}, Trials: 2, FailureLimit: 3})
	err := s.Run(t.Context(), 2, func(context.Context, *Trial) (float64, error) { return 0, boom })
	var failures *FailuresError
	if !errors.As(err, &failures) || failures.Count != 3 || !errors.Is(err, boom) {
		t.Errorf("after three failures Run returns %v", err)
	}
}

func TestInterrupt(t *testing.T) {
	storage := &Memory{}
	o := Options{Storage: storage, Trials: 3, Retries: 1}
	stop := errors.New("stopped by the user")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := mustStudy(t, o)
	err := s.Run(ctx, 1, func(ctx context.Context, t *Trial) (float64, error) {
		v, err := hill(ctx, t)
		if t.Number() == 1 {
			cancel(stop)
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return v, err
	})
	if !errors.Is(err, stop) {
		t.Errorf("Run returns %v, want the cause of the context's end", err)
	}
	trials := mustTrials(t, s)
	if len(trials) != 3 || trials[1].State != Failed || trials[2].State != Waiting {
		t.Fatalf("after an interruption: %v, want the second trial to have failed and a third one to wait", countStates(trials))
	}
	if got := trials[1].UserAttrs[AttrFailReason]; !strings.Contains(got, stop.Error()) {
		t.Errorf("the trial failed because %s", got)
	}

	trials = mustRun(t, o, hill)
	if n := countStates(trials); n[Complete] != 3 || len(trials) != 4 {
		t.Errorf("resumed: %v", n)
	}
	if diff := cmp.Diff(trials[1].Params, trials[2].Params); diff != "" {
		t.Errorf("the retried trial has other parameters:\n%s", diff)
	}
	want := map[string]string{"failed_trial": "1", "retry_history": "[1]"}
	if diff := cmp.Diff(want, trials[2].SystemAttrs); diff != "" {
		t.Errorf("attributes of the retried trial (-want +got):\n%s", diff)
	}
	if _, ok := Retry(trials[2], 1); ok {
		t.Error("a trial is retried twice, want once")
	}
	twice, ok := Retry(trials[2], 2)
	if !ok || twice.SystemAttrs["failed_trial"] != "1" || twice.SystemAttrs["retry_history"] != "[1,2]" {
		t.Errorf("the second retry has attributes %v", twice.SystemAttrs)
	}
}

// TestDeadWorker checks that a trial whose worker has died is failed and run
// again by another one, which waits for it.
func TestDeadWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &Memory{}
		id, err := storage.OpenStudy(t.Context(), "test", Maximize)
		if err != nil {
			t.Fatal(err)
		}
		dead, _, err := storage.Claim(t.Context(), id, 10)
		if err != nil {
			t.Fatal(err)
		}
		if err := storage.SetParam(t.Context(), dead.ID, "c", 2, Categorical(4, 8, 16, 32)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		trials := mustRunWith(t, 2, Options{Storage: storage, Trials: 10, Retries: 1}, hill)
		if waited := time.Since(start); waited < 2*time.Minute || waited > 2*time.Minute+5*time.Second {
			t.Errorf("the dead worker was waited for %v, want two minutes", waited)
		}
		if n := countStates(trials); n[Complete] != 10 || n[Failed] != 1 {
			t.Errorf("the study ends with %v", n)
		}
		if last := trials[len(trials)-1]; last.Params["c"] != 16 || last.SystemAttrs["failed_trial"] != "0" {
			t.Errorf("the last trial has %v and attributes %v, want the first one's parameters", last.Params, last.SystemAttrs)
		}
	})
}

// TestTakenForDead checks that a worker stops a trial that others have failed,
// and goes on with others.
func TestTakenForDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		storage := &Memory{}
		canceled := 0
		trials := mustRun(t, Options{Storage: storage, Trials: 2}, func(ctx context.Context, trial *Trial) (float64, error) {
			if trial.Number() > 0 {
				return 1, nil
			}
			if err := storage.Finish(ctx, trial.frozen.ID, Failed, math.NaN()); err != nil {
				return 0, err
			}
			<-ctx.Done()
			if errors.Is(context.Cause(ctx), ErrNotRunning) {
				canceled++
			}
			return 1, nil
		})
		if n := countStates(trials); canceled != 1 || n[Failed] != 1 || n[Complete] != 2 {
			t.Errorf("%d trials canceled, states %v", canceled, n)
		}
	})
}

// TestHeartbeat checks that a long trial is not taken for dead.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trials := mustRunWith(t, 3, Options{Storage: &Memory{}, Trials: 4}, func(context.Context, *Trial) (float64, error) {
			time.Sleep(time.Hour)
			return 1, nil
		})
		if diff := cmp.Diff(map[State]int{Complete: 4}, countStates(trials)); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
	})
}

// TestEnqueue: as with Optuna, a number outside of its range is used all the same,
// with a warning; what is no value at all fails the trial.
func TestEnqueue(t *testing.T) {
	var log bytes.Buffer
	o := Options{Storage: &Memory{}, Trials: 8, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s := mustStudy(t, o)
	enqueued := []map[string]any{
		{"x": 2e-5, "c": 8}, {"n": 4096, "c": 16}, {"x": 1.0, "n": 3.7}, {"c": 7}, {"n": "many"}, {"x": -1.0},
	}
	for _, params := range enqueued {
		if _, err := s.Enqueue(t.Context(), params); err != nil {
			t.Fatal(err)
		}
	}
	trials := mustRun(t, o, hill)
	if want := o.Trials + 3; len(trials) != want { // others take the place of those that fail
		t.Fatalf("%d trials, want %d", len(trials), want)
	}
	for i, want := range []map[string]any{{"x": 2e-5, "c": 8}, {"n": 4096, "c": 16}, {"x": 1.0, "n": 3}} {
		for name, value := range want {
			if got := trials[i].Params[name]; got != value || trials[i].State != Complete {
				t.Errorf("trial %d: %s is %v, want %v; it is %v", i, name, got, value, trials[i].State)
			}
		}
	}
	for i := 3; i < len(enqueued); i++ {
		if trials[i].State != Failed {
			t.Errorf("the trial with %v is %v", enqueued[i], trials[i].State)
		}
	}
	for i := len(enqueued); i < len(trials); i++ { // those that are not in the range mislead nobody
		if trials[i].State != Complete {
			t.Errorf("the trial after the enqueued ones is %v", trials[i].State)
		}
	}
	if n := strings.Count(log.String(), "an enqueued value is out of range"); n != 3 {
		t.Errorf("%d warnings, want 3:\n%s", n, &log)
	}
}

func TestSuggestErrors(t *testing.T) {
	storage := &Memory{}
	mustRun(t, Options{Storage: storage, Trials: 1}, hill)
	o := Options{Name: "test", Storage: storage, Trials: 9, FailureLimit: 1}
	tests := map[string]struct {
		suggest func(context.Context, *Trial) error
		want    string
	}{
		"other scale": {func(ctx context.Context, t *Trial) error {
			_, err := t.SuggestFloat(ctx, "x", FloatDistribution{Low: 1e-6, High: 1e-4})
			return err
		}, "another name"},
		"other choices": {func(ctx context.Context, t *Trial) error {
			_, err := SuggestChoice(ctx, t, "c", 4, 8)
			return err
		}, "another name"},
		"bad range": {func(ctx context.Context, t *Trial) error {
			_, err := t.SuggestInt(ctx, "k", IntDistribution{Low: 2, High: 1})
			return err
		}, "lower bound first"},
		"no name": {func(ctx context.Context, t *Trial) error {
			_, err := t.SuggestInt(ctx, "", IntDistribution{Low: 1, High: 2})
			return err
		}, "0 bytes"},
		"negative step": {func(ctx context.Context, t *Trial) error { return t.Report(ctx, -1, 0) }, "0 or more"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := mustStudy(t, o).Run(t.Context(), 1, func(ctx context.Context, trial *Trial) (float64, error) { return 1, test.suggest(ctx, trial) })
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want an error with %q", err, test.want)
			}
		})
	}
	// Other bounds are fine, and so is asking twice.
	mustRun(t, Options{Storage: storage, Trials: 9}, func(ctx context.Context, trial *Trial) (float64, error) {
		d := FloatDistribution{Low: 1e-5, High: 5e-5, Log: true}
		x, err := trial.SuggestFloat(ctx, "x", d)
		if err != nil {
			return 0, err
		}
		again, err := trial.SuggestFloat(ctx, "x", d)
		if again != x || x < 1e-5 || x > 5e-5 {
			t.Errorf("x is %v, then %v", x, again)
		}
		return 1, err
	})
}

// TestOtherSamplers plugs goptuna's samplers in.
func TestOtherSamplers(t *testing.T) {
	space := map[string]Distribution{
		"x": FloatDistribution{Low: -3, High: 3}, "y": FloatDistribution{Low: -3, High: 3}, "k": IntDistribution{Low: 0, High: 3},
	}
	objective := func(ctx context.Context, t *Trial) (float64, error) {
		sum := 0.0
		for _, name := range []string{"x", "y"} {
			x, err := t.SuggestFloat(ctx, name, space[name].(FloatDistribution))
			if err != nil {
				return 0, err
			}
			sum -= (x - 2) * (x - 2)
		}
		k, err := t.SuggestInt(ctx, "k", IntDistribution{Low: 0, High: 3})
		if err != nil {
			return 0, err
		}
		c, err := SuggestChoice(ctx, t, "c", true, false)
		if c {
			sum--
		}
		return sum + float64(k), err // best is 3
	}
	tests := map[string]struct {
		o    Options
		want float64 // the mean of the last trials exceeds this
	}{
		"random": {Options{Sampler: goptuna.NewRandomSampler()}, -20},
		"TPE":    {Options{Sampler: goptunatpe.NewSampler()}, -4},
		"Sobol":  {Options{Sampler: Random{1}, Relative: sobol.NewSampler(), Space: space}, -20},
		// It minimises whatever it is told; so this shows that it is told the loss.
		"CMA-ES": {Options{Sampler: Random{1}, Relative: cmaes.NewSampler(cmaes.SamplerOptionSeed(1), cmaes.SamplerOptionNStartupTrials(5))}, 0},
		"ours":   {Options{}, -2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.o.Storage, test.o.Trials = &Memory{}, 150
			trials := mustRun(t, test.o, objective)
			mean, upper := 0.0, 0
			for _, trial := range trials[100:] {
				mean += trial.Value / 50
			}
			for _, trial := range trials {
				if trial.Params["k"] == 3 {
					upper++
				}
				if _, ok := trial.Distributions["k"].(IntDistribution); !ok {
					t.Fatalf("trial %d records k as %T", trial.Number, trial.Distributions["k"])
				}
			}
			if mean < test.want {
				t.Errorf("the last trials have a mean of %.2f, want %.2f", mean, test.want)
			}
			if upper == 0 {
				t.Error("the upper bound of an integer was never drawn")
			}
		})
	}
}

func TestConditionalParameters(t *testing.T) {
	trials := mustRun(t, Options{Storage: &Memory{}, Trials: 40}, func(ctx context.Context, t *Trial) (float64, error) {
		layers, err := t.SuggestInt(ctx, "layers", IntDistribution{Low: 0, High: 2})
		if err != nil || layers == 0 {
			return 0, err
		}
		dim, err := t.SuggestInt(ctx, "dim", IntDistribution{Low: 64, High: 1024, Log: true})
		return 1 / (1 + math.Abs(math.Log2(float64(dim)/256))), err
	})
	with := slices.DeleteFunc(slices.Clone(trials), func(t FrozenTrial) bool { return t.Params["dim"] == nil })
	if len(with) == 0 || len(with) == len(trials) {
		t.Fatalf("%d of %d trials have the conditional parameter", len(with), len(trials))
	}
	best, ok := Best(trials, Maximize)
	if !ok || best.Value < 0.7 {
		t.Errorf("the best value is %v, want 0.7 or more", best.Value)
	}
}

func TestInitAttr(t *testing.T) {
	o := Options{Storage: &Memory{}, Trials: 1}
	for _, run := range []string{"first", "second"} {
		var got string
		if err := mustStudy(t, o).InitAttr(t.Context(), "parent", run, &got); err != nil || got != "first" {
			t.Errorf("the %s worker gets %q, %v", run, got, err)
		}
	}
}

func TestNewChecks(t *testing.T) {
	good := Options{Name: "x", Storage: &Memory{}, Trials: 1}
	tests := map[string]func(*Options){
		"name":      func(o *Options) { o.Name = "" },
		"direction": func(o *Options) { o.Direction = "up" },
		"storage":   func(o *Options) { o.Storage = nil },
		"trials":    func(o *Options) { o.Trials = 0 },
		"grace":     func(o *Options) { o.Grace = time.Second },
		"space":     func(o *Options) { o.Space = map[string]Distribution{"x": IntDistribution{Low: 1}} },
		"pruner":    func(o *Options) { o.Pruner = MedianPruner{WarmupSteps: -1} },
	}
	for name, change := range tests {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	s := mustStudy(t, good)
	mustTrials(t, s)
	good.Direction = Minimize
	if _, err := mustStudy(t, good).Trials(t.Context()); !errors.Is(err, ErrOtherDirection) {
		t.Errorf("a study of another direction: %v", err)
	}
}
