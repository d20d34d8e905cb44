//go:build daulet

package token

import (
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// textMaker makes texts that are hard on a tokenizer, the same for the same seed.
type textMaker struct {
	*rand.Rand
	sentences []string // real ones, to be mutated
	pieces    []string // of the vocabulary
	noNUL     bool
}

// hard are characters, and sequences of them, that tokenizers treat each in a way
// of its own.
var hard = []string{
	"\r\n", "\r", "\n", "\t", "  ", " ", "\u00a0", "\u3000", "\u2028", "\u0085", "\v", "\u200b", "\ufeff", "\u2060", "▁", "▁▁",
	"\u0301", "\u0300\u0323", "e\u0301", "A\u030a", "\u0345", "q\u0307\u0323", "\u1e0b\u0323", "c\u0327\u0301", "\u20dd",
	"\u1100\u1161\u11a8", "\u1100", "\u1161", "\u11a8", "한글", "각\u11a8", "가\u11a8", "\u3131",
	"👩\u200d👩\u200d👧", "❤\ufe0f", "©\u200d®", "©\ufe0f", "©\u0301", "👍🏽", "🇩🇪", "🇩🇪🇫", "🏴\U000e0067\U000e007f", "1\ufe0f\u20e3", "\u200d",
	"\u202e", "\u2066", "\u2069", "\u061c", "\u200e", "\u200f", "\u0600", "\u0600a", "\u06dd1", "\u070f",
	"क्ष", "क\u094d\u0300त", "क\u0300", "क\u200c\u094dत", "ക്ക", "ำ", "กำ", "\u0e33", "\u0903", "ி",
	"ﬁ", "ﬃ", "…", "①", "½", "Ⅷ", "㎏", "ｆｕｌｌ", "ﾊﾟ", "か\u3099", "が", "ﷺ", "ſ", "İ", "ı", "ß", "ẞ", "Ǆ", "Å", "K", "Ω", "µ", "ª",
	"\u0344", "\u0958", "\u2126", "\ufb1d", "\U0002f800", "\U0001d15e", "ệ", "ộ", "\u1e9b\u0323", "\u0f73", "\u0f81", "\u0340",
	"[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]", "[ MASK]", "[MASK", "<url>", " <url> ", "<b>", "word", "words", "<0x41>",
	"\u0001", "\u001f", "\u007f", "\u0080", "\u009f", "\u00ad", "\ufffd", "\ufffe", "\U0010ffff", "\ue000", "\ufdd0", "\u180e", "\u115f",
	"``", "''", "\"", "don't", "C++", "#tag", "@me", "http://x.y/z?a=b&c", "a_b", "1,234.5", "!!!", "—", "“q”",
}

// text returns the next text.
func (m *textMaker) text() string {
	switch m.IntN(10) {
	case 0:
		return m.join(1+m.IntN(12), m.anyRune)
	case 1:
		return m.join(1+m.IntN(40), m.mixedRune)
	case 2, 3:
		return m.join(1+m.IntN(10), func() string { return hard[m.IntN(len(hard))] })
	case 4:
		return m.join(1+m.IntN(6), func() string {
			return m.pieces[m.IntN(len(m.pieces))] + hard[m.IntN(len(hard))]
		})
	case 5:
		return m.join(1+m.IntN(20), func() string { return m.pieces[m.IntN(len(m.pieces))] })
	case 6:
		return m.join(2+m.IntN(6), func() string { return string(rune(m.IntN(0x80))) })
	}
	return m.mutated()
}

func (m *textMaker) join(n int, part func() string) string {
	var b strings.Builder
	for range n {
		b.WriteString(part())
	}
	if m.noNUL {
		return strings.ReplaceAll(b.String(), "\x00", "")
	}
	return b.String()
}

// anyRune returns a character of any plane.
func (m *textMaker) anyRune() string {
	for {
		plane := []int{0, 0, 0, 1, 1, 2, 14, 3 + m.IntN(14)}[m.IntN(8)]
		if r := rune(plane<<16 | m.IntN(0x10000)); utf8.ValidRune(r) {
			return string(r)
		}
	}
}

// mixedRune returns a character that occurs in texts.
func (m *textMaker) mixedRune() string {
	low, high := 0x20, 0x7F
	switch m.IntN(8) {
	case 0:
		low, high = 0x80, 0x250
	case 1:
		low, high = 0x300, 0x370
	case 2:
		low, high = 0x370, 0x1200
	case 3:
		low, high = 0x1E00, 0x2C00
	case 4:
		low, high = 0x3000, 0x3400
	case 5:
		return hard[m.IntN(len(hard))]
	}
	return string(rune(low + m.IntN(high-low)))
}

// mutated returns a real sentence with a few changes.
func (m *textMaker) mutated() string {
	text := []rune(m.sentences[m.IntN(len(m.sentences))])
	for range m.IntN(4) {
		at := m.IntN(len(text) + 1)
		insert := []rune(hard[m.IntN(len(hard))])
		switch m.IntN(3) {
		case 0:
			text = append(text[:at:at], append(insert, text[at:]...)...)
		case 1:
			if at < len(text) {
				text = append(text[:at:at], text[at+1:]...)
			}
		case 2:
			if at < len(text) {
				text[at] = insert[0]
			}
		}
	}
	if m.noNUL {
		return strings.ReplaceAll(string(text), "\x00", "")
	}
	return string(text)
}

// broken returns a text with bytes that are not UTF-8.
func (m *textMaker) broken() string {
	text := []byte(m.text())
	for range 1 + m.IntN(4) {
		at := m.IntN(len(text) + 1)
		insert := []byte{[]byte{0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0xFF}[m.IntN(11)]}
		if m.IntN(2) == 0 {
			insert = append(insert, byte(0x80+m.IntN(0x40)))
		}
		text = append(text[:at:at], append(insert, text[at:]...)...)
	}
	return strings.ReplaceAll(string(text), "\x00", "")
}
