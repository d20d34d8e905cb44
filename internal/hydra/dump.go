package hydra

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MarshalYAML returns value as a YAML document in the style of Hydra's own
// files, which is that of PyYAML: block style, indented by two, sequences not
// indented below their key, folded at 80 columns, strings quoted only where a
// reader would take them for something else, floats that stay floats (1.0e-05).
//
// It accepts nil, booleans, integers, floats, strings, []byte, [Map], slices,
// and maps with string keys, which are written in the order of their keys.
func MarshalYAML(value any) ([]byte, error) {
	value, err := normalize(value)
	if err != nil {
		return nil, err
	}
	return dump(value), nil
}

const (
	yamlWidth  = 80
	yamlIndent = 2
	// A key of this length, its tag counted, is written as "? key".
	maxSimpleKey = 128
)

// dump writes a normalized value.
func dump(value any) []byte {
	var e emitter
	e.node(value, place{indent: -yamlIndent, inline: true})
	if e.column > 0 {
		e.newline(0)
	}
	return []byte(e.out.String())
}

// place says where a node is written.
type place struct {
	indent  int  // of the container around it
	inline  bool // whether it starts on the current line: after "- ", "? " and ": " of a long key
	mapping bool // whether it is the value of a simple key
	key     bool // whether it is a simple key itself
}

// emitter writes YAML text and keeps track of the column, counted in characters.
type emitter struct {
	out    strings.Builder
	column int
}

func (e *emitter) write(s string) {
	e.out.WriteString(s)
	e.column += utf8.RuneCountInString(s)
}

func (e *emitter) newline(indent int) {
	e.out.WriteByte('\n')
	e.column = 0
	e.write(strings.Repeat(" ", max(indent, 0)))
}

func (e *emitter) node(value any, at place) {
	switch v := value.(type) {
	case Map:
		if len(v) == 0 {
			e.flow("{}", at)
			return
		}
		e.mapping(v, at)
	case []any:
		if len(v) == 0 {
			e.flow("[]", at)
			return
		}
		e.sequence(v, at)
	case posixPath:
		e.space(at)
		e.write(pathTag + "PosixPath")
		at.inline = false
		e.node(v.parts(), at)
	default:
		e.scalar(value, at)
	}
}

// flow writes a word that is never folded.
func (e *emitter) flow(word string, at place) {
	e.space(at)
	e.write(word)
}

// space separates a value from the indicator before it.
func (e *emitter) space(at place) {
	if at.indent >= 0 && !at.key {
		e.write(" ")
	}
}

func (e *emitter) mapping(m Map, at place) {
	indent := at.indent + yamlIndent
	for i, entry := range m {
		e.startItem(i, indent, at)
		if isSimpleKey(entry.Key) {
			e.scalar(entry.Key, place{indent: indent, key: true})
			e.write(":")
			e.node(entry.Value, place{indent: indent, mapping: true})
			continue
		}
		e.write("?")
		e.node(entry.Key, place{indent: indent, inline: true})
		e.newline(indent)
		e.write(":")
		e.node(entry.Value, place{indent: indent, inline: true})
	}
}

func (e *emitter) sequence(items []any, at place) {
	indent := at.indent + yamlIndent
	if at.mapping {
		indent = at.indent
	}
	for i, item := range items {
		e.startItem(i, indent, at)
		e.write("-")
		e.node(item, place{indent: indent, inline: true})
	}
}

// startItem moves to where item i of a block container begins.
func (e *emitter) startItem(i, indent int, at place) {
	switch {
	case i > 0 || !at.inline:
		e.newline(indent)
	case indent > 0:
		e.write(" ")
	}
}

// isSimpleKey tells whether a key can be followed by its colon on the same line.
func isSimpleKey(key any) bool {
	text, tag := scalarText(key)
	if text == "" || strings.ContainsAny(text, "\n\u0085\u2028\u2029") {
		return false
	}
	return utf8.RuneCountInString(text)+len(tag) < maxSimpleKey
}

