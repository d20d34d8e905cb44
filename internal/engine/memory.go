package engine

import (
	"context"
	"fmt"

	"github.com/criteria-go/criteria/internal/deberta"
)

// TrainingMemory estimates how many bytes the engine that spec describes takes
// while it trains on batches of rows × length tokens. Parameters, gradients and
// moments are counted. What a step keeps for the backward pass and works in is an
// estimate: about 40 values for every token, unit and layer, and four for every
// two tokens, head and layer. That is what steps of DeBERTaV3-base were measured
// to take with 4 × 128 and with 8 × 256 tokens, to within a third.
func TrainingMemory(spec Spec, rows, length int) (int64, error) {
	c, _, err := readConfig(context.Background(), spec.Dir)
	if err != nil {
		return 0, fmt.Errorf("engine: %w", err)
	}
	params := 0
	for _, p := range (deberta.Model{Config: c, Head: spec.Head}).Params() {
		params += p.Size()
	}
	perParam := 16 // float32: value, gradient, two moments
	if t := spec.Training; t != nil && t.Optimizer == adamW8bit {
		perParam -= 6
	}
	rows, length = roundRows(rows), roundUp(length, LengthStep)
	tokens := 40 * rows * length * c.HiddenSize * c.Layers
	attention := 4 * rows * length * length * c.Heads * c.Layers
	return int64(params*perParam) + 4*int64(tokens+attention), nil
}
