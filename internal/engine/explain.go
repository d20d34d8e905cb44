package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/criteria-go/criteria/internal/deberta"
)

// Explain runs forward without dropout, as Evaluate does, and backward to the
// word embeddings. scores are [Rows·Length]: how much each token speaks for
// class 1; see [deberta.Model.Explanation].
func (e *Engine) Explain(ctx context.Context, b Batch) (result Result, scores []float32, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return Result{}, nil, errClosed
	}
	p, err := e.program(explanation, b)
	if err != nil {
		return Result{}, nil, err
	}
	p.load(b)
	e.settle(p.ids.Int64())
	if err := p.binding.Run(ctx); err != nil {
		return Result{}, nil, fmt.Errorf("engine: explaining a batch of %d × %d tokens: %w", b.Rows, b.Length, err)
	}
	all := p.scores.Float32()
	for row := range b.Rows {
		scores = append(scores, all[row*p.graph.Length:][:b.Length]...)
	}
	return p.result(b), slices.Clip(scores), nil
}

// bindScores binds what only an explanation has.
func (p *program) bindScores() error { return p.binding.BindOutput(deberta.TokenScores, p.scores) }
