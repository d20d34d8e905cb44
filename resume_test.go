package criteria_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
	"github.com/criteria-go/criteria/internal/memwatch"
	"github.com/criteria-go/criteria/internal/mlflow"
)

// smallBench trains 3 epochs of 5 micro-batches in updates of 2, 2 and 1.
func smallBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.data = fakes.Dataset(12, 4, 4, 1)
	b.config.Train.Epochs = 3
	b.config.Train.GradientAccumulationSteps = 2
	b.config.Train.EvalBatchSize = 8
	return b
}

// outcome is all that a run leaves behind, except its reports' times and the
// checkpoints.
type outcome struct {
	Best, Test   any
	History      []criteria.EpochScores
	Stop         criteria.StopReason
	Epochs, Step int
	Files        map[string]string
	Metrics      map[int]map[string]float64
	Artifacts    map[string]string
	Params       map[string]string
	Runs         int
	Status       criteria.RunStatus
}

func (b *bench) outcome(t *testing.T, r *criteria.Result) outcome {
	t.Helper()
	runs := b.tracker.Runs()
	run := runs[0]
	o := outcome{
		Best: r.Best, Test: r.Test, History: r.History, Stop: r.Stop, Epochs: r.Epochs, Step: r.Steps, Files: map[string]string{},
		Metrics: run.Metrics, Artifacts: run.Artifacts, Params: run.Params, Runs: len(runs), Status: run.Status,
	}
	for _, name := range files(t, b.dir) {
		text, err := os.ReadFile(filepath.Join(b.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		o.Files[name] = string(text)
	}
	return o
}

// again is a bench for another run of the same configuration.
func (b *bench) again(t *testing.T) *bench {
	t.Helper()
	c := *b
	c.dir, c.engine, c.tracker = t.TempDir(), &fakes.Engine{Async: b.engine.Async}, &fakes.Tracker{}
	return &c
}

// Wherever a run is interrupted, resumed it ends as if it had not been.
func TestResumeAfterInterruption(t *testing.T) {
	t.Parallel()
	for _, async := range []bool{false, true} {
		testResumeAfterInterruption(t, async)
	}
}

func testResumeAfterInterruption(t *testing.T, async bool) {
	whole := smallBench(t)
	whole.config.Train.Epochs = 2
	events := 0
	want := whole.outcome(t, whole.run(t, criteria.WithHooks(criteria.Hooks{Step: func(criteria.StepEvent) { events++ }})))
	if events < 15 {
		t.Fatalf("%d events", events)
	}
	whole.engine.Async = async
	for at := 1; at < events; at++ { // at the very last one, nothing is left to interrupt
		b := whole.again(t)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := b.trainer(t, criteria.WithHooks(criteria.Hooks{Step: func(criteria.StepEvent) {
			if n++; n == at {
				cancel()
			}
		}})).Run(ctx)
		cancel()
		var interrupted *criteria.InterruptedError
		if !errors.As(err, &interrupted) || interrupted.Checkpoint == "" {
			t.Fatalf("event %d: error %v; want an InterruptedError with a checkpoint", at, err)
		}
		if diff := cmp.Diff(want, b.outcome(t, b.run(t, criteria.WithResume(b.dir)))); diff != "" {
			t.Errorf("async %t: interrupted at event %d of %d (-uninterrupted +resumed):\n%s", async, at, events, diff)
		}
	}
}

// Whatever fails, and whenever, the run can be resumed and ends as if nothing
// had failed.
func TestResumeAfterFailure(t *testing.T) {
	t.Parallel()
	for _, async := range []bool{false, true} {
		testResumeAfterFailure(t, async)
	}
}

func testResumeAfterFailure(t *testing.T, async bool) {
	calls := make(map[string]int)
	whole := smallBench(t)
	whole.config.Train.Epochs = 2
	whole.engine.Before = func(op string) error { calls[op]++; return nil }
	want := whole.outcome(t, whole.run(t))
	whole.engine.Async = async
	broken := errors.New("the power failed")
	for _, op := range []string{"open", "accumulate", "update", "evaluate", "save", "save state"} {
		if calls[op] == 0 {
			t.Fatalf("no call of %s", op)
		}
		for at := 1; at <= calls[op]; at++ {
			b := whole.again(t)
			n := 0
			b.engine.Before = func(got string) error {
				if got == op {
					n++
				}
				if n >= at && got != "close" { // from then on nothing works
					return broken
				}
				return nil
			}
			if _, err := b.fail(t.Context(), t); !errors.Is(err, broken) {
				t.Fatalf("%s %d: %v", op, at, err)
			}
			b.engine.Before = nil
			if diff := cmp.Diff(want, b.outcome(t, b.run(t, criteria.WithResume(b.dir)))); diff != "" {
				t.Errorf("async %t: %s failed at call %d (-uninterrupted +resumed):\n%s", async, op, at, diff)
			}
		}
	}
}

// A run may be interrupted again and again.
func TestResumeOften(t *testing.T) {
	whole := smallBench(t)
	scripted(whole, 0.9, 0.5, 0.4)
	whole.config.Train.EarlyStoppingPatience = 1
	want := whole.outcome(t, whole.run(t))
	if want.Stop != criteria.EarlyStopped || want.Epochs != 2 {
		t.Fatalf("%v after %d epochs; want it stopped early after 2", want.Stop, want.Epochs)
	}
	b := whole.again(t)
	scripted(b, 0.9, 0.5, 0.4)
	opts := []criteria.TrainerOption{}
	for attempt := 0; ; attempt++ {
		if attempt > 20 {
			t.Fatal("the run does not get on")
		}
		ctx, cancel := context.WithCancel(t.Context())
		step := -1
		result, err := b.trainer(t, append(opts, criteria.WithHooks(criteria.Hooks{Step: func(e criteria.StepEvent) {
			if e.Phase == criteria.PhaseTrain && step >= 0 && e.Step > step {
				cancel()
			}
			step = e.Step
		}}))...).Run(ctx)
		cancel()
		if err == nil {
			// The script counts evaluations from the start of the process, so that
			// only what does not depend on it is compared.
			got := b.outcome(t, result)
			if got.Runs != 1 || got.Status != criteria.RunFinished {
				t.Errorf("%d runs, status %s; want one that is FINISHED", got.Runs, got.Status)
			}
			if attempt < 2 {
				t.Errorf("%d interruptions, want several", attempt)
			}
			return
		}
		opts = []criteria.TrainerOption{criteria.WithResume(b.dir)}
	}
}

// interruptedBench has a run in its folder that was interrupted in epoch 2.
func interruptedBench(t *testing.T) (b *bench, want outcome) {
	t.Helper()
	whole := smallBench(t)
	want = whole.outcome(t, whole.run(t))
	b = whole.again(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.fail(ctx, t, criteria.WithHooks(criteria.Hooks{Step: func(e criteria.StepEvent) {
		if e.Epoch == 2 && e.Phase == criteria.PhaseTrain {
			cancel()
		}
	}}))
	return b, want
}

func checkpoints(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDamagedCheckpoint(t *testing.T) {
	damage := map[string]func(path string) error{
		"gone": os.Remove,
		"torn": func(path string) error { return os.Truncate(path, 20) },
		"a bit flipped": func(path string) error {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text[len(text)/2] ^= 1
			return os.WriteFile(path, text, 0o644)
		},
	}
	for _, file := range []string{"state.json", "config.yaml", "SHA256SUMS", "session/fake_model.json"} {
		for name, do := range damage {
			t.Run(file+" "+name, func(t *testing.T) {
				t.Parallel()
				b, want := interruptedBench(t)
				names := checkpoints(t, b.dir)
				if diff := cmp.Diff([]string{"step-00000003", "step-00000004"}, names); diff != "" {
					t.Fatalf("checkpoints (-want +got):\n%s", diff)
				}
				if err := do(filepath.Join(b.dir, "checkpoints", names[1], filepath.FromSlash(file))); err != nil {
					t.Fatal(err)
				}
				var log strings.Builder
				result := b.run(t, criteria.WithResume(b.dir), criteria.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				if diff := cmp.Diff(want, b.outcome(t, result)); diff != "" {
					t.Errorf("(-uninterrupted +resumed):\n%s", diff)
				}
				if !strings.Contains(log.String(), "this checkpoint is damaged") || !strings.Contains(log.String(), "step=3") {
					t.Errorf("the log does not say that step-00000004 is damaged and step 3 is resumed:\n%s", &log)
				}

				// And if none is left, the error says so.
				for _, name := range checkpoints(t, b.dir) {
					if err := os.Remove(filepath.Join(b.dir, "checkpoints", name, "state.json")); err != nil {
						t.Fatal(err)
					}
				}
				result, err := b.trainer(t, criteria.WithResume(b.dir)).Run(t.Context())
				var fault *criteria.CheckpointError
				if result != nil || !errors.As(err, &fault) || !strings.Contains(err.Error(), "every checkpoint is damaged") {
					t.Errorf("Run() = %v, %v; want a CheckpointError", result, err)
				}
			})
		}
	}
}

func TestResumeNeedsTheSameRun(t *testing.T) {
	b, want := interruptedBench(t)
	other := fakes.Dataset(12, 4, 4, 1)
	other.Hashes = map[string]string{"posts.csv": strings.Repeat("1", 64)}
	text := fakes.Dataset(12, 4, 4, 1)
	text.Train[0].Criterion += "!"
	more := fakes.Dataset(12, 4, 4, 1)
	more.Hashes["more.csv"] = "2"
	for name, tc := range map[string]struct {
		option criteria.TrainerOption
		want   criteria.CheckpointError
	}{
		"rate": {criteria.Configure(func(c *criteria.Config) { c.Train.LearningRate = 3e-5 }), criteria.CheckpointError{Key: "train.learning_rate", Want: "2e-05", Got: "3e-05"}},
		"seed": {criteria.WithSeed(43), criteria.CheckpointError{Key: "train.seed", Want: "42", Got: "43"}},
		"head": {criteria.Configure(func(c *criteria.Config) {
			c.Model.Head = criteria.HeadConfig{NumLayers: 1, HiddenDims: []int{128}, Activation: "relu", Dropout: 0.1, PoolingStrategy: "cls"}
		}), criteria.CheckpointError{Key: "model.head.hidden_dims", Want: "[256]", Got: "[128]"}},
		"file":    {criteria.WithDataset(other), criteria.CheckpointError{Key: "the SHA-256 of data file posts.csv", Want: strings.Repeat("0", 64), Got: strings.Repeat("1", 64)}},
		"another": {criteria.WithDataset(more), criteria.CheckpointError{Key: "the SHA-256 of data file more.csv", Want: "absent", Got: "2"}},
		"text":    {criteria.WithDataset(text), criteria.CheckpointError{Key: "the digest of the train split"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.Dir = filepath.Join(b.dir, "checkpoints", "step-00000004")
			result, err := b.trainer(t, criteria.WithResume(b.dir), tc.option).Run(t.Context())
			var fault *criteria.CheckpointError
			if result != nil || !errors.As(err, &fault) {
				t.Fatalf("Run() = %v, %v; want a CheckpointError", result, err)
			}
			ignore := cmp.Options{}
			if tc.want.Want == "" {
				ignore = cmp.Options{cmpopts.IgnoreFields(criteria.CheckpointError{}, "Want", "Got")}
			}
			if diff := cmp.Diff(tc.want, *fault, ignore); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !strings.Contains(err.Error(), fault.Key+" is "+fault.Got+", but the run was started with "+fault.Want) {
				t.Errorf("error %q", err)
			}
		})
	}
	t.Run("what may change", func(t *testing.T) {
		b.config.Train.CheckpointSteps = 1
		b.config.Train.KeepCheckpoints = 1
		got := b.outcome(t, b.run(t, criteria.WithResume(b.dir), criteria.WithThreads(3)))
		ignore := cmpopts.IgnoreFields(outcome{}, "Params", "Artifacts", "Files")
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Errorf("(-uninterrupted +resumed):\n%s", diff)
		}
	})
	t.Run("base checkpoint", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(b.config.Model.Checkpoint, "config.json"), []byte("{ }"), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := b.trainer(t, criteria.WithResume(b.dir)).Run(t.Context())
		var fault *criteria.CheckpointError
		if !errors.As(err, &fault) || fault.Key != "the SHA-256 of "+filepath.Join(b.config.Model.Checkpoint, "config.json") {
			t.Errorf("error %v; want a CheckpointError of config.json", err)
		}
		if err := os.WriteFile(filepath.Join(b.config.Model.Checkpoint, "config.json"), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		_, err := b.trainer(t, criteria.WithResume(t.TempDir())).Run(t.Context())
		var fault *criteria.CheckpointError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), "nothing to resume") {
			t.Errorf("error %v; want a CheckpointError: nothing to resume", err)
		}
	})
	t.Run("the best model is gone", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(b.dir, "best_model")); err != nil {
			t.Fatal(err)
		}
		_, err := b.trainer(t, criteria.WithResume(b.dir)).Run(t.Context())
		var fault *criteria.CheckpointError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), "best model so far is gone") {
			t.Errorf("error %v; want a CheckpointError: the best model is gone", err)
		}
	})
}

