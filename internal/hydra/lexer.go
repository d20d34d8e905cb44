package hydra

import (
	"strings"
)

// A tokenKind is a terminal of the override grammar. The names are those of
// Hydra's grammar, because its error messages print them.
type tokenKind int

const (
	tokEOF tokenKind = iota
	tokEqual
	tokTilde
	tokPlus
	tokAt
	tokColon
	tokSlash
	tokID
	tokKeySpecial
	tokDotPath
	tokParenOpen
	tokComma
	tokParenClose
	tokBracketOpen
	tokBracketClose
	tokBraceOpen
	tokBraceClose
	tokFloat
	tokInt
	tokBool
	tokNull
	tokUnquotedChar
	tokEscape
	tokSpace
	tokQuoted
	tokInterpolation
)

// token is a terminal with its text, which includes the spaces that belong to
// it: commas, colons, equal signs and brackets take those around them along.
type token struct {
	kind  tokenKind
	text  string
	start int // byte offset in the override
}

// lex splits an override into tokens, ending with one of kind tokEOF. Up to the
// first '=' it is in the mode for keys, behind it in the mode for values.
func lex(s string) ([]token, *Error) {
	l := lexer{input: s}
	var tokens []token
	for l.pos < len(s) {
		kind, size := l.match()
		if size == 0 {
			return nil, lexError(s, l.pos)
		}
		tokens = append(tokens, token{kind, s[l.pos : l.pos+size], l.pos})
		l.pos += size
		if kind == tokEqual {
			l.inValue = true
		}
	}
	return append(tokens, token{kind: tokEOF, text: "<EOF>", start: len(s)}), nil
}

// lexError reports the character at offset pos that starts no token.
func lexError(s string, pos int) *Error {
	const prefix = "LexerNoViableAltException: "
	column := len(prefix) + len([]rune(s[:pos]))
	return errorf(KindOverrideParse, "%s%s\n%s^%s", prefix, s, strings.Repeat(" ", column), seeGrammar)
}

type lexer struct {
	input   string
	pos     int
	inValue bool

	// Once one search for a closing brace has failed, so will every later one;
	// remembering it keeps "${${${…" linear.
	noBrace bool
}

// match returns the token at pos: the longest one, size 0 if there is none.
func (l *lexer) match() (tokenKind, int) {
	rest := l.input[l.pos:]
	if l.inValue {
		return l.matchValue(rest)
	}
	return matchKey(rest)
}

func matchKey(s string) (tokenKind, int) {
	switch s[0] {
	case '=':
		return tokEqual, 1 + spaces(s[1:])
	case '~':
		return tokTilde, 1
	case '+':
		return tokPlus, 1
	case '@':
		return tokAt, 1
	case ':':
		return tokColon, 1
	case '/':
		return tokSlash, 1
	}
	// a.b.0: at least one dot, or it is a simple key.
	path, dots := keyPart(s), 0
	for end := path; end > 0 && end < len(s) && s[end] == '.'; {
		part := keyPart(s[end+1:])
		if part == 0 {
			break
		}
		dots++
		end += 1 + part
		path = end
	}
	switch {
	case dots > 0:
		return tokDotPath, path
	case path == 0 || isDigit(s[0]):
		return tokEOF, 0
	case identifier(s) == path:
		return tokID, path
	}
	return tokKeySpecial, path
}

// keyPart returns the length of one part of a dotted path: a name, in which $
// counts as a letter, or an index.
func keyPart(s string) int {
	n := 0
	for n < len(s) && (isLetter(s[n]) || s[n] == '_' || s[n] == '$' || n > 0 && (isDigit(s[n]) || s[n] == '-')) {
		n++
	}
	if n > 0 {
		return n
	}
	return unsignedInt(s)
}

func (l *lexer) matchValue(s string) (tokenKind, int) {
	lead := spaces(s)
	if lead < len(s) {
		// Spaces before these belong to the token.
		switch s[lead] {
		case '(':
			return tokParenOpen, lead + 1 + spaces(s[lead+1:])
		case ',':
			return tokComma, lead + 1 + spaces(s[lead+1:])
		case ':':
			return tokColon, lead + 1 + spaces(s[lead+1:])
		case '=':
			return tokEqual, lead + 1 + spaces(s[lead+1:])
		case ')':
			return tokParenClose, lead + 1
		case ']':
			return tokBracketClose, lead + 1
		case '}':
			return tokBraceClose, lead + 1
		}
	}
	if lead > 0 {
		return tokSpace, lead
	}
	switch s[0] {
	case '[':
		return tokBracketOpen, 1 + spaces(s[1:])
	case '{':
		return tokBraceOpen, 1 + spaces(s[1:])
	case '\'', '"':
		return tokQuoted, quoted(s)
	case '$':
		if n := l.interpolation(s); n > 0 {
			return tokInterpolation, n
		}
		return tokUnquotedChar, 1
	}
	return matchWord(s)
}

