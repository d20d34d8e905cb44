package main

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/engine"
	"github.com/criteria-go/criteria/internal/weights"
)

// sizes are those of the models, as in their config.json.
var sizes = map[string]map[string]any{
	"base": {"vocab_size": 128100, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
	"tiny": {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
}

const (
	dropout     = 0.1       // of what is timed
	droppingDir = "dropout" // the model with it, below the one without

	curveSteps = 30
	curveRate  = 1e-4
)

var curveShape = shape{16, 128}

func dropping(p float64) map[string]any {
	return map[string]any{"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
}

// trained is the entry that says which head the weights bring along, as in the
// config.json of a saved model.
func trained(h deberta.Head) map[string]any {
	return map[string]any{"criteria_head": map[string]any{
		"pooling_strategy": h.Pooling, "hidden_dims": h.HiddenDims, "activation": h.Activation, "dropout": h.Dropout}}
}

// writeInputs writes a model with random weights, N(0, 0.02²), head included, and
// the batches of the curve.
func writeInputs(dir string, size map[string]any) error {
	config := map[string]any{
		"model_type": "deberta-v2", "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 0,
		"initializer_range": 0.02, "layer_norm_eps": 1e-7, "relative_attention": true, "max_relative_positions": -1,
		"pad_token_id": 0, "position_biased_input": false, "pos_att_type": []string{"p2c", "c2p"},
		"position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": true,
	}
	maps.Copy(config, size)
	maps.Copy(config, dropping(0))
	maps.Copy(config, trained(head))
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	parsed, err := deberta.ParseConfig(text)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	var tensors []weights.Source
	for _, p := range (deberta.Model{Config: parsed, Head: head}).Params() {
		x := make([]float32, p.Size())
		for i := range x {
			x[i] = float32(random.NormFloat64() * 0.02)
		}
		if strings.HasSuffix(p.Name, "LayerNorm.weight") {
			for i := range x {
				x[i]++
			}
		}
		tensors = append(tensors, weights.Float32s(p.Name, dims(p.Shape...), x))
	}
	if err := writeModel(dir, config, tensors); err != nil {
		return err
	}
	if err := writeBatches(dir, parsed.VocabSize); err != nil {
		return err
	}
	// The same weights, under a configuration with dropout.
	maps.Copy(config, dropping(dropout))
	with := filepath.Join(dir, droppingDir)
	if err := os.Mkdir(with, 0o755); err != nil {
		return err
	}
	if err := writeConfig(with, config); err != nil {
		return err
	}
	return os.Link(filepath.Join(dir, "model.safetensors"), filepath.Join(with, "model.safetensors"))
}

func writeModel(dir string, config map[string]any, tensors []weights.Source) error {
	if err := writeConfig(dir, config); err != nil {
		return err
	}
	return weights.WriteSafetensors(filepath.Join(dir, "model.safetensors"), map[string]string{"format": "pt"}, tensors)
}

func writeConfig(dir string, config map[string]any) error {
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644)
}

func dims(shape ...int) []int64 {
	d := make([]int64, len(shape))
	for i, n := range shape {
		d[i] = int64(n)
	}
	return d
}

// randomBatch returns rows of full length, labelled by whether their first token
// is odd.
func randomBatch(seed uint64, s shape, vocabulary int) engine.Batch {
	random := rand.New(rand.NewPCG(seed, 3))
	b := engine.Batch{Rows: s.rows, Length: s.length}
	for range s.rows * s.length {
		b.InputIDs = append(b.InputIDs, 5+random.Int64N(int64(vocabulary)-5))
		b.AttentionMask = append(b.AttentionMask, 1)
	}
	for r := range s.rows {
		b.Labels = append(b.Labels, b.InputIDs[r*s.length]%2)
		b.SampleWeights = append(b.SampleWeights, 1)
	}
	return b
}

// The batches of the curve repeat, so that there is something to learn; a third of
// each row is padding.
const differentBatches = 3

func writeBatches(dir string, vocabulary int) error {
	var ids, mask, labels []int64
	for step := range curveSteps {
		b := randomBatch(uint64(step%differentBatches), curveShape, vocabulary)
		for i := range b.InputIDs {
			if i%curveShape.length >= curveShape.length*2/3 {
				b.InputIDs[i], b.AttentionMask[i] = 0, 0
			}
		}
		ids, mask, labels = append(ids, b.InputIDs...), append(mask, b.AttentionMask...), append(labels, b.Labels...)
	}
	return weights.WriteSafetensors(filepath.Join(dir, "batches.safetensors"), nil, []weights.Source{
		weights.Int64s("ids", dims(curveSteps, curveShape.rows, curveShape.length), ids),
		weights.Int64s("mask", dims(curveSteps, curveShape.rows, curveShape.length), mask),
		weights.Int64s("labels", dims(curveSteps, curveShape.rows), labels),
	})
}

func readBatches(dir string) ([]engine.Batch, error) {
	f, err := weights.Open(filepath.Join(dir, "batches.safetensors"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[string][]int64{}
	for _, name := range []string{"ids", "mask", "labels"} {
		if all[name], err = integers(f, name); err != nil {
			return nil, err
		}
	}
	var batches []engine.Batch
	tokens, rows := curveShape.rows*curveShape.length, curveShape.rows
	for step := range curveSteps {
		b := engine.Batch{Rows: rows, Length: curveShape.length, InputIDs: all["ids"][step*tokens:][:tokens],
			AttentionMask: all["mask"][step*tokens:][:tokens], Labels: all["labels"][step*rows:][:rows]}
		for range rows {
			b.SampleWeights = append(b.SampleWeights, 1)
		}
		batches = append(batches, b)
	}
	return batches, nil
}