// A tracker that cannot go on with a run gets a new one, which is complete.
func TestResumeWithAnotherTracker(t *testing.T) {
	b, want := interruptedBench(t)
	b.tracker = &fakes.Tracker{}
	b.tracker.Before = func(string) error { return nil }
	// Its first run has the ID of the one that was interrupted; it is somebody else's.
	if _, err := b.tracker.Start(t.Context(), criteria.RunInfo{}); err != nil {
		t.Fatal(err)
	}
	_ = b.tracker.Runs()[0].End(t.Context(), criteria.RunFinished)
	b.run(t, criteria.WithResume(b.dir), criteria.WithTracker(newRuns{b.tracker}))
	run := b.tracker.Runs()[1]
	if run.Tags["resumed_from"] != "run1" {
		t.Errorf("resumed_from = %q, want run1", run.Tags["resumed_from"])
	}
	if diff := cmp.Diff(want.Metrics, run.Metrics); diff != "" {
		t.Errorf("metrics (-uninterrupted +resumed):\n%s", diff)
	}
}

type newRuns struct{ *fakes.Tracker }

func (n newRuns) Start(ctx context.Context, info criteria.RunInfo) (criteria.TrackedRun, error) {
	info.ResumeRunID = ""
	return n.Tracker.Start(ctx, info)
}

