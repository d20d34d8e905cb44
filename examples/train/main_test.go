package main

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sample is the repository's sample data.
var sample = func() string {
	dir, err := filepath.Abs("../../testdata/sample")
	if err != nil {
		panic(err)
	}
	return dir
}()

// arguments are a training of the tiny model on some of the sample's posts.
func arguments(t *testing.T, more ...string) (dir string, args []string) {
	t.Helper()
	t.Chdir(t.TempDir()) // where MLflow's artifacts go
	data := t.TempDir()
	head(t, "redsm5_posts.csv", data, 80)
	head(t, "redsm5_annotations.csv", data, 200)
	dir = filepath.Join(t.TempDir(), "run")
	return dir, append([]string{
		"model=tiny", "train=tiny", "data=sample", "train.epochs=1",
		"model.checkpoint=" + sample + "/tiny-deberta", "data.redsm5_dir=" + data, "data.dsm5_criteria_path=" + sample + "/criteria.json",
		"mlflow.tracking_uri=sqlite:///" + filepath.Join(t.TempDir(), "mlflow.db"), "hydra.run.dir=" + dir,
	}, more...)
}

// head copies the rows of the first posts.
func head(t *testing.T, name, to string, posts int) {
	t.Helper()
	in, err := os.Open(filepath.Join(sample, name))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	seen := map[string]bool{}
	var out strings.Builder
	for lines := bufio.NewScanner(in); lines.Scan(); out.WriteString(lines.Text() + "\n") {
		id, _, _ := strings.Cut(lines.Text(), ",")
		if seen[id] = true; len(seen) > posts+1 || id > "sample-0080" && id != "post_id" {
			break
		}
	}
	if err := os.WriteFile(filepath.Join(to, name), []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTrain(t *testing.T) {
	dir, args := arguments(t)
	if code := run(t.Context(), args); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	for _, name := range []string{
		".hydra/config.yaml", ".hydra/overrides.yaml", ".hydra/hydra.yaml", "train.log",
		"confusion_matrix.png", "classification_report.json", "training_curves.png",
		"best_model/config.json", "best_model/model.safetensors", "best_model/tokenizer.json", "best_model/README.md",
		"best_model/training_model.onnx", "best_model/eval_model.onnx", "best_model/optimizer_model.onnx",
	} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "train.log"))
	if err != nil {
		t.Fatal(err)
	}
	// What the console must show, in this order.
	rest := string(log)
	for _, part := range []string{
		"configuration:\nmodel:", "split train", "split val", "split test", "device=\"CPU", "without effect on this device", "dry run passed", "loss=",
		"epoch 1/1", "val_macro_f1=", "new best model saved", "test loss=", "macro_f1=", "done: completed after 1 epochs",
	} {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Errorf("the log lacks %q after what comes before it:\n%s", part, log)
			break
		}
		rest = after
	}
}

func TestTrainFails(t *testing.T) {
	for name, override := range map[string]string{
		"unknown key": "train.learning_rte=1", "bad value": "train.scheduler=linaer", "no data": "data.redsm5_dir=none", "no model": "model.checkpoint=/none",
	} {
		t.Run(name, func(t *testing.T) {
			_, args := arguments(t, override)
			if code := run(t.Context(), args); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
		})
	}
}

func TestTrainInterrupted(t *testing.T) {
	dir, args := arguments(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := run(ctx, args); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	log, err := os.ReadFile(filepath.Join(dir, "train.log"))
	if err != nil || !strings.Contains(string(log), "[WARNING] - criteria: interrupted") {
		t.Errorf("log (%v):\n%s", err, log)
	}
}

// The configuration that a run writes down can be run again.
func TestTrainFromWrittenConfig(t *testing.T) {
	dir, args := arguments(t)
	if code := run(t.Context(), args); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	again := filepath.Join(t.TempDir(), "again")
	code := run(t.Context(), []string{"--config-path", filepath.Join(dir, ".hydra"), "--config-name", "config_resolved", "hydra.run.dir=" + again})
	if code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	weights := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "best_model", "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if weights(dir) != weights(again) {
		t.Error("the second run has other weights")
	}
	report := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "classification_report.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if diff := cmp.Diff(report(dir), report(again)); diff != "" {
		t.Errorf("(-first +again):\n%s", diff)
	}
}

// A run that Ctrl-C ended goes on with --resume and ends with the weights that
// it would have had anyway.
func TestTrainResume(t *testing.T) {
	weights := func(dir string) string {
		text, err := os.ReadFile(filepath.Join(dir, "best_model", "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	whole, args := arguments(t)
	if code := run(t.Context(), args); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	dir, args := arguments(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() { // Ctrl-C as soon as there is a checkpoint with weights
		defer close(done)
		for ctx.Err() == nil {
			if found, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "step-*", "session")); len(found) > 0 {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	code := run(ctx, append(args, "train.checkpoint_steps=3"))
	cancel()
	<-done
	if code != 130 {
		t.Fatalf("exit code %d, want 130", code)
	}
	log, err := os.ReadFile(filepath.Join(dir, "train.log"))
	if err != nil || !strings.Contains(string(log), " --resume '"+dir+"'") {
		t.Errorf("the log (%v) does not say how to resume:\n%s", err, log)
	}
	overrides, err := os.ReadFile(filepath.Join(dir, ".hydra", "overrides.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if code := run(t.Context(), []string{"--resume", dir, "train.learning_rate=0.5"}); code != 1 {
		t.Errorf("exit code %d with another learning rate, want 1", code)
	}
	if code := run(t.Context(), []string{"--resume=" + dir}); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	if weights(whole) != weights(dir) {
		t.Error("the resumed run has other weights")
	}
	if now, err := os.ReadFile(filepath.Join(dir, ".hydra", "overrides.yaml")); err != nil || string(now) != string(overrides) {
		t.Errorf(".hydra/overrides.yaml (%v) is now\n%s", err, now)
	}
	for _, args := range [][]string{{"--resume"}, {"--resume", t.TempDir()}, {"--resume=a", "--resume=b"}} {
		if code := run(t.Context(), args); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
}
