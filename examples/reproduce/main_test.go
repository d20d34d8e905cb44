package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
)

// trained records a training of the tiny model on some of the sample's posts
// and moves into an empty folder.
func trained(t *testing.T, uri string) (runID string) {
	t.Helper()
	sample, err := filepath.Abs("../../testdata/sample")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.Mkdir("data", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"redsm5_posts.csv", "redsm5_annotations.csv"} {
		text, err := os.ReadFile(filepath.Join(sample, name))
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(text), "\nsample-0081,")
		if err := os.WriteFile(filepath.Join("data", name), []byte(head+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(uri), criteria.WithExperiment("test"), criteria.WithSystemMetrics(0))
	if err != nil {
		t.Fatal(err)
	}
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint(filepath.Join(sample, "tiny-deberta")), criteria.WithData("data", filepath.Join(sample, "criteria.json")),
		criteria.Configure(func(c *criteria.Config) {
			c.Train.Epochs, c.Train.LearningRate, c.Model.Tokenizer.MaxLength = 1, 1e-3, 64
		}), criteria.WithOutputDir("original"), criteria.WithTracker(tracker),
	)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result.RunID
}

// The output is that of the contract, to the letter.
func TestReproduce(t *testing.T) {
	const uri = "sqlite:///mlflow.db"
	runID := trained(t, uri)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--run_id", runID, "--tracking_uri=" + uri, "--experiment", "test"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d, want 0\n%s", code, &stderr)
	}
	rule := strings.Repeat("=", 80)
	want := rule + `
Metric Comparison (SC-003: ±0.5 pp tolerance)
` + rule + `
✓ test_accuracy       : Original=0.N, Replayed=0.N, Delta=0.0000
✓ test_macro_f1       : Original=0.N, Replayed=0.N, Delta=0.0000
✓ test_weighted_f1    : Original=0.N, Replayed=0.N, Delta=0.0000
✓ test_precision      : Original=0.N, Replayed=0.N, Delta=0.0000
✓ test_recall         : Original=0.N, Replayed=0.N, Delta=0.0000

` + rule + `
✓ REPRODUCIBILITY CHECK PASSED
All metrics within ±0.5 pp tolerance
` + rule + `
`
	got := regexp.MustCompile(`(Original|Replayed)=[01]\.\d{4}`).ReplaceAllString(stdout.String(), "$1=0.N")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	for _, args := range [][]string{{}, {"--run_id", runID, "more"}, {"--nonsense"}} {
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 {
			t.Errorf("%q: exit code %d, want 2", args, code)
		}
	}
	for _, args := range [][]string{
		{"--run_id", strings.Repeat("0", 32), "--tracking_uri", uri}, {"--run_id", runID, "--tracking_uri", uri, "--mode", "guess"},
	} {
		if code := run(t.Context(), args, &stdout, &stderr); code != 1 {
			t.Errorf("%q: exit code %d, want 1", args, code)
		}
	}
}
