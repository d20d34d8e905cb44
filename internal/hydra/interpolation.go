package hydra

import (
	"strings"
)

// maxInterpolationDepth bounds the nesting of interpolations, lists, dicts and
// quotes within one string.
const maxInterpolationDepth = 100

// A template is a string with interpolations: what a string that contains ${
// parses to. Its parts are texts, backslashes and interpolations.
type template []part

type part struct {
	// inter is the interpolation; nil for text.
	inter *interpolation
	text  string
	// slashes marks text of paired backslashes. They stand for half as many if
	// an interpolation follows or a quoted string ends, else for themselves.
	slashes bool
}

// interpolation is ${path.to.node} or ${resolver:arg,…}.
type interpolation struct {
	// name holds the parts of a path, with its dots and brackets, or of the name
	// of a resolver. A part can be an interpolation itself.
	name     template
	source   string // as written
	resolver bool
	args     []expression
}

// An expression is an argument of a resolver: any plain value, or one of
// template (concatenated text), listExpression and dictExpression.
type expression any

type (
	listExpression []expression
	dictExpression []struct {
		key   any
		value expression
	}
)

// parseTemplate parses a string by the grammar of OmegaConf.
func parseTemplate(s string) (template, *Error) {
	p := interpolationParser{input: s}
	return p.text(0)
}

// parseExpression parses a string as a single argument of a resolver would be.
func parseExpression(s string) (expression, *Error) {
	p := interpolationParser{input: s}
	e, err := p.element()
	if err == nil && p.pos < len(s) {
		err = p.fail()
	}
	return e, err
}

type interpolationParser struct {
	input string
	pos   int
	start int // where the innermost open interpolation begins
	depth int
}

func (p *interpolationParser) rest() string { return p.input[p.pos:] }

// fail reports the character at pos as the one that cannot follow.
func (p *interpolationParser) fail() *Error {
	end := p.pos
	for end < len(p.input) && (end == p.pos || p.input[end]&0xC0 == 0x80) {
		end++
	}
	return errorf(KindGrammar, "no viable alternative at input '%s'", p.input[min(p.start, end):end])
}

// enter counts a level of nesting.
func (p *interpolationParser) enter() *Error {
	if p.depth++; p.depth > maxInterpolationDepth {
		return errorf(KindGrammar, "interpolation is nested deeper than %d levels", maxInterpolationDepth)
	}
	return nil
}

// text parses up to the closing quote or, for quote 0, up to the end.
func (p *interpolationParser) text(quote byte) (template, *Error) {
	var parts template
	special := `\$`
	if quote != 0 {
		special += string(quote)
	}
	for {
		rest := p.rest()
		switch {
		case rest == "" && quote == 0:
			return parts, nil
		case rest == "":
			return nil, p.fail()
		case rest[0] == quote:
			p.pos++
			return parts, nil
		case strings.HasPrefix(rest, "${"):
			inter, err := p.interpolation()
			if err != nil {
				return nil, err
			}
			parts = append(parts, part{inter: inter})
		case rest[0] == '\\':
			parts = append(parts, p.backslashes(quote))
		case rest[0] == '$':
			parts = append(parts, part{text: "$"})
			p.pos++
		default:
			end := strings.IndexAny(rest, special)
			if end < 0 {
				end = len(rest)
			}
			parts = append(parts, part{text: rest[:end]})
			p.pos += end
		}
	}
}