// A run in MLflow that was interrupted is the one that goes on. If it was
// deleted, or another store is used now, a new one is complete, says where it
// comes from, and the old one stays as it is.
func TestResumeInMLflow(t *testing.T) {
	tracking := func(name string) (uri string, store mlflow.Store) {
		dir := t.TempDir()
		uri = "sqlite:///" + filepath.Join(dir, name)
		store, err := mlflow.Open(t.Context(), uri, mlflow.Options{ArtifactRoot: filepath.Join(dir, "mlruns")})
		if err == nil {
			_, err = store.EnsureExperiment(t.Context(), "test") // so that it has a place for artifacts
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		return uri, store
	}
	uri, store := tracking("mlflow.db")
	otherURI, other := tracking("other.db")
	using := func(b *bench, uri string, log *strings.Builder) []criteria.TrainerOption {
		logger := slog.New(slog.NewTextHandler(log, nil))
		tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(uri), criteria.WithExperiment("test"), criteria.WithSystemMetrics(0), criteria.WithLogger(logger))
		if err != nil {
			t.Fatal(err)
		}
		return []criteria.TrainerOption{criteria.WithTracker(tracker), criteria.WithOutputDir(b.dir), criteria.WithLogger(logger)}
	}
	whole := smallBench(t)
	wantID := whole.run(t, using(whole, uri, new(strings.Builder))...).RunID
	want := trackedRun(t, store, wantID)

	for name, tc := range map[string]struct {
		uri     string
		store   mlflow.Store
		prepare func(t *testing.T, id string)
		same    bool // whether it is the same run that goes on
	}{
		"the same": {uri, store, func(*testing.T, string) {}, true},
		"deleted": {uri, store, func(t *testing.T, id string) {
			db, err := sql.Open("sqlite", strings.TrimPrefix(uri, "sqlite:///"))
			if err == nil {
				_, err = db.Exec("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", id)
			}
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}, false},
		"another store": {otherURI, other, func(*testing.T, string) {}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := whole.again(t)
			var log strings.Builder
			var id string
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			hooks := criteria.WithHooks(criteria.Hooks{
				Start: func(e criteria.StartEvent) { id = e.RunID },
				Step: func(e criteria.StepEvent) {
					if e.Epoch == 2 && e.Phase == criteria.PhaseTrain {
						cancel()
					}
				},
			})
			if _, err := b.trainer(t, append(using(b, uri, &log), hooks)...).Run(ctx); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			old := trackedRun(t, store, id)
			if old.Status != mlflow.Killed {
				t.Errorf("status %s of the interrupted run, want KILLED", old.Status)
			}
			tc.prepare(t, id)
			result := b.run(t, append(using(b, tc.uri, &log), criteria.WithResume(b.dir))...)
			got := trackedRun(t, tc.store, result.RunID)
			if tc.same != (result.RunID == id) {
				t.Errorf("run %s, resumed as %s", id, result.RunID)
			}
			if !tc.same {
				if got.Tags["resumed_from"] != id || !strings.Contains(log.String(), "a new run is recorded") {
					t.Errorf("resumed_from = %q, want %s; log:\n%s", got.Tags["resumed_from"], id, &log)
				}
				if diff := cmp.Diff(old, trackedRun(t, store, id)); diff != "" {
					t.Errorf("the interrupted run (-before +after):\n%s", diff)
				}
			}
			ignore := cmp.Options{
				cmpopts.IgnoreMapEntries(func(tag, _ string) bool { return tag == "resumed_from" || tag == "mlflow.runName" }),
			}
			if diff := cmp.Diff(want, got, ignore); diff != "" {
				t.Errorf("(-uninterrupted +resumed):\n%s", diff)
			}
		})
	}
}

