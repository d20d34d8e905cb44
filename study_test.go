package criteria_test

import (
	"context"
	"errors"
	"fmt"
	"image/png"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/c-bata/goptuna"
	"github.com/c-bata/goptuna/cmaes"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// countingTokenizer counts the splits that it encodes.
type countingTokenizer struct {
	fakes.Tokenizer
	splits atomic.Int32
}

func (t *countingTokenizer) EncodePairs(ctx context.Context, pairs []criteria.Pair, maxLength int) (criteria.Encodings, error) {
	t.splits.Add(1)
	return t.Tokenizer.EncodePairs(ctx, pairs, maxLength)
}

// study returns a study of 12 trials in a database of its own.
func (b *bench) study(t *testing.T, opts ...criteria.StudyOption) *criteria.Study {
	t.Helper()
	all := append([]criteria.StudyOption{
		criteria.WithConfig(b.config), criteria.WithDataset(b.data), criteria.WithEngine(b.engine), criteria.WithTracker(b.tracker),
		criteria.WithTokenizer(&fakes.Tokenizer{}), criteria.WithOutputDir(b.dir), criteria.Configure(func(c *criteria.Config) {
			c.HPO.NTrials, c.Train.Epochs, c.HPO.Storage = 12, 4, "sqlite:///"+filepath.Join(b.config.Model.Checkpoint, "optuna.db")
		}),
	}, opts...)
	s, err := criteria.NewStudy(all...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newStudyBench has data that nobody can learn all of, so that trials differ.
func newStudyBench(t *testing.T) *bench {
	b := newBench(t)
	b.data = fakes.Dataset(30, 20, 6, 1)
	for _, split := range [][]criteria.Example{b.data.Train, b.data.Val} {
		for i := range split {
			if i/3%4 == 0 {
				split[i].Label = 1 - split[i].Label
			}
		}
	}
	return b
}

func search(t *testing.T, s *criteria.Study) *criteria.StudyResult {
	t.Helper()
	result, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// nested returns the tracked runs of trials by their numbers.
func (b *bench) nested(t *testing.T) map[string]*fakes.Run {
	t.Helper()
	runs := map[string]*fakes.Run{}
	for _, run := range b.tracker.Runs() {
		if run.Info.Parent == "" {
			continue
		}
		if runs[run.Tags["trial_number"]] != nil {
			t.Errorf("two runs have the trial number %s", run.Tags["trial_number"])
		}
		runs[run.Tags["trial_number"]] = run
	}
	return runs
}

func states(r *criteria.StudyResult) map[criteria.TrialState]int {
	n := map[criteria.TrialState]int{}
	for _, trial := range r.Trials {
		n[trial.State]++
	}
	return n
}

var tenParams = []string{
	"activation", "batch_size", "dropout", "head_layers", "hidden_dim", "learning_rate", "pooling_strategy", "scheduler", "warmup_ratio", "weight_decay",
}

func TestStudy(t *testing.T) {
	b, tokenizer := newStudyBench(t), &countingTokenizer{}
	var events []criteria.TrialEvent
	steps := 0
	result := search(t, b.study(t, criteria.WithTokenizer(tokenizer), criteria.WithHooks(criteria.Hooks{
		Trial: func(e criteria.TrialEvent) { events = append(events, e) },
		Step: func(e criteria.StepEvent) {
			steps++
			if e.Phase == criteria.PhaseTest {
				t.Error("a trial looks at the test split")
			}
		},
	})))

	n := states(result)
	if n[criteria.TrialCompleted] < 5 || n[criteria.TrialPruned] == 0 || n[criteria.TrialCompleted]+n[criteria.TrialPruned] != 12 || len(result.Trials) != 12 {
		t.Fatalf("the study has %v, want 12 trials, some pruned", n)
	}
	if got := tokenizer.splits.Load(); got != 2 {
		t.Errorf("%d splits were tokenized, want two, once", got)
	}
	if len(events) != 12 || events[11].Finished != 12 || events[11].Best == nil || events[11].Best.Number != result.Best.Number || steps == 0 {
		t.Errorf("%d events of trials, the last %+v", len(events), events[len(events)-1])
	}
	best := math.Inf(-1)
	for i, trial := range result.Trials {
		if trial.Number != i || trial.RunID == "" || trial.Started.IsZero() || trial.Ended.Before(trial.Started) {
			t.Errorf("trial %d: %+v", i, trial)
		}
		_, wide := trial.Params["hidden_dim"]
		if layers := trial.Params["head_layers"].(int); wide != (layers > 0) || len(trial.Params) != map[bool]int{true: 10, false: 9}[wide] {
			t.Errorf("trial %d has the parameters %v", i, trial.Params)
		}
		top := math.Inf(-1)
		for _, score := range trial.Scores {
			top = max(top, score)
		}
		switch trial.State {
		case criteria.TrialCompleted:
			best = max(best, trial.Value)
			if trial.Value != top {
				t.Errorf("trial %d has the value %v of the scores %v", i, trial.Value, trial.Scores)
			}
		case criteria.TrialPruned:
			if last := trial.Scores[len(trial.Scores)]; trial.Value != last {
				t.Errorf("the pruned trial %d has the value %v of the scores %v", i, trial.Value, trial.Scores)
			}
		}
	}
	if result.Best.Value != best {
		t.Errorf("best value %v, want %v", result.Best.Value, best)
	}
	for _, part := range []string{"val_macro_f1", fmt.Sprintf("best: trial %d", result.Best.Number), fmt.Sprintf("%d *", result.Best.Number), "pruned"} {
		if !strings.Contains(result.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, result)
		}
	}
	if len(result.Importances) == 0 {
		t.Errorf("no importances\n%s", result)
	}

	t.Run("files", func(t *testing.T) {
		var names []string
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
			if strings.HasSuffix(e.Name(), ".png") {
				f, err := os.Open(filepath.Join(b.dir, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := png.Decode(f); err != nil {
					t.Errorf("%s: %v", e.Name(), err)
				}
				f.Close()
			}
		}
		want := []string{".lock", "best_trial_config.yaml", "optimization_history.png", "parallel_coordinate.png", "param_importances.png", "slice.png"}
		if diff := cmp.Diff(want, names); diff != "" {
			t.Errorf("output directory (-want +got):\n%s", diff)
		}
	})
	t.Run("tracking", func(t *testing.T) {
		parent := b.tracker.Runs()[0]
		if parent.Status != criteria.RunFinished || parent.ID() != result.RunID {
			t.Errorf("the run %s of the study is %s", parent.ID(), parent.Status)
		}
		for key, want := range map[string]string{
			"stage": "hpo", "study_name": "debertav3-criteria-hpo", "data.hash.posts.csv": strings.Repeat("0", 64), "version.engine": "1",
		} {
			if parent.Tags[key] != want {
				t.Errorf("tag %s = %q, want %q", key, parent.Tags[key], want)
			}
		}
		for key, want := range map[string]string{"n_trials": "12", "sampler": "TPESampler", "pruner": "MedianPruner"} {
			if parent.Params[key] != want {
				t.Errorf("param %s = %q, want %q", key, parent.Params[key], want)
			}
		}
		last := parent.Metrics[slices.Max(slices.Collect(maps.Keys(parent.Metrics)))]
		if last["best_trial_number"] != float64(result.Best.Number) || last["best_trial_value"] != result.Best.Value {
			t.Errorf("last metrics %v", last)
		}
		for _, name := range []string{"best_trial_config.yaml", "optimization_history.png", "param_importances.png", "config/config.yaml"} {
			if parent.Artifacts[name] == "" {
				t.Errorf("no artifact %s", name)
			}
		}
		runs := b.nested(t)
		if len(runs) != 12 {
			t.Errorf("%d nested runs", len(runs))
		}
		for i, trial := range result.Trials {
			run := runs[fmt.Sprint(i)]
			if run == nil || run.ID() != trial.RunID || run.Info.Parent != result.RunID || run.Status != criteria.RunFinished ||
				run.Tags["trial_status"] != string(trial.State) || run.Tags["stage"] != "hpo" {
				t.Fatalf("the run of trial %d is %+v", i, run)
			}
			if diff := cmp.Diff(tenParams, slices.Sorted(maps.Keys(run.Params))); diff != "" {
				t.Errorf("params of trial %d (-want +got):\n%s", i, diff)
			}
			for epoch := 1; epoch <= len(trial.Scores); epoch++ {
				for _, key := range []string{"train_loss", "val_loss", "val_macro_f1", "val_accuracy"} {
					if _, ok := run.Metrics[epoch][key]; !ok {
						t.Errorf("trial %d has no %s of epoch %d", i, key, epoch)
					}
				}
				if run.Metrics[epoch]["val_macro_f1"] != trial.Scores[epoch] {
					t.Errorf("trial %d has val_macro_f1 %v in epoch %d, want %v", i, run.Metrics[epoch]["val_macro_f1"], epoch, trial.Scores[epoch])
				}
			}
			if got := run.Metrics[len(trial.Scores)]["best_val_macro_f1"]; trial.State == criteria.TrialCompleted && got != trial.Value {
				t.Errorf("trial %d has best_val_macro_f1 %v, want %v", i, got, trial.Value)
			}
		}
	})
	t.Run("the best trial can be trained again", func(t *testing.T) {
		text, err := os.ReadFile(filepath.Join(b.dir, "best_trial_config.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		config, err := criteria.ParseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*result.Config, config); diff != "" {
			t.Errorf("best_trial_config.yaml (-result +file):\n%s", diff)
		}
		again, err := b.trainer(t, criteria.WithConfig(config)).Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if again.Best.Val.MacroF1 != result.Best.Value {
			t.Errorf("trained again, val_macro_f1 is %v, want %v", again.Best.Val.MacroF1, result.Best.Value)
		}
		for i, e := range again.History {
			if e.Val.MacroF1 != result.Best.Scores[i+1] {
				t.Errorf("trained again, epoch %d has %v, want %v", i+1, e.Val.MacroF1, result.Best.Scores[i+1])
			}
		}
	})
}

// What a trial was, without what differs from run to run.
var untimed = cmpopts.IgnoreFields(criteria.Trial{}, "RunID", "Started", "Ended")

func TestStudyRepeatsItself(t *testing.T) {
	b := newStudyBench(t)
	first, again := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.Storage = "" }))), search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.Storage = "" })))
	if diff := cmp.Diff(first.Trials, again.Trials, untimed); diff != "" {
		t.Errorf("one seed gives two studies (-first +again):\n%s", diff)
	}
	b.config.HPO.Sampler.Seed = nil
	drawn := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.Storage, c.HPO.NTrials = "", 2 })))
	if cmp.Equal(first.Trials[:2], drawn.Trials, untimed) {
		t.Error("without a seed the study is the same")
	}
}

