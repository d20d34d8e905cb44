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

// close frees the tokenizer; freeing memory reports no errors.
func (r rust) close() { _ = r.tokenizer.Close() }
