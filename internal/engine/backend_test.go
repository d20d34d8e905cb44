package engine

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/criteria-go/criteria/internal/graph"
)

// TestDeviceExplains: an explanation, which the host computes, is one of the model
// that the device has now.
func TestDeviceExplains(t *testing.T) {
	ctx, b := context.Background(), randomBatch(1, 3, 20)
	e := openEngine(t, onHost(t, graph.Float32), false)
	before, err := e.Evaluate(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	train(t, e, 0, 3)
	want, err := e.Evaluate(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	got, scores, err := e.Explain(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if want.Logits[0] == before.Logits[0] {
		t.Fatal("training has changed nothing")
	}
	for i, x := range want.Logits {
		if math.Abs(float64(got.Logits[i]-x)) > 1e-5 {
			t.Errorf("logit %d is %g where the model is explained, %g where it is evaluated", i, got.Logits[i], x)
		}
	}
	if len(scores) != 3*20 {
		t.Errorf("%d scores for 3 × 20 tokens", len(scores))
	}
}

// TestDeviceArtifacts: the graphs that are saved are for the largest batch, wherever it
// was computed.
func TestDeviceArtifacts(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	e := openEngine(t, onHost(t, graph.Float32), false)
	if _, err := e.Evaluate(ctx, randomBatch(1, 4, 60)); err != nil {
		t.Fatal(err)
	}
	if err := e.SaveModel(ctx, dir); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(filepath.Join(dir, evalModel))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(saved, []byte("4 x 64")) {
		t.Errorf("%s is not for batches of 4 x 64 tokens", evalModel)
	}
}

// TestGradientOfHost: the gradients that may be asked for are those of the last
// micro-batches, wherever they were computed.
func TestGradientOfHost(t *testing.T) {
	ctx, b := context.Background(), randomBatch(1, 3, 20)
	var gradients [2][]float32
	for i, spec := range []Spec{trainingSpec(t, adamWFused), onHost(t, graph.Float32)} {
		spec.Head.Dropout = 0
		e := openEngine(t, spec, false)
		for micro := range 2 {
			if _, err := e.Accumulate(ctx, b, 0, micro); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if gradients[i], err = e.Gradient("deberta.encoder.layer.0.output.dense.weight"); err != nil {
			t.Fatal(err)
		}
	}
	if d := distance(gradients[1], gradients[0]); d > 1e-4 {
		t.Errorf("gradients of host and device are %g apart", d)
	}
}