func TestCheckpointIntervals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(c *criteria.TrainConfig)
		tick   time.Duration
		want   []int // steps
	}{
		"the last two epochs": {func(*criteria.TrainConfig) {}, 0, []int{6, 9}},
		"all":                 {func(c *criteria.TrainConfig) { c.KeepCheckpoints = 9 }, 0, []int{0, 3, 6, 9}},
		"one":                 {func(c *criteria.TrainConfig) { c.KeepCheckpoints = 1 }, 0, []int{9}},
		"steps":               {func(c *criteria.TrainConfig) { c.KeepCheckpoints, c.CheckpointSteps = 99, 2 }, 0, []int{0, 2, 3, 4, 6, 8, 9}},
		"minutes":             {func(c *criteria.TrainConfig) { c.KeepCheckpoints, c.CheckpointMinutes = 99, 1 }, time.Minute, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			b := smallBench(t)
			tc.change(&b.config.Train)
			b.run(t, criteria.WithClock((&fakes.Clock{Tick: tc.tick}).Now))
			var want []string
			for _, step := range tc.want {
				want = append(want, fmt.Sprintf("step-%08d", step))
			}
			if diff := cmp.Diff(want, checkpoints(t, b.dir)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		b := smallBench(t)
		b.config.Train.KeepCheckpoints = 0
		b.run(t)
		if _, err := os.Stat(filepath.Join(b.dir, "checkpoints")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("checkpoints: %v, want none", err)
		}
	})
}

