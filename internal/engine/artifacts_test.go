package engine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/graphaudit"
)

// artifactCases are graphs of every kind that we write.
func artifactCases(t *testing.T) map[string]*graph.Graph {
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	cases := map[string]*graph.Graph{optimizerModel: adamWGraph(chunk)}
	for _, pooling := range []string{"cls", "mean", "max"} {
		for _, activation := range []string{"relu", "gelu", "tanh"} {
			m := deberta.Model{Config: e.model.Config, Head: deberta.Head{Pooling: pooling, HiddenDims: []int{16, 8}, Activation: activation, Dropout: 0.2}}
			cases[pooling+"-"+activation+"-"+trainingModel] = m.Training(4, 64, nil, dropoutScale).Graph
			cases[pooling+"-"+activation+"-"+evalModel] = m.Evaluation(2, 32, nil).Graph
		}
	}
	return cases
}

// TestArtifactsAudit has a foreign decoder read the artifacts back: it must
// find the operators that the writer planned, in a sound graph.
func TestArtifactsAudit(t *testing.T) {
	for name, g := range artifactCases(t) {
		report, err := graphaudit.Audit(g.Encode())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, cost, err := graphaudit.Inspect(g.Encode(), nil); err != nil || len(cost.Unknown) > 0 {
			t.Errorf("%s: shapes that could not be followed: %v, %v", name, cost.Unknown, err)
		}
		if diff := cmp.Diff(g.Census(), report.Census); diff != "" {
			t.Errorf("%s: operators (-planned +read):\n%s", name, diff)
		}
		var inputs []string
		for _, v := range g.Inputs() {
			inputs = append(inputs, v.Name)
		}
		if diff := cmp.Diff(inputs, report.Inputs); diff != "" {
			t.Errorf("%s: inputs (-planned +read):\n%s", name, diff)
		}
	}
}

// TestArtifactsChecker has ONNX's own checker judge the saved artifacts, with
// shape inference.
func TestArtifactsChecker(t *testing.T) {
	python := os.Getenv("CRITERIA_ONNX_PYTHON")
	if python == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CRITERIA_ONNX_PYTHON must name a Python with onnx in CI")
		}
		t.Skip("CRITERIA_ONNX_PYTHON names no Python with onnx (make mlflow-venv provides one)")
	}
	dir := t.TempDir()
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	train(t, e, 0, 1)
	if err := e.SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	files := []string{filepath.Join(dir, trainingModel), filepath.Join(dir, evalModel), filepath.Join(dir, optimizerModel)}
	for name, g := range artifactCases(t) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, g.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	const script = `
import sys, onnx
for path in sys.argv[1:]:
    onnx.checker.check_model(onnx.load(path), full_check=True)
    print("ok", path)
`
	out, err := exec.Command(python, append([]string{"-c", script}, files...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("onnx.checker: %v\n%s", err, out)
	}
	if n := strings.Count(string(out), "ok "); n != len(files) {
		t.Errorf("onnx.checker approved %d of %d files:\n%s", n, len(files), out)
	}
}
