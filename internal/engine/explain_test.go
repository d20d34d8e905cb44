package engine

import (
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria/internal/deberta"
)

// TestExplain compares with finite differences. If all that the first layer
// reads grows by a small share, which is to say weight and bias of the embeddings'
// LayerNorm, a row's margin grows by that share of the sum of its scores. Each
// token's score is compared on its own by scaling its row of the word embeddings.
//
// Max pooling has kinks: where another token takes over a maximum between the two
// sides, the difference is no derivative. With the tokens and steps here that
// does not matter. With others it did even at a tenth of the step, while the
// scores were within 1e-5 of PyTorch's: look for a kink before doubting them.
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
			all := e.params.Float32()
			slope := func(step float32, parts ...[]float32) (m [2]float64) {
				for _, signed := range []float32{-step, step} {
					was := slices.Clone(all)
					for _, part := range parts {
						for j := range part {
							part[j] *= 1 + signed
						}
					}
					for row, margin := range margins() {
						m[row] += margin / float64(2*signed)
					}
					copy(all, was)
				}
				return m
			}
			param := func(name string) []float32 { return e.layout.slice(all, e.layout.index[name]) }
			weight, bias := param("deberta.embeddings.LayerNorm.weight"), param("deberta.embeddings.LayerNorm.bias")
			slopes := slope(3e-3, weight, bias)
			for row := range b.Rows {
				sum, size := 0.0, 0.0
				for i, score := range scores[row*b.Length:][:b.Length] {
					if b.AttentionMask[row*b.Length+i] == 0 && score != 0 {
						t.Errorf("padding has score %v", score)
					}
					sum += float64(score)
					size += math.Abs(float64(score))
				}
				if want := slopes[row]; math.Abs(sum-want) > 0.01*size || size < 1e-3 {
					t.Errorf("row %d: scores sum up to %v (absolute values %v), by differences %v", row, sum, size, want)
				}
			}

			// LayerNorm takes a factor of a row out again, but for its epsilon: with
			// a bias of 0, a share s more of a row with variance v is s·ε/(v+ε) more
			// of what the first layer reads. So v is made about as small as ε.
			clear(bias)
			words := param(deberta.WordEmbeddings)
			for i := range words {
				words[i] /= 2048
			}
			if _, scores, err = e.Explain(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			width, epsilon := e.model.Config.HiddenSize, e.model.Config.LayerNormEps
			for i := range b.Length {
				var parts [2][]float32 // rows do not affect each other: a token of each at once
				for row := range parts {
					parts[row] = words[int(b.InputIDs[row*b.Length+i])*width:][:width]
				}
				slopes := slope(1e-2, parts[:]...)
				for row, part := range parts {
					var sum, squares float64
					for _, v := range part {
						sum += float64(v) / float64(width)
						squares += float64(v) * float64(v) / float64(width)
					}
					want := slopes[row] * (squares - sum*sum + epsilon) / epsilon
					own := scores[row*b.Length:][:b.Length]
					largest := float64(max(slices.Max(own), -slices.Min(own)))
					if got := float64(own[i]); math.Abs(got-want) > 5e-3*largest || largest < 1e-3 {
						t.Errorf("row %d, token %d: score %v (the largest is %v), by differences %v", row, i, got, largest, want)
					}
				}
			}
		})
	}
}