// backslashes parses a run of backslashes and what it escapes.
func (p *interpolationParser) backslashes(quote byte) part {
	rest := p.rest()
	n := len(rest) - len(strings.TrimLeft(rest, `\`))
	after := rest[n:]
	p.pos += n
	switch {
	case n%2 == 0:
		return part{text: rest[:n], slashes: true}
	case strings.HasPrefix(after, "${"):
		p.pos += 2
		return part{text: rest[:n/2] + "${"}
	case quote != 0 && strings.HasPrefix(after, string(quote)):
		p.pos++
		return part{text: rest[:n/2] + string(quote)}
	}
	return part{text: rest[:n]}
}

// interpolation parses ${…}.
func (p *interpolationParser) interpolation() (*interpolation, *Error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	inter := &interpolation{}
	defer func(outer int) {
		inter.source = p.input[p.start:p.pos]
		p.depth--
		p.start = outer
	}(p.start)
	p.start = p.pos
	p.pos += len("${")
	p.pos += spaces(p.rest())

	text := func(s string) {
		inter.name = append(inter.name, part{text: s})
		p.pos += len(s)
	}
	canResolve := true // no dot in front, no brackets, only names
	for strings.HasPrefix(p.rest(), ".") {
		text(".")
		canResolve = false
	}
	for first := true; ; first = false {
		rest := p.rest()
		switch {
		case !first && strings.HasPrefix(rest[spaces(rest):], "}"):
			p.pos += spaces(rest) + 1
			return inter, nil
		case !first && canResolve && strings.HasPrefix(rest[spaces(rest):], ":"):
			p.pos += spaces(rest) + 1
			p.pos += spaces(p.rest())
			inter.resolver = true
			args, err := p.sequence('}')
			inter.args = args
			return inter, err
		case strings.HasPrefix(rest, "["):
			text("[")
			if _, err := p.key(inter); err != nil {
				return nil, err
			}
			if !strings.HasPrefix(p.rest(), "]") {
				return nil, p.fail()
			}
			text("]")
			canResolve = false
			continue
		case !first && strings.HasPrefix(rest, "."):
			text(".")
		case !first:
			return nil, p.fail()
		}
		isName, err := p.key(inter)
		if err != nil {
			return nil, err
		}
		canResolve = canResolve && isName
	}
}

// key parses a part of a path and tells whether it could be part of the name of
// a resolver.
func (p *interpolationParser) key(inter *interpolation) (isName bool, err *Error) {
	rest := p.rest()
	if strings.HasPrefix(rest, "${") {
		nested, err := p.interpolation()
		if err != nil {
			return false, err
		}
		inter.name = append(inter.name, part{inter: nested})
		return true, nil
	}
	end := strings.IndexAny(rest, "\\{}()[]:. \t'\"")
	if end <= 0 {
		return false, p.fail()
	}
	inter.name = append(inter.name, part{text: rest[:end]})
	p.pos += end
	return identifier(rest) == end, nil
}

// sequence parses elements separated by commas up to the closing bracket. An
// element that is missing is an empty string.
func (p *interpolationParser) sequence(closing byte) ([]expression, *Error) {
	var elements []expression
	if p.close(closing) {
		return elements, nil
	}
	for {
		var element expression = ""
		if !p.at(',') && !p.at(closing) {
			e, err := p.element()
			if err != nil {
				return nil, err
			}
			element = e
		}
		elements = append(elements, element)
		if p.close(closing) {
			return elements, nil
		}
		if !p.comma() {
			return nil, p.fail()
		}
	}
}

// at tells whether char comes next, after spaces.
func (p *interpolationParser) at(char byte) bool {
	rest := p.rest()
	n := spaces(rest)
	return n < len(rest) && rest[n] == char
}

// close consumes a closing bracket with the spaces before it.
func (p *interpolationParser) close(closing byte) bool {
	if !p.at(closing) {
		return false
	}
	p.pos += spaces(p.rest()) + 1
	return true
}

// comma consumes a comma with the spaces around it.
func (p *interpolationParser) comma() bool {
	if !p.close(',') {
		return false
	}
	p.pos += spaces(p.rest())
	return true
}

func (p *interpolationParser) element() (expression, *Error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	rest := p.rest()
	if rest == "" {
		return nil, p.fail()
	}
	switch rest[0] {
	case '[':
		p.pos += 1 + spaces(rest[1:])
		items, err := p.sequence(']')
		return listExpression(items), err
	case '{':
		p.pos += 1 + spaces(rest[1:])
		return p.dict()
	case '\'', '"':
		p.pos++
		text, err := p.text(rest[0])
		return quotedTemplate(text), err
	}
	return p.primitive(true)
}

// quotedTemplate is a template within quotes, where backslashes at the end are
// escaped too.
type quotedTemplate template

func (p *interpolationParser) dict() (expression, *Error) {
	pairs := dictExpression{}
	if p.close('}') {
		return pairs, nil
	}
	for {
		key, err := p.primitive(false)
		if err != nil {
			return nil, err
		}
		if !p.close(':') {
			return nil, p.fail()
		}
		p.pos += spaces(p.rest())
		value, err := p.element()
		if err != nil {
			return nil, err
		}
		if text, ok := key.(template); ok {
			key = text.literal()
		}
		pairs = append(pairs, struct {
			key   any
			value expression
		}{key, value})
		if p.close('}') {
			return pairs, nil
		}
		if !p.comma() {
			return nil, p.fail()
		}
	}
}

// literal joins a template that has no interpolations.
func (t template) literal() string {
	var b strings.Builder
	for _, part := range t {
		b.WriteString(part.text)
	}
	return b.String()
}

// primitive parses an unquoted value. Inside of a value, but not of the key of
// a dict, colons and interpolations are allowed.
func (p *interpolationParser) primitive(inValue bool) (expression, *Error) {
	var parts template
	var single any // the value if it is the only token
	for p.pos < len(p.input) {
		rest := p.rest()
		lead := spaces(rest)
		if lead < len(rest) && strings.IndexByte(",]}", rest[lead]) >= 0 {
			break
		}
		if lead < len(rest) && rest[lead] == ':' {
			if !inValue {
				break
			}
			end := lead + 1 + spaces(rest[lead+1:])
			parts = append(parts, part{text: rest[:end]})
			single = rest[:end]
			p.pos += end
			continue
		}
		if lead > 0 {
			parts = append(parts, part{text: rest[:lead]})
			single = rest[:lead]
			p.pos += lead
			continue
		}
		if inValue && strings.HasPrefix(rest, "${") {
			inter, err := p.interpolation()
			if err != nil {
				return nil, err
			}
			parts = append(parts, part{inter: inter})
			continue
		}
		kind, size := matchWord(rest)
		if size == 0 {
			return nil, p.fail()
		}
		value, err := wordValue(token{kind: kind, text: rest[:size]})
		if err != nil {
			return nil, err
		}
		text := rest[:size]
		if kind == tokEscape {
			text = unescape(text)
		}
		parts = append(parts, part{text: text})
		single = value
		p.pos += size
	}
	switch {
	case len(parts) == 0:
		return nil, p.fail()
	case len(parts) == 1 && parts[0].inter == nil:
		return single, nil
	}
	return parts, nil
}
