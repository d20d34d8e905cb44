//go:build notokenizers

package token

import "errors"

// newEncoder cannot split texts in a build without the library.
func newEncoder([]byte) (encoder, error) {
	return nil, errors.New("token: this program was built with -tags notokenizers, so it has no tokenizer of its own; pass one (criteria.WithTokenizer) or build without the tag")
}
