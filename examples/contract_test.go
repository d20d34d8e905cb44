//go:build unix

// Package examples_test runs the example programs as people do, from a shell.
package examples_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
)

// programs holds the example programs, which are built once.
var programs struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if programs.dir != "" {
		if err := os.RemoveAll(programs.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	programs.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "examples"); programs.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-buildvcs=false", "-o", programs.dir+"/", "./...").CombinedOutput()
		if err != nil {
			programs.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return filepath.Join(programs.dir, name)
}

// place is the working directory of a user who has some posts of the sample and
// its tiny model.
type place struct {
	dir   string
	small []string // overrides
}

func newPlace(t *testing.T) place {
	t.Helper()
	sample, err := filepath.Abs("../testdata/sample")
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir: t.TempDir()}
	for _, name := range []string{"redsm5_posts.csv", "redsm5_annotations.csv"} {
		text, err := os.ReadFile(filepath.Join(sample, name))
		if err != nil {
			t.Fatal(err)
		}
		var some strings.Builder
		for line := range strings.Lines(string(text)) {
			if id, _, _ := strings.Cut(line, ","); id == "post_id" || id <= "sample-0060" {
				some.WriteString(line)
			}
		}
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(some.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.small = []string{
		"model=tiny", "data=sample", "model.checkpoint=" + sample + "/tiny-deberta", "data.redsm5_dir=.",
		"data.dsm5_criteria_path=" + sample + "/criteria.json", "train.eval_batch_size=64",
	}
	return p
}

func (p place) command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Dir = p.dir
	return cmd
}

// run runs a program to its end.
func (p place) run(t *testing.T, wantCode int, name string, args ...string) (output string) {
	t.Helper()
	out, err := p.command(t, name, args...).CombinedOutput()
	checkExit(t, err, wantCode, out)
	return string(out)
}

func checkExit(t *testing.T, err error, want int, out []byte) {
	t.Helper()
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if code != want {
		t.Fatalf("exit code %d, want %d:\n%s", code, want, out)
	}
}

// outputs returns the only output directory.
func (p place) outputs(t *testing.T) string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(p.dir, "outputs", "*", "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("output directories %v, %v; want one", dirs, err)
	}
	return dirs[0]
}

func checkFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The command lines that the contract shows for training, with little to do.
func TestTrainCommands(t *testing.T) {
	for _, line := range []string{
		"",
		"train.learning_rate=3e-5",
		"train.learning_rate=3e-5 train.batch_size=32",
		"train.learning_rate=5e-5 train.batch_size=32",
		"model.head.num_layers=2 model.head.hidden_dims=[512,256]",
		"model.head.num_layers=2 model.head.hidden_dims=[512,256] model.head.pooling_strategy=mean",
		"model.head.hidden_dims=[768,384,192]",
		"train.optimizations.use_compile=true",
		"train.epochs=2 train.batch_size=8 data.dataloader.num_workers=0",
		"train.batch_size=64 train.gradient_accumulation_steps=2 train.optimizations.use_amp=true train.optimizations.amp_dtype=bf16 " +
			"train.optimizations.use_compile=true train.optimizations.compile_mode=max-autotune",
		"train.batch_size=8 train.optimizations.gradient_checkpointing=true train.optimizer_type=adamw_bnb_8bit",
	} {
		t.Run(line, func(t *testing.T) {
			p := newPlace(t)
			args := append(p.small, "train.epochs=1") // before the line's own
			out := p.run(t, 0, "train", append(args, strings.Fields(line)...)...)
			checkFiles(t, p.outputs(t), ".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml", "train.log",
				"best_model/model.safetensors", "confusion_matrix.png", "classification_report.json")
			if !strings.Contains(out, "test loss=") {
				t.Errorf("the output lacks the test:\n%s", out)
			}
		})
	}
}

// The command lines that the contract shows for the search.
func TestHPOCommands(t *testing.T) {
	for _, test := range []struct{ line, more string }{
		{"", "hpo.n_trials=2"},
		{"hpo.n_trials=5", ""},
		{"hpo.n_trials=100", "hpo.n_trials=2"},
		{"hpo.search_space.learning_rate.low=1e-5 hpo.search_space.learning_rate.high=5e-5", "hpo.n_trials=2"},
		{"hpo.study_name=experiment-001", "hpo.n_trials=2"},
	} {
		t.Run(test.line, func(t *testing.T) {
			p := newPlace(t)
			args := append(p.small, "train.epochs=1", "hpo.search_space.hidden_dim.high=128")
			args = append(append(args, strings.Fields(test.line)...), strings.Fields(test.more)...)
			out := p.run(t, 0, "hpo", args...)
			checkFiles(t, p.dir, "optuna.db", "mlflow.db")
			checkFiles(t, p.outputs(t), ".hydra/config.yaml", "hpo.log", "best_trial_config.yaml", "optimization_history.png", "param_importances.png")
			if !strings.Contains(out, "best: trial ") {
				t.Errorf("the output lacks the best trial:\n%s", out)
			}
		})
	}
}

