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

// TestPeerTransformersExport has transformers load exports of heads of every
// kind as its own loader chooses, and compares logits; of a head that it has no
// class for, those made from the encoder's states as the export is documented.
func TestPeerTransformersExport(t *testing.T) {
	python := os.Getenv("CRITERIA_PEER_PYTHON")
	if python == "" {
		t.Fatal("CRITERIA_PEER_PYTHON must name a Python with torch and transformers: run make peers")
	}
	const script = `
import json, sys, torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
act = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "tanh": torch.tanh}
results = []
for file, dir in zip(sys.argv[1::2], sys.argv[2::2]):
    config = AutoConfig.from_pretrained(dir)
    whole = config.architectures == ["DebertaV2ForSequenceClassification"]
    auto = AutoModelForSequenceClassification if whole else AutoModel
    model, info = auto.from_pretrained(dir, output_loading_info=True)
    assert type(model).__name__ == config.architectures[0], type(model)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    model.eval()
    logits = []
    for b in json.load(open(file)):
        ids, mask = torch.tensor(b["ids"]).view(b["shape"]), torch.tensor(b["mask"]).view(b["shape"])
        with torch.no_grad():
            if whole:
                assert config.id2label == {0: "absent", 1: "present"}, config.id2label
                x = model(input_ids=ids, attention_mask=mask).logits
            else:
                h = model(input_ids=ids, attention_mask=mask).last_hidden_state
                head, w, m = config.criteria_head, load_file(dir + "/head.safetensors"), mask[:, :, None].bool()
                x = {
                    "cls": lambda: h[:, 0],
                    "mean": lambda: (h * m).sum(1) / m.sum(1),
                    "max": lambda: h.masked_fill(~m, -torch.inf).max(1).values,
                }[head["pooling_strategy"]]()
                layers = len(head["hidden_dims"])
                for k in range(layers + 1):
                    x = x @ w[f"head.{k}.weight"].T + w[f"head.{k}.bias"]
                    if k < layers:
                        x = act[head["activation"]](x)
        logits.append(x.flatten().tolist())
    results.append(logits)
print(json.dumps(results))
`
	var args []string
	var want [][][]float32
	for _, c := range exportCases {
		dir, batches, logits := savedCase(t, c.head)
		out := t.TempDir()
		if _, err := ExportTransformers(context.Background(), dir, out); err != nil {
			t.Fatal(err)
		}
		args, want = append(args, asJSON(t, batches), out), append(want, logits)
	}
	var got [][][]float32
	fromPython(t, python, script, &got, args...)
	if len(got) != len(exportCases) {
		t.Fatalf("%d results, want %d", len(got), len(exportCases))
	}
	for i, c := range exportCases {
		t.Logf("%s: logits within %.2g of the largest", c.name, compareLogits(t, c.name, want[i], got[i], 1e-5))
	}
}
