package hydra

import (
	"slices"
	"strings"
)

const seeGrammar = "\nSee https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details"

// parseOverrides parses command line overrides, in order.
func parseOverrides(lines []string) ([]*override, error) {
	overrides := make([]*override, len(lines))
	for i, line := range lines {
		o, err := parseOverride(line)
		if err != nil {
			return nil, err
		}
		overrides[i] = o
	}
	return overrides, nil
}

// parseOverride parses one override:
//
//	override: key '=' value? | '~' key ('=' value?)? | '+' '+'? key '=' value?
//	key:      group ('/' group)* ('@' package)? | path ('@' package)?
//	value:    element (',' element)*
//	element:  primitive | '[' … ']' | '{' … '}' | name '(' … ')'
func parseOverride(line string) (*override, error) {
	tokens, lexErr := lex(line)
	if lexErr != nil {
		return nil, lexErr
	}
	p := parser{line: line, tokens: tokens}
	o, err := p.override()
	if err != nil {
		err.Kind = KindOverrideParse
		err.Msg += seeGrammar
		return nil, err
	}
	return o, nil
}

type parser struct {
	line   string
	tokens []token
	pos    int
	start  int // where the element begins that a syntax error would be in
	depth  int
}

func (p *parser) kind() tokenKind { return p.tokens[p.pos].kind }

func (p *parser) accept(kind tokenKind) bool {
	if p.kind() != kind {
		return false
	}
	p.pos++
	return true
}

// next returns the kind of the token behind the current one.
func (p *parser) next() tokenKind { return p.tokens[min(p.pos+1, len(p.tokens)-1)].kind }

// What may stand in a place of the grammar, as the generated parser of Hydra
// prints it.
const (
	keyStart     = "{EQUAL, '~', '+', '@', KEY_SPECIAL, DOT_PATH, ID}"
	keyAfterPlus = "{EQUAL, '+', '@', KEY_SPECIAL, DOT_PATH, ID}"
	elementStart = "':', BRACKET_OPEN, BRACE_OPEN, FLOAT, INT, BOOL, NULL, UNQUOTED_CHAR, ID, ESC, WS, QUOTED_VALUE, INTERPOLATION}"
)

// found returns the current token as messages show it.
func (p *parser) found() string { return visible(p.tokens[p.pos].text) }

// visible escapes the characters that would break a message.
func visible(s string) string { return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(s) }

// unexpected reports the current token where one of expected must stand. A
// token that is only one too many is called extraneous.
func (p *parser) unexpected(description string, expected ...tokenKind) *Error {
	found := p.found()
	if slices.Contains(expected, p.next()) && p.kind() != tokEOF {
		return p.failure("extraneous input '%s' expecting %s", found, description)
	}
	return errorf(KindOverrideParse, "mismatched input '%s' expecting %s", found, description)
}

// noViable reports that the element that begins at p.start cannot continue with
// the current token.
func (p *parser) noViable() *Error {
	var text strings.Builder
	for _, t := range p.tokens[p.start : p.pos+1] {
		if t.kind != tokEOF {
			text.WriteString(t.text)
		}
	}
	return errorf(KindOverrideParse, "no viable alternative at input '%s'", visible(text.String()))
}

// failure reports an error together with the override it is in.
func (p *parser) failure(format string, args ...any) *Error {
	e := errorf(KindOverrideParse, format, args...)
	e.Msg = "Error parsing override '" + p.line + "'\n" + e.Msg
	return e
}

func (p *parser) override() (*override, *Error) {
	o := &override{line: p.line}
	description := keyStart
	switch {
	case p.accept(tokTilde):
		o.op = opDelete
		description = keyAfterPlus
	case p.accept(tokPlus):
		o.op = opAdd
		description = keyAfterPlus
		if p.accept(tokPlus) {
			o.op = opForceAdd
		}
	}
	if p.start = p.pos; p.kind() == tokPlus {
		return nil, p.noViable()
	}
	if err := p.key(o, description); err != nil {
		return nil, err
	}
	if o.op == opDelete && p.kind() == tokEOF {
		return o, nil
	}
	switch {
	case p.accept(tokEqual):
	case o.op == opDelete:
		return nil, p.unexpected("{<EOF>, EQUAL}", tokEqual, tokEOF)
	case p.next() != tokEqual && (p.kind() == tokEOF || startsElement(p.kind())):
		return nil, p.failure("missing EQUAL at '%s'", p.found())
	default:
		return nil, p.unexpected("EQUAL", tokEqual)
	}
	o.hasValue = true
	if p.kind() == tokEOF {
		o.value = ""
		return o, nil
	}
	value, err := p.value()
	if err != nil {
		return nil, err
	}
	evaluated, err := evaluate(value)
	if err != nil {
		failure := p.failure("%s", err.Msg)
		failure.Cause = err.Cause
		return nil, failure
	}
	o.value = evaluated
	return o, nil
}

