package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/token"
	"github.com/criteria-go/criteria/internal/weights"
)

// sample is the checkpoint whose configuration and vocabulary models are made of.
const sample = "testdata/sample/tiny-deberta"

// shapes are what differs from the sample's configuration.
var shapes = map[string]map[string]any{
	"tiny": {"initializer_range": 0.02},
	// microsoft/deberta-v3-base but for the vocabulary, which costs memory only.
	"base": {
		"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
		"position_buckets": 256, "max_position_embeddings": 512, "initializer_range": 0.02,
	},
}

// head is the one that the default configuration trains.
var head = deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu"}

// randomModel writes a model that can be loaded but knows nothing.
func randomModel(dir, shape string) (string, error) {
	changes, ok := shapes[shape]
	if !ok {
		return "", fmt.Errorf("-shape %s: want tiny or base", shape)
	}
	text, err := os.ReadFile(filepath.Join(sample, "config.json"))
	if err != nil {
		return "", fmt.Errorf("%w: run it at the top of the repository", err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return "", err
	}
	for key, value := range changes {
		config[key] = value
	}
	config["criteria_head"] = map[string]any{
		"pooling_strategy": head.Pooling, "hidden_dims": head.HiddenDims, "activation": head.Activation, "dropout": 0,
	}
	if text, err = json.MarshalIndent(config, "", "  "); err != nil {
		return "", err
	}
	parsed, err := deberta.ParseConfig(text)
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, shape)
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), text, 0o644); err != nil {
		return "", err
	}
	random := rand.New(rand.NewPCG(1, 1))
	var tensors []weights.Source
	for _, p := range (deberta.Model{Config: parsed, Head: head}).Params() {
		values, dims := make([]float32, p.Size()), make([]int64, len(p.Shape))
		for i, n := range p.Shape {
			dims[i] = int64(n)
		}
		for i := range values {
			switch {
			case len(p.Shape) == 2:
				values[i] = float32(random.NormFloat64() * parsed.InitializerRange)
			case strings.HasSuffix(p.Name, "LayerNorm.weight"):
				values[i] = 1
			}
		}
		tensors = append(tensors, weights.Float32s(p.Name, dims, values))
	}
	if err := weights.WriteSafetensors(filepath.Join(out, "model.safetensors"), map[string]string{"format": "pt"}, tensors); err != nil {
		return "", err
	}
	tokenizer, err := token.Open(sample)
	if err != nil {
		return "", err
	}
	defer tokenizer.Close()
	return out, tokenizer.SaveTo(out)
}