// interpolation returns the length of ${…} up to the first closing brace, 0 if
// there is none or nothing before it.
func (l *lexer) interpolation(s string) int {
	if l.noBrace || !strings.HasPrefix(s, "${") {
		return 0
	}
	end := strings.IndexByte(s, '}')
	if end < 0 {
		l.noBrace = true
		return 0
	}
	if end == len("${") {
		return 0
	}
	return end + 1
}

// matchWord matches the tokens that unquoted values are made of. The grammar of
// interpolations has them in common with that of overrides.
func matchWord(s string) (tokenKind, int) {
	best, size := tokEOF, 0
	// In the order of the grammar: of two matches of the same length the first wins.
	longest := func(kind tokenKind, n int) {
		if n > size {
			best, size = kind, n
		}
	}
	longest(tokFloat, floatNumber(s))
	longest(tokInt, sign(s)+unsignedInt(s[sign(s):]))
	if size == sign(s) {
		best, size = tokEOF, 0 // a sign without a number
	}
	id := identifier(s)
	switch strings.ToLower(s[:id]) {
	case "true", "false":
		longest(tokBool, id)
	case "null":
		longest(tokNull, id)
	}
	if strings.IndexByte(`/-\+.$%*@?|`, s[0]) >= 0 {
		longest(tokUnquotedChar, 1)
	}
	longest(tokID, id)
	longest(tokEscape, escapes(s))
	return best, size
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// spaces returns the length of the leading spaces and tabs.
func spaces(s string) int { return len(s) - len(strings.TrimLeft(s, " \t")) }

// identifier returns the length of the name that s starts with.
func identifier(s string) int {
	n := 0
	for n < len(s) && (isLetter(s[n]) || s[n] == '_' || n > 0 && (isDigit(s[n]) || s[n] == '-')) {
		n++
	}
	return n
}

func sign(s string) int {
	if s != "" && (s[0] == '+' || s[0] == '-') {
		return 1
	}
	return 0
}

// digits returns the length of digits with single underscores between them.
func digits(s string) int {
	n := 0
	for n < len(s) && (isDigit(s[n]) || s[n] == '_' && n > 0 && s[n-1] != '_' && n+1 < len(s) && isDigit(s[n+1])) {
		n++
	}
	return n
}

// unsignedInt returns the length of 0 or of a number that does not start with it.
func unsignedInt(s string) int {
	if s != "" && s[0] == '0' {
		return 1
	}
	return digits(s)
}

// floatNumber returns the length of a number with a point or an exponent, of
// inf or of nan, sign included.
func floatNumber(s string) int {
	start := sign(s)
	rest := s[start:]
	if len(rest) >= 3 && (strings.EqualFold(rest[:3], "inf") || strings.EqualFold(rest[:3], "nan")) {
		return start + 3
	}
	whole := unsignedInt(rest)
	n, point := whole, 0
	if n < len(rest) && rest[n] == '.' {
		fraction := digits(rest[n+1:])
		if whole+fraction > 0 {
			n += 1 + fraction
			point = n
		}
	}
	if n > 0 && n < len(rest) && (rest[n] == 'e' || rest[n] == 'E') {
		signed := sign(rest[n+1:])
		if exponent := digits(rest[n+1+signed:]); exponent > 0 {
			return start + n + 1 + signed + exponent
		}
	}
	if point == 0 {
		return 0
	}
	return start + point
}

// escapes returns the length of a run of backslashes, each followed by a
// character that has a meaning of its own.
func escapes(s string) int {
	n := 0
	for n+1 < len(s) && s[n] == '\\' && strings.IndexByte("\\()[]{}:=, \t", s[n+1]) >= 0 {
		n += 2
	}
	return n
}

// quoted returns the length of the quoted string that s starts with: up to the
// first quote of its kind with an even number of backslashes before it.
func quoted(s string) int {
	backslashes := 0
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			backslashes++
			continue
		case s[i] == s[0] && backslashes%2 == 0:
			return i + 1
		}
		backslashes = 0
	}
	return 0
}
