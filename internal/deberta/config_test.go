package deberta

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/memwatch"
)

// withKey returns the tiny checkpoint's config.json with one key changed, or
// removed if value is nil.
func withKey(t testing.TB, key string, value any) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(golden.Dir(t), "model", "tiny-deberta", "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	file[key] = value
	if value == nil {
		delete(file, key)
	}
	out, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestParseConfig(t *testing.T) {
	got, err := ParseConfig(withKey(t, "position_buckets", 8))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{HiddenSize: 32, Layers: 3, Heads: 4, IntermediateSize: 64, VocabSize: 1008, LayerNormEps: 1e-7,
		HiddenDropout: 0.1, AttentionDropout: 0.1, PositionBuckets: 8, MaxPosition: 64, InitializerRange: 0.02}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	list, err := ParseConfig(withKey(t, "pos_att_type", []string{"c2p", "p2c"}))
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("with pos_att_type as a list (-want +got):\n%s", diff)
	}
	if far, err := ParseConfig(withKey(t, "max_relative_positions", 128)); err != nil || far.MaxPosition != 128 {
		t.Errorf("max_relative_positions 128 gives %d, %v", far.MaxPosition, err)
	}
}

// TestParseConfigRefuses: what would change the computation names its key.
func TestParseConfigRefuses(t *testing.T) {
	for _, c := range []struct {
		key   string
		value any
	}{
		{"model_type", "bert"},
		{"model_type", nil},
		{"hidden_size", 0},
		{"hidden_size", 33},
		{"num_attention_heads", -1},
		{"attention_head_size", 5},
		{"embedding_size", 16},
		{"hidden_act", "relu"},
		{"hidden_dropout_prob", 1.5},
		{"attention_probs_dropout_prob", -0.1},
		{"relative_attention", false},
		{"position_buckets", -1},
		{"share_att_key", false},
		{"norm_rel_ebd", "none"},
		{"pos_att_type", "c2p"},
		{"pos_att_type", nil},
		{"pos_att_type", 7},
		{"position_biased_input", true},
		{"position_biased_input", nil},
		{"type_vocab_size", 2},
		{"conv_kernel_size", 3},
		{"pad_token_id", 1},
		{"layer_norm_eps", 0},
	} {
		_, err := ParseConfig(withKey(t, c.key, c.value))
		key := c.key
		if key == "hidden_size" && c.value == 33 {
			key = "num_attention_heads" // 4 heads do not divide 33
		}
		var found *ConfigError
		if !errors.As(err, &found) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %v: got error %v, want one that names %s", c.key, c.value, err, key)
		}
	}
	if _, err := ParseConfig([]byte("{")); err == nil {
		t.Error("no error for JSON cut off")
	}
}

func TestHeadValidate(t *testing.T) {
	good := Head{Pooling: "mean", HiddenDims: []int{8, 4}, Activation: "tanh", Dropout: 0.5}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	bad := Head{Pooling: "sum", HiddenDims: []int{8, 0, 4, 2}, Activation: "swish", Dropout: 1}
	err := bad.Validate()
	for _, want := range []string{`"sum"`, `"swish"`, "width 0", "4 hidden layers", "dropout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not mention %s", err, want)
		}
	}
}

// TestParams: the base model has the tensors and parameters of the hub's file.
func TestParams(t *testing.T) {
	base := Config{HiddenSize: 768, Layers: 12, Heads: 12, IntermediateSize: 3072, VocabSize: 128100, PositionBuckets: 256}
	params := Model{Config: base}.Params()
	tensors, elements := 0, 0
	for _, p := range params {
		if !p.IsHead() {
			tensors++
			elements += p.Size()
		}
		plain := strings.HasSuffix(p.Name, ".bias") || strings.Contains(p.Name, "LayerNorm")
		if p.Decay == plain {
			t.Errorf("%s: weight decay %t", p.Name, p.Decay)
		}
	}
	if tensors != 198 || elements != 183_831_552 {
		t.Errorf("%d tensors, %d parameters, want 198 and 183831552", tensors, elements)
	}
	if !slices.IsSortedFunc(params, func(a, b Param) int {
		switch {
		case a.Decay == b.Decay:
			return 0
		case a.Decay:
			return -1
		}
		return 1
	}) {
		t.Error("decayed parameters do not come first")
	}
}

// TestConfigLimits: dimensions beyond reason are refused by name, each on its own,
// and those within it never overflow, however many of them come together.
func TestConfigLimits(t *testing.T) {
	keys := []string{
		"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings",
		"max_relative_positions", "position_buckets", "attention_head_size",
	}
	for _, key := range keys {
		for _, n := range []int{1e6, 1e9, 1 << 31, 1 << 62, math.MaxInt64} {
			if (key == "vocab_size" || key == "max_position_embeddings" || key == "max_relative_positions" || key == "position_buckets") && n == 1e6 {
				continue
			}
			_, err := ParseConfig(withKey(t, key, n))
			var config *ConfigError
			if !errors.As(err, &config) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s = %d: %v", key, n, err)
			}
		}
	}
	largest := Config{HiddenSize: maxHidden, Layers: maxLayers, Heads: 1, IntermediateSize: maxWidth, VocabSize: maxVocab, PositionBuckets: maxPositions}
	if n := largest.Parameters(); n <= 0 || n > 1<<52 {
		t.Errorf("the largest has %d parameters", n)
	}
}

// TestParameters: the number of parameters is that of the list of them.
func TestParameters(t *testing.T) {
	for _, c := range []Config{
		{HiddenSize: 32, Layers: 2, Heads: 4, IntermediateSize: 48, VocabSize: 100, PositionBuckets: 8},
		{HiddenSize: 8, Layers: 5, Heads: 2, IntermediateSize: 3, VocabSize: 7, PositionBuckets: 1},
	} {
		want := int64(0)
		for _, p := range (Model{Config: c}).Params() {
			if !p.IsHead() {
				want += int64(p.Size())
			}
		}
		if got := c.Parameters(); got != want {
			t.Errorf("%+v has %d parameters, want %d", c, got, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(withKey(f, "hidden_size", 32))
	f.Add([]byte(`{"model_type":"deberta-v2","pos_att_type":["p2c"]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		memwatch.Start(t, len(data))
		c, err := ParseConfig(data)
		if err == nil && (c.HiddenSize <= 0 || c.HiddenSize%c.Heads != 0) {
			t.Errorf("accepted %+v", c)
		}
	})
}
