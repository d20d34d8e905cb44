package criteria_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// trainTiny trains the sample's tiny checkpoint for an epoch and returns the
// best_model folder.
func trainTiny(ctx context.Context, dir string, opts ...criteria.TrainerOption) (string, error) {
	trainer, err := criteria.NewTrainer(append([]criteria.TrainerOption{
		criteria.WithCheckpoint("testdata/sample/tiny-deberta"), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)),
		criteria.Configure(func(c *criteria.Config) {
			c.Model.Tokenizer.MaxLength, c.Train.Epochs = 64, 1
		}), criteria.WithOutputDir(dir),
	}, opts...)...)
	if err != nil {
		return "", err
	}
	result, err := trainer.Run(ctx)
	if err != nil {
		return "", err
	}
	return result.ModelDir(), nil
}

// A trained model as a file for ONNX Runtime in any language.
func ExampleExportONNX() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	modelDir, err := trainTiny(ctx, dir) // or the best_model folder of an earlier training
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := criteria.ExportONNX(ctx, modelDir, filepath.Join(dir, "exported"), criteria.WithInt8()); err != nil {
		fmt.Println(err)
		return
	}
	files, err := os.ReadDir(filepath.Join(dir, "exported"))
	for _, f := range files {
		fmt.Println(f.Name())
	}
	fmt.Println(err)
	// Output:
	// model.onnx
	// tokenizer.json
	// tokenizer_config.json
	// <nil>
}

// A trained model for Python's transformers.
func ExampleExportTransformers() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	modelDir, err := trainTiny(ctx, dir, criteria.Configure(func(c *criteria.Config) {
		c.Model.Head = criteria.HeadConfig{PoolingStrategy: "cls", Activation: "gelu"}
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	class, err := criteria.ExportTransformers(ctx, modelDir, filepath.Join(dir, "exported"))
	fmt.Println(class, err)
	// Output: DebertaV2ForSequenceClassification <nil>
}

func TestExportONNX(t *testing.T) {
	modelDir, err := trainTiny(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "a", "b")
	export := func(opts ...criteria.ExportOption) string {
		t.Helper()
		if err := criteria.ExportONNX(t.Context(), modelDir, out, opts...); err != nil {
			t.Fatal(err)
		}
		model, err := os.ReadFile(filepath.Join(out, "model.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		return string(model)
	}
	whole := export()
	for _, entry := range []string{"criteria.version", "criteria.threshold", "criteria.temperature", "criteria.max_length\x12\x0264", "criteria.truncation\x12\rlongest_first", "criteria.labels\x12\x14[\"absent\",\"present\"]"} {
		if !strings.Contains(whole, entry) {
			t.Errorf("the metadata lack %q", entry)
		}
	}
	if again := export(); again != whole {
		t.Error("a second export has other bytes")
	}
	if small := export(criteria.WithExternalData()); len(small) > len(whole)/5 {
		t.Errorf("model.onnx has %d bytes without its weights, %d with them", len(small), len(whole))
	}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		want, err := os.ReadFile(filepath.Join(modelDir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-saved +exported):\n%s", name, diff)
		}
	}
}

func TestExportFails(t *testing.T) {
	ctx := t.Context()
	missing := filepath.Join(t.TempDir(), "missing")
	if err := criteria.ExportONNX(ctx, missing, t.TempDir()); err == nil || !strings.Contains(err.Error(), "best_model") {
		t.Errorf("no model: error %v, want one that says which folder to give", err)
	}
	encoder := "testdata/sample/tiny-deberta"
	if _, err := criteria.ExportTransformers(ctx, encoder, t.TempDir()); err == nil || !strings.Contains(err.Error(), "head") {
		t.Errorf("an encoder: error %v, want one about the head", err)
	}
	if err := criteria.ExportONNX(ctx, encoder, encoder); err == nil || !strings.Contains(err.Error(), "same") {
		t.Errorf("into the model's own folder: error %v", err)
	}
	if err := criteria.ExportONNX(ctx, encoder, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "nil") {
		t.Errorf("a nil option: error %v", err)
	}
}
