package criteria_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
)

// recorded is a training of the tiny model on some of the sample's posts, in a
// store of its own.
type recorded struct {
	uri, data string
	result    *criteria.Result
}

func record(t *testing.T, uri string) recorded {
	t.Helper()
	r := recorded{uri: uri, data: t.TempDir()}
	for _, name := range []string{"redsm5_posts.csv", "redsm5_annotations.csv"} {
		text, err := os.ReadFile(filepath.Join("testdata", "sample", name))
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(text), "\nsample-0081,")
		if err := os.WriteFile(filepath.Join(r.data, name), []byte(head+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(uri), criteria.WithExperiment("test"), criteria.WithSystemMetrics(0))
	if err != nil {
		t.Fatal(err)
	}
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint("testdata/sample/tiny-deberta"), criteria.WithData(r.data, "testdata/sample/criteria.json"),
		criteria.Configure(func(c *criteria.Config) {
			c.Train.Epochs, c.Train.LearningRate, c.Model.Tokenizer.MaxLength = 2, 5e-3, 64
		}), criteria.WithOutputDir(t.TempDir()), criteria.WithTracker(tracker),
	)
	if err != nil {
		t.Fatal(err)
	}
	if r.result, err = trainer.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r recorded) reproduce(t *testing.T, opts ...criteria.ReproduceOption) (*criteria.Reproduction, error) {
	t.Helper()
	return criteria.Reproduce(t.Context(), r.result.RunID, append([]criteria.ReproduceOption{
		criteria.WithTrackingURI(r.uri), criteria.WithExperiment("test"), criteria.WithOutputDir(t.TempDir()),
	}, opts...)...)
}

