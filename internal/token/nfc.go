package token

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// nfc composes characters, by the tables of Unicode 9.0, which the Rust library
// has: characters that are newer neither compose nor move.
type nfc struct{}

// decomposed is a character of a decomposed text.
type decomposed struct {
	change
	class uint8
}

func (nfc) normalize(w *work) {
	if norm.NFC.IsNormal(w.text.bytes) {
		return
	}
	var text []decomposed
	for _, r := range string(w.text.bytes) {
		text = decompose(text, r)
	}
	sortMarks(text)
	compose(w, text)
	w.transformed(0)
}

// decompose adds the canonical decomposition of a character.
func decompose(text []decomposed, r rune) []decomposed {
	p := properties(r)
	d := p.Decomposition()
	if d == nil || newMark(r) {
		return append(text, decomposed{change{r, 0}, class(r)})
	}
	n := 0
	for _, r := range string(d) {
		text = append(text, decomposed{change{r, n}, class(r)})
		n = 1
	}
	return text
}

func properties(r rune) norm.Properties {
	var b [utf8.UTFMax]byte
	return norm.NFC.Properties(b[:utf8.EncodeRune(b[:], r)])
}

// class returns the canonical combining class of a character.
func class(r rune) uint8 {
	if r < 0x300 || newMark(r) {
		return 0
	}
	return properties(r).CCC()
}

// sortMarks puts combining marks into canonical order.
func sortMarks(text []decomposed) {
	for i := 0; i < len(text); {
		start := i
		for i < len(text) && text[i].class != 0 {
			i++
		}
		slices.SortStableFunc(text[start:i], func(a, b decomposed) int { return cmp.Compare(a.class, b.class) })
		if i == start {
			i++
		}
	}
}

// compose puts out the text, with each starter composed with the marks after it.
func compose(w *work, text []decomposed) {
	for i := 0; i < len(text); {
		starter := text[i]
		if starter.class != 0 { // a mark that has no starter
			w.emit(starter.r, starter.n)
			i++
			continue
		}
		i++
		var kept []decomposed // marks that did not compose
		for ; i < len(text); i++ {
			next := text[i]
			if len(kept) == 0 || kept[len(kept)-1].class < next.class {
				if r, ok := composition(starter.r, next.r); ok {
					starter.r = r
					starter.n += next.n - 1
					continue
				}
			}
			if next.class == 0 {
				break
			}
			kept = append(kept, next)
		}
		w.emit(starter.r, starter.n)
		for _, k := range kept {
			w.emit(k.r, k.n)
		}
	}
}

// composition returns the character that two compose to.
func composition(a, b rune) (rune, bool) {
	if a < 'A' && a != '<' && a != '=' && a != '>' || newMark(b) {
		return 0, false
	}
	var pair [2 * utf8.UTFMax]byte
	n := utf8.EncodeRune(pair[:], a)
	n += utf8.EncodeRune(pair[n:], b)
	var out [4 * utf8.UTFMax]byte
	composed := norm.NFC.Append(out[:0], pair[:n]...)
	r, size := utf8.DecodeRune(composed)
	if size != len(composed) || newMark(r) {
		return 0, false
	}
	return r, true
}
