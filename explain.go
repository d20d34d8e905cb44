package criteria

import (
	"context"
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/engine"
)

// Explainer may be implemented by a [Session] that can say which tokens of a
// batch matter.
type Explainer interface {
	// Explain returns what Evaluate does and, for each token [Rows × Length], how
	// much it speaks for class 1.
	Explain(ctx context.Context, b Batch) (result BatchResult, scores []float32, err error)
}

// Locator may be implemented by a [Tokenizer] that can say from where in the
// texts its tokens come.
type Locator interface {
	// Locate encodes a pair as EncodePairs does. spans has one entry for each id.
	Locate(ctx context.Context, pair Pair, maxLength int) (e Encodings, spans []TokenSpan, err error)
}

// TokenSpan says which part of a [Pair] a token is.
type TokenSpan struct {
	Special     bool // it is none: the tokenizer added the token
	InCriterion bool // it is in the criterion, not in the post
	Start, End  int  // bytes, so that for example pair.Post[Start:End] is the text
}

// Explanation says which tokens of a pair mattered to a prediction.
type Explanation struct {
	Prediction Prediction
	Tokens     []TokenScore // in the order of the text: first the post's, then the criterion's
}

// TokenScore says how much a token speaks for the answer that the post shows the
// criterion, or, if Score is negative, against it. Scores are comparable within
// one explanation.
type TokenScore struct {
	TokenSpan
	Text  string // what is there
	Score float64
}

// Explain judges a pair and says which of its tokens mattered: their scores are
// gradient × input, the effect to first order of each token's embedding on the
// difference of the logits. It hints at what a model looks at; it proves nothing
// about causes. It takes about three times as long as Predict for one pair.
//
// An injected engine or tokenizer that cannot do this is [errors.ErrUnsupported].
func (c *Classifier) Explain(ctx context.Context, pair Pair) (_ *Explanation, err error) {
	defer func() { err = withCause(ctx, err) }()
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.running.Done()
	explainer, ok := c.session.(Explainer)
	if !ok {
		return nil, fmt.Errorf("criteria: explain: the engine: %w (it is no Explainer)", errors.ErrUnsupported)
	}
	locator, ok := c.tokenizer.(Locator)
	if !ok {
		return nil, fmt.Errorf("criteria: explain: the tokenizer: %w (it is no Locator)", errors.ErrUnsupported)
	}
	encodings, spans, err := locator.Locate(ctx, pair, c.config.MaxLength)
	if err != nil {
		return nil, fmt.Errorf("criteria: tokenize: %w", err)
	}
	b := padded(encodings, []int{0}, 0)
	result, scores, err := explainer.Explain(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("criteria: explain: %w", err)
	}
	if len(result.Logits) != 2 || len(scores) != len(spans) || len(spans) != b.Length {
		return nil, fmt.Errorf("criteria: explain: the engine returned %d logits and %d scores, the tokenizer %d spans, for %d tokens",
			len(result.Logits), len(scores), len(spans), b.Length)
	}
	out := &Explanation{Prediction: c.rule.predict(result.Logits, encodings.Truncated[0])}
	for i, span := range spans {
		if span.Special {
			continue
		}
		text := pair.Post
		if span.InCriterion {
			text = pair.Criterion
		}
		out.Tokens = append(out.Tokens, TokenScore{TokenSpan: span, Text: text[span.Start:span.End], Score: float64(scores[i])})
	}
	return out, nil
}

// Explain implements [Explainer].
func (s ortSession) Explain(ctx context.Context, b Batch) (BatchResult, []float32, error) {
	r, scores, err := s.Engine.Explain(ctx, engine.Batch(b))
	return BatchResult(r), scores, err
}

// Locate implements [Locator].
func (t *textTokenizer) Locate(ctx context.Context, pair Pair, maxLength int) (Encodings, []TokenSpan, error) {
	if err := ctx.Err(); err != nil {
		return Encodings{}, nil, context.Cause(ctx)
	}
	e, located, err := t.Tokenizer.Locate(pair.Post, pair.Criterion, maxLength, t.truncation)
	if err != nil {
		return Encodings{}, nil, err
	}
	spans := make([]TokenSpan, len(located))
	for i, s := range located {
		spans[i] = TokenSpan{Special: s.Part < 0, InCriterion: s.Part == 1, Start: s.Start, End: s.End}
	}
	return Encodings{IDs: e.IDs, Offsets: []int{0, len(e.IDs)}, Truncated: []bool{e.Truncated}}, spans, nil
}
