//go:build unix

package criteria_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
)

// What the training is told, in the environment, that TestMain does instead of
// running tests: its output directory, the checkpoint to start from, and where
// it is tracked.
const (
	victimDir        = "CRITERIA_TEST_VICTIM_DIR"
	victimCheckpoint = "CRITERIA_TEST_VICTIM_CHECKPOINT"
	victimTracking   = "CRITERIA_TEST_VICTIM_TRACKING"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		if err := victim(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if engine := os.Getenv(manyEngine); engine != "" {
		if err := trainMany(engine, "testdata/sample/tiny-deberta"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m) // no test may leave a goroutine
}

// victimResult is what a training leaves in its folder when it is done.
type victimResult struct {
	RunID   string
	History []criteria.EpochScores
	Test    criteria.Scores
	Steps   int
}

// victim trains the sample's tiny model with a checkpoint after every second
// update, resuming if there is something to resume. It writes a line to
// stdout for everything it does.
func victim(dir string) error {
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(os.Getenv(victimTracking)), criteria.WithExperiment("killed"), criteria.WithSystemMetrics(0))
	if err != nil {
		return err
	}
	config := criteria.DefaultConfig()
	config.Train.Epochs, config.Train.BatchSize, config.Train.LearningRate = 3, 4, 1e-3
	config.Train.CheckpointSteps, config.Model.Tokenizer.MaxLength = 2, 64
	config.MLflow.RunName = "victim"
	opts := []criteria.TrainerOption{
		criteria.WithConfig(config), criteria.WithCheckpoint(os.Getenv(victimCheckpoint)), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)),
		criteria.WithEngine(talking{criteria.ONNXRuntime("")}), criteria.WithTracker(talkingTracker{tracker}),
		criteria.WithThreads(1), criteria.WithOutputDir(dir),
		criteria.WithHooks(criteria.Hooks{Step: func(criteria.StepEvent) { fmt.Println("step") }}),
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoints")); err == nil {
		opts = append(opts, criteria.WithResume(dir))
	}
	trainer, err := criteria.NewTrainer(opts...)
	if err != nil {
		return err
	}
	result, err := trainer.Run(context.Background())
	if err != nil {
		return err
	}
	text, err := json.Marshal(victimResult{result.RunID, result.History, result.Test, result.Steps})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "result.json"), text, 0o644)
}

// talking is an engine that says when it saves.
type talking struct{ criteria.Engine }

func (e talking) Open(ctx context.Context, spec criteria.ModelSpec) (criteria.Session, error) {
	s, err := e.Engine.Open(ctx, spec)
	return talkingSession{s}, err
}

type talkingSession struct{ criteria.Session }

func (s talkingSession) SaveState(ctx context.Context, dir string) error {
	fmt.Println("save")
	err := s.Session.SaveState(ctx, dir)
	fmt.Println("saved")
	return err
}

// talkingTracker says when a run starts and when it ends.
type talkingTracker struct{ criteria.Tracker }

func (t talkingTracker) Start(ctx context.Context, info criteria.RunInfo) (criteria.TrackedRun, error) {
	fmt.Println("start")
	run, err := t.Tracker.Start(ctx, info)
	return talkingRun{run}, err
}

type talkingRun struct{ criteria.TrackedRun }

func (r talkingRun) End(ctx context.Context, status criteria.RunStatus) error {
	fmt.Println("end")
	return r.TrackedRun.End(ctx, status)
}

// victims are trainings in one folder, tracked in one place.
type victims struct {
	dir      string // working directory
	tracking string
}

// life runs a victim in dir and kills it some time after it wrote the given
// line for the n-th time. It reports whether the victim came to its end.
func (v victims) life(t *testing.T, dir, line string, n int, after time.Duration) (finished bool) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	checkpoint, err := filepath.Abs("testdata/sample/tiny-deberta")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Dir = v.dir
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimCheckpoint+"="+checkpoint, victimTracking+"="+v.tracking)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() != line {
			continue
		}
		if n--; n == 0 {
			time.Sleep(after)
			_ = cmd.Process.Kill() // SIGKILL; it may have come to its end
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			t.Fatalf("the training failed: %v", err)
		}
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// trackedOutcome is what MLflow knows about a run, but for names and times.
type trackedOutcome struct {
	Status       mlflow.Status
	Params, Tags map[string]string
	History      map[string][]point
	Inputs       []mlflow.DatasetInput
	Artifacts    map[string]string // content
}

type point struct {
	Step  int64
	Value float64
}