// key parses the key and the package. Either may be empty: it is Hydra's word
// for the root.
func (p *parser) key(o *override, description string) *Error {
	switch p.kind() {
	case tokID:
		var key strings.Builder
		key.WriteString(p.tokens[p.pos].text)
		p.pos++
		for p.accept(tokSlash) {
			if p.kind() != tokID {
				if p.kind() == tokEqual && p.next() != tokID {
					return p.failure("missing ID at '%s'", p.found())
				}
				return p.unexpected("ID", tokID)
			}
			key.WriteString("/" + p.tokens[p.pos].text)
			p.pos++
		}
		o.key = key.String()
	case tokKeySpecial, tokDotPath:
		o.key = p.tokens[p.pos].text
		p.pos++
	case tokEqual, tokAt:
	case tokEOF:
		if o.op != opDelete {
			return p.unexpected(description)
		}
	default:
		return p.unexpected(description, tokEqual, tokPlus, tokAt, tokKeySpecial, tokDotPath, tokID)
	}
	if !p.accept(tokAt) {
		return nil
	}
	o.hasPackage = true
	switch p.kind() {
	case tokID, tokKeySpecial, tokDotPath:
		o.pkg = p.tokens[p.pos].text
		p.pos++
	case tokEqual, tokEOF:
	default:
		p.start = p.pos
		return p.noViable()
	}
	return nil
}

// startsElement tells the tokens that a value can begin with.
func startsElement(kind tokenKind) bool {
	switch kind {
	case tokBracketOpen, tokBraceOpen, tokQuoted, tokInterpolation, tokColon:
		return true
	}
	return isWord(kind)
}

// isWord tells the tokens that an unquoted value and the key of a dict can be
// made of.
func isWord(kind tokenKind) bool {
	switch kind {
	case tokID, tokNull, tokInt, tokFloat, tokBool, tokUnquotedChar, tokEscape, tokSpace:
		return true
	}
	return false
}

// The syntax tree of a value consists of values, of []any and of these.
type (
	// dictSyntax keeps the pairs of a dict apart, since keys may repeat.
	dictSyntax []Entry
	// callSyntax is a call of a function, not evaluated yet.
	callSyntax struct {
		name string
		args []argSyntax
		text string
	}
	argSyntax struct {
		name  string // "" for a positional argument
		value any
	}
)

// value parses what follows the equal sign up to the end.
func (p *parser) value() (any, *Error) {
	if !startsElement(p.kind()) {
		if startsElement(p.next()) || p.next() == tokEOF {
			return nil, p.failure("extraneous input '%s' expecting {<EOF>, %s", p.found(), elementStart)
		}
		return nil, p.unexpected("{<EOF>, " + elementStart)
	}
	var elements []any
	for {
		if !startsElement(p.kind()) {
			if startsElement(p.next()) && p.kind() != tokEOF {
				return nil, p.failure("extraneous input '%s' expecting {%s", p.found(), elementStart)
			}
			return nil, p.unexpected("{" + elementStart)
		}
		p.start = p.pos
		element, err := p.element()
		if err != nil {
			return nil, err
		}
		elements = append(elements, element)
		if !p.accept(tokComma) {
			break
		}
	}
	if p.kind() != tokEOF {
		return nil, p.unexpected("<EOF>", tokEOF)
	}
	if len(elements) > 1 {
		return &choiceSweep{items: elements, simple: true}, nil
	}
	return elements[0], nil
}