func (r recorded) store(t *testing.T) mlflow.Store {
	t.Helper()
	store, err := mlflow.Open(t.Context(), r.uri, mlflow.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func TestReproduce(t *testing.T) {
	for name, uri := range map[string]func(dir string) string{
		"SQLite": func(dir string) string { return "sqlite:///" + filepath.Join(dir, "mlflow.db") },
		"files":  func(dir string) string { return filepath.Join(dir, "mlruns") },
	} {
		t.Run(name, func(t *testing.T) {
			reproduceBothWays(t, record(t, uri(t.TempDir())))
		})
	}
}

// The same through a tracking server: MLflow's own.
func TestReproduceFromServer(t *testing.T) {
	mlflowtest.Python(t)
	server := mlflowtest.StartServer(t, mlflowtest.ServerOptions{Dir: t.TempDir()})
	server.Wait(t)
	reproduceBothWays(t, record(t, server.URL))
}

// A run that MLflow's own client recorded, in the same layout, is reproduced
// like one of ours.
func TestReproducePython(t *testing.T) {
	mlflowtest.Python(t)
	dir := t.TempDir()
	trained := record(t, filepath.Join(dir, "ours"))
	uri := "sqlite:///" + filepath.Join(dir, "theirs.db")
	var history []map[string]float64
	for _, e := range trained.result.History {
		history = append(history, map[string]float64{"train_loss": e.Train.Loss, "val_loss": e.Val.Loss, "val_macro_f1": e.Val.MacroF1})
	}
	s := trained.result.Test
	id := mlflowtest.WriteTraining(t, mlflowtest.Training{
		Target: mlflowtest.Target{URI: uri, Artifacts: filepath.Join(dir, "theirs")}, Experiment: "test",
		Config: filepath.Join(trained.result.ModelDir(), "training_config.yaml"), Model: trained.result.ModelDir(),
		Data:    []string{filepath.Join(trained.data, "redsm5_posts.csv"), filepath.Join(trained.data, "redsm5_annotations.csv"), "testdata/sample/criteria.json"},
		History: history,
		Test: map[string]float64{
			"test_loss": s.Loss, "test_accuracy": s.Accuracy, "test_macro_f1": s.MacroF1, "test_weighted_f1": s.WeightedF1, "test_precision": s.Precision, "test_recall": s.Recall,
		},
	})
	theirs := recorded{uri: uri, data: trained.data, result: &criteria.Result{RunID: id}}
	reproduceBothWays(t, theirs)

	path := filepath.Join(trained.data, "redsm5_annotations.csv")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var fault *criteria.DataError
	if _, err := theirs.reproduce(t); !errors.As(err, &fault) || fault.File != "redsm5_annotations.csv" {
		t.Errorf("error %v; want a DataError of redsm5_annotations.csv", err)
	}
}

// reproduceBothWays checks that neither testing nor training again makes any
// difference, and how that is recorded.
func reproduceBothWays(t *testing.T, original recorded) {
	t.Helper()
	for _, mode := range []criteria.ReproduceMode{criteria.ReproduceEval, criteria.ReproduceTrain} {
		t.Run(string(mode), func(t *testing.T) {
			got, err := original.reproduce(t, criteria.WithMode(mode), criteria.WithTolerance(0), criteria.WithThreads(1))
			if err != nil {
				t.Fatal(err)
			}
			if !got.Passed || len(got.Metrics) != 5 {
				t.Errorf("passed %v with %d metrics; want it passed with 5\n%s", got.Passed, len(got.Metrics), got)
			}
			for _, m := range got.Metrics {
				if m.Delta != 0 || m.Original != m.Replayed {
					t.Errorf("%+v; want no difference", m)
				}
			}
			store := original.store(t)
			run, err := store.Run(t.Context(), got.RunID)
			if err != nil {
				t.Fatal(err)
			}
			for tag, want := range map[string]string{
				"original_run_id": original.result.RunID, "stage": "reproducibility", "reproducibility_status": "passed",
			} {
				if run.Tags[tag] != want {
					t.Errorf("tag %s = %q, want %q", tag, run.Tags[tag], want)
				}
			}
			for param, want := range map[string]string{
				"original_run_id": original.result.RunID, "mode": string(mode), "tolerance": "0.0", "seed": "42",
			} {
				if run.Params[param] != want {
					t.Errorf("param %s = %q, want %q", param, run.Params[param], want)
				}
			}
			for _, metric := range []string{"accuracy", "macro_f1", "weighted_f1", "precision", "recall", "loss"} {
				metric = "test_" + metric
				o, r, d := run.Metrics["original_"+metric], run.Metrics["replayed_"+metric], run.Metrics["delta_"+metric]
				if o.Key == "" || r.Key == "" || d.Key == "" || o.Value != r.Value || d.Value != 0 {
					t.Errorf("%s: original %+v, replayed %+v, delta %+v; want all and no difference", metric, o, r, d)
				}
			}
			for _, name := range []string{"config/config.yaml", "model/model.safetensors", "confusion_matrix.png", "classification_report.json"} {
				a, err := store.OpenArtifact(t.Context(), run, name)
				if err != nil {
					t.Error(err)
					continue
				}
				_, err = io.Copy(io.Discard, a)
				if err := errors.Join(err, a.Close()); err != nil {
					t.Error(err)
				}
			}
			if run.Status != mlflow.Finished {
				t.Errorf("status %s, want FINISHED", run.Status)
			}
		})
	}
}

// What is not as it was is caught and named.
func TestReproduceCatches(t *testing.T) {
	base := t.TempDir()
	original := record(t, filepath.Join(base, "mlruns"))

	t.Run("another seed", func(t *testing.T) {
		got, err := original.reproduce(t, criteria.WithMode(criteria.ReproduceTrain), criteria.WithTolerance(0), criteria.WithSeed(43))
		if err != nil {
			t.Fatal(err)
		}
		if got.Passed {
			t.Error("passed; want it failed")
		}
		text := got.String()
		for _, part := range []string{"✗ REPRODUCIBILITY CHECK FAILED", "Some metrics exceed ±0.0 pp tolerance", "Likely reasons:\n  train.seed: was 42, is 43"} {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in\n%s", part, text)
			}
		}
		if run, err := original.store(t).Run(t.Context(), got.RunID); err != nil || run.Tags["reproducibility_status"] != "failed" {
			t.Errorf("reproducibility_status = %q (%v), want failed", run.Tags["reproducibility_status"], err)
		}
		// With all the tolerance there is, the same difference passes.
		got, err = original.reproduce(t, criteria.WithMode(criteria.ReproduceTrain), criteria.WithTolerance(1), criteria.WithSeed(43))
		if err != nil || !got.Passed {
			t.Errorf("%v, %v; want it passed with tolerance 1", got, err)
		}
	})
	t.Run("a changed file", func(t *testing.T) {
		path := filepath.Join(original.data, "redsm5_posts.csv")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}()
		if err := os.WriteFile(path, append(text[:len(text):len(text)], '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = original.reproduce(t)
		var fault *criteria.DataError
		if !errors.As(err, &fault) || fault.File != "redsm5_posts.csv" {
			t.Errorf("error %v; want a DataError of redsm5_posts.csv", err)
		}
	})
	for _, file := range []string{"config.json", "model.safetensors", "spm.model"} {
		t.Run("a changed base checkpoint: "+file, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "base")
			if err := os.CopyFS(base, os.DirFS("testdata/sample/tiny-deberta")); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(base, file))
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)-1] ^= 1
			if err := os.WriteFile(filepath.Join(base, file), text, 0o644); err != nil {
				t.Fatal(err)
			}
			// The engine must not be asked: nothing is computed.
			engine := &fakes.Engine{Before: func(op string) error { t.Errorf("%s", op); return nil }}
			_, err = original.reproduce(t, criteria.WithMode(criteria.ReproduceTrain), criteria.WithCheckpoint(base), criteria.WithEngine(engine))
			var fault *criteria.DataError
			if !errors.As(err, &fault) || fault.File != filepath.Join(base, file) {
				t.Errorf("error %v; want a DataError of %s", err, file)
			}
		})
	}
	t.Run("a flipped bit in the model", func(t *testing.T) {
		var weights string
		err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "model.safetensors" && strings.Contains(path, original.result.RunID) && filepath.Base(filepath.Dir(path)) == "model" {
				weights = path
			}
			return err
		})
		if err != nil || weights == "" {
			t.Fatalf("no weights among the artifacts: %v", err)
		}
		text, err := os.ReadFile(weights)
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)-100] ^= 1
		if err := os.WriteFile(weights, text, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = original.reproduce(t)
		var fault *criteria.DataError
		if !errors.As(err, &fault) || !strings.Contains(err.Error(), "model.safetensors has SHA-256") {
			t.Errorf("error %v; want a DataError that names model.safetensors", err)
		}
	})
	t.Run("a run that is not there", func(t *testing.T) {
		_, err := criteria.Reproduce(t.Context(), strings.Repeat("0", 32), criteria.WithTrackingURI(original.uri), criteria.WithExperiment("test"), criteria.WithOutputDir(t.TempDir()))
		if !errors.Is(err, mlflow.ErrNotFound) {
			t.Errorf("error %v; want not found", err)
		}
	})
	t.Run("options", func(t *testing.T) {
		_, err := criteria.Reproduce(t.Context(), "x", criteria.WithTolerance(2), criteria.WithMode("guess"))
		if !errors.Is(err, criteria.ErrInvalidOption) || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("error %v; want both options named", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		if _, err := criteria.Reproduce(ctx, original.result.RunID, criteria.WithTrackingURI(original.uri), criteria.WithExperiment("test")); err == nil {
			t.Error("no error; want one")
		}
	})
}

// The table is that of the contract.
func TestReproductionString(t *testing.T) {
	r := criteria.Reproduction{Tolerance: 0.01, Metrics: []criteria.MetricComparison{
		{Name: "test_accuracy", Original: 0.8312, Replayed: 0.8305, Delta: 0.0007}, {Name: "test_macro_f1", Original: 0.75, Replayed: 0.7, Delta: 0.05},
	}, Differences: []string{"device: was CPU, is GPU"}}
	rule := strings.Repeat("=", 80)
	want := rule + "\nMetric Comparison (SC-003: ±1.0 pp tolerance)\n" + rule + `
✓ test_accuracy       : Original=0.8312, Replayed=0.8305, Delta=0.0007
✗ test_macro_f1       : Original=0.7500, Replayed=0.7000, Delta=0.0500

` + rule + "\n✗ REPRODUCIBILITY CHECK FAILED\nSome metrics exceed ±1.0 pp tolerance\n" + rule + "\n\nLikely reasons:\n  device: was CPU, is GPU\n"
	if diff := cmp.Diff(want, r.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
