package criteria_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// bench holds the fakes of one training.
type bench struct {
	dir     string
	engine  *fakes.Engine
	tracker *fakes.Tracker
	data    *criteria.Dataset
	config  criteria.Config
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir(), engine: &fakes.Engine{}, tracker: &fakes.Tracker{}, data: fakes.Dataset(20, 6, 6, 1), config: criteria.DefaultConfig()}
	b.config.Model.Checkpoint = t.TempDir()
	if err := os.WriteFile(filepath.Join(b.config.Model.Checkpoint, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.config.Model.Tokenizer.MaxLength = 32
	b.config.Train.Epochs = 2
	b.config.Train.BatchSize = 8
	t.Cleanup(func() {
		if n := b.engine.OpenSessions(); n != 0 {
			t.Errorf("%d sessions were not closed", n)
		}
		for _, run := range b.tracker.Runs() {
			if run.Status == "" {
				t.Error("a tracked run was not ended")
			}
		}
	})
	return b
}

func (b *bench) trainer(t *testing.T, opts ...criteria.TrainerOption) *criteria.Trainer {
	t.Helper()
	all := append([]criteria.TrainerOption{
		criteria.WithConfig(b.config), criteria.WithDataset(b.data), criteria.WithEngine(b.engine), criteria.WithTracker(b.tracker),
		criteria.WithTokenizer(&fakes.Tokenizer{}), criteria.WithOutputDir(b.dir), criteria.WithClock((&fakes.Clock{Tick: time.Second}).Now),
	}, opts...)
	trainer, err := criteria.NewTrainer(all...)
	if err != nil {
		t.Fatal(err)
	}
	return trainer
}

func (b *bench) run(t *testing.T, opts ...criteria.TrainerOption) *criteria.Result {
	t.Helper()
	result, err := b.trainer(t, opts...).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// fail runs a training that must fail and returns its tracked run and its error.
func (b *bench) fail(ctx context.Context, t *testing.T, opts ...criteria.TrainerOption) (*fakes.Run, error) {
	t.Helper()
	result, err := b.trainer(t, opts...).Run(ctx)
	if err == nil || result != nil {
		t.Fatalf("Run() = %v, %v; want only an error", result, err)
	}
	if !strings.HasPrefix(err.Error(), "criteria: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q; want one line that begins with criteria:", err)
	}
	if runs := b.tracker.Runs(); len(runs) > 0 {
		return runs[0], err
	}
	return nil, err
}

// files lists what is below dir, except checkpoints and the lock of the run.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "checkpoints" {
			return filepath.SkipDir
		}
		if err == nil && !d.IsDir() && d.Name() != ".lock" {
			name, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRunLearns(t *testing.T) {
	b := newBench(t)
	b.config.Train.Epochs = 10
	b.config.Train.EarlyStoppingPatience = 0
	result := b.run(t)
	if result.Test.MacroF1 < 0.9 {
		t.Errorf("test macro-F1 %v; want at least 0.9: the data give the answer away", result.Test.MacroF1)
	}
	if first, last := result.History[0].Train.Loss, result.History[9].Train.Loss; last >= first {
		t.Errorf("training loss went from %v to %v; want it to fall", first, last)
	}
	if result.Stop != criteria.Completed || result.Epochs != 10 || result.Steps != 10*8 {
		t.Errorf("stop %v after %d epochs, %d steps; want completed after 10 and 80", result.Stop, result.Epochs, result.Steps)
	}
	classifier, err := result.Classifier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer classifier.Close()
	pairs, right := make([]criteria.Pair, len(b.data.Test)), 0
	for i, e := range b.data.Test {
		pairs[i] = e.Pair
	}
	predictions, err := classifier.Predict(t.Context(), pairs)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range predictions {
		if p.Label == (b.data.Test[i].Label == 1) {
			right++
		}
	}
	if accuracy := float64(right) / float64(len(pairs)); accuracy != result.Test.Accuracy {
		t.Errorf("accuracy of the predictions %v, of the test %v; want the same", accuracy, result.Test.Accuracy)
	}
}

func TestRunRecords(t *testing.T) {
	b := newBench(t)
	b.config.MLflow.RunName = "first"
	result := b.run(t)

	want := []string{
		"best_model/README.md", "best_model/SHA256SUMS", "best_model/decision.json", "best_model/fake_model.json", "best_model/tokenizer.json", "best_model/training_config.yaml",
		"classification_report.json", "confusion_matrix.png", "training_curves.png",
	}
	if diff := cmp.Diff(want, files(t, b.dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	if len(b.tracker.Runs()) != 1 {
		t.Fatalf("%d runs, want 1", len(b.tracker.Runs()))
	}
	run := b.tracker.Runs()[0]
	calls := []string{
		"start", "artifact config/config.yaml", "tags", "metrics 1", "metrics 2", "metrics 2",
		"artifact confusion_matrix.png", "artifact classification_report.json", "artifact training_curves.png", "artifacts model", "end",
	}
	if diff := cmp.Diff(calls, run.Calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if run.Status != criteria.RunFinished || result.RunID != run.ID() {
		t.Errorf("status %s, run %q; want FINISHED and %q", run.Status, result.RunID, run.ID())
	}
	if run.Info.Name != "first" || run.Info.Dir != b.dir {
		t.Errorf("run info: name %q, dir %q", run.Info.Name, run.Info.Dir)
	}

	var datasets []string
	for _, d := range run.Info.Datasets {
		datasets = append(datasets, fmt.Sprintf("%s %s %d", d.Name, d.Context, d.Rows))
		if len(d.Digest) != 16 {
			t.Errorf("digest %q of %s", d.Digest, d.Context)
		}
	}
	if diff := cmp.Diff([]string{"made up train 60", "made up val 18", "made up test 18"}, datasets); diff != "" {
		t.Errorf("datasets (-want +got):\n%s", diff)
	}

	for _, tag := range []string{"git.commit", "git.branch", "git.dirty", "version.go", "version.criteria", "version.engine", "data.hash.posts.csv", "model.hash.config.json"} {
		if run.Tags[tag] == "" {
			t.Errorf("no tag %s: %v", tag, run.Tags)
		}
	}
	if run.Tags["stage"] != "train" {
		t.Errorf("stage %q; want train", run.Tags["stage"])
	}

	perEpoch := []string{
		"train_accuracy", "train_loss", "train_macro_f1", "train_weighted_f1",
		"val_accuracy", "val_loss", "val_macro_f1", "val_weighted_f1",
	}
	test := []string{"test_accuracy", "test_loss", "test_macro_f1", "test_precision", "test_recall", "test_weighted_f1"}
	if diff := cmp.Diff(perEpoch, slices.Sorted(maps.Keys(run.Metrics[1]))); diff != "" {
		t.Errorf("metrics of epoch 1 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(append(perEpoch, test...))), slices.Sorted(maps.Keys(run.Metrics[2]))); diff != "" {
		t.Errorf("metrics of epoch 2 (-want +got):\n%s", diff)
	}
	if run.Metrics[2]["test_macro_f1"] != result.Test.MacroF1 || run.Metrics[1]["val_loss"] != result.History[0].Val.Loss {
		t.Error("the metrics are not those of the result")
	}

	if got := run.Artifacts["config/config.yaml"]; got != string(b.config.YAML()) {
		t.Errorf("config/config.yaml:\n%s", cmp.Diff(string(b.config.YAML()), got))
	}
	if _, err := png.Decode(strings.NewReader(run.Artifacts["confusion_matrix.png"])); err != nil {
		t.Errorf("confusion_matrix.png: %v", err)
	}
	var report map[string]any
	if err := json.Unmarshal([]byte(run.Artifacts["classification_report.json"]), &report); err != nil {
		t.Errorf("classification_report.json: %v", err)
	}
	if diff := cmp.Diff([]string{"0", "1", "accuracy", "macro avg", "weighted avg"}, slices.Sorted(maps.Keys(report))); diff != "" {
		t.Errorf("classification_report.json (-want +got):\n%s", diff)
	}
	card := run.Artifacts["model/README.md"]
	for _, part := range []string{fmt.Sprintf("| test | 18 | %.4f |", result.Test.Accuracy), "posts.csv", "criteria.Load", "from_pretrained"} {
		if !strings.Contains(card, part) {
			t.Errorf("the model card lacks %q:\n%s", part, card)
		}
	}
}

// Who may look at a run or a model need not know the password of the server.
func TestSecretsStayOut(t *testing.T) {
	b := newBench(t)
	b.config.MLflow.TrackingURI = "https://user:secret@mlflow.example/prefix"
	b.run(t)
	for path, content := range b.tracker.Runs()[0].Artifacts {
		if strings.Contains(content, "secret") {
			t.Errorf("%s holds the password", path)
		}
	}
	if got := b.tracker.Runs()[0].Artifacts["config/config.yaml"]; !strings.Contains(got, "tracking_uri: https://mlflow.example/prefix\n") {
		t.Errorf("config/config.yaml:\n%s", got)
	}
}

func TestRunParams(t *testing.T) {
	b := newBench(t)
	b.run(t)
	got := b.tracker.Runs()[0].Params
	want := map[string]string{
		"seed":                              "42",
		"model.checkpoint":                  b.config.Model.Checkpoint,
		"model.head.num_layers":             "1",
		"model.head.hidden_dims":            "[256]",
		"model.head.activation":             "relu",
		"model.head.dropout":                "0.1",
		"model.head.pooling_strategy":       "cls",
		"model.tokenizer.max_length":        "32",
		"model.tokenizer.truncation":        "longest_first",
		"model.tokenizer.padding":           "longest",
		"train.seed":                        "42",
		"train.epochs":                      "2",
		"train.batch_size":                  "8",
		"train.eval_batch_size":             "16",
		"train.learning_rate":               "2e-05",
		"train.weight_decay":                "0.01",
		"train.warmup_ratio":                "0.1",
		"train.max_grad_norm":               "1.0",
		"train.gradient_accumulation_steps": "1",
		"train.scheduler":                   "linear",
		"train.optimizer_type":              "adamw_torch_fused",
		"train.early_stopping_patience":     "3",
		"train.threads":                     "0",
		"train.checkpoint_steps":            "0",
		"train.checkpoint_minutes":          "10.0",
		"train.keep_checkpoints":            "2",
		"opt.use_amp":                       "True",
		"opt.amp_dtype":                     "bf16",
		"opt.enable_tf32":                   "True",
		"opt.attention_implementation":      "sdpa",
		"opt.gradient_checkpointing":        "False",
		"opt.use_compile":                   "False",
		"opt.compile_mode":                  "default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("params (-want +got):\n%s", diff)
	}
}

// 60 pairs in batches of 8 are 8 micro-batches; with 3 to an update that makes
// updates of 3, 3 and 2.
func TestAccumulationAndSchedule(t *testing.T) {
	b := newBench(t)
	b.config.Train.GradientAccumulationSteps = 3
	b.config.Train.LearningRate = 1e-3
	b.config.Train.WarmupRatio = 0.3 // of 6 updates: 1.8, so 2
	b.config.Train.MaxGradNorm = 0.5
	b.config.Train.WeightDecay = 0.02
	b.config.Train.OptimizerType = "adamw"
	b.config.Train.Threads = 3
	result := b.run(t)
	if result.Steps != 6 {
		t.Errorf("%d steps, want 6", result.Steps)
	}
	rates := []float64{0, 0.5e-3, 1e-3, 0.75e-3, 0.5e-3, 0.25e-3}
	var want []fakes.Step
	for step, rate := range rates {
		micros := 3
		if step%3 == 2 {
			micros = 2
		}
		for micro := range micros {
			want = append(want, fakes.Step{Op: "accumulate", Step: step, Micro: micro})
		}
		want = append(want, fakes.Step{Op: "update", LearningRate: rate})
	}
	got, rows := b.engine.Steps(), 0
	for i := range got {
		rows += got[i].Rows // which batch is the short one is left to chance
		got[i].Rows = 0
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-12, 0)); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if rows != 2*60 {
		t.Errorf("%d pairs in two epochs; want 120", rows)
	}
	specs := b.engine.Specs()
	wantSpecs := []criteria.ModelSpec{
		{
			Dir: b.config.Model.Checkpoint, Head: b.config.Model.Head, Threads: 3, Device: "cpu",
			Training:      &criteria.TrainingSpec{Seed: 42, Optimizer: "adamw", WeightDecay: 0.02, MaxGradNorm: 0.5, Accumulation: 3},
			Optimizations: b.config.Train.Optimizations, PinMemory: true,
		},
		{Dir: filepath.Join(b.dir, "best_model"), Threads: 3, Device: "cpu", Optimizations: b.config.Train.Optimizations, PinMemory: true},
	}
	if diff := cmp.Diff(wantSpecs, specs); diff != "" {
		t.Errorf("opened (-want +got):\n%s", diff)
	}
}

// scripted makes the share of right answers on the validation split follow a
// script: one share per epoch.
func scripted(b *bench, shares ...float64) {
	evaluations, rows := 0, 0
	b.engine.Result = func(op string, batch criteria.Batch, r *criteria.BatchResult) {
		if op != "evaluate" {
			return
		}
		if evaluations == 0 { // the dry run
			evaluations = 1
			return
		}
		epoch := min(evaluations, len(shares)) - 1
		for i, label := range batch.Labels {
			right := float64(rows+i) < shares[epoch]*float64(len(b.data.Val))
			if right == (label == 1) {
				r.Logits[2*i], r.Logits[2*i+1] = -1, 1
			} else {
				r.Logits[2*i], r.Logits[2*i+1] = 1, -1
			}
		}
		if rows += batch.Rows; rows == len(b.data.Val) {
			rows = 0
			evaluations++
		}
	}
}

func TestBestEpochAndEarlyStopping(t *testing.T) {
	for name, tc := range map[string]struct {
		shares   []float64
		patience int
		best     int
		epochs   int
		stop     criteria.StopReason
	}{
		"rising":                    {[]float64{0.5, 0.6, 0.7, 0.8, 0.9}, 2, 5, 5, criteria.Completed},
		"first of equals":           {[]float64{0.5, 0.8, 0.8, 0.8, 0.6}, 0, 2, 5, criteria.Completed},
		"patience":                  {[]float64{0.5, 0.8, 0.8, 0.6, 0.9}, 2, 2, 4, criteria.EarlyStopped},
		"patience of one":           {[]float64{0.5, 0.4, 0.9, 0.9, 0.9}, 1, 1, 2, criteria.EarlyStopped},
		"patience ends with epochs": {[]float64{0.5, 0.6, 0.9, 0.1, 0.1}, 2, 3, 5, criteria.Completed},
		"a new best in time":        {[]float64{0.5, 0.4, 0.9, 0.1, 0.95}, 2, 5, 5, criteria.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.config.Train.Epochs = 5
			b.config.Train.EarlyStoppingPatience = tc.patience
			scripted(b, tc.shares...)
			var saved []int
			result := b.run(t, criteria.WithHooks(criteria.Hooks{Checkpoint: func(e criteria.CheckpointEvent) { saved = append(saved, e.Epoch) }}))
			if result.Best.Epoch != tc.best || result.Epochs != tc.epochs || result.Stop != tc.stop {
				t.Errorf("best epoch %d of %d, %v; want %d of %d, %v", result.Best.Epoch, result.Epochs, result.Stop, tc.best, tc.epochs, tc.stop)
			}
			if saved[len(saved)-1] != tc.best {
				t.Errorf("saved epochs %v; want %d last", saved, tc.best)
			}
			if len(result.History) != tc.epochs || result.Best != result.History[tc.best-1] {
				t.Errorf("history %v, best %v", result.History, result.Best)
			}
		})
	}
}

// The model that is tested and kept is that of the best epoch, not the last.
func TestBestWeightsAreKept(t *testing.T) {
	weights := func(epochs int, shares ...float64) []byte {
		b := newBench(t)
		b.config.Train.Epochs = epochs
		b.config.Train.Scheduler, b.config.Train.WarmupRatio = "constant", 0 // the same rates, whatever the epochs
		scripted(b, shares...)
		b.run(t)
		text, err := os.ReadFile(filepath.Join(b.dir, "best_model", "fake_model.json"))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if !bytes.Equal(weights(2, 0.5, 0.9), weights(3, 0.5, 0.9, 0.1)) {
		t.Error("three epochs of which the second is the best do not keep the weights of two")
	}
	if bytes.Equal(weights(2, 0.5, 0.9), weights(3, 0.5, 0.9, 0.95)) {
		t.Error("the third epoch changed no weights: the test shows nothing")
	}
}

func TestSameSeedSameBits(t *testing.T) {
	run := func(seed uint64) ([]criteria.EpochScores, string) {
		b := newBench(t)
		b.config.Train.Seed = seed
		result := b.run(t)
		text, err := os.ReadFile(filepath.Join(b.dir, "best_model", "fake_model.json"))
		if err != nil {
			t.Fatal(err)
		}
		return result.History, string(text)
	}
	history, weights := run(7)
	again, weightsAgain := run(7)
	if diff := cmp.Diff(history, again); diff != "" || weights != weightsAgain {
		t.Errorf("the same seed gave another run:\n%s", diff)
	}
	if _, other := run(8); other == weights {
		t.Error("another seed gave the same weights")
	}
}

// How a split is cut into batches must not show in its scores.
func TestEvaluationIsIndependentOfBatchSize(t *testing.T) {
	var scores []criteria.Scores
	for _, size := range []int{1, 5, 64} {
		b := newBench(t)
		b.config.Train.EvalBatchSize = size
		result := b.run(t)
		scores = append(scores, result.Test, result.Best.Val)
	}
	for i := 2; i < len(scores); i++ {
		if diff := cmp.Diff(scores[i%2], scores[i], cmpopts.EquateApprox(1e-12, 0)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestPadding(t *testing.T) {
	for padding, want := range map[string]bool{"max_length": true, "longest": false} {
		b := newBench(t)
		b.config.Model.Tokenizer.Padding = padding
		short := false
		b.engine.Result = func(_ string, batch criteria.Batch, _ *criteria.BatchResult) { short = short || batch.Length != 32 }
		b.run(t)
		if short == want {
			t.Errorf("padding %s: batches of other lengths than max_length: %v", padding, short)
		}
	}
}

func TestRunOnce(t *testing.T) {
	b := newBench(t)
	trainer := b.trainer(t)
	if _, err := trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := trainer.Run(t.Context()); !errors.Is(err, criteria.ErrReused) {
		t.Errorf("the second Run: %v; want ErrReused", err)
	}
}

func TestTrackerDownAtStart(t *testing.T) {
	b := newBench(t)
	down := errors.New("connection refused")
	b.tracker.Before = func(op string) error {
		if op == "start" {
			return down
		}
		return nil
	}
	_, err := b.fail(t.Context(), t)
	if !errors.Is(err, down) {
		t.Errorf("error %v; want that of the tracker", err)
	}
	if n := len(b.engine.Specs()); n != 0 {
		t.Errorf("%d models were opened; want none before the tracker is up", n)
	}
}

func TestFailuresEndTheRun(t *testing.T) {
	full := errors.New("no space left on device")
	for name, tc := range map[string]struct {
		engine, tracker string // the operation that fails
	}{
		"engine open":       {engine: "open"},
		"dry run":           {engine: "evaluate"},
		"training":          {engine: "accumulate"},
		"update":            {engine: "update"},
		"saving the model":  {engine: "save"},
		"config":            {tracker: "artifact config/config.yaml"},
		"version tags":      {tracker: "tags"},
		"metrics":           {tracker: "metrics 2"},
		"storing the model": {tracker: "artifacts model"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.engine.Before = func(op string) error {
				if op == tc.engine {
					return full
				}
				return nil
			}
			b.tracker.Before = func(op string) error {
				if op == tc.tracker {
					return full
				}
				return nil
			}
			run, err := b.fail(t.Context(), t)
			if !errors.Is(err, full) {
				t.Errorf("error %v; want the cause", err)
			}
			if run.Status != criteria.RunFailed {
				t.Errorf("status %q; want FAILED", run.Status)
			}
		})
	}
}

// When the disk is full while a better model is written, the last one stays.
func TestFullDiskKeepsTheLastModel(t *testing.T) {
	b := newBench(t)
	scripted(b, 0.5, 0.9)
	full := errors.New("no space left on device")
	saves := 0
	b.engine.Before = func(op string) error {
		if op == "save" {
			if saves++; saves == 2 {
				return full
			}
		}
		return nil
	}
	if _, err := b.fail(t.Context(), t); !errors.Is(err, full) {
		t.Errorf("error %v; want the cause", err)
	}
	want := []string{"best_model/README.md", "best_model/SHA256SUMS", "best_model/decision.json", "best_model/fake_model.json", "best_model/tokenizer.json", "best_model/training_config.yaml"}
	if diff := cmp.Diff(want, files(t, b.dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	card, err := os.ReadFile(filepath.Join(b.dir, "best_model", "README.md"))
	if err != nil || !strings.Contains(string(card), "weights of epoch 1") || !strings.Contains(string(card), "not evaluated") {
		t.Errorf("model card (%v):\n%s", err, card)
	}
}

func TestDivergence(t *testing.T) {
	nan := math.NaN()
	for name, tc := range map[string]struct {
		op   string
		call int // of op, from 1
		step int // of the last checkpoint
		want criteria.DivergedError
	}{
		"dry run":    {"evaluate", 1, 0, criteria.DivergedError{Loss: nan}},
		"training":   {"accumulate", 11, 10, criteria.DivergedError{Epoch: 2, Step: 10, Loss: nan, LearningRate: 2e-5 * 6 / 14}},
		"validation": {"evaluate", 2, 8, criteria.DivergedError{Epoch: 1, Step: 8, Loss: nan, LearningRate: 2e-5 * 9 / 14}},
	} {
		for _, async := range []bool{false, true} {
			name := name
			if async {
				name += ", asynchronous"
				// What a device did to the weights after it diverged is not saved: what
				// is there is of the end of the epoch.
				tc.step = min(tc.step, 8)
			}
			t.Run(name, func(t *testing.T) {
				b := newBench(t)
				b.engine.Async = async
				calls := 0
				b.engine.Result = func(op string, _ criteria.Batch, r *criteria.BatchResult) {
					if op == tc.op {
						if calls++; calls == tc.call {
							r.Loss = nan
						}
					}
				}
				run, err := b.fail(t.Context(), t)
				var diverged *criteria.DivergedError
				if !errors.Is(err, criteria.ErrDiverged) || !errors.As(err, &diverged) {
					t.Fatalf("error %v; want a DivergedError", err)
				}
				if diff := cmp.Diff(tc.want, *diverged, cmpopts.EquateNaNs(), cmpopts.EquateApprox(1e-12, 0)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if run.Status != criteria.RunFailed {
					t.Errorf("status %q; want FAILED", run.Status)
				}
				saved, err := filepath.Glob(filepath.Join(b.dir, "checkpoints", "*"))
				if err != nil || len(saved) == 0 {
					t.Fatal(saved, err)
				}
				if last, want := filepath.Base(saved[len(saved)-1]), fmt.Sprintf("step-%08d", tc.step); last != want {
					t.Errorf("the last checkpoint is %q, want %q", last, want)
				}
			})
		}
	}
}

// TestAsynchronous: a session that computes by itself is given the next step
// before the result of this one is waited for, and all else is as with any other:
// events, checkpoints, scores, files.
func TestAsynchronous(t *testing.T) {
	run := func(b *bench) ([]string, outcome) {
		var events []string
		result := b.run(t, criteria.WithHooks(criteria.Hooks{Step: func(e criteria.StepEvent) {
			e.Time = time.Time{}
			events = append(events, fmt.Sprintf("%+v", e))
		}}))
		return events, b.outcome(t, result)
	}
	b := newBench(t)
	b.config.Train.GradientAccumulationSteps = 3 // updates of 3, 3 and 2
	b.config.Train.CheckpointSteps, b.config.Train.KeepCheckpoints = 2, 100
	wantEvents, want := run(b)
	b = b.again(t)
	b.engine.Async = true
	events, got := run(b)
	if diff := cmp.Diff(wantEvents, events); diff != "" {
		t.Errorf("events (-synchronous +asynchronous):\n%s", diff)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcome (-synchronous +asynchronous):\n%s", diff)
	}
	saved, _ := filepath.Glob(filepath.Join(b.dir, "checkpoints", "*"))
	for i := range saved {
		saved[i] = filepath.Base(saved[i])
	}
	if diff := cmp.Diff([]string{"step-00000000", "step-00000002", "step-00000003", "step-00000004", "step-00000006"}, saved); diff != "" {
		t.Errorf("checkpoints (-want +got):\n%s", diff)
	}
	var order []string
	for _, s := range b.engine.Steps() {
		order = append(order, s.Op)
	}
	wait := func(op string) string { return "wait for " + op }
	const a, u = "accumulate", "update"
	epoch := []string{
		a, a, a, wait(a), u, wait(a), // the third accumulation and the update are left
		a, wait(a), a, wait(u), a, wait(a), u, wait(a), wait(a), wait(u), // all of it, for a checkpoint
		a, a, u, wait(a), wait(a), wait(u), // all of it, for the end of the epoch
	}
	second := []string{ // the checkpoint comes after the first update
		a, a, a, wait(a), u, wait(a), wait(a), wait(u),
		a, a, a, wait(a), u, wait(a), a, wait(a), a, wait(u), u, wait(a), wait(a), wait(u),
	}
	if diff := cmp.Diff(append(epoch, second...), order); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestInterruption(t *testing.T) {
	stop := errors.New("the user pressed Ctrl-C")
	for name, tc := range map[string]struct {
		phase        criteria.Phase
		epoch, batch int
		step         int // updates when it stops, and of the checkpoint
	}{
		"first batch":     {criteria.PhaseTrain, 1, 1, 1},
		"middle of epoch": {criteria.PhaseTrain, 2, 3, 11},
		"validation":      {criteria.PhaseVal, 1, 1, 8},
		"test":            {criteria.PhaseTest, 2, 1, 16},
	} {
		for _, async := range []bool{false, true} {
			name := name
			if async {
				name += ", asynchronous"
				if tc.phase == criteria.PhaseTrain {
					tc.step++ // which was under way already
				}
			}
			t.Run(name, func(t *testing.T) {
				b := newBench(t)
				b.engine.Async = async
				b.config.Train.EvalBatchSize = 4
				ctx, cancel := context.WithCancelCause(t.Context())
				batch := 0
				hooks := criteria.Hooks{Step: func(e criteria.StepEvent) {
					if e.Phase == tc.phase && e.Epoch == tc.epoch {
						if batch++; batch == tc.batch {
							cancel(stop)
						}
					}
				}}
				run, err := b.fail(ctx, t, criteria.WithHooks(hooks))
				var interrupted *criteria.InterruptedError
				if !errors.As(err, &interrupted) {
					t.Fatalf("error %v; want an InterruptedError", err)
				}
				checkpoint := filepath.Join(b.dir, "checkpoints", fmt.Sprintf("step-%08d", tc.step))
				want := criteria.InterruptedError{Dir: b.dir, Checkpoint: checkpoint, Epoch: tc.epoch, Step: tc.step, Cause: stop}
				if diff := cmp.Diff(want, *interrupted, cmpopts.EquateErrors()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if !errors.Is(err, context.Canceled) || !errors.Is(err, stop) {
					t.Errorf("error %v; want it to be context.Canceled and its cause", err)
				}
				if run.Status != criteria.RunKilled || run.EndErr != nil {
					t.Errorf("status %q, End with a context that is %v; want KILLED and a live one", run.Status, run.EndErr)
				}
			})
		}
	}
}

func TestDeadline(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	result, err := b.trainer(t).Run(ctx)
	var interrupted *criteria.InterruptedError
	if result != nil || !errors.As(err, &interrupted) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run() = %v, %v; want an InterruptedError that is context.DeadlineExceeded", result, err)
	}
}

func TestDatasetChecks(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(d *criteria.Dataset)
		want   string
	}{
		"label":        {func(d *criteria.Dataset) { d.Train[3].Label = 2 }, "train[3]: label 2"},
		"blank":        {func(d *criteria.Dataset) { d.Val[0].Post = " \n" }, "val[0]: blank text"},
		"no id":        {func(d *criteria.Dataset) { d.Test[1].PostID = "" }, "test[1]: an example without PostID"},
		"leak":         {func(d *criteria.Dataset) { d.Test[0].PostID = d.Train[0].PostID }, "is in train and in test"},
		"two texts":    {func(d *criteria.Dataset) { d.Train[1].Post = "another" }, "two different texts"},
		"single class": {func(d *criteria.Dataset) { d.Val = d.Val[:3] }, "val: 0 pairs of class 0 and 3 of class 1"},
		"empty split":  {func(d *criteria.Dataset) { d.Test = nil }, "test: 0 pairs of class 0"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			// Post 18, the first of the validation split, is of class 1.
			b.data = fakes.Dataset(18, 6, 6, 1)
			tc.change(b.data)
			run, err := b.fail(t.Context(), t)
			var fault *criteria.DataError
			if !errors.As(err, &fault) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v; want a DataError with %q", err, tc.want)
			}
			if run != nil {
				t.Error("a run was started for data that cannot be used")
			}
		})
	}
}

func TestHookOrder(t *testing.T) {
	b := newBench(t)
	var got []string
	note := func(name string) criteria.Hooks {
		return criteria.Hooks{
			Start:      func(e criteria.StartEvent) { got = append(got, fmt.Sprintf("%s start %d steps", name, e.Steps)) },
			Epoch:      func(e criteria.EpochEvent) { got = append(got, fmt.Sprintf("%s epoch %d/%d", name, e.Epoch, e.Epochs)) },
			Checkpoint: func(e criteria.CheckpointEvent) { got = append(got, fmt.Sprintf("%s checkpoint %d", name, e.Epoch)) },
			End:        func(e criteria.EndEvent) { got = append(got, fmt.Sprintf("%s end %s %v", name, e.Status, e.Err)) },
		}
	}
	scripted(b, 0.9, 0.5)
	var pairs []int
	b.run(t, criteria.WithHooks(note("a")), criteria.WithHooks(note("b")), criteria.WithHooks(criteria.Hooks{
		Step: func(e criteria.StepEvent) {
			if e.Phase == criteria.PhaseTrain && e.Epoch == 2 {
				pairs = append(pairs, e.Pairs)
			}
		},
	}))
	want := []string{
		"a start 16 steps", "b start 16 steps", "a epoch 1/2", "b epoch 1/2", "a checkpoint 1", "b checkpoint 1", "a epoch 2/2", "b epoch 2/2",
		"a end FINISHED <nil>", "b end FINISHED <nil>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !slices.IsSorted(pairs) || pairs[len(pairs)-1] != 60 {
		t.Errorf("pairs done %v; want them to rise to 60", pairs)
	}
}

// A Result that comes from no training has no model, and says so.
func TestZeroResult(t *testing.T) {
	var r criteria.Result
	if dir := r.ModelDir(); dir != "" {
		t.Errorf("ModelDir %q, want none", dir)
	}
	if c, err := r.Classifier(t.Context()); err == nil || !strings.Contains(err.Error(), "no training") {
		t.Errorf("Classifier: %v, %v; want an error", c, err)
	}
}
