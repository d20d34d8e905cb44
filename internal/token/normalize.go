package token

import (
	"unicode"
	"unicode/utf8"
)

// span is a range of bytes of the original text.
type span struct{ from, to int32 }

// located is a text and, if that is asked for, where its bytes come from.
type located struct {
	bytes []byte
	spans []span // of each byte; bytes of one character have the same
}

func (t *located) reset() { t.bytes, t.spans = t.bytes[:0], t.spans[:0] }

// work is the memory that encoding one text takes. It is used again for others.
type work struct {
	located bool // whether spans are kept

	text, next located  // what normalizers read, and what they write
	changes    []change // that make next of text, if spans are kept

	words located      // a text with the marks of words
	path  []step       // the best pieces that end at each byte of a word
	found []foundPiece // the pieces of a word, last first

	added, inner []match
	ids          []int32
	spans        []span
}

// change is a character of a normalized text and what it stands for, in the
// terms of the Rust library: 0 for one character, 1 for none (it belongs to
// what the character before it stands for), -n for one and the n after it.
type change struct {
	r rune
	n int
}

// emit puts out a character of the normalized text.
func (w *work) emit(r rune, n int) {
	if w.located {
		w.changes = append(w.changes, change{r, n})
	} else {
		w.next.bytes = utf8.AppendRune(w.next.bytes, r)
	}
}

// replace puts out a replacement of part of the text.
func (w *work) replace(part []byte, by string) {
	grown := utf8.RuneCountInString(by) - utf8.RuneCount(part)
	for _, r := range by {
		w.emit(r, 0)
	}
	if !w.located {
		return
	}
	for i := range max(grown, 0) {
		w.changes[len(w.changes)-1-i].n = 1
	}
	// What is removed at the very beginning is nobody's, and the spans of all that
	// follows come too early, as those of the Rust library do.
	if grown < 0 && len(w.changes) > 0 {
		w.changes[len(w.changes)-1].n += grown
	}
}

// transformed ends a normalization whose characters were all put out by emit and
// replace. It is told how many characters before the first were removed.
func (w *work) transformed(removed int) {
	if w.located {
		w.transform(removed)
	}
	w.swap()
}

// swap lets the next normalizer read what this one has written.
func (w *work) swap() {
	w.text, w.next = w.next, w.text
	w.next.reset()
	w.changes = w.changes[:0]
}

// transform writes the changes to next, as transform_range of the Rust library.
func (w *work) transform(removed int) {
	at := 0 // the byte of the text
	skip := func() {
		if at < len(w.text.bytes) {
			_, n := utf8.DecodeRune(w.text.bytes[at:])
			at += n
		}
	}
	for range removed {
		skip()
	}
	for _, c := range w.changes {
		var from span
		switch {
		case c.n <= 0 && at < len(w.text.spans):
			from = w.text.spans[at]
		case c.n > 0 && at > 0:
			from = w.text.spans[at-1]
		}
		if c.n <= 0 {
			skip()
		}
		for range -c.n {
			skip()
		}
		w.next.append(c.r, from)
	}
}

// append adds a character that stands for a part of the original text.
func (t *located) append(r rune, from span) {
	n := len(t.bytes)
	t.bytes = utf8.AppendRune(t.bytes, r)
	for range len(t.bytes) - n {
		t.spans = append(t.spans, from)
	}
}

// copy adds a part of another text as it is.
func (t *located) copy(from *located, start, end int) {
	t.bytes = append(t.bytes, from.bytes[start:end]...)
	if len(from.spans) > 0 {
		t.spans = append(t.spans, from.spans[start:end]...)
	}
}

// set makes a text of part of the original one.
func (t *located) set(original string, start, end int, located bool) {
	t.reset()
	t.bytes = append(t.bytes, original[start:end]...)
	if !located {
		return
	}
	for i := start; i < end; {
		_, n := utf8.DecodeRuneInString(original[i:end])
		for range n {
			t.spans = append(t.spans, span{int32(i), int32(i + n)})
		}
		i += n
	}
}

