package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/weights"
)

// config is the part of a deberta-v2 config.json that the hub's deberta-v3
// checkpoints have, at a size that learns on a CPU within seconds.
type config struct {
	ModelType         string  `json:"model_type"`
	AttentionDropout  float64 `json:"attention_probs_dropout_prob"`
	HiddenAct         string  `json:"hidden_act"`
	HiddenDropout     float64 `json:"hidden_dropout_prob"`
	HiddenSize        int     `json:"hidden_size"`
	InitializerRange  float64 `json:"initializer_range"`
	IntermediateSize  int     `json:"intermediate_size"`
	MaxPositions      int     `json:"max_position_embeddings"`
	RelativeAttention bool    `json:"relative_attention"`
	PositionBuckets   int     `json:"position_buckets"`
	NormRelEbd        string  `json:"norm_rel_ebd"`
	ShareAttKey       bool    `json:"share_att_key"`
	PosAttType        string  `json:"pos_att_type"`
	LayerNormEps      float64 `json:"layer_norm_eps"`
	MaxRelative       int     `json:"max_relative_positions"`
	PositionBiased    bool    `json:"position_biased_input"`
	Heads             int     `json:"num_attention_heads"`
	Layers            int     `json:"num_hidden_layers"`
	TypeVocabSize     int     `json:"type_vocab_size"`
	VocabSize         int     `json:"vocab_size"`
	PadTokenID        int     `json:"pad_token_id"`
}

var tiny = config{
	ModelType: "deberta-v2", AttentionDropout: 0.05, HiddenAct: "gelu", HiddenDropout: 0.05, HiddenSize: 64,
	InitializerRange: 0.2, IntermediateSize: 128, MaxPositions: 256, RelativeAttention: true, PositionBuckets: 32,
	NormRelEbd: "layer_norm", ShareAttKey: true, PosAttType: "p2c|c2p", LayerNormEps: 1e-7, MaxRelative: -1,
	Heads: 4, Layers: 2, VocabSize: 408,
}

// tensor is one parameter of the checkpoint, drawn from N(mean, std²).
type tensor struct {
	name      string
	mean, std float64
	shape     []int64
}

// positionScale is the weight of the LayerNorm over the relative positions. At
// 1 a model without training heeds positions as much as words, and needs
// dozens of epochs before it looks at post and criterion together.
const positionScale = 0.1

// parameters lists what transformers' DebertaV2Model has, under the keys of
// the hub's files: weights from N(0, initializer_range²), biases 0, LayerNorm 1
// and 0, except for positionScale. initializer_range is ten times that of the
// hub's models: theirs is for layers twelve times as wide, so narrow ones would
// pass on next to nothing.
func (c config) parameters() []tensor {
	h, inner, std := int64(c.HiddenSize), int64(c.IntermediateSize), c.InitializerRange
	var list []tensor
	add := func(name string, mean, std float64, shape ...int64) {
		list = append(list, tensor{"deberta." + name, mean, std, shape})
	}
	linear := func(name string, out, in int64) {
		add(name+".weight", 0, std, out, in)
		add(name+".bias", 0, 0, out)
	}
	norm := func(name string, weight float64) {
		add(name+".weight", weight, 0, h)
		add(name+".bias", 0, 0, h)
	}

	add("embeddings.word_embeddings.weight", 0, std, int64(c.VocabSize), h)
	norm("embeddings.LayerNorm", 1)
	add("encoder.rel_embeddings.weight", 0, std, int64(2*c.PositionBuckets), h)
	norm("encoder.LayerNorm", positionScale)
	for i := range c.Layers {
		layer := fmt.Sprintf("encoder.layer.%d.", i)
		linear(layer+"attention.self.query_proj", h, h)
		linear(layer+"attention.self.key_proj", h, h)
		linear(layer+"attention.self.value_proj", h, h)
		linear(layer+"attention.output.dense", h, h)
		norm(layer+"attention.output.LayerNorm", 1)
		linear(layer+"intermediate.dense", inner, h)
		linear(layer+"output.dense", h, inner)
		norm(layer+"output.LayerNorm", 1)
	}
	return list
}

// writeCheckpoint writes the files of tiny-deberta, all but spm.model.
func writeCheckpoint(dir string, seed uint64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(tiny, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "config.json"), append(text, '\n')); err != nil {
		return err
	}
	text = []byte("{\n  \"do_lower_case\": false,\n  \"vocab_type\": \"spm\"\n}\n")
	if err := atomicfile.WriteFile(filepath.Join(dir, "tokenizer_config.json"), text); err != nil {
		return err
	}

	rng := rand.New(rand.NewPCG(seed, 0xdeb))
	var tensors []weights.Source
	for _, t := range tiny.parameters() {
		n := int64(1)
		for _, d := range t.shape {
			n *= d
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(t.mean + t.std*rng.NormFloat64())
		}
		if t.name == "deberta.embeddings.word_embeddings.weight" {
			clear(values[:t.shape[1]]) // [PAD]: torch keeps the row of padding_idx at zero
		}
		tensors = append(tensors, weights.Float32s(t.name, t.shape, values))
	}
	return weights.WriteSafetensors(filepath.Join(dir, "model.safetensors"), map[string]string{"format": "pt"}, tensors)
}
