//go:build !notokenizers

package token

import (
	"fmt"

	"github.com/daulet/tokenizers"
)

// rust is the Rust tokenizers library behind its C interface.
type rust struct{ tokenizer *tokenizers.Tokenizer }

func newEncoder(json []byte) (encoder, error) {
	t, err := tokenizers.FromBytes(json)
	if err != nil {
		return nil, fmt.Errorf("token: the tokenizers library refused the tokenizer: %w", err)
	}
	return rust{t}, nil
}

func (r rust) encode(text string) []uint32 {
	return r.tokenizer.EncodeWithOptions(text, false).IDs
}

func (r rust) locate(text string) ([]uint32, [][2]int) {
	e := r.tokenizer.EncodeWithOptions(text, false, tokenizers.WithReturnOffsets(), tokenizers.WithReturnTokens())
	spans := make([][2]int, len(e.IDs))
	for i, o := range e.Offsets {
		spans[i] = [2]int{int(o[0]), int(o[1])}
		// A space of its own, which may have been put there before the first word:
		// then the library gives it the first letter, which is the next token's.
		if e.Tokens[i] == "▁" {
			spans[i][1] = spans[i][0]
		}
	}
	return e.IDs, spans
}

// close frees the tokenizer; freeing memory reports no errors.
func (r rust) close() { _ = r.tokenizer.Close() }