// stored is a study as Optuna itself reads it.
type stored struct {
	Attrs  map[string]any
	Best   int
	Trials []struct {
		State  string
		Value  *float64
		Params map[string]any
		Attrs  map[string]any
	}
}

const readStudy = `
import json, sys, optuna
s = optuna.load_study(study_name=sys.argv[2], storage=sys.argv[1])
print(json.dumps({"attrs": s.user_attrs, "best": s.best_trial.number, "trials": [
    {"state": t.state.name, "value": t.value, "params": t.params, "attrs": t.user_attrs} for t in s.trials]}))
`

// sqlite is the default storage.
func (p place) sqlite() string { return "sqlite:///" + filepath.Join(p.dir, "optuna.db") }

func readBack(t *testing.T, storage, name string) (s stored) {
	t.Helper()
	cmd := exec.Command(mlflowtest.Python(t), "-c", readStudy, storage, name)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s stored) states() map[string]int {
	n := map[string]int{}
	for _, trial := range s.Trials {
		n[trial.State]++
	}
	return n
}

func (p place) judge(t *testing.T, s stored) {
	t.Helper()
	mlflowtest.Judge(t, nil, mlflowtest.Check{
		URI: "sqlite:///" + filepath.Join(p.dir, "mlflow.db"), Run: s.Attrs["mlflow_run_id"].(string), Kind: "hpo", Trials: len(s.Trials),
	})
}

// A search leaves what MLflow and Optuna themselves find right, is not repeated
// by the same command, and its best trial can be trained again to the same score.
func TestHPO(t *testing.T) {
	p := newPlace(t)
	args := append(p.small, "hpo.n_trials=8", "train.epochs=3", "hpo.search_space.learning_rate.high=1e-2", "hpo.search_space.hidden_dim.high=128")
	p.run(t, 0, "hpo", args...)
	s := readBack(t, p.sqlite(), "debertav3-criteria-hpo")
	if n := s.states(); n["COMPLETE"] < 5 || n["PRUNED"] == 0 || len(s.Trials) != 8 {
		t.Errorf("Optuna reads %v, want 8 trials, some pruned", n)
	}
	p.judge(t, s)

	t.Run("the best trial trained again", func(t *testing.T) {
		found := p.outputs(t)
		p.run(t, 0, "train", "--config-path", found, "--config-name", "best_trial_config", "hydra.run.dir=again")
		names, err := filepath.Glob(filepath.Join(p.dir, "again", "checkpoints", "*", "state.json"))
		if err != nil || len(names) == 0 {
			t.Fatalf("checkpoints %v, %v", names, err)
		}
		text, err := os.ReadFile(names[len(names)-1])
		if err != nil {
			t.Fatal(err)
		}
		var state struct {
			Training struct {
				History []struct {
					Val struct {
						MacroF1 float64 `json:"macro_f1"`
					}
				}
			}
		}
		if err := json.Unmarshal(text, &state); err != nil {
			t.Fatal(err)
		}
		best := 0.0
		for _, e := range state.Training.History {
			best = max(best, e.Val.MacroF1)
		}
		if want := *s.Trials[s.Best].Value; best != want {
			t.Errorf("val_macro_f1 %v, want %v", best, want)
		}
	})
	t.Run("again", func(t *testing.T) {
		out := p.run(t, 0, "hpo", append(args, "hydra.run.dir=second")...)
		if diff := cmp.Diff(s, readBack(t, p.sqlite(), "debertav3-criteria-hpo")); diff != "" || strings.Contains(out, "epoch ") {
			t.Errorf("the study was changed (-was +is):\n%s\n%s", diff, out)
		}
		checkFiles(t, filepath.Join(p.dir, "second"), "best_trial_config.yaml", "param_importances.png")
	})
}

// started is a program that runs.
type started struct {
	*exec.Cmd
	seen  bytes.Buffer
	lines *bufio.Reader
}

func (p place) start(t *testing.T, name string, args ...string) *started {
	t.Helper()
	r := &started{Cmd: p.command(t, name, args...)}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Stdout, r.Stderr = w, w
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { _ = r.Process.Kill(); out.Close() }) // if the test failed before its end
	r.lines = bufio.NewReader(io.TeeReader(out, &r.seen))
	return r
}

