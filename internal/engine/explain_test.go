package engine

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria/internal/deberta"
)

// TestExplain compares with finite differences: if all that the first layer
// reads grows by a small share, which is to say weight and bias of the embeddings'
// LayerNorm, a row's margin grows by that share of the sum of its scores.
func TestExplain(t *testing.T) {
	for _, pooling := range []string{"cls", "mean", "max"} {
		t.Run(pooling, func(t *testing.T) {
			e, err := Open(t.Context(), Spec{
				Dir: tinyDir(t), Head: deberta.Head{Pooling: pooling, HiddenDims: []int{16}, Activation: "tanh"},
				Training: &Training{Seed: 1, Optimizer: "adamw", Accumulation: 1},
			}, "")
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			// Two rows, padded; no id occurs twice.
			b := Batch{Rows: 2, Length: 9, InputIDs: []int64{
				1, 20, 21, 22, 2, 23, 24, 25, 3,
				4, 40, 41, 7, 42, 8, 0, 0, 0,
			}, AttentionMask: slices.Concat(slices.Repeat([]int64{1}, 15), []int64{0, 0, 0})}
			result, scores, err := e.Explain(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := e.Evaluate(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain.Logits, result.Logits, cmpopts.EquateApprox(0, 1e-5)); diff != "" {
				t.Errorf("logits (-Evaluate +Explain):\n%s", diff)
			}
			if len(scores) != len(b.InputIDs) {
				t.Fatalf("%d scores for %d tokens", len(scores), len(b.InputIDs))
			}
			margins := func() (m [2]float64) {
				r, err := e.Evaluate(t.Context(), b)
				if err != nil {
					t.Fatal(err)
				}
				for row := range m {
					m[row] = float64(r.Logits[2*row+1]) - float64(r.Logits[2*row])
				}
				return m
			}
			const step = 3e-3
			var sides [2][2]float64 // [smaller, larger][row]
			all := e.params.Float32()
			was := slices.Clone(all)
			for k, factor := range []float32{1 - step, 1 + step} {
				for _, name := range []string{"weight", "bias"} {
					norm := e.layout.slice(all, e.layout.index["deberta.embeddings.LayerNorm."+name])
					for j := range norm {
						norm[j] *= factor
					}
				}
				sides[k] = margins()
				copy(all, was)
			}
			for row := range b.Rows {
				sum, size := 0.0, 0.0
				for i, score := range scores[row*b.Length:][:b.Length] {
					if b.AttentionMask[row*b.Length+i] == 0 && score != 0 {
						t.Errorf("padding has score %v", score)
					}
					sum += float64(score)
					size += math.Abs(float64(score))
				}
				want := (sides[1][row] - sides[0][row]) / (2 * step)
				if math.Abs(sum-want) > 0.01*size || size < 1e-3 {
					t.Errorf("row %d: scores sum up to %v (absolute values %v), by differences %v", row, sum, size, want)
				}
			}
		})
	}
}
