package token

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// addedTokens finds tokens in a text before it is split.
type addedTokens struct {
	trie   *trie
	starts [256]bool // whether a token begins with a byte
	tokens []addedToken
}

// match is a part of a text that is one token, or has none (id noValue).
type match struct {
	start, end int
	id         int32
}

// newAddedTokens makes a finder of tokens, each by the text it has in texts. Of
// equal texts the first counts.
func newAddedTokens(tokens []addedToken, texts []string) (*addedTokens, error) {
	if len(tokens) == 0 {
		return nil, nil
	}
	a := &addedTokens{tokens: tokens}
	keys := make([]key, 0, len(tokens))
	for i := len(tokens) - 1; i >= 0; i-- {
		switch n := len(texts[i]); {
		case n == 0:
			return nil, fmt.Errorf("found the added token %q, of which normalization leaves nothing", tokens[i].Content)
		case n > maxPieceSize:
			return nil, fmt.Errorf("found an added token of %d bytes, want at most %d", n, maxPieceSize)
		}
		a.starts[texts[i][0]] = true
		keys = append(keys, key{text: texts[i], value: int32(i)})
	}
	a.trie = newTrie(keys)
	return a, nil
}

// split adds to dst the tokens in a text and the parts between them, in order.
func (a *addedTokens) split(dst []match, text []byte) []match {
	if a == nil {
		return append(dst, match{0, len(text), noValue})
	}
	done := 0    // up to where the parts go
	blanks := -1 // where the white space ends that was last looked at
	for i := 0; i < len(text); {
		if !a.starts[text[i]] {
			i++
			continue
		}
		number, n := a.trie.longest(text[i:])
		if n == 0 {
			i++
			continue
		}
		token := a.tokens[number]
		start, end := i, i+n
		i = end
		if token.SingleWord && (endsWord(text[:start]) || startsWord(text[end:])) {
			continue
		}
		if token.LStrip {
			start = skipBlanksBack(text, done, start)
		}
		if token.RStrip {
			if end > blanks {
				blanks = skipBlanks(text, end)
			}
			end = max(end, blanks)
		}
		if done < start {
			dst = append(dst, match{done, start, noValue})
		}
		dst = append(dst, match{start, end, int32(token.ID)})
		done = end
	}
	if done != len(text) {
		dst = append(dst, match{done, len(text), noValue})
	}
	return dst
}

// skipBlanks returns the end of the white space from at on.
func skipBlanks(text []byte, at int) int {
	for at < len(text) {
		r, n := utf8.DecodeRune(text[at:])
		if !unicode.IsSpace(r) {
			break
		}
		at += n
	}
	return at
}

// skipBlanksBack returns the start of the white space before at, but not less
// than least.
func skipBlanksBack(text []byte, least, at int) int {
	at = max(at, least)
	for at > least {
		r, n := utf8.DecodeLastRune(text[least:at])
		if !unicode.IsSpace(r) {
			break
		}
		at -= n
	}
	return at
}

func startsWord(text []byte) bool {
	r, n := utf8.DecodeRune(text)
	return n > 0 && isWord(r)
}

func endsWord(text []byte) bool {
	r, n := utf8.DecodeLastRune(text)
	return n > 0 && isWord(r)
}

// isWord reports whether a character is one of \w (Unicode Technical Standard 18).
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc,
		unicode.Other_Alphabetic, unicode.Join_Control)
}
