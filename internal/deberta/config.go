// Package deberta turns a DeBERTa-v2/v3 configuration and a classification
// head into ONNX graphs: the forward pass, its loss and the gradients of every
// parameter.
//
// The formulas are those of DebertaV2Model in Hugging Face transformers 5
// (He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention",
// arXiv:2006.03654, and "DeBERTaV3", arXiv:2111.09543).
package deberta

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is the part of a checkpoint's config.json that decides the shape of
// the computation.
type Config struct {
	HiddenSize       int
	Layers           int
	Heads            int
	IntermediateSize int
	VocabSize        int
	LayerNormEps     float64
	HiddenDropout    float64 // also of the relative embeddings and the embeddings
	AttentionDropout float64
	PositionBuckets  int // half the number of relative embeddings
	MaxPosition      int // distance that the last bucket stands for
	InitializerRange float64
}

// A ConfigError names a key of config.json that the graph cannot follow.
type ConfigError struct {
	Key   string // e.g. "conv_kernel_size"
	Found string // what the file says
	Want  string // what is supported
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("config.json: %s is %s, but only %s is supported", e.Key, e.Found, e.Want)
}

// What a config.json may ask for at most: many times the largest published model,
// and little enough for products of any three of them to fit into an int.
const (
	maxLayers    = 1 << 10
	maxHidden    = 1 << 16
	maxWidth     = 1 << 18 // of a layer inside of a block
	maxVocab     = 1 << 24
	maxPositions = 1 << 20
)

// Parameters is the number of parameters of the encoder. It builds nothing.
func (c Config) Parameters() int64 {
	hidden, inner := int64(c.HiddenSize), int64(c.IntermediateSize)
	norm := 2 * hidden
	layer := 4*(hidden*hidden+hidden) + hidden*inner + inner + inner*hidden + hidden + 2*norm
	return int64(c.VocabSize)*hidden + norm + int64(c.Layers)*layer + 2*int64(c.PositionBuckets)*hidden + norm
}