func trackedRun(t *testing.T, store mlflow.Store, id string) trackedOutcome {
	t.Helper()
	run, err := store.Run(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	o := trackedOutcome{
		Status: run.Status, Params: run.Params, Tags: run.Tags, Inputs: run.Inputs,
		History: map[string][]point{}, Artifacts: map[string]string{},
	}
	slices.SortFunc(o.Inputs, func(a, b mlflow.DatasetInput) int { return cmp.Compare(a.Digest, b.Digest) })
	for key := range run.Metrics {
		history, err := store.MetricHistory(t.Context(), id, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range history {
			o.History[key] = append(o.History[key], point{m.Step, m.Value})
		}
		if last := o.History[key][len(history)-1]; last != (point{run.Metrics[key].Step, run.Metrics[key].Value}) {
			t.Errorf("run %s: the last value of %s is %v, but %v in its history", id, key, run.Metrics[key], last)
		}
	}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := store.ListArtifacts(t.Context(), run, dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := path.Join(dir, path.Base(e.Path))
			if e.IsDir {
				walk(name)
				continue
			}
			r, err := store.OpenArtifact(t.Context(), run, name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			o.Artifacts[name] = string(text)
		}
	}
	walk("")
	return o
}

// killed kills trainings with SIGKILL, kills times in all, also while they
// write a checkpoint and while they talk to MLflow, and resumes them each time:
// they end with the weights, the scores and the MLflow run of one that was left
// alone, bit for bit and point for point.
func (v victims) killed(t *testing.T, kills int) {
	t.Helper()
	random := rand.New(rand.NewPCG(7, 0))
	whole := t.TempDir()
	if !v.life(t, whole, "", 0, 0) {
		t.Fatal("the training that was left alone was killed")
	}
	store, err := mlflow.Open(t.Context(), v.tracking, mlflow.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	read := func(dir, name string) string {
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	result := func(dir string) (r victimResult) {
		if err := json.Unmarshal([]byte(read(dir, "result.json")), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	want := result(whole)
	wantRun := trackedRun(t, store, want.RunID)
	if wantRun.Status != mlflow.Finished || len(wantRun.History["val_macro_f1"]) != 3 || len(wantRun.Artifacts) < 8 {
		t.Fatalf("the training that was left alone: %s, %v, %d artifacts", wantRun.Status, wantRun.History, len(wantRun.Artifacts))
	}
	done := map[string]bool{want.RunID: true}
	compare := func(dir string) {
		t.Helper()
		got := result(dir)
		id := got.RunID
		done[id] = true
		if diff := gocmp.Diff(wantRun, trackedRun(t, store, id)); diff != "" {
			t.Errorf("run in MLflow (-left alone +killed):\n%s", diff)
		}
		got.RunID = want.RunID
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("scores (-left alone +killed):\n%s", diff)
		}
		names := files(t, whole)
		if diff := gocmp.Diff(names, files(t, dir)); diff != "" {
			t.Errorf("files (-left alone +killed):\n%s", diff)
		}
		for _, name := range names {
			if name != "result.json" && read(whole, name) != read(dir, name) {
				t.Errorf("%s is not what it is after a run that was left alone", name)
			}
		}
	}

	dir := t.TempDir()
	lives, torn, middle := 0, 0, 0
	for killed := 0; killed < kills; lives++ {
		// Half of them while a checkpoint is being written, the others anywhere,
		// also while the run starts or ends in MLflow.
		line, n, after := "save", 1+random.IntN(2), time.Duration(random.IntN(5))*time.Millisecond
		switch lives % 8 {
		case 1, 5:
			line, n, after = "step", 1+random.IntN(6), time.Duration(random.IntN(30))*time.Millisecond
		case 3:
			line, n, after = "start", 1, time.Duration(random.IntN(60))*time.Millisecond
		case 7:
			line, n, after = "end", 1, time.Duration(random.IntN(20))*time.Millisecond
		}
		if insideEpoch(t, dir) {
			middle++
		}
		if v.life(t, dir, line, n, after) {
			compare(dir)
			dir = t.TempDir()
			continue
		}
		killed++
		if left, _ := filepath.Glob(filepath.Join(dir, "checkpoints", ".step-*")); len(left) > 0 {
			torn++
		}
	}
	for !v.life(t, dir, "", 0, 0) {
	}
	compare(dir)
	t.Logf("%d kills in %d lives, %d while a checkpoint was written, %d began in the middle of an epoch; %d runs came to their end",
		kills, lives, torn, middle, len(done))
	if middle == 0 {
		t.Error("no life began in the middle of an epoch")
	}
	if torn == 0 {
		t.Error("no kill hit a checkpoint that was being written")
	}

	// A run that was killed before its first checkpoint cannot be resumed. It is
	// the only one that may be left, and empty.
	run, err := store.Run(t.Context(), want.RunID)
	if err != nil {
		t.Fatal(err)
	}
	runs, err := store.SearchRuns(t.Context(), run.ExperimentID, mlflow.Tag{Key: "stage", Value: "train"})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		if !done[run.ID] && (run.Status != mlflow.Killed || run.End.IsZero() || len(run.Metrics) > 0) {
			t.Errorf("run %s is %s and has %v", run.ID, run.Status, slices.Sorted(maps.Keys(run.Metrics)))
		}
	}
}

// insideEpoch reports whether the last checkpoint in dir was written within an
// epoch, not between two.
func insideEpoch(t *testing.T, dir string) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "checkpoints", "step-*", "state.json"))
	if err != nil || len(names) == 0 {
		return false
	}
	text, err := os.ReadFile(slices.Max(names)) // steps have leading zeros
	if err != nil {
		t.Fatal(err)
	}
	var state struct{ Training struct{ Micro int } }
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	return state.Training.Micro > 0
}

func TestKilled(t *testing.T) {
	dir := t.TempDir()
	victims{dir, "sqlite:///" + filepath.Join(dir, "mlflow.db")}.killed(t, 20)
}

// The same with files instead of a database, and with MLflow's own server.
func TestKilledWithFiles(t *testing.T) {
	dir := t.TempDir()
	victims{dir, filepath.Join(dir, "mlruns")}.killed(t, 6)
}

func TestKilledWithServer(t *testing.T) {
	mlflowtest.Python(t)
	dir := t.TempDir()
	server := mlflowtest.StartServer(t, mlflowtest.ServerOptions{Dir: dir})
	server.Wait(t)
	victims{dir, server.URL}.killed(t, 8)
}
