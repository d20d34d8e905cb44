//go:build !daulet

package token

// Implementation names what splits texts in this program.
const Implementation = "Go"

func newEncoder(d *definition, interpretSpecialTokens bool) (encoder, error) {
	return newGoEncoder(d, interpretSpecialTokens)
}
