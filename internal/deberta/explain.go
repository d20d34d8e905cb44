package deberta

import "github.com/criteria-go/criteria/internal/graph"

// TokenScores is the output of [Model.Explanation]: float32 [B, L].
const TokenScores = "token_scores"

// Explanation returns the graph of [Model.Evaluation] with one output more: how
// much every token speaks for class 1. That is gradient × input (Shrikumar et
// al., "Not Just a Black Box", arXiv:1605.01713), the sum over elements of
//
//	∂(logit₁ − logit₀)/∂x · x
//
// where x is what the first layer reads of the token: the first-order effect of
// the token being there. The rows of the word embeddings before their LayerNorm
// would not do: it takes every factor out again, so their sum is always 0. Rows
// of the batch do not affect each other, so one backward pass serves all.
func (m Model) Explanation(rows, length int, kernels graph.Kernels) *Graph {
	b := m.newBuilder("explanation_model", rows, length, kernels, nil)
	loss, logits := b.classify()
	g := b.g
	g.Output(Loss, loss)
	g.Output(Logits, logits)
	margin := g.Sub(g.Slice(logits, 1, 1, 2), g.Slice(logits, 1, 0, 1))
	gradient := g.Gradients(margin, g.Fill(1, rows, 1), []*graph.Value{b.input})[0]
	g.Output(TokenScores, g.Reshape(g.ReduceSum(g.Mul(gradient, b.input), false, 1), rows, length))
	return b.graph()
}
