//go:build daulet

package token

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/daulet/tokenizers"
)

// Implementation names what splits texts in this program.
const Implementation = "Rust (github.com/daulet/tokenizers)"

func newEncoder(d *definition, interpretSpecialTokens bool) (encoder, error) {
	return newRustEncoder(d, interpretSpecialTokens)
}

// rust is the Rust tokenizers library behind its C interface.
type rust struct{ tokenizer *tokenizers.Tokenizer }

// newRustEncoder makes a tokenizer of the Rust library. What the library would
// panic at, which ends the program, [parseDefinition] has refused.
func newRustEncoder(d *definition, interpretSpecialTokens bool) (encoder, error) {
	text, err := d.rustJSON(interpretSpecialTokens)
	if err != nil {
		return nil, err
	}
	t, err := tokenizers.FromBytes(text)
	if err != nil {
		return nil, fmt.Errorf("the tokenizers library refused the tokenizer: %w", err)
	}
	return rust{t}, nil
}

func (r rust) encode(dst []int32, text string) []int32 {
	return appendIDs(dst, r.tokenizer.EncodeWithOptions(withoutNUL(text), false).IDs)
}

func appendIDs(dst []int32, ids []uint32) []int32 {
	for _, id := range ids {
		dst = append(dst, int32(min(id, math.MaxInt32)))
	}
	return dst
}

func (r rust) locate(text string) ([]int32, [][2]int) {
	e := r.tokenizer.EncodeWithOptions(withoutNUL(text), false, tokenizers.WithReturnOffsets(), tokenizers.WithReturnTokens())
	back := originalOffsets(text)
	spans := make([][2]int, len(e.IDs))
	for i, o := range e.Offsets {
		spans[i] = [2]int{back(int(o[0])), back(int(o[1]))}
		if e.Tokens[i] == "▁" {
			spans[i][1] = spans[i][0]
		}
	}
	return appendIDs(nil, e.IDs), spans
}

// close frees the tokenizer; freeing memory reports no errors.
func (r rust) close() { _ = r.tokenizer.Close() }

// rustJSON returns the tokenizer.json for the library, which splits one text at a
// time and adds, cuts and pads nothing.
//
// Unless special tokens are to be interpreted, no text can yield a protected one:
// the names of them begin with a NUL, which no text that reaches the library
// contains, both as added tokens, which are looked for before a text is split,
// and as pieces that splitting could find. (The first alone is not enough: "[SEP]"
// is a piece of score 0, the best there is.) Thus all keep their ids.
func (d *definition) rustJSON(interpretSpecialTokens bool) ([]byte, error) {
	var f map[string]json.RawMessage
	if err := json.Unmarshal(d.text, &f); err != nil {
		return nil, err
	}
	var model map[string]json.RawMessage
	if err := json.Unmarshal(f["model"], &model); err != nil {
		return nil, err
	}
	added := append([]addedToken(nil), d.added...)
	if !interpretSpecialTokens {
		var vocab []json.RawMessage
		if err := json.Unmarshal(model["vocab"], &vocab); err != nil {
			return nil, err
		}
		for i, a := range added {
			if !a.protected {
				continue
			}
			added[i].Content = "\x00" + a.Content
			if a.ID < len(vocab) {
				var err error
				if vocab[a.ID], err = encodeJSON(vocabEntry{added[i].Content, d.vocab.scores[a.ID]}); err != nil {
					return nil, err
				}
			}
		}
		if err := setJSON(model, "vocab", vocab); err != nil {
			return nil, err
		}
	}
	for name, value := range map[string]any{
		"added_tokens": added, "model": model, "truncation": nil, "padding": nil, "post_processor": nil,
	} {
		if err := setJSON(f, name, value); err != nil {
			return nil, err
		}
	}
	return encodeJSON(f)
}

func setJSON(object map[string]json.RawMessage, name string, value any) (err error) {
	object[name], err = encodeJSON(value)
	return err
}

// nul stands in for U+0000 in a text: text travels as a C string, which would
// end there. A private character is as unknown to the vocabulary.
const nul = "\uE000"

func withoutNUL(text string) string { return strings.ReplaceAll(text, "\x00", nul) }

// originalOffsets returns a function that turns offsets into withoutNUL(text)
// into those into text.
func originalOffsets(text string) func(int) int {
	if !strings.Contains(text, "\x00") {
		return func(i int) int { return i }
	}
	var original []int
	for i := range len(text) {
		original = append(original, i)
		if text[i] == 0 {
			original = append(original, i, i)
		}
	}
	original = append(original, len(text))
	return func(i int) int { return original[min(i, len(original)-1)] }
}
