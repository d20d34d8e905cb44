package token

import (
	"fmt"
	"sync"
	"unicode/utf8"
)

// encoder splits one text into ids without special tokens. It is safe for
// concurrent use.
type encoder interface {
	// encode adds the ids of a text to dst.
	encode(dst []int32, text string) []int32
	// locate also returns from where to where in the text each id is, in bytes.
	// The text is UTF-8.
	locate(text string) ([]int32, [][2]int)
	close()
}

// goEncoder is the tokenizer in Go. It does what the Rust tokenizers library
// does (version 0.20.4), byte for byte.
type goEncoder struct {
	raw        *addedTokens // found in the text as it is
	normalizer normalizer   // nil: the text stays as it is
	normalized *addedTokens // found in the normalized text
	splitter   splitter
	model      *unigram
	free       sync.Pool // of *work
}

// maxKept is the longest text whose memory is kept for the next one, in bytes.
const maxKept = 1 << 16

func newGoEncoder(d *definition, interpretSpecialTokens bool) (encoder, error) {
	hidden := map[int]bool{}
	var raw, inNormalized []addedToken
	for _, a := range d.added {
		switch {
		case a.protected && !interpretSpecialTokens:
			hidden[a.ID] = true
		case a.Normalized:
			inNormalized = append(inNormalized, a)
		default:
			raw = append(raw, a)
		}
	}
	e := &goEncoder{normalizer: d.normalizer, splitter: d.splitter}
	e.free.New = func() any { return new(work) }
	var err error
	if e.model, err = newUnigram(&d.vocab, d.unknown, d.byteFallback, hidden); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if e.raw, err = newAddedTokens(raw, contents(raw)); err != nil {
		return nil, fmt.Errorf("added_tokens: %w", err)
	}
	texts := contents(inNormalized)
	for i, text := range texts {
		texts[i] = e.normalizeAll(text)
	}
	if e.normalized, err = newAddedTokens(inNormalized, texts); err != nil {
		return nil, fmt.Errorf("added_tokens: %w", err)
	}
	return e, nil
}

func contents(tokens []addedToken) []string {
	texts := make([]string, len(tokens))
	for i, t := range tokens {
		texts[i] = t.Content
	}
	return texts
}

// normalizeAll returns a text normalized.
func (e *goEncoder) normalizeAll(text string) string {
	w := new(work)
	w.text.set(text, 0, len(text), false)
	if e.normalizer != nil {
		e.normalizer.normalize(w)
	}
	return string(w.text.bytes)
}

func (e *goEncoder) encode(dst []int32, text string) []int32 {
	w := e.free.Get().(*work)
	w.located = e.splitter.metaspace.prepend == prependFirst
	w.ids, w.spans = w.ids[:0], w.spans[:0]
	e.run(w, validUTF8(text))
	dst = append(dst, w.ids...)
	if len(text) <= maxKept {
		e.free.Put(w)
	}
	return dst
}

func (e *goEncoder) locate(text string) ([]int32, [][2]int) {
	w := &work{located: true}
	e.run(w, text)
	places := make([][2]int, len(w.spans))
	for i, s := range w.spans {
		places[i] = [2]int{int(s.from), int(s.to)}
	}
	return w.ids, places
}

func (e *goEncoder) close() {}

// run encodes a text: what is between the tokens found in it is normalized; what
// is between those found then is split into words, and these into pieces.
func (e *goEncoder) run(w *work, text string) {
	w.words.reset()
	w.words.bytes = append(w.words.bytes, text...)
	w.added = e.raw.split(w.added[:0], w.words.bytes)
	for _, m := range w.added {
		if m.start >= m.end {
			continue
		}
		w.text.set(text, m.start, m.end, w.located)
		w.next.reset()
		if m.id != noValue {
			w.put(m.id, &w.text, 0, len(w.text.bytes))
			continue
		}
		if e.normalizer != nil {
			e.normalizer.normalize(w)
		}
		w.inner = e.normalized.split(w.inner[:0], w.text.bytes)
		for _, n := range w.inner {
			switch {
			case n.start >= n.end:
			case n.id != noValue:
				w.put(n.id, &w.text, n.start, n.end)
			default:
				e.splitter.words(w, e.model, n.start, n.end)
			}
		}
	}
}

// validUTF8 returns a text with U+FFFD in place of what is not UTF-8: one for as
// many bytes as could begin a character, as String::from_utf8_lossy of Rust does.
func validUTF8(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	valid := make([]byte, 0, len(text)+16)
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && n == 1 {
			n = brokenLength(text)
		}
		valid = utf8.AppendRune(valid, r)
		text = text[n:]
	}
	return string(valid)
}

// brokenLength returns how many bytes at the start of a text, which are not a
// character, could begin one (Unicode Standard, table 3-7).
func brokenLength(text string) int {
	want, low, high := 0, byte(0x80), byte(0xBF) // bytes to follow, and the range of the first
	switch c := text[0]; {
	case c >= 0xC2 && c <= 0xDF:
		want = 1
	case c >= 0xE0 && c <= 0xEF:
		want = 2
		if c == 0xE0 {
			low = 0xA0
		} else if c == 0xED {
			high = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		want = 3
		if c == 0xF0 {
			low = 0x90
		} else if c == 0xF4 {
			high = 0x8F
		}
	}
	n := 1
	for n <= want && n < len(text) && text[n] >= low && text[n] <= high {
		n, low, high = n+1, 0x80, 0xBF
	}
	return n
}
