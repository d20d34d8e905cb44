package token

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// Span says from which bytes of a text a token comes.
type Span struct {
	Part       int // 0: the first text, 1: the second; -1: neither, it is a special token
	Start, End int
}

// Locate encodes a pair as [Tokenizer.EncodeAll] does and says where the tokens
// come from. White space at the edges of a token is not part of its span. A text
// that is not UTF-8 has no such places and is refused.
func (t *Tokenizer) Locate(first, second string, maxLength int, truncation Truncation) (Encoding, []Span, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.encoder == nil {
		return Encoding{}, nil, ErrClosed
	}
	texts := [2]string{first, second}
	var ids [2][]int32
	var spans [2][]Span
	for part, text := range texts {
		if !utf8.ValidString(text) {
			return Encoding{}, nil, errors.New("token: a text is not UTF-8")
		}
		var places [][2]int
		ids[part], places = t.encoder.locate(text)
		for _, place := range places {
			start, end := trim(text, place[0], place[1])
			spans[part] = append(spans[part], Span{part, start, end})
		}
	}
	e, err := t.assemble(maxLength, truncation, DoNotPad, ids[0], ids[1])
	if err != nil {
		return Encoding{}, nil, err
	}
	// Tokens are cut off at the end only, so what is left are the first ones.
	special := Span{Part: -1}
	all := []Span{special}
	kept := [2]int{}
	for i := range e.IDs[1:] {
		kept[e.TypeIDs[1+i]]++
	}
	for part := range spans {
		all = append(append(all, spans[part][:kept[part]-1]...), special)
	}
	return e, all, nil
}

// trim moves start and end inwards past white space, and keeps them in the text
// and in order.
func trim(text string, start, end int) (int, int) {
	end = min(max(end, 0), len(text))
	start = min(max(start, 0), end)
	for start < end {
		r, n := utf8.DecodeRuneInString(text[start:end])
		if !unicode.IsSpace(r) {
			break
		}
		start += n
	}
	for start < end {
		r, n := utf8.DecodeLastRuneInString(text[start:end])
		if !unicode.IsSpace(r) {
			break
		}
		end -= n
	}
	return start, end
}