// A study that is run in parts is the one that is run at once.
func TestStudyContinues(t *testing.T) {
	b := newStudyBench(t)
	whole := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.Storage = "" })))
	part := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 7 })))
	if len(part.Trials) != 7 {
		t.Fatalf("%d trials, want 7", len(part.Trials))
	}
	sessions := len(b.engine.Specs())
	rest := search(t, b.study(t))
	if diff := cmp.Diff(whole.Trials, rest.Trials, untimed); diff != "" {
		t.Errorf("(-at once +in parts):\n%s", diff)
	}
	if got := len(b.engine.Specs()) - sessions; got != 1+5 {
		t.Errorf("%d sessions were opened for 5 trials and a dry run", got)
	}
	if rest.RunID != part.RunID {
		t.Errorf("the study has two runs, %s and %s", part.RunID, rest.RunID)
	}

	// A study that has all its trials is only reported again.
	sessions = len(b.engine.Specs())
	b.dir = t.TempDir()
	if done := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 5 }))); len(done.Trials) != 12 || done.Best.Number != rest.Best.Number {
		t.Errorf("%d trials, best %d", len(done.Trials), done.Best.Number)
	}
	if got := len(b.engine.Specs()); got != sessions {
		t.Errorf("%d sessions were opened for nothing", got-sessions)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "best_trial_config.yaml")); err != nil {
		t.Error(err)
	}
}

