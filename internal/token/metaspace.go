package token

import (
	"bytes"
	"unicode/utf8"
)

// prependScheme says before which parts of a text Metaspace puts its mark.
type prependScheme int

const (
	prependAlways prependScheme = iota
	prependFirst                // the part that the original text begins with
	prependNever
)

// metaspace makes words of a text: it replaces spaces by a mark, puts one before
// the first word, and splits before each.
type metaspace struct {
	mark    string
	prepend prependScheme
	whole   bool // does not split
}

// words puts out the ids of the words of a part of the normalized text.
func (m metaspace) words(w *work, model *unigram, start, end int) {
	if start == end {
		return
	}
	words := &w.words
	words.reset()
	part := w.text.bytes[start:end]
	if m.prepends(w, start) && part[0] != ' ' && !bytes.HasPrefix(part, []byte(m.mark)) {
		m.putMark(w, start)
	}
	copied := 0
	for i, c := range part {
		if c == ' ' {
			words.copy(&w.text, start+copied, start+i)
			m.putMark(w, start+i)
			copied = i + 1
		}
	}
	words.copy(&w.text, start+copied, end)

	from := 0
	for i := 1; i < len(words.bytes) && !m.whole; i++ {
		if words.bytes[i] == m.mark[0] && bytes.HasPrefix(words.bytes[i:], []byte(m.mark)) {
			model.word(w, words, from, i)
			from = i
		}
	}
	model.word(w, words, from, len(words.bytes))
}

// prepends reports whether the part of the text from start on is one that a mark
// is put before.
func (m metaspace) prepends(w *work, start int) bool {
	switch m.prepend {
	case prependAlways:
		return true
	case prependFirst:
		return w.text.spans[start].from == 0
	}
	return false
}

// putMark adds a mark that stands for the same as a byte of the text.
func (m metaspace) putMark(w *work, at int) {
	w.words.bytes = append(w.words.bytes, m.mark...)
	if len(w.text.spans) == 0 {
		return
	}
	for range len(m.mark) {
		w.words.spans = append(w.words.spans, w.text.spans[at])
	}
}

// splitter parts a normalized text before words are made of it.
type splitter struct {
	punctuation bool // each such character is a part by itself
	metaspace   metaspace
}

func (s splitter) words(w *work, model *unigram, start, end int) {
	from := start
	for i := start; i < end && s.punctuation; {
		r, n := utf8.DecodeRune(w.text.bytes[i:end])
		if isPunctuation(r) {
			s.metaspace.words(w, model, from, i)
			s.metaspace.words(w, model, i, i+n)
			from = i + n
		}
		i += n
	}
	s.metaspace.words(w, model, from, end)
}
