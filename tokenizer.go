package criteria

import (
	"context"
	"fmt"

	"github.com/criteria-go/criteria/internal/token"
)

// textTokenizer adapts the tokenizer of a checkpoint to [Tokenizer].
type textTokenizer struct {
	*token.Tokenizer
	truncation token.Truncation
	workers    int
}

func openTokenizer(dir string, c TokenizerConfig, workers int) (Tokenizer, error) {
	truncation, err := token.ParseTruncation(c.Truncation)
	if err != nil {
		return nil, err
	}
	t, err := token.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("criteria: tokenizer: %w", err)
	}
	return &textTokenizer{Tokenizer: t, truncation: truncation, workers: workers}, nil
}

func (t *textTokenizer) EncodePairs(ctx context.Context, pairs []Pair, maxLength int) (Encodings, error) {
	converted := make([]token.Pair, len(pairs))
	for i, p := range pairs {
		converted[i] = token.Pair{First: p.Post, Second: p.Criterion}
	}
	e, err := t.EncodeAll(ctx, converted, t.workers, maxLength, t.truncation)
	return Encodings{IDs: e.IDs, Offsets: e.Offsets, Truncated: e.Truncated}, err
}

// inBackground returns a tokenizer that leaves all cores but one to others, if t
// is one of ours.
func inBackground(t Tokenizer) Tokenizer {
	if own, ok := t.(*textTokenizer); ok {
		return &textTokenizer{Tokenizer: own.Tokenizer, truncation: own.truncation, workers: 1}
	}
	return t
}

// implementation names what splits texts, as it is logged.
func implementation(t Tokenizer) string {
	if _, ok := t.(*textTokenizer); ok {
		return token.Implementation
	}
	return fmt.Sprintf("%T", t)
}