func TestStudyInterrupted(t *testing.T) {
	for retries, wantNew := range []int{1, 0} { // trials drawn in place of the interrupted one
		b := newStudyBench(t)
		b.config.HPO.Retries = retries
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("no more")
		s := b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 6 }), criteria.WithHooks(criteria.Hooks{Epoch: func(e criteria.EpochEvent) {
			if e.Trial == 3 && e.Epoch == 2 {
				cancel(cause)
			}
		}}))
		result, err := s.Run(ctx)
		var interrupted *criteria.InterruptedError
		if !errors.As(err, &interrupted) || !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || interrupted.Study == "" || interrupted.Trials != 3 {
			t.Fatalf("error %v (%+v)", err, interrupted)
		}
		if result == nil || result.Best == nil || result.Trials[3].State != criteria.TrialFailed || !strings.Contains(result.Trials[3].Reason, "no more") {
			t.Fatalf("result %v", result)
		}
		parent, run := b.tracker.Runs()[0], b.nested(t)["3"]
		if parent.Status != criteria.RunKilled || run.Status != criteria.RunKilled || run.Tags["trial_status"] != "failed" {
			t.Errorf("the study is %s, its trial %s and %s", parent.Status, run.Status, run.Tags["trial_status"])
		}
		for _, name := range []string{"best_trial_config.yaml", "optimization_history.png"} {
			if _, err := os.Stat(filepath.Join(b.dir, name)); err != nil {
				t.Error(err)
			}
		}

		rest := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 6 })))
		if n := states(rest); n[criteria.TrialFailed] != 1 || n[criteria.TrialCompleted]+n[criteria.TrialPruned] != 6 || parent.Status != criteria.RunFinished {
			t.Errorf("continued, the study has %v and is %s", n, parent.Status)
		}
		again := 0
		for _, trial := range rest.Trials[4:] {
			if cmp.Equal(trial.Params, rest.Trials[3].Params) {
				again++
			}
		}
		if again != 1-wantNew {
			t.Errorf("with %d retries the interrupted trial was run again %d times", retries, again)
		}
	}
}