// scalarText returns a scalar as plain text and its tag.
func scalarText(v any) (text, tag string) {
	switch v := v.(type) {
	case nil:
		return "null", tagNull
	case bool:
		return strconv.FormatBool(v), tagBool
	case int64:
		return strconv.FormatInt(v, 10), tagInt
	case *big.Int:
		return v.String(), tagInt
	case float64:
		return yamlFloat(v), tagFloat
	case enumValue:
		return v.name, tagStr
	case []byte:
		return base64Lines(v), tagBinary
	case string:
		return strings.ToValidUTF8(v, "\uFFFD"), tagStr
	}
	return pyStr(v), tagStr
}

// yamlFloat is Python's text of a float in YAML 1.1, where an exponent needs a
// point before it.
func yamlFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return ".nan"
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	s := floatRepr(f)
	if !strings.Contains(s, ".") {
		s = strings.Replace(s, "e", ".0e", 1)
	}
	return s
}

// base64Lines returns data in base64, in lines of 76 characters.
func base64Lines(data []byte) string {
	var b strings.Builder
	for text := base64.StdEncoding.EncodeToString(data); text != ""; {
		n := min(len(text), 76)
		b.WriteString(text[:n])
		b.WriteByte('\n')
		text = text[n:]
	}
	return b.String()
}

func (e *emitter) scalar(v any, at place) {
	text, tag := scalarText(v)
	// The continuation lines of a folded scalar are indented below the container.
	indent := max(at.indent, 0) + yamlIndent
	if tag == tagBinary {
		e.space(at)
		e.write(tag)
		if at.key || text == "" {
			e.write(" ")
			e.doubleQuoted(text, indent, !at.key)
			return
		}
		e.literal(text, indent)
		return
	}
	e.space(at)
	form := analyze(text)
	switch {
	case tag != tagStr || form.plain && !mustQuote(text):
		e.plain(text, indent, !at.key)
	case form.singleQuoted && !(at.key && form.multiline):
		e.singleQuoted(text, indent, !at.key)
	default:
		e.doubleQuoted(text, indent, !at.key)
	}
}

// mustQuote tells whether a string in plain style could be read back as
// something else, by PyYAML or by OmegaConf, or taken for a boolean or a number
// by a person.
func mustQuote(s string) bool {
	if s == "y" || s == "Y" || s == "n" || s == "N" || writeTag(s) != tagStr {
		return true
	}
	number, ok := stripUnderscores(strings.TrimFunc(asciiDigits(s), isSpace))
	return ok && isFloatText(number)
}

// analysis tells which styles can hold a string.
type analysis struct {
	multiline    bool
	plain        bool
	singleQuoted bool
}

func isBreak(r rune) bool { return r == '\n' || r == '\u0085' || r == '\u2028' || r == '\u2029' }

func isBlankOrBreak(r rune) bool {
	return r == 0 || r == ' ' || r == '\t' || r == '\r' || isBreak(r)
}

// isPrintable tells the characters that YAML lets stand for themselves.
func isPrintable(r rune) bool {
	switch {
	case r == '\n', ' ' <= r && r <= '~', r == '\u0085':
		return true
	case r == '\uFEFF':
		return false
	}
	return '\u00A0' <= r && r <= '\uD7FF' || '\uE000' <= r && r <= '\uFFFD' || '\U00010000' <= r && r < '\U0010FFFF'
}

// analyze finds the styles that preserve s.
func analyze(s string) analysis {
	if s == "" {
		return analysis{singleQuoted: true}
	}
	runes := []rune(s)
	after := func(i int) bool { return i+1 >= len(runes) || isBlankOrBreak(runes[i+1]) }

	indicators := strings.HasPrefix(s, "---") || strings.HasPrefix(s, "...")
	var breaks, special, breakSpace, spaceBreak bool
	for i, r := range runes {
		switch {
		case i == 0 && strings.ContainsRune("#,[]{}&*!|>'\"%@`", r),
			i == 0 && (r == '?' || r == '-') && after(i),
			r == ':' && after(i),
			i > 0 && r == '#' && isBlankOrBreak(runes[i-1]):
			indicators = true
		}
		if !isPrintable(r) {
			special = true
		}
		if isBreak(r) {
			breaks = true
			spaceBreak = spaceBreak || i > 0 && runes[i-1] == ' '
		}
		if r == ' ' && i > 0 && isBreak(runes[i-1]) {
			breakSpace = true
		}
	}
	first, last := runes[0], runes[len(runes)-1]
	edge := first == ' ' || last == ' ' || isBreak(first) || isBreak(last)
	return analysis{
		multiline:    breaks,
		plain:        !indicators && !breaks && !special && !edge,
		singleQuoted: !breakSpace && !spaceBreak && !special,
	}
}

