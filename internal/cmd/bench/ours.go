package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/engine"
	"github.com/criteria-go/criteria/internal/weights"
)

// The model is as large as deberta-v3-base; its weights are random.
const (
	vocabulary = 128100
	dropout    = 0.1
)

// writeModel writes a checkpoint with random weights, N(0, 0.02²), to dir.
func writeModel(dir string) error {
	config := map[string]any{
		"model_type": "deberta-v2", "vocab_size": vocabulary, "hidden_size": 768, "num_hidden_layers": 12,
		"num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu", "hidden_dropout_prob": dropout,
		"attention_probs_dropout_prob": dropout, "max_position_embeddings": 512, "type_vocab_size": 0,
		"initializer_range": 0.02, "layer_norm_eps": 1e-7, "relative_attention": true, "max_relative_positions": -1,
		"pad_token_id": 0, "position_biased_input": false, "pos_att_type": []string{"p2c", "c2p"},
		"position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": true,
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		return err
	}
	parsed, err := deberta.ParseConfig(text)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	var tensors []weights.Source
	for _, p := range (deberta.Model{Config: parsed}).Params() {
		if p.IsHead() {
			continue
		}
		x := make([]float32, p.Size())
		for i := range x {
			x[i] = float32(random.NormFloat64() * 0.02)
		}
		if strings.HasSuffix(p.Name, "LayerNorm.weight") {
			for i := range x {
				x[i]++
			}
		}
		dims := make([]int64, len(p.Shape))
		for i, d := range p.Shape {
			dims[i] = int64(d)
		}
		tensors = append(tensors, weights.Float32s(p.Name, dims, x))
	}
	return weights.WriteSafetensors(filepath.Join(dir, "model.safetensors"), map[string]string{"format": "pt"}, tensors)
}

// trainee is our engine in training.
type trainee struct {
	*engine.Engine
	random *rand.Rand
	steps  int
}

func openTrainee(ctx context.Context, dir string, threads int) (*trainee, error) {
	e, err := engine.Open(ctx, engine.Spec{
		Dir: dir, Threads: threads,
		Head:     deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu", Dropout: dropout},
		Training: &engine.Training{Seed: 1, Optimizer: "adamw_torch_fused", WeightDecay: 0.01, MaxGradNorm: 1, Accumulation: 1},
	}, "")
	if err != nil {
		return nil, err
	}
	return &trainee{Engine: e, random: rand.New(rand.NewPCG(3, 4))}, nil
}

// step takes a training step on a batch of random tokens and returns what it
// cost.
func (t *trainee) step(ctx context.Context, s shape) (answer, error) {
	b := engine.Batch{Rows: s.rows, Length: s.length}
	for range s.rows * s.length {
		b.InputIDs = append(b.InputIDs, 5+t.random.Int64N(vocabulary-5))
		b.AttentionMask = append(b.AttentionMask, 1)
	}
	for range s.rows {
		b.Labels = append(b.Labels, t.random.Int64N(2))
		b.SampleWeights = append(b.SampleWeights, 1)
	}
	if err := resetPeak(); err != nil {
		return answer{}, err
	}
	start := time.Now()
	if _, err := t.Accumulate(ctx, b, t.steps, 0); err != nil {
		return answer{}, err
	}
	if _, err := t.Update(ctx, 1e-5); err != nil {
		return answer{}, err
	}
	seconds := time.Since(start).Seconds()
	t.steps++
	peak, err := peakGB()
	return answer{Seconds: seconds, PeakGB: peak}, err
}

// resetPeak begins a new measurement of the process's largest resident size.
func resetPeak() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// peakGB returns the largest resident size since resetPeak, in GB.
func peakGB() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb * 1024 / 1e9, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no line VmHWM")
}