// One trial that fails does not end a study.
func TestStudyOutlivesFailures(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error":   func() error { return errors.New("out of memory") },
		"panic":   func() error { panic("out of range") },
		"diverge": func() error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			b := newStudyBench(t)
			opened := 0
			b.engine.Before = func(op string) error {
				if op == "open" {
					opened++
				}
				if opened == 3 && op == "accumulate" && name != "diverge" {
					return fail()
				}
				return nil
			}
			b.engine.Result = func(op string, _ criteria.Batch, r *criteria.BatchResult) {
				if opened == 3 && name == "diverge" && op == "accumulate" {
					r.Loss = math.NaN()
				}
			}
			result := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 4 })))
			if n := states(result); n[criteria.TrialFailed] != 1 || len(result.Trials) != 5 || result.Trials[1].State != criteria.TrialFailed || result.Trials[1].Reason == "" {
				t.Errorf("%+v", result.Trials)
			}
			if run := b.nested(t)["1"]; run.Status != criteria.RunFailed || run.Tags["trial_status"] != "failed" {
				t.Errorf("its run is %s and %s", run.Status, run.Tags["trial_status"])
			}
		})
	}
	t.Run("too many", func(t *testing.T) {
		b := newStudyBench(t)
		b.config.HPO.MaxFailures = 3
		broken := errors.New("no such device")
		opened := 0
		b.engine.Before = func(op string) error {
			if op == "open" {
				if opened++; opened > 1 {
					return broken
				}
			}
			return nil
		}
		result, err := b.study(t).Run(t.Context())
		if !errors.Is(err, broken) || !strings.Contains(err.Error(), "3 trials failed") || len(result.Trials) != 3 {
			t.Errorf("error %v, %v", err, result)
		}
		if status := b.tracker.Runs()[0].Status; status != criteria.RunFailed {
			t.Errorf("the study is %s", status)
		}
	})
	t.Run("before the first trial", func(t *testing.T) {
		b := newStudyBench(t)
		broken := errors.New("no such library")
		b.engine.Before = func(string) error { return broken }
		if result, err := b.study(t).Run(t.Context()); !errors.Is(err, broken) || len(result.Trials) != 0 {
			t.Errorf("error %v, %v", err, result)
		}
	})
}

func TestStudyRefusesAnother(t *testing.T) {
	b := newStudyBench(t)
	search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 1 })))
	sizes := b.config.HPO.SearchSpace
	sizes.BatchSize.Choices = []int{4, 8}
	for key, option := range map[string]criteria.StudyOption{
		"the test split":              criteria.WithDataset(fakes.Dataset(20, 6, 6, 2)),
		"hpo.search_space.batch_size": criteria.Configure(func(c *criteria.Config) { c.HPO.SearchSpace = sizes }),
	} {
		var other *criteria.StudyError
		if _, err := b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 2 }), option).Run(t.Context()); !errors.As(err, &other) || other.Key != key {
			t.Errorf("error %v; want a *StudyError about %s", err, key)
		}
	}
	if result := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials, c.Train.Epochs = 2, 3 }))); len(result.Trials) != 2 {
		t.Error("other epochs are no reason to refuse")
	}
}

