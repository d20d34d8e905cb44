package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// model trains the tiny model for a moment.
func model(t *testing.T) string {
	t.Helper()
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint("../../testdata/sample/tiny-deberta"), criteria.WithDataset(fakes.Dataset(6, 6, 6, 1)),
		criteria.WithEpochs(1), criteria.WithOutputDir(t.TempDir()), criteria.WithMaxLength(64),
	)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result.ModelDir()
}

func TestPredict(t *testing.T) {
	dir := model(t)
	in, err := os.Open("sample.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out strings.Builder
	if err := run(t.Context(), []string{dir}, in, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d answers, want 5:\n%s", len(lines), out.String())
	}
	for _, line := range lines {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Probability <= 0 || a.Probability >= 1 || a.Label != (a.Probability > 0.5) {
			t.Errorf("answer %s (%v)", line, err)
		}
	}

	// A fault in the input comes after the answers to what stood before it.
	out.Reset()
	err = run(t.Context(), []string{dir}, strings.NewReader("{\"post\": \"a\", \"criterion\": \"b\"}\n{\"post\": \"a\"}\n"), &out)
	if err == nil || !strings.Contains(err.Error(), "pair 2") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("error %v after the answers %q; want one answer and an error for pair 2", err, out.String())
	}
}

func TestPredictUsage(t *testing.T) {
	for _, args := range [][]string{nil, {filepath.Join(t.TempDir(), "none")}, {"a", "b"}} {
		if err := run(t.Context(), args, strings.NewReader(""), &strings.Builder{}); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
