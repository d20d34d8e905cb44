package criteria

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
)

// switched is a store that can be away.
type switched struct {
	mlflow.Store
	away *atomic.Bool
}

var errStoreAway = errors.New("connection refused")

func (s switched) CreateRun(ctx context.Context, spec mlflow.RunSpec) (mlflow.Run, error) {
	if s.away.Load() {
		return mlflow.Run{}, errStoreAway
	}
	return s.Store.CreateRun(ctx, spec)
}

func (s switched) FindRun(ctx context.Context, spec mlflow.RunSpec) (mlflow.Run, error) {
	if s.away.Load() {
		return mlflow.Run{}, errStoreAway
	}
	return s.Store.FindRun(ctx, spec)
}

func (s switched) LogBatch(ctx context.Context, id string, b mlflow.Batch) error {
	if s.away.Load() {
		return errStoreAway
	}
	return s.Store.LogBatch(ctx, id, b)
}

// newTracker returns a tracker of a database in a folder of its own, which is
// the working directory, and what it logs.
func newTracker(t *testing.T, opts ...TrackerOption) (tracker *MLflowTracker, log *bytes.Buffer, away *atomic.Bool) {
	t.Helper()
	t.Chdir(t.TempDir())
	log, away = new(bytes.Buffer), new(atomic.Bool)
	opts = append([]TrackerOption{WithTrackingURI("sqlite:///runs.db"), WithExperiment("tests"), WithLogger(slog.New(slog.NewTextHandler(log, nil))), WithSystemMetrics(0)}, opts...)
	tracker, err := NewMLflowTracker(opts...)
	if err != nil {
		t.Fatal(err)
	}
	tracker.patience = 50 * time.Millisecond
	tracker.openStore = func(ctx context.Context, uri string) (mlflow.Store, error) {
		s, err := tracker.open(ctx, uri)
		if err != nil {
			return nil, err
		}
		return switched{s, away}, nil
	}
	return tracker, log, away
}