// A new run in the same folder does not mix its checkpoints with older ones.
func TestNewRunRemovesOldCheckpoints(t *testing.T) {
	b := smallBench(t)
	b.run(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := b.trainer(t, criteria.WithHooks(criteria.Hooks{Step: func(criteria.StepEvent) { cancel() }})).Run(ctx)
	var interrupted *criteria.InterruptedError
	if !errors.As(err, &interrupted) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"step-00000000", "step-00000001"}, checkpoints(t, b.dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// When a checkpoint cannot be written, the run ends with one error that says
// which, and those before it are as they were.
func TestCheckpointCannotBeWritten(t *testing.T) {
	for name, spoil := range map[string]func(b *bench) error{
		"disk full": func(*bench) error { return &os.PathError{Op: "write", Path: "weights", Err: syscall.ENOSPC} },
		"a file vanishes": func(b *bench) error {
			return os.RemoveAll(filepath.Join(b.dir, "checkpoints", ".step-00000006.tmp", "session"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			whole := smallBench(t)
			want := whole.outcome(t, whole.run(t))
			b := whole.again(t)
			saves := 0
			b.engine.Before = func(op string) error {
				if op == "save state" {
					if saves++; saves >= 2 {
						return spoil(b)
					}
				}
				return nil
			}
			run, err := b.fail(t.Context(), t)
			var fault *criteria.CheckpointError
			if !errors.As(err, &fault) || fault.Dir != filepath.Join(b.dir, "checkpoints", "step-00000006") {
				t.Errorf("error %v; want a CheckpointError of step 6", err)
			}
			if run.Status != criteria.RunFailed || saves != 2 {
				t.Errorf("status %s after %d attempts; want FAILED after 2", run.Status, saves)
			}
			if diff := cmp.Diff([]string{"step-00000000", "step-00000003"}, checkpoints(t, b.dir)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			b.engine.Before = nil
			if diff := cmp.Diff(want, b.outcome(t, b.run(t, criteria.WithResume(b.dir)))); diff != "" {
				t.Errorf("(-uninterrupted +resumed):\n%s", diff)
			}
		})
	}
}

func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"format":1,"run_id":"r","data":{"a.csv":"0"},"splits":{"train":"x"},"versions":{},"training":{"epoch":0,"micro":0,"step":0,"tally":{},"history":null,"best_epoch":0}}`))
	f.Add([]byte(`{"format":1,"training":{"epoch":2,"micro":3,"step":9,"tally":{"loss_sum":0.5,"weight_sum":2,"confusion":[[1,2],[3,4]]},"history":[{"epoch":1,"train":{"loss":1},"val":{"macro_f1":0.5}}],"best_epoch":1}}`))
	f.Add([]byte(`{"format":1,"training":{"epoch":-1,"best_epoch":7}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		memwatch.Start(t, len(text))
		state, err := criteria.ParseState(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		other, err := criteria.ParseState(again)
		if err != nil {
			t.Fatalf("%s is read, but not what is written of it: %v", text, err)
		}
		if diff := cmp.Diff(state, other, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}