// ParseConfig reads a config.json of model type deberta-v2 (which DeBERTaV3
// has as well). Everything that would change the computation in a way that is
// not built here is an error, one [ConfigError] for each key.
func ParseConfig(data []byte) (Config, error) {
	var raw struct {
		ModelType             *string         `json:"model_type"`
		HiddenSize            int             `json:"hidden_size"`
		NumHiddenLayers       int             `json:"num_hidden_layers"`
		NumAttentionHeads     int             `json:"num_attention_heads"`
		AttentionHeadSize     *int            `json:"attention_head_size"`
		IntermediateSize      int             `json:"intermediate_size"`
		VocabSize             int             `json:"vocab_size"`
		EmbeddingSize         *int            `json:"embedding_size"`
		HiddenAct             *string         `json:"hidden_act"`
		HiddenDropoutProb     *float64        `json:"hidden_dropout_prob"`
		AttentionDropoutProb  *float64        `json:"attention_probs_dropout_prob"`
		MaxPositionEmbeddings int             `json:"max_position_embeddings"`
		MaxRelativePositions  int             `json:"max_relative_positions"`
		RelativeAttention     bool            `json:"relative_attention"`
		PositionBuckets       int             `json:"position_buckets"`
		NormRelEbd            string          `json:"norm_rel_ebd"`
		ShareAttKey           bool            `json:"share_att_key"`
		PosAttType            json.RawMessage `json:"pos_att_type"`
		PositionBiasedInput   *bool           `json:"position_biased_input"`
		TypeVocabSize         int             `json:"type_vocab_size"`
		ConvKernelSize        int             `json:"conv_kernel_size"`
		LayerNormEps          *float64        `json:"layer_norm_eps"`
		InitializerRange      *float64        `json:"initializer_range"`
		PadTokenID            *int            `json:"pad_token_id"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Config{}, fmt.Errorf("config.json: %w", err)
	}

	var problems []error
	require := func(ok bool, key string, found any, want string) {
		if !ok {
			problems = append(problems, &ConfigError{key, fmt.Sprintf("%v", found), want})
		}
	}
	modelType := "missing"
	if raw.ModelType != nil {
		modelType = fmt.Sprintf("%q", *raw.ModelType)
	}
	require(modelType == `"deberta-v2"`, "model_type", modelType, `"deberta-v2" (DeBERTa-v2 and DeBERTaV3)`)
	within := func(key string, n, most int) {
		require(n > 0 && n <= most, key, n, fmt.Sprintf("a number from 1 to %d", most))
	}
	within("hidden_size", raw.HiddenSize, maxHidden)
	within("num_hidden_layers", raw.NumHiddenLayers, maxLayers)
	within("num_attention_heads", raw.NumAttentionHeads, maxHidden)
	within("intermediate_size", raw.IntermediateSize, maxWidth)
	within("vocab_size", raw.VocabSize, maxVocab)
	within("max_position_embeddings", raw.MaxPositionEmbeddings, maxPositions)
	require(raw.MaxRelativePositions <= maxPositions, "max_relative_positions", raw.MaxRelativePositions,
		fmt.Sprintf("a number up to %d", maxPositions))
	if raw.HiddenSize > 0 && raw.NumAttentionHeads > 0 {
		require(raw.HiddenSize%raw.NumAttentionHeads == 0, "num_attention_heads", raw.NumAttentionHeads,
			fmt.Sprintf("a divisor of hidden_size %d", raw.HiddenSize))
		if size := raw.AttentionHeadSize; size != nil {
			require(*size == raw.HiddenSize/raw.NumAttentionHeads, "attention_head_size", *size, "hidden_size / num_attention_heads")
		}
	}
	if raw.EmbeddingSize != nil {
		require(*raw.EmbeddingSize == raw.HiddenSize, "embedding_size", *raw.EmbeddingSize, "hidden_size")
	}
	if raw.HiddenAct != nil {
		require(*raw.HiddenAct == "gelu", "hidden_act", fmt.Sprintf("%q", *raw.HiddenAct), `"gelu"`)
	}
	require(raw.RelativeAttention, "relative_attention", raw.RelativeAttention, "true")
	require(raw.PositionBuckets > 0 && raw.PositionBuckets <= maxPositions, "position_buckets", raw.PositionBuckets,
		fmt.Sprintf("a number from 1 to %d (log-bucketed positions)", maxPositions))
	require(raw.ShareAttKey, "share_att_key", raw.ShareAttKey, "true")
	require(strings.Contains(strings.ToLower(raw.NormRelEbd), "layer_norm"), "norm_rel_ebd", fmt.Sprintf("%q", raw.NormRelEbd), `"layer_norm"`)
	kinds, err := positionTypes(raw.PosAttType)
	require(err == nil && slices.Equal(kinds, []string{"c2p", "p2c"}), "pos_att_type", string(raw.PosAttType), `"p2c|c2p"`)
	require(raw.PositionBiasedInput != nil && !*raw.PositionBiasedInput, "position_biased_input",
		describe(raw.PositionBiasedInput, "true (the default)"), "false (no absolute positions)")
	require(raw.TypeVocabSize == 0, "type_vocab_size", raw.TypeVocabSize, "0 (no token types)")
	require(raw.ConvKernelSize == 0, "conv_kernel_size", raw.ConvKernelSize, "0 (no ConvLayer)")
	if raw.PadTokenID != nil {
		require(*raw.PadTokenID == 0, "pad_token_id", *raw.PadTokenID, "0")
	}
	probability := func(key string, p *float64) float64 {
		if p == nil {
			return 0.1 // DebertaV2Config's default
		}
		require(*p >= 0 && *p < 1, key, *p, "a probability below 1")
		return *p
	}
	c := Config{
		HiddenSize:       raw.HiddenSize,
		Layers:           raw.NumHiddenLayers,
		Heads:            raw.NumAttentionHeads,
		IntermediateSize: raw.IntermediateSize,
		VocabSize:        raw.VocabSize,
		LayerNormEps:     1e-7,
		HiddenDropout:    probability("hidden_dropout_prob", raw.HiddenDropoutProb),
		AttentionDropout: probability("attention_probs_dropout_prob", raw.AttentionDropoutProb),
		PositionBuckets:  raw.PositionBuckets,
		MaxPosition:      raw.MaxPositionEmbeddings,
		InitializerRange: 0.02,
	}
	if raw.LayerNormEps != nil {
		require(*raw.LayerNormEps > 0, "layer_norm_eps", *raw.LayerNormEps, "a positive number")
		c.LayerNormEps = *raw.LayerNormEps
	}
	if raw.InitializerRange != nil {
		require(*raw.InitializerRange > 0, "initializer_range", *raw.InitializerRange, "a positive number")
		c.InitializerRange = *raw.InitializerRange
	}
	if raw.MaxRelativePositions > 0 {
		c.MaxPosition = raw.MaxRelativePositions
	}
	return c, errors.Join(problems...)
}

// positionTypes reads pos_att_type, which the hub writes as "p2c|c2p" and
// save_pretrained as ["p2c", "c2p"].
func positionTypes(raw json.RawMessage) ([]string, error) {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, err
		}
		list = strings.Split(text, "|")
	}
	for i, s := range list {
		list[i] = strings.ToLower(strings.TrimSpace(s))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func describe[T any](p *T, missing string) string {
	if p == nil {
		return missing
	}
	return fmt.Sprint(*p)
}

// Head is the classifier on top of the encoder.
type Head struct {
	Pooling    string  // cls, mean or max
	HiddenDims []int   // widths of the hidden layers, none to three
	Activation string  // relu, gelu or tanh
	Dropout    float64 // after every hidden layer
}

// Classes is the number of logits: criterion absent, criterion present.
const Classes = 2

// ClassNames says what the logits stand for.
var ClassNames = [Classes]string{"absent", "present"}

// Validate reports what of the head cannot be built.
func (h Head) Validate() error {
	var problems []error
	oneOf := func(what, found string, allowed ...string) {
		if !slices.Contains(allowed, found) {
			problems = append(problems, fmt.Errorf("head: %s is %q, want one of %s", what, found, strings.Join(allowed, ", ")))
		}
	}
	oneOf("pooling strategy", h.Pooling, "cls", "mean", "max")
	if len(h.HiddenDims) > 0 {
		oneOf("activation", h.Activation, "relu", "gelu", "tanh")
	}
	if len(h.HiddenDims) > 3 {
		problems = append(problems, fmt.Errorf("head: %d hidden layers, want 0 to 3", len(h.HiddenDims)))
	}
	for _, d := range h.HiddenDims {
		if d <= 0 || d > maxWidth {
			problems = append(problems, fmt.Errorf("head: a hidden layer has width %d, want 1 to %d", d, maxWidth))
		}
	}
	if !(h.Dropout >= 0 && h.Dropout < 1) {
		problems = append(problems, fmt.Errorf("head: dropout is %v, want at least 0 and below 1", h.Dropout))
	}
	return errors.Join(problems...)
}
