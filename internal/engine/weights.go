package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/weights"
)

// Files of a saved model.
const (
	configFile    = "config.json"
	weightsFile   = "model.safetensors"
	optimizerFile = "optimizer.safetensors"
)

// headKey is our entry in config.json: the head, which transformers' own
// configuration has no place for and ignores.
const headKey = "criteria_head"

// headConfig is the head as config.json holds it, in the words of the
// configuration.
type headConfig struct {
	Pooling    string  `json:"pooling_strategy"`
	HiddenDims []int   `json:"hidden_dims"`
	Activation string  `json:"activation"`
	Dropout    float64 `json:"dropout"`
}

// A WeightError names a parameter that the checkpoint does not have as the
// model needs it.
type WeightError struct {
	Path  string // file or folder of the weights
	Param string
	Want  []int // shape that config.json asks for
	Got   []int // shape in the file; nil if the parameter is missing
}

func (e *WeightError) Error() string {
	got := "is missing"
	if e.Got != nil {
		got = fmt.Sprintf("has shape %v", e.Got)
	}
	return fmt.Sprintf("%s: parameter %s %s, but config.json asks for %v: the weights and config.json are not of the same model", e.Path, e.Param, got, e.Want)
}

// ErrNoHead means that a checkpoint is only an encoder, not a classifier.
var ErrNoHead = errors.New("the checkpoint has no trained head: load the best_model folder of a training run")

func readHead(config []byte) (deberta.Head, error) {
	var file map[string]json.RawMessage
	if err := json.Unmarshal(config, &file); err != nil {
		return deberta.Head{}, fmt.Errorf("config.json: %w", err)
	}
	raw, ok := file[headKey]
	if !ok {
		return deberta.Head{}, ErrNoHead
	}
	var h headConfig
	if err := json.Unmarshal(raw, &h); err != nil {
		return deberta.Head{}, fmt.Errorf("config.json: %s: %w", headKey, err)
	}
	return deberta.Head{Pooling: h.Pooling, HiddenDims: h.HiddenDims, Activation: h.Activation, Dropout: h.Dropout}, nil
}

// configJSON returns the config.json to be saved: the one that was read, with
// the head added.
func (e *Engine) configJSON() ([]byte, error) {
	var file map[string]any
	if err := json.Unmarshal(e.config, &file); err != nil {
		return nil, err
	}
	h := e.model.Head
	dims := h.HiddenDims
	if dims == nil {
		dims = []int{}
	}
	file[headKey] = headConfig{h.Pooling, dims, h.Activation, h.Dropout}
	out, err := json.MarshalIndent(file, "", "  ")
	return append(out, '\n'), err
}

// load fills the parameters from the checkpoint in dir.
func (e *Engine) load(ctx context.Context, dir string) error {
	file, err := weights.Open(dir)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer file.Close()
	file.StripWrappers()
	file.ModernizeLayerNorm()
	withHead := !e.trains() || e.hasHead(file)
	if err := e.read(ctx, file, func(p deberta.Param) bool { return withHead || !p.IsHead() }); err != nil {
		return err
	}
	if !withHead {
		e.initHead(e.params.Float32())
	}
	return nil
}

// findParam returns the name under which the file holds a parameter. A bare
// encoder, as DebertaV2Model saves it, lacks the prefix.
func findParam(file *weights.File, p deberta.Param) (string, error) {
	missing := &WeightError{Path: file.Path(), Param: p.Name, Want: p.Shape}
	for _, name := range []string{p.Name, strings.TrimPrefix(p.Name, "deberta.")} {
		info, ok := file.Info(name)
		if !ok {
			continue
		}
		got := make([]int, len(info.Shape))
		for i, d := range info.Shape {
			got[i] = int(d)
		}
		if !slices.Equal(got, p.Shape) {
			missing.Got = got
			return "", fmt.Errorf("engine: %w", missing)
		}
		return name, nil
	}
	return "", fmt.Errorf("engine: %w", missing)
}

// hasHead reports whether the file holds a head of the shape to be trained.
func (e *Engine) hasHead(file *weights.File) bool {
	trained, err := readHead(e.config)
	if err != nil || trained.Pooling != e.model.Head.Pooling || trained.Activation != e.model.Head.Activation {
		return false
	}
	for _, p := range e.layout.params {
		if _, err := findParam(file, p); p.IsHead() && err != nil {
			return false
		}
	}
	return true
}

// initHead draws new weights for the head: N(0, initializer_range²), biases 0,
// as transformers initialises a classifier.
func (e *Engine) initHead(flat []float32) {
	// The constant keeps this stream apart from others with the same seed.
	random := rand.New(rand.NewPCG(e.training.Seed, 0x68656164))
	for i, p := range e.layout.params {
		if !p.IsHead() || len(p.Shape) < 2 {
			continue
		}
		w := e.layout.slice(flat, i)
		for j := range w {
			w[j] = float32(random.NormFloat64() * e.model.Config.InitializerRange)
		}
	}
}

func int64s(shape []int) []int64 {
	out := make([]int64, len(shape))
	for i, d := range shape {
		out[i] = int64(d)
	}
	return out
}

// SaveModel writes config.json, model.safetensors and the ONNX artifacts into
// dir, and for an engine that trains also checkpoint/ with the optimizer's
// state, from which training can continue.
func (e *Engine) SaveModel(ctx context.Context, dir string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errClosed
	}
	config, err := e.configJSON()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	files := map[string][]byte{configFile: config}
	maps.Copy(files, e.artifacts())
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	if err := e.writeWeights(ctx, dir); err != nil {
		return err
	}
	if !e.trains() {
		return nil
	}
	state := filepath.Join(dir, "checkpoint")
	if err := os.MkdirAll(state, 0o755); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return e.backend.save(filepath.Join(state, optimizerFile))
}

func (e *Engine) writeWeights(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("engine: saving to %s: %w", dir, context.Cause(ctx))
	}
	if err := e.backend.fetch(); err != nil {
		return err
	}
	sources := e.sources(e.params.Float32(), "")
	if err := weights.WriteSafetensors(filepath.Join(dir, weightsFile), map[string]string{"format": "pt"}, sources); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// SaveState writes the weights and the optimizer's state into dir, which
// exists: all that a resumed run needs of the model.
func (e *Engine) SaveState(ctx context.Context, dir string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return errClosed
	case !e.trains():
		return errNotTraining
	}
	if err := e.writeWeights(ctx, dir); err != nil {
		return err
	}
	return e.backend.save(filepath.Join(dir, optimizerFile))
}

// LoadState takes back what SaveState wrote, bit by bit.
func (e *Engine) LoadState(ctx context.Context, dir string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return errClosed
	case !e.trains():
		return errNotTraining
	}
	file, err := weights.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer file.Close()
	if err := e.read(ctx, file, func(deberta.Param) bool { return true }); err != nil {
		return err
	}
	if err := e.backend.restore(filepath.Join(dir, optimizerFile)); err != nil {
		return err
	}
	e.accumulated = 0
	return nil
}