// plain writes text as it is.
func (e *emitter) plain(text string, indent int, fold bool) {
	e.folded(text, indent, fold)
}

// folded writes a text without line breaks. With fold, a single space beyond
// the width becomes a line break; a longer run of spaces stays, since reading
// would make one space of it, and so does a space at either end.
func (e *emitter) folded(text string, indent int, fold bool) {
	for i := 0; i < len(text); {
		end := i
		if text[i] != ' ' {
			if end = strings.IndexByte(text[i:], ' ') + i; end < i {
				end = len(text)
			}
			e.write(text[i:end])
			i = end
			continue
		}
		for end < len(text) && text[end] == ' ' {
			end++
		}
		if fold && end == i+1 && i > 0 && end < len(text) && e.column > yamlWidth {
			e.newline(indent)
		} else {
			e.write(text[i:end])
		}
		i = end
	}
}

// singleQuoted writes text between single quotes, with quotes doubled and each
// line break followed by an empty line, because a lone break reads as a space.
func (e *emitter) singleQuoted(text string, indent int, fold bool) {
	e.write("'")
	for text != "" {
		end := strings.IndexFunc(text, isBreak)
		if end < 0 {
			end = len(text)
		}
		e.folded(strings.ReplaceAll(text[:end], "'", "''"), indent, fold)
		if text = text[end:]; text == "" {
			break
		}
		if text[0] == '\n' {
			e.newline(0)
		}
		for text != "" {
			r, size := utf8.DecodeRuneInString(text)
			if !isBreak(r) {
				break
			}
			e.out.WriteRune(r)
			text = text[size:]
		}
		e.column = 0
		e.write(strings.Repeat(" ", indent))
	}
	e.write("'")
}

// doubleQuoted writes text between double quotes. Whatever is not printable is
// escaped; a line that is too long ends in a backslash, and a space that starts
// the next one is escaped.
func (e *emitter) doubleQuoted(text string, indent int, fold bool) {
	e.write(`"`)
	runes := []rune(text)
	start := 0 // of the characters not written yet
	for end, r := range runes {
		if escape := escapeRune(r); escape != "" {
			e.write(string(runes[start:end]) + escape)
			start = end + 1
		}
		if !fold || end == 0 || end >= len(runes)-1 || r != ' ' && start < end || e.column+end-start <= yamlWidth {
			continue
		}
		if start < end {
			e.write(string(runes[start:end]))
			start = end
		}
		e.write(`\`)
		e.newline(indent)
		if runes[start] == ' ' {
			e.write(`\`)
		}
	}
	e.write(string(runes[start:]) + `"`)
}

// literal writes text, which ends in a line break, in literal style.
func (e *emitter) literal(text string, indent int) {
	e.write(" |")
	for line := range strings.Lines(text) {
		e.newline(indent)
		e.write(strings.TrimSuffix(line, "\n"))
	}
}

// escapeRune returns the escape of r within double quotes, "" if it needs none.
func escapeRune(r rune) string {
	const named = "\x000\x07a\x08b\x09t\x0An\x0Bv\x0Cf\x0Dr\x1Be\"\"\\\\\u0085N\u00A0_\u2028L\u2029P"
	if ' ' <= r && r <= '~' && r != '"' && r != '\\' ||
		'\u00A0' <= r && r <= '\uD7FF' && r != '\u2028' && r != '\u2029' ||
		'\uE000' <= r && r <= '\uFFFD' && r != '\uFEFF' {
		return ""
	}
	for rest := named; rest != ""; {
		char, size := utf8.DecodeRuneInString(rest)
		if char == r {
			return `\` + rest[size:size+1]
		}
		rest = rest[size+1:]
	}
	switch {
	case r <= 0xFF:
		return fmt.Sprintf(`\x%02X`, r)
	case r <= 0xFFFF:
		return fmt.Sprintf(`\u%04X`, r)
	}
	return fmt.Sprintf(`\U%08X`, r)
}