func (p *parser) element() (any, *Error) {
	if p.depth++; p.depth > maxTreeDepth {
		return nil, p.failure("value is nested deeper than %d levels", maxTreeDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.kind() == tokBracketOpen:
		return p.list()
	case p.kind() == tokBraceOpen:
		return p.dict()
	case p.kind() == tokID && p.next() == tokParenOpen:
		return p.call()
	case p.kind() == tokQuoted:
		p.pos++
		return unquote(p.tokens[p.pos-1].text), nil
	}
	return p.primitive(func(kind tokenKind) bool {
		return isWord(kind) || kind == tokColon || kind == tokInterpolation
	})
}

func (p *parser) list() (any, *Error) {
	p.pos++
	items := []any{}
	if p.accept(tokBracketClose) {
		return items, nil
	}
	for {
		item, err := p.element()
		if err != nil {
			return nil, err
		}
		items = append(items, item)
		if p.accept(tokBracketClose) {
			return items, nil
		}
		if !p.accept(tokComma) {
			return nil, p.noViable()
		}
	}
}

func (p *parser) dict() (any, *Error) {
	p.pos++
	pairs := dictSyntax{}
	if p.accept(tokBraceClose) {
		return pairs, nil
	}
	for {
		key, err := p.primitive(isWord)
		if err != nil {
			return nil, err
		}
		if !p.accept(tokColon) {
			return nil, p.noViable()
		}
		value, err := p.element()
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, Entry{key, value})
		if p.accept(tokBraceClose) {
			return pairs, nil
		}
		if !p.accept(tokComma) {
			return nil, p.noViable()
		}
	}
}

func (p *parser) call() (any, *Error) {
	first := p.tokens[p.pos]
	call := &callSyntax{name: first.text}
	p.pos += 2
	for !p.accept(tokParenClose) {
		if len(call.args) > 0 && !p.accept(tokComma) {
			return nil, p.noViable()
		}
		var arg argSyntax
		if p.kind() == tokID && p.next() == tokEqual {
			arg.name = p.tokens[p.pos].text
			p.pos += 2
		}
		value, err := p.element()
		if err != nil {
			return nil, err
		}
		arg.value = value
		call.args = append(call.args, arg)
	}
	last := p.tokens[p.pos-1]
	call.text = p.line[first.start : last.start+len(last.text)]
	return call, nil
}

// primitive parses an unquoted value. A single token has the type it looks
// like; several are a string. Spaces around it do not count.
func (p *parser) primitive(allowed func(tokenKind) bool) (any, *Error) {
	first := p.pos
	for allowed(p.kind()) {
		p.pos++
	}
	tokens := p.tokens[first:p.pos]
	if len(tokens) == 0 {
		return nil, p.noViable()
	}
	if tokens[0].kind == tokSpace {
		if len(tokens) == 1 {
			return nil, p.failure("Trying to parse a primitive that is all whitespaces")
		}
		tokens = tokens[1:]
	}
	if tokens[len(tokens)-1].kind == tokSpace {
		tokens = tokens[:len(tokens)-1]
	}
	if len(tokens) == 1 {
		value, err := wordValue(tokens[0])
		if err != nil {
			return nil, p.failure("%s", err.Msg)
		}
		return value, nil
	}
	var text strings.Builder
	for _, t := range tokens {
		if t.kind == tokEscape {
			text.WriteString(unescape(t.text))
		} else {
			text.WriteString(t.text)
		}
	}
	return text.String(), nil
}

// wordValue returns the value of a token that stands alone.
func wordValue(t token) (any, *Error) {
	switch t.kind {
	case tokNull:
		return nil, nil
	case tokBool:
		return strings.EqualFold(t.text, "true"), nil
	case tokInt:
		return parseInt(t.text)
	case tokFloat:
		f, err := parseFloat(t.text)
		if err != nil {
			return nil, err
		}
		return f, nil
	case tokEscape:
		return unescape(t.text), nil
	}
	return t.text, nil
}

// unescape drops the backslash before every character of an escape token.
func unescape(s string) string {
	b := make([]byte, 0, len(s)/2)
	for i := 1; i < len(s); i += 2 {
		b = append(b, s[i])
	}
	return string(b)
}

// unquote returns the text of a quoted value. Backslashes have a meaning only
// in front of a quote of its kind and of the closing one, where two stand for
// one.
func unquote(s string) quotedString {
	quote := s[0]
	s = s[1:]
	var text strings.Builder
	for i := 0; i < len(s); {
		run := i
		for run < len(s) && s[run] == '\\' {
			run++
		}
		backslashes := run - i
		if run < len(s) && s[run] == quote {
			backslashes /= 2
		}
		text.WriteString(strings.Repeat(`\`, backslashes))
		if run < len(s)-1 { // all but the closing quote
			text.WriteByte(s[run])
		}
		i = run + 1
	}
	return quotedString{text.String(), quote}
}