func readRun(t *testing.T, uri, id string) (mlflow.Store, mlflow.Run) {
	t.Helper()
	s, err := mlflow.Open(t.Context(), uri, mlflow.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	run, err := s.Run(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s, run
}

func trainInfo(dir string) RunInfo {
	return RunInfo{
		Name: "train-seed42", Description: "Fine-tuning of *tiny*.", Started: time.Now(), Dir: dir,
		Tags: map[string]string{
			"stage": "train", "git.commit": strings.Repeat("0af1", 10), "git.branch": "main", "git.dirty": "false",
			"version.go": "1.26", "data.hash.posts (1).csv": strings.Repeat("ab", 32),
		},
		Params: map[string]string{"train.seed": "42", "train.learning_rate": "2e-05", "train.epochs": "3", "model.checkpoint": "tiny", "opt.use_amp": "True"},
		Datasets: []DatasetInfo{
			{Name: "sample", Context: "train", Digest: strings.Repeat("1", 64), Source: "data", Rows: 80},
			{Name: "sample", Context: "val", Digest: strings.Repeat("2", 64), Source: "data", Rows: 10},
			{Name: "sample", Context: "test", Digest: strings.Repeat("3", 64), Source: "data", Rows: 10},
		},
	}
}

// trackTraining records what a training does.
func trackTraining(t *testing.T, tracker Tracker, info RunInfo) string {
	t.Helper()
	ctx := t.Context()
	run, err := tracker.Start(ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(run.LogArtifact(ctx, "config/config.yaml", strings.NewReader("train:\n  seed: 42\n")))
	for epoch := 1; epoch <= 3; epoch++ {
		metrics := map[string]float64{}
		for _, split := range []string{"train", "val"} {
			for _, score := range []string{"loss", "accuracy", "macro_f1", "weighted_f1"} {
				metrics[split+"_"+score] = float64(epoch) / 10
			}
		}
		check(run.LogMetrics(ctx, epoch, metrics))
	}
	test := map[string]float64{}
	for _, score := range []string{"loss", "accuracy", "macro_f1", "weighted_f1", "precision", "recall"} {
		test["test_"+score] = 0.5
	}
	check(run.LogMetrics(ctx, 3, test))
	check(run.SetTags(ctx, map[string]string{"version.onnxruntime": "1.27"}))
	check(run.LogParams(ctx, map[string]string{"model.head.num_layers": "1"}))
	model := t.TempDir()
	check(os.WriteFile(filepath.Join(model, "config.json"), []byte("{}"), 0o666))
	check(run.LogArtifacts(ctx, model, "model"))
	var picture bytes.Buffer
	check(png.Encode(&picture, image.NewGray(image.Rect(0, 0, 32, 32))))
	check(run.LogArtifact(ctx, "confusion_matrix.png", &picture))
	row := `{"precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 5}`
	check(run.LogArtifact(ctx, "classification_report.json", strings.NewReader(
		fmt.Sprintf(`{"0": %s, "1": %s, "accuracy": 0.5, "macro avg": %s, "weighted avg": %s}`, row, row, row, row))))
	check(run.End(ctx, RunFinished))
	if err := run.End(ctx, RunFinished); err == nil {
		t.Error("a run was ended twice")
	}
	return run.ID()
}

func TestMLflowTracker(t *testing.T) {
	tracker, log, _ := newTracker(t, WithSystemMetrics(100*time.Millisecond))
	info := trainInfo(t.TempDir())
	run, err := tracker.Start(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(350 * time.Millisecond) // for the load of the machine
	if err := run.End(t.Context(), RunFailed); err != nil {
		t.Fatal(err)
	}
	_, got := readRun(t, "sqlite:///runs.db", run.ID())
	if got.Status != mlflow.Failed || got.Name != info.Name || got.Start.UnixMilli() != info.Started.UnixMilli() || got.End.Before(got.Start) || got.User == "" {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(info.Params, got.Params); diff != "" {
		t.Errorf("params (-want +got)\n%s", diff)
	}
	for key, want := range map[string]string{
		"mlflow.note.content": info.Description, "mlflow.source.type": "LOCAL", "mlflow.source.git.commit": info.Tags["git.commit"],
		"mlflow.source.git.branch": "main", "mlflow.user": got.User, "mlflow.runName": info.Name, "stage": "train", "data.hash.posts _1_.csv": strings.Repeat("ab", 32),
	} {
		if got.Tags[key] != want {
			t.Errorf("tag %s = %q, want %q", key, got.Tags[key], want)
		}
	}
	if source := got.Tags["mlflow.source.name"]; source == "" || filepath.IsAbs(source) {
		t.Errorf("source %q", source)
	}
	if len(got.Inputs) != 3 || got.Inputs[0].Profile != `{"num_rows":80}` || got.Inputs[0].Source != `{"uri":"data"}` {
		t.Errorf("inputs %+v", got.Inputs)
	}
	if m, ok := got.Metrics["system/cpu_utilization_percentage"]; !ok || m.Step < 1 {
		t.Errorf("no system metrics: %v", got.Metrics)
	}
	if log.Len() != 0 {
		t.Errorf("log: %s", log)
	}
	if entries, err := os.ReadDir(info.Dir); err != nil || len(entries) != 0 {
		t.Errorf("left in the output directory: %v, %v", entries, err)
	}
}

func TestMLflowTrackerDefaults(t *testing.T) {
	t.Setenv("MLFLOW_TRACKING_URI", "")
	t.Setenv("MLFLOW_EXPERIMENT_NAME", "")
	for _, c := range []struct{ uri, experiment, envURI, envExperiment, wantURI, wantExperiment string }{
		{"", "", "", "", "sqlite:///mlflow.db", "debertav3-criteria"},
		{"", "", "http://h:1", "e", "http://h:1", "e"},
		{"./runs", "mine", "http://h:1", "e", "./runs", "mine"},
	} {
		t.Setenv("MLFLOW_TRACKING_URI", c.envURI)
		t.Setenv("MLFLOW_EXPERIMENT_NAME", c.envExperiment)
		tracker, err := NewMLflowTracker(WithTrackingURI(c.uri), WithExperiment(c.experiment))
		if err != nil {
			t.Fatal(err)
		}
		if tracker.uri != c.wantURI || tracker.experiment != c.wantExperiment || tracker.sampling != 10*time.Second {
			t.Errorf("%+v became %q, %q, %s", c, tracker.uri, tracker.experiment, tracker.sampling)
		}
	}
	config := DefaultConfig()
	config.MLflow = MLflowConfig{}
	if err := config.Validate(); err != nil {
		t.Errorf("a configuration that leaves it to the environment: %v", err)
	}
	t.Setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
	if tracker, err := NewMLflowTracker(); err != nil || tracker.sampling != 0 {
		t.Errorf("%+v, %v", tracker, err)
	}
	_, err := NewMLflowTracker(WithSystemMetrics(time.Microsecond), WithLogger(nil), nil)
	if !errors.Is(err, ErrInvalidOption) || strings.Count(err.Error(), "criteria:") != 3 {
		t.Errorf("%v, want all three faults", err)
	}
}

// TestMLflowTrackerStoreAway: an error at the start, with the remedy; none
// later.
func TestMLflowTrackerStoreAway(t *testing.T) {
	for uri, want := range map[string]string{"http://127.0.0.1:1": "mlflow server", "mlflow.db": "sqlite:///mlflow.db", "postgresql://u:secret@h/db": "mlflow server"} {
		tracker, err := NewMLflowTracker(WithTrackingURI(uri), WithExperiment("x"))
		if err != nil {
			t.Fatal(err)
		}
		tracker.maxRetries = -1
		if _, err := tracker.Start(t.Context(), trainInfo(t.TempDir())); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q and no secret", uri, err, want)
		}
	}

	tracker, log, away := newTracker(t)
	dir := t.TempDir()
	ctx := t.Context()
	study, err := tracker.Start(ctx, RunInfo{Name: "study", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	away.Store(true)
	trial, err := tracker.Start(ctx, RunInfo{Name: "trial-0", Parent: study.ID(), Dir: filepath.Join(dir, "0")})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(trial.ID(), "pending-") {
		t.Errorf("ID %q", trial.ID())
	}
	for step := range 5 {
		for _, run := range []TrackedRun{study, trial} {
			if err := run.LogMetrics(ctx, step, map[string]float64{"m": float64(step)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, run := range []TrackedRun{trial, study} {
		if err := run.End(ctx, RunFinished); err != nil {
			t.Errorf("End: %v, want a warning only", err)
		}
	}
	if !strings.Contains(log.String(), "SyncTracking") || !strings.Contains(log.String(), "connection refused") {
		t.Errorf("log: %s", log)
	}
	ids, err := SyncTracking(ctx, dir)
	if err != nil || len(ids) != 2 || !slices.Contains(ids, study.ID()) {
		t.Fatalf("SyncTracking: %v, %v", ids, err)
	}
	s, got := readRun(t, "sqlite:///runs.db", study.ID())
	children, err := s.SearchRuns(ctx, got.ExperimentID, mlflow.Tag{Key: mlflow.TagParentRun, Value: study.ID()})
	if err != nil || len(children) != 1 {
		t.Fatalf("%d children, %v", len(children), err)
	}
	for _, run := range []mlflow.Run{got, children[0]} {
		history, err := s.MetricHistory(ctx, run.ID, "m")
		if err != nil || len(history) != 5 || run.Status != mlflow.Finished {
			t.Errorf("%s: %d points, %s, %v", run.Name, len(history), run.Status, err)
		}
	}
	if ids, err := SyncTracking(ctx, dir); err != nil || len(ids) != 0 {
		t.Errorf("second SyncTracking: %v, %v", ids, err)
	}
	if _, err := SyncTracking(ctx, filepath.Join(dir, "absent")); err == nil {
		t.Error("SyncTracking of a folder that is not there succeeded")
	}
}

// TestMLflowTrackerOrphan kills a process in mid-run; the next start in its
// output directory ends its run.
func TestMLflowTrackerOrphan(t *testing.T) {
	const env = "CRITERIA_TEST_ORPHAN"
	if os.Getenv(env) != "" {
		tracker, err := NewMLflowTracker(WithTrackingURI("sqlite:///runs.db"), WithExperiment("tests"))
		if err != nil {
			t.Fatal(err)
		}
		run, err := tracker.Start(context.Background(), RunInfo{Name: "orphan", Dir: "out"})
		if err != nil {
			t.Fatal(err)
		}
		if err := run.LogMetrics(context.Background(), 1, map[string]float64{"m": 1}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("started", run.ID())
		select {} // until killed
	}
	tracker, log, _ := newTracker(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestMLflowTrackerOrphan$")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var id string
	_, scanErr := fmt.Fscanf(out, "started %s\n", &id)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if scanErr != nil {
		t.Fatal(scanErr)
	}
	run, err := tracker.Start(t.Context(), RunInfo{Name: "next", Dir: "out"})
	if err != nil {
		t.Fatal(err)
	}
	if err := run.End(t.Context(), RunFinished); err != nil {
		t.Fatal(err)
	}
	s, orphan := readRun(t, "sqlite:///runs.db", id)
	if history, err := s.MetricHistory(t.Context(), id, "m"); err != nil || len(history) != 1 || orphan.Status != mlflow.Killed || orphan.End.IsZero() {
		t.Errorf("status %s, end %v, %d points, %v", orphan.Status, orphan.End, len(history), err)
	}
	if !strings.Contains(log.String(), "KILLED") || !strings.Contains(log.String(), id) {
		t.Errorf("log: %s", log)
	}
}

// TestMLflowTrackerResume: a run goes on under its ID, with its name, the note
// that somebody wrote to it, and its system metrics.
func TestMLflowTrackerResume(t *testing.T) {
	tracker, _, _ := newTracker(t, WithSystemMetrics(100*time.Millisecond))
	ctx := t.Context()
	info := trainInfo(t.TempDir())
	first, err := tracker.Start(ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(350 * time.Millisecond) // for the load of the machine
	if err := errors.Join(first.SetTags(ctx, map[string]string{"mlflow.note.content": "My notes."}), first.End(ctx, RunKilled)); err != nil {
		t.Fatal(err)
	}
	s, before := readRun(t, "sqlite:///runs.db", first.ID())

	info.ResumeRunID, info.Name, info.Tags["git.dirty"] = first.ID(), "another", "true"
	second, err := tracker.Start(ctx, info)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tracker.Start(ctx, info); err == nil || !strings.Contains(err.Error(), "cannot share an output directory") {
		t.Errorf("a second resumption at the same time: %v, want an error", err)
	}
	time.Sleep(350 * time.Millisecond)
	if err := second.End(ctx, RunFinished); err != nil {
		t.Fatal(err)
	}
	_, after := readRun(t, "sqlite:///runs.db", first.ID())
	if after.ID != second.ID() || after.Name != before.Name || !after.Start.Equal(before.Start) || !after.End.After(before.End) ||
		after.Tags["mlflow.note.content"] != "My notes." || after.Tags["git.dirty"] != "true" {
		t.Errorf("before %+v, after %+v", before, after)
	}
	const load = "system/system_memory_usage_percentage"
	points, err := s.MetricHistory(ctx, first.ID(), load)
	if err != nil || int64(len(points)) <= before.Metrics[load].Step+1 {
		t.Fatalf("%d points, %v; want more than %d", len(points), err, before.Metrics[load].Step+1)
	}
	for i, p := range points {
		if p.Step != int64(i) {
			t.Errorf("point %d of %s has step %d", i, load, p.Step)
		}
	}
}

// TestMLflowTrackerJudged lets MLflow's own client look at a tracked training.
func TestMLflowTrackerJudged(t *testing.T) {
	mlflowtest.Python(t)
	tracker, _, _ := newTracker(t)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	id := trackTraining(t, tracker, trainInfo(t.TempDir()))
	mlflowtest.Judge(t, nil, mlflowtest.Check{URI: "sqlite:///" + filepath.Join(dir, "runs.db"), Run: id, Kind: "train", Epochs: 3})
}

// BenchmarkMLflowTracker is what an epoch's metrics cost the training loop.
func BenchmarkMLflowTracker(b *testing.B) {
	b.Chdir(b.TempDir())
	tracker, err := NewMLflowTracker(WithTrackingURI("sqlite:///runs.db"), WithExperiment("bench"))
	if err != nil {
		b.Fatal(err)
	}
	run, err := tracker.Start(b.Context(), RunInfo{Name: "bench", Dir: "out"})
	if err != nil {
		b.Fatal(err)
	}
	metrics := map[string]float64{}
	for _, key := range []string{"train_loss", "train_accuracy", "train_macro_f1", "train_weighted_f1", "val_loss", "val_accuracy", "val_macro_f1", "val_weighted_f1"} {
		metrics[key] = 0.5
	}
	step := 0
	for b.Loop() {
		if err := run.LogMetrics(b.Context(), step, metrics); err != nil {
			b.Fatal(err)
		}
		step++
	}
	b.StopTimer()
	if err := run.End(context.Background(), RunFinished); err != nil {
		b.Fatal(err)
	}
}