// A normalizer rewrites the text of a work.
type normalizer interface{ normalize(w *work) }

// sequence applies normalizers one after another.
type sequence []normalizer

func (s sequence) normalize(w *work) {
	for _, n := range s {
		n.normalize(w)
	}
}

// strip removes white space at the ends.
type strip struct{ left, right bool }

func (s strip) normalize(w *work) {
	text := w.text.bytes
	start, end := 0, len(text)
	for s.left && start < end {
		r, n := utf8.DecodeRune(text[start:])
		if !unicode.IsSpace(r) {
			break
		}
		start += n
	}
	for s.right && end > start {
		r, n := utf8.DecodeLastRune(text[start:end])
		if !unicode.IsSpace(r) {
			break
		}
		end -= n
	}
	if start == 0 && end == len(text) {
		return
	}
	w.next.copy(&w.text, start, end)
	w.swap()
}

// replaceAll replaces all that matches by content.
type replaceAll struct {
	match   func(text []byte) int // how many bytes at the start of text match; 0: none do
	content string
}

func (p replaceAll) normalize(w *work) {
	text := w.text.bytes
	copied := 0
	for i := 0; i < len(text); {
		n := p.match(text[i:])
		if n == 0 {
			i++
			continue
		}
		w.next.copy(&w.text, copied, i)
		i += n
		copied = i
		for _, r := range p.content {
			if w.located {
				w.next.append(r, w.text.spans[i-1])
			} else {
				w.next.bytes = utf8.AppendRune(w.next.bytes, r)
			}
		}
	}
	if copied == 0 {
		return
	}
	w.next.copy(&w.text, copied, len(text))
	w.swap()
}

// patterns are the regular expressions that tokenizers of DeBERTa replace.
var patterns = map[string]func(text []byte) int{
	" {2,}":           spaces, // transformers 4
	`\s{2,}|[\n\r\t]`: blanks, // transformers 5
}

// spaces matches two or more spaces.
func spaces(text []byte) int {
	n := 0
	for n < len(text) && text[n] == ' ' {
		n++
	}
	if n < 2 {
		return 0
	}
	return n
}

// blanks matches two or more characters of white space, or one that is not a
// space but ends a line or fills a column.
func blanks(text []byte) int {
	end, count := 0, 0
	for end < len(text) {
		r, n := utf8.DecodeRune(text[end:])
		if !unicode.IsSpace(r) {
			break
		}
		end += n
		count++
	}
	if count >= 2 || count == 1 && (text[0] == '\n' || text[0] == '\r' || text[0] == '\t') {
		return end
	}
	return 0
}

// lowercase makes letters small, each by itself.
type lowercase struct{}

func (lowercase) normalize(w *work) {
	for _, r := range string(w.text.bytes) {
		if r == 'İ' {
			w.emit('i', 0)
			w.emit('\u0307', 1)
			continue
		}
		w.emit(toLower(r), 0)
	}
	w.transformed(0)
}

// newLetters are capital letters that Unicode 16 and 17 have added, later than
// package unicode: first, last, and how far away the small ones are.
var newLetters = [][3]rune{
	{0x1C89, 0x1C89, 0x1C8A - 0x1C89},
	{0xA7CB, 0xA7CB, 0x0264 - 0xA7CB},
	{0xA7CC, 0xA7CC, 1},
	{0xA7CE, 0xA7CE, 1},
	{0xA7D2, 0xA7D2, 1},
	{0xA7D4, 0xA7D4, 1},
	{0xA7DA, 0xA7DA, 1},
	{0xA7DC, 0xA7DC, 0x019B - 0xA7DC},
	{0x10D50, 0x10D65, 0x20},
	{0x16EA0, 0x16EB8, 0x1B},
}

func toLower(r rune) rune {
	if r >= 0x1C89 {
		for _, l := range newLetters {
			if r >= l[0] && r <= l[1] {
				return r + l[2]
			}
		}
	}
	return unicode.ToLower(r)
}