func TestStudyJobs(t *testing.T) {
	b := newStudyBench(t)
	var running, most atomic.Int32
	var both = make(chan struct{})
	b.engine.Before = func(op string) error {
		switch op {
		case "open":
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
		case "close":
			running.Add(-1)
		case "update": // of a trial, not of the dry run
			if running.Load() == 2 && most.Load() == 2 {
				select {
				case <-both:
				default:
					close(both)
				}
			}
			<-both
		}
		return nil
	}
	result := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NJobs = 2 }), criteria.WithThreads(4), criteria.WithHooks(criteria.Hooks{
		Step: func(criteria.StepEvent) { t.Error("steps of two trials at the same time are told") },
	})))
	if n := states(result); n[criteria.TrialCompleted]+n[criteria.TrialPruned] != 12 || most.Load() != 2 {
		t.Errorf("%v, at most %d at the same time", n, most.Load())
	}
	for _, spec := range b.engine.Specs()[1:] {
		if spec.Threads != 2 {
			t.Errorf("a trial has %d of 4 threads, want 2", spec.Threads)
		}
	}
	if result.Config.Train.Threads != 4 {
		t.Errorf("the best configuration has %d threads", result.Config.Train.Threads)
	}
	seen := map[string]bool{}
	for _, trial := range result.Trials {
		seen[fmt.Sprint(trial.Params)] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d different trials of 12", len(seen))
	}
}

func TestStudyKeepsModels(t *testing.T) {
	b := newStudyBench(t)
	b.config.HPO.SaveModels = true
	result := search(t, b.study(t, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 2 })))
	for _, trial := range result.Trials {
		classifier, err := criteria.Load(t.Context(), filepath.Join(b.dir, "trials", fmt.Sprintf("%04d", trial.Number), "best_model"),
			criteria.WithEngine(b.engine), criteria.WithTokenizer(&fakes.Tokenizer{}))
		if err != nil {
			t.Fatal(err)
		}
		classifier.Close()
	}
}

// Any sampler and pruner of goptuna's can be plugged in.
func TestStudyWithGoptuna(t *testing.T) {
	stop, err := goptunaPruner()
	if err != nil {
		t.Fatal(err)
	}
	for name, options := range map[string][]criteria.StudyOption{
		"RandomSampler": {criteria.WithSampler(goptuna.NewRandomSampler(goptuna.RandomSamplerOptionSeed(1)))},
		"cmaes.Sampler": {criteria.WithRelativeSampler(cmaes.NewSampler(cmaes.SamplerOptionSeed(1)))},
		"pruner":        {criteria.WithPruner(stop)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStudyBench(t)
			result := search(t, b.study(t, append(options, criteria.Configure(func(c *criteria.Config) { c.HPO.NTrials = 5 }))...))
			if len(result.Trials) != 5 {
				t.Errorf("%v", states(result))
			}
			recorded := b.tracker.Runs()[0].Params
			if name == "pruner" {
				if recorded["pruner"] != "criteria_test.firstEpoch" || states(result)[criteria.TrialPruned] != 4 {
					t.Errorf("params %v, trials %v", recorded, states(result))
				}
			} else if !strings.HasSuffix(recorded["sampler"], name) {
				t.Errorf("params %v", recorded)
			}
		})
	}
}

// firstEpoch gives every trial but the first one up.
type firstEpoch struct{}

func (firstEpoch) Prune(_ *goptuna.Study, trial goptuna.FrozenTrial) (bool, error) {
	return trial.Number > 0, nil
}

func goptunaPruner() (goptuna.Pruner, error) { return firstEpoch{}, nil }

func TestNewStudyReportsEveryProblem(t *testing.T) {
	_, err := criteria.NewStudy(
		criteria.Configure(func(c *criteria.Config) {
			c.HPO.NTrials, c.HPO.NJobs = 0, -1
		}), criteria.WithSampler(nil), criteria.WithResume("outputs"), criteria.Configure(func(c *criteria.Config) { c.HPO.Storage = "optuna.db" }), nil,
	)
	if !errors.Is(err, criteria.ErrInvalidOption) || !errors.Is(err, criteria.ErrInvalidConfig) {
		t.Fatalf("error %v", err)
	}
	for _, part := range []string{"hpo.n_trials = 0", "hpo.n_jobs = -1", "WithSampler", "WithResume(outputs)", "hpo.storage = optuna.db", "not nil"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
	s := newStudyBench(t).study(t)
	search(t, s)
	if _, err := s.Run(t.Context()); !errors.Is(err, criteria.ErrReused) {
		t.Errorf("second run: %v", err)
	}
}
