//go:build peer

package engine

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPeerTransformers has transformers load a saved model's encoder and
// compares the logits that it computes, the head done by hand.
func TestPeerTransformers(t *testing.T) {
	python := os.Getenv("CRITERIA_PEER_PYTHON")
	if python == "" {
		t.Fatal("CRITERIA_PEER_PYTHON must name a Python with torch and transformers: run make peers")
	}
	dir := t.TempDir()
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	train(t, e, 0, 4)
	if err := e.SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	b := randomBatch(11, 4, 40)
	got, err := e.Evaluate(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(map[string]any{"rows": b.Rows, "ids": b.InputIDs, "mask": b.AttentionMask})
	if err != nil {
		t.Fatal(err)
	}
	inputFile := filepath.Join(dir, "batch.json")
	if err := os.WriteFile(inputFile, input, 0o644); err != nil {
		t.Fatal(err)
	}
	const script = `
import json, sys, torch
from safetensors.torch import load_file
from transformers import AutoModel
dir, batch = sys.argv[1], json.load(open(sys.argv[2]))
model, info = AutoModel.from_pretrained(dir, output_loading_info=True)
assert not info["missing_keys"], info["missing_keys"]
ids = torch.tensor(batch["ids"]).view(batch["rows"], -1)
mask = torch.tensor(batch["mask"]).view(batch["rows"], -1)
w = load_file(dir + "/model.safetensors")
with torch.no_grad():
    x = model.eval()(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    x = torch.relu(x @ w["head.0.weight"].T + w["head.0.bias"])
    x = x @ w["head.1.weight"].T + w["head.1.bias"]
print(json.dumps(x.flatten().tolist()))
`
	cmd := exec.Command(python, "-c", script, dir, inputFile)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("transformers: %v", err)
	}
	var want []float64
	if err := json.Unmarshal(out, &want); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(want) != len(got.Logits) {
		t.Fatalf("%d logits, want %d", len(got.Logits), len(want))
	}
	for i, x := range want {
		if math.Abs(float64(got.Logits[i])-x) > 1e-5 {
			t.Errorf("logit %d is %v, transformers says %v", i, got.Logits[i], x)
		}
	}
}
