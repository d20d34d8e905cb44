//go:build unix

package criteria_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// victimDir names, in the environment, the output directory of the training
// that TestMain does instead of running tests.
const victimDir = "CRITERIA_TEST_VICTIM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		if err := victim(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// victimResult is what a training leaves in its folder when it is done.
type victimResult struct {
	History []criteria.EpochScores
	Test    criteria.Scores
	Steps   int
}

// victim trains the sample's tiny model with a checkpoint after every second
// update, resuming if there is something to resume. It writes a line to
// stdout for everything it does.
func victim(dir string) error {
	opts := []criteria.TrainerOption{
		criteria.WithCheckpoint("testdata/sample/tiny-deberta"), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)),
		criteria.WithEngine(talking{criteria.ONNXRuntime("")}), criteria.WithThreads(1), criteria.WithOutputDir(dir),
		criteria.WithConfig(func() criteria.Config {
			c := criteria.DefaultConfig()
			c.Train.Epochs, c.Train.BatchSize, c.Train.LearningRate = 3, 4, 1e-3
			c.Train.CheckpointSteps, c.Model.Tokenizer.MaxLength = 2, 64
			return c
		}()),
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
	text, err := json.Marshal(victimResult{result.History, result.Test, result.Steps})
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

// life runs a victim in dir and kills it some time after it wrote the given
// line for the n-th time. It reports whether the victim came to its end.
func life(t *testing.T, dir, line string, n int, after time.Duration) (finished bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir)
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

// A training that is killed with SIGKILL twenty times, also while it writes a
// checkpoint, and resumed each time, ends with the weights and scores of one
// that was left alone, bit for bit.
func TestKilled(t *testing.T) {
	const kills = 20
	random := rand.New(rand.NewPCG(7, 0))
	whole := t.TempDir()
	if !life(t, whole, "", 0, 0) {
		t.Fatal("the training that was left alone was killed")
	}
	read := func(dir, name string) string {
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	compare := func(dir string) {
		t.Helper()
		if diff := cmp.Diff(read(whole, "result.json"), read(dir, "result.json")); diff != "" {
			t.Errorf("scores (-left alone +killed):\n%s", diff)
		}
		for _, name := range files(t, whole) {
			if read(whole, name) != read(dir, name) {
				t.Errorf("%s is not what it is after a run that was left alone", name)
			}
		}
	}

	dir := t.TempDir()
	lives, torn, finished := 0, 0, 0
	for killed := 0; killed < kills; lives++ {
		// Half of them while a checkpoint is being written, half anywhere.
		line, n, after := "step", 1+random.IntN(6), time.Duration(random.IntN(30))*time.Millisecond
		if lives%2 == 0 {
			line, n, after = "save", 1+random.IntN(2), time.Duration(random.IntN(5))*time.Millisecond
		}
		if life(t, dir, line, n, after) {
			compare(dir)
			finished++
			dir = t.TempDir()
			continue
		}
		killed++
		if left, _ := filepath.Glob(filepath.Join(dir, "checkpoints", ".step-*")); len(left) > 0 {
			torn++
		}
	}
	for !life(t, dir, "", 0, 0) {
	}
	compare(dir)
	t.Logf("%d kills in %d lives, %d while a checkpoint was written; %d runs came to their end", kills, lives, torn, finished+1)
	if torn == 0 {
		t.Error("no kill hit a checkpoint that was being written")
	}
}
