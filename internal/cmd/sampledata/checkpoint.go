package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
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
	ModelType: "deberta-v2", AttentionDropout: 0.1, HiddenAct: "gelu", HiddenDropout: 0.1, HiddenSize: 64,
	InitializerRange: 0.12, IntermediateSize: 256, MaxPositions: 256, RelativeAttention: true, PositionBuckets: 32,
	NormRelEbd: "layer_norm", ShareAttKey: true, PosAttType: "p2c|c2p", LayerNormEps: 1e-7, MaxRelative: -1,
	Heads: 4, Layers: 2, VocabSize: 408,
}

// tensor is one parameter of the checkpoint.
type tensor struct {
	name  string
	shape []int
	fill  func(*rand.Rand) float64
}

func (t tensor) size() int {
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// parameters lists what transformers' DebertaV2Model has, under the keys of
// the hub's files, initialised as transformers does: weights from
// N(0, initializer_range²), biases 0, LayerNorm 1 and 0.
func (c config) parameters() []tensor {
	normal := func(r *rand.Rand) float64 { return r.NormFloat64() * c.InitializerRange }
	zero := func(*rand.Rand) float64 { return 0 }
	one := func(*rand.Rand) float64 { return 1 }

	var list []tensor
	add := func(name string, fill func(*rand.Rand) float64, shape ...int) {
		list = append(list, tensor{"deberta." + name, shape, fill})
	}
	linear := func(name string, out, in int) {
		add(name+".weight", normal, out, in)
		add(name+".bias", zero, out)
	}
	norm := func(name string) {
		add(name+".weight", one, c.HiddenSize)
		add(name+".bias", zero, c.HiddenSize)
	}

	h := c.HiddenSize
	add("embeddings.word_embeddings.weight", normal, c.VocabSize, h)
	norm("embeddings.LayerNorm")
	add("encoder.rel_embeddings.weight", normal, 2*c.PositionBuckets, h)
	norm("encoder.LayerNorm")
	for i := range c.Layers {
		layer := fmt.Sprintf("encoder.layer.%d.", i)
		for _, p := range []string{"query_proj", "key_proj", "value_proj"} {
			linear(layer+"attention.self."+p, h, h)
		}
		linear(layer+"attention.output.dense", h, h)
		norm(layer + "attention.output.LayerNorm")
		linear(layer+"intermediate.dense", c.IntermediateSize, h)
		linear(layer+"output.dense", h, c.IntermediateSize)
		norm(layer + "output.LayerNorm")
	}
	return list
}

// addCheckpoint adds the files of tiny-deberta, all but spm.model.
func addCheckpoint(files map[string][]byte, seed uint64) error {
	text, err := json.MarshalIndent(tiny, "", "  ")
	if err != nil {
		return err
	}
	files["tiny-deberta/config.json"] = append(text, '\n')
	files["tiny-deberta/tokenizer_config.json"] = []byte("{\n  \"do_lower_case\": false,\n  \"vocab_type\": \"spm\"\n}\n")
	files["tiny-deberta/model.safetensors"], err = encodeSafetensors(tiny.parameters(), seed)
	return err
}

// encodeSafetensors draws the parameters and lays them out: header length,
// JSON header padded with spaces to eight bytes, float32 little endian.
func encodeSafetensors(list []tensor, seed uint64) ([]byte, error) {
	type entry struct {
		DType   string `json:"dtype"`
		Shape   []int  `json:"shape"`
		Offsets [2]int `json:"data_offsets"`
	}
	rng := rand.New(rand.NewPCG(seed, 0xdeb))
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var body bytes.Buffer
	for _, t := range list {
		start := body.Len()
		values := make([]float32, t.size())
		for i := range values {
			values[i] = float32(t.fill(rng))
		}
		if t.name == "deberta.embeddings.word_embeddings.weight" {
			// padding_idx 0: torch keeps that row at zero.
			clear(values[:t.shape[1]])
		}
		for _, v := range values {
			body.Write(binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)))
		}
		header[t.name] = entry{"F32", t.shape, [2]int{start, body.Len()}}
	}
	head, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	head = append(head, bytes.Repeat([]byte{' '}, -len(head)&7)...)
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	return slices.Concat(out, head, body.Bytes()), nil
}
