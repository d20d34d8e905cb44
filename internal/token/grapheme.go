package token

import (
	"sync"
	"unicode/utf8"
)

// graphemeClass is what decides where a character may be parted from the next
// (Unicode Standard Annex 29, revision 45).
type graphemeClass uint8

const (
	gcAny graphemeClass = iota
	gcCR
	gcLF
	gcControl
	gcExtend
	gcZWJ
	gcPrepend
	gcSpacingMark
	gcPictographic
	gcConsonant
	gcRegional
	gcL
	gcV
	gcT
	gcLV
	gcLVT
)

// graphemeTable holds the class of each character: a block of 128 for each of
// the numbers in index.
type graphemeTable struct {
	index  [(utf8.MaxRune + 1) >> 7]uint8
	blocks [][128]graphemeClass
}

// graphemes is built when a text first needs it, in a fraction of a millisecond.
var graphemes = sync.OnceValue(func() *graphemeTable {
	t := &graphemeTable{blocks: make([][128]graphemeClass, 1)}
	set := func(r rune, class graphemeClass) {
		i := &t.index[r>>7]
		if *i == 0 {
			*i = uint8(len(t.blocks))
			t.blocks = append(t.blocks, [128]graphemeClass{})
		}
		t.blocks[*i][r&127] = class
	}
	for class, ranges := range graphemeRanges {
		for i := 0; i < len(ranges); i += 2 {
			for r := ranges[i]; r <= ranges[i+1]; r++ {
				set(r, class)
			}
		}
	}
	return t
})

func (t *graphemeTable) class(r rune) graphemeClass {
	if r >= 0xAC00 && r <= 0xD7A3 { // Hangul syllables
		if (r-0xAC00)%28 == 0 {
			return gcLV
		}
		return gcLVT
	}
	return t.blocks[t.index[r>>7]][r&127]
}

// graphemeState is what is known of a grapheme cluster up to some character.
type graphemeState struct {
	last     graphemeClass
	emoji    uint8 // 1: a pictograph and extenders, 2: and a joiner
	conjunct uint8 // 1: a consonant and extenders, 2: and a linker among them
	odd      bool  // an odd number of regional indicators
}

// breaks reports whether a new cluster begins at a character of a class.
func (s graphemeState) breaks(class graphemeClass) bool {
	switch {
	case s.last == gcCR && class == gcLF: // GB3
		return false
	case s.last == gcControl || s.last == gcCR || s.last == gcLF, // GB4
		class == gcControl || class == gcCR || class == gcLF: // GB5
		return true
	case s.last == gcL && (class == gcL || class == gcV || class == gcLV || class == gcLVT), // GB6
		(s.last == gcLV || s.last == gcV) && (class == gcV || class == gcT), // GB7
		(s.last == gcLVT || s.last == gcT) && class == gcT,                  // GB8
		class == gcExtend || class == gcZWJ,                                 // GB9
		class == gcSpacingMark, s.last == gcPrepend:                         // GB9a, GB9b
		return false
	case class == gcConsonant: // GB9c
		return s.conjunct < 2
	case class == gcPictographic: // GB11
		return s.emoji < 2
	case class == gcRegional: // GB12, GB13
		return !(s.last == gcRegional && s.odd)
	}
	return true // GB999
}

// after returns the state with one more character.
func (s graphemeState) after(r rune, class graphemeClass) graphemeState {
	next := graphemeState{last: class}
	switch class {
	case gcExtend:
		next.emoji = s.emoji & 1
		next.conjunct = s.conjunct
		switch r {
		case 0x94D, 0x9CD, 0xACD, 0xB4D, 0xC4D, 0xD4D: // InCB=Linker
			if s.conjunct > 0 {
				next.conjunct = 2
			}
		case 0x200C: // extends, but for InCB
			next.conjunct = 0
		}
	case gcZWJ:
		next.conjunct = s.conjunct
		if s.emoji == 1 {
			next.emoji = 2
		}
	case gcPictographic:
		next.emoji = 1
	case gcConsonant:
		next.conjunct = 1
	case gcRegional:
		next.odd = !(s.last == gcRegional && s.odd)
	}
	return next
}

// clusterEnd returns where the grapheme cluster that begins at start ends, given
// the state before it, and the state at its end. The text is UTF-8.
func (t *graphemeTable) clusterEnd(text []byte, start int, s graphemeState) (int, graphemeState) {
	r, n := utf8.DecodeRune(text[start:])
	s = s.after(r, t.class(r))
	end := start + n
	for end < len(text) {
		r, n := utf8.DecodeRune(text[end:])
		class := t.class(r)
		if s.breaks(class) {
			break
		}
		s = s.after(r, class)
		end += n
	}
	return end, s
}
