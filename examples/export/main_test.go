package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
)

func TestExport(t *testing.T) {
	example := criteria.Example{PostID: "p", CriterionID: "c", Pair: criteria.Pair{Post: "I lie awake.", Criterion: "Insomnia."}}
	other := example
	other.Label = 1
	examples := func(id string) []criteria.Example {
		a, b := example, other
		a.PostID, b.PostID = id, id+"'"
		return []criteria.Example{a, b}
	}
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint("../../testdata/sample/tiny-deberta"), criteria.Configure(func(c *criteria.Config) { c.Model.Tokenizer.MaxLength, c.Train.Epochs = 32, 1 }), criteria.WithOutputDir(t.TempDir()),
		criteria.WithDataset(&criteria.Dataset{Train: examples("1"), Val: examples("2"), Test: examples("3")}),
	)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tokenizer := []string{"tokenizer.json", "tokenizer_config.json"}
	for _, test := range []struct {
		args  []string
		files []string
	}{
		{nil, append([]string{"model.onnx"}, tokenizer...)},
		{[]string{"-int8", "-external-data"}, append([]string{"model.onnx", "model.onnx.data"}, tokenizer...)},
		{[]string{"-transformers"}, append([]string{"config.json", "head.safetensors", "model.safetensors"}, tokenizer...)},
	} {
		dir := filepath.Join(t.TempDir(), "exported")
		var out, messages bytes.Buffer
		if err := run(t.Context(), append(test.args, result.ModelDir(), dir), &out, &messages); err != nil {
			t.Fatalf("%v: %v", test.args, err)
		}
		if !strings.Contains(out.String(), dir) || messages.Len() > 0 {
			t.Errorf("%v: printed %q and %q", test.args, &out, &messages)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var files []string
		for _, e := range entries {
			files = append(files, e.Name())
		}
		if diff := cmp.Diff(test.files, files); diff != "" {
			t.Errorf("%v: files (-want +got):\n%s", test.args, diff)
		}
	}
}

func TestUsage(t *testing.T) {
	var out, messages bytes.Buffer
	for _, args := range [][]string{nil, {"one"}, {"-int8", "-transformers", "a", "b"}, {"-unknown"}} {
		if err := run(t.Context(), args, &out, &messages); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	messages.Reset()
	if err := run(t.Context(), []string{"-help"}, &out, &messages); !errors.Is(err, flag.ErrHelp) || !strings.Contains(messages.String(), "usage: export") {
		t.Errorf("-help: %v, %q", err, &messages)
	}
}