// until reads the output until a line with that text.
func (r *started) until(t *testing.T, text string) {
	t.Helper()
	for {
		line, err := r.lines.ReadString('\n')
		if strings.Contains(line, text) {
			return
		}
		if err != nil {
			t.Fatalf("%v before %q:\n%s", err, text, r.seen.String())
		}
	}
}

// end reads the rest of the output and waits.
func (r *started) end() (string, error) {
	_, _ = io.Copy(io.Discard, r.lines)
	err := r.Wait()
	return r.seen.String(), err
}

// A study survives Ctrl-C and kill -9, and two processes share it.
func TestHPOGoesOn(t *testing.T) {
	p := newPlace(t)
	args := append(p.small, "hpo.n_trials=6", "train.epochs=3", "hpo.retries=1", "hpo.heartbeat_interval=0.5", "hpo.grace_period=4",
		"hpo.search_space.hidden_dim.high=128", "hpo.study_name=night")
	dir := func(name string) []string { return append(args[:len(args):len(args)], "hydra.run.dir="+name) }

	first := p.start(t, "hpo", dir("first")...)
	first.until(t, "epoch 1/3 trial=1")
	if err := first.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	out, err := first.end()
	checkExit(t, err, 130, []byte(out))
	for _, part := range []string{"interrupted with 1 trials done", "best: trial 0", "to continue the study:\n", "hpo.n_trials=6"} {
		if !strings.Contains(out, part) {
			t.Errorf("after Ctrl-C the output lacks %q:\n%s", part, out)
		}
	}
	checkFiles(t, filepath.Join(p.dir, "first"), "best_trial_config.yaml", "optimization_history.png")

	second := p.start(t, "hpo", dir("second")...)
	second.until(t, "epoch 1/3 trial=2") // again what was interrupted
	if err := second.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = second.end()
	time.Sleep(100 * time.Millisecond)

	third, fourth := p.start(t, "hpo", dir("third")...), p.start(t, "hpo", dir("fourth")...)
	for _, r := range []*started{third, fourth} {
		out, err := r.end()
		checkExit(t, err, 0, []byte(out))
		if !strings.Contains(out, "best: trial ") {
			t.Errorf("no best trial:\n%s", out)
		}
	}
	s := readBack(t, p.sqlite(), "night")
	n := s.states()
	if n["COMPLETE"]+n["PRUNED"] != 6 || n["FAIL"] != 2 || n["RUNNING"]+n["WAITING"] != 0 {
		t.Errorf("Optuna reads %v, want 6 finished trials and 2 failed", n)
	}
	again, workers := 0, map[any]bool{}
	for i, trial := range s.Trials {
		workers[trial.Attrs["worker"]] = true
		if i > 1 && cmp.Equal(trial.Params, s.Trials[1].Params) {
			again++
		}
	}
	if again != 1 {
		t.Errorf("what was interrupted, and then killed, was tried again %d times, want once", again)
	}
	if len(workers) != 4 {
		t.Errorf("trials of %d processes, want 4", len(workers))
	}
	p.judge(t, s)
	a, errA := os.ReadFile(filepath.Join(p.dir, "third", "best_trial_config.yaml"))
	b, errB := os.ReadFile(filepath.Join(p.dir, "fourth", "best_trial_config.yaml"))
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("the processes do not agree on the best trial: %v, %v", errA, errB)
	}
}

// Any number of processes, here two, share a study on a server.
func TestHPOOnServer(t *testing.T) {
	const env = "CRITERIA_POSTGRES_URI"
	storage := os.Getenv(env)
	if storage == "" {
		message := env + " is not set: no study was shared on a server (.ci/run provides one)"
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	p := newPlace(t)
	name := fmt.Sprintf("shared-%d", time.Now().UnixNano())
	args := append(p.small, "hpo.storage='"+storage+"'", "hpo.study_name="+name, "hpo.n_trials=5", "train.epochs=1", "hpo.search_space.hidden_dim.high=128")
	first, second := p.start(t, "hpo", append(args[:len(args):len(args)], "hydra.run.dir=first")...), p.start(t, "hpo", append(args, "hydra.run.dir=second")...)
	for _, r := range []*started{first, second} {
		out, err := r.end()
		checkExit(t, err, 0, []byte(out))
	}
	s := readBack(t, strings.Replace(storage, "postgresql:", "postgresql+psycopg2:", 1), name) // the driver that is installed
	workers := map[any]bool{}
	for _, trial := range s.Trials {
		workers[trial.Attrs["worker"]] = true
	}
	if n := s.states(); n["COMPLETE"]+n["PRUNED"] != 5 || len(s.Trials) != 5 || len(workers) != 2 {
		t.Errorf("%v by %d processes, want 5 trials by two", n, len(workers))
	}
	p.judge(t, s)
}
