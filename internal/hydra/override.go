package hydra

import "strings"

// operation is what an override does to its key.
type operation int

const (
	opChange   operation = iota // key=value
	opAdd                       // +key=value
	opForceAdd                  // ++key=value
	opDelete                    // ~key, ~key=value
)

// prefix returns the sign that asks for the operation.
func (op operation) prefix() string {
	return [...]string{"", "+", "++", "~"}[op]
}

// override is a parsed command line override.
type override struct {
	op         operation
	key        string // config group or dotted path
	pkg        string
	hasPackage bool
	value      any
	hasValue   bool   // whether there is an equal sign
	line       string // as typed
}

// quotedString is a string that was quoted on the command line. The difference
// matters only when the override is written out again for a job of a sweep.
type quotedString struct {
	text  string
	quote byte
}

// plainValue returns the value without the marks of quoting.
func (o *override) plainValue() any { return dequote(o.value) }

func dequote(v any) any {
	switch v := v.(type) {
	case quotedString:
		return v.text
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = dequote(item)
		}
		return items
	case Map:
		var b mapBuilder
		for _, e := range v {
			b.set(dequote(e.Key), dequote(e.Value))
		}
		return b.build()
	}
	return v
}

// sweep returns the sweep that the value is, or nil.
func (o *override) sweep() sweep {
	s, _ := o.value.(sweep)
	return s
}

// isHydra tells overrides of Hydra's own configuration.
func (o *override) isHydra() bool {
	return strings.HasPrefix(o.key, "hydra.") || strings.HasPrefix(o.key, "hydra/")
}

// keyWithPackage returns the key as it names an entry of the defaults list.
func (o *override) keyWithPackage() string {
	if o.hasPackage {
		return o.key + "@" + o.pkg
	}
	return o.key
}

// keyElement returns everything before the equal sign.
func (o *override) keyElement() string { return o.op.prefix() + o.keyWithPackage() }

// overrideText writes a value so that parsing it as an override gives it back,
// in the form that Hydra gives the overrides of the jobs of a sweep.
func overrideText(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case quotedString:
		return v.withQuotes()
	case verbatim:
		return string(v)
	case string:
		return escapeSpecial(v)
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = overrideText(item)
		}
		return "[" + strings.Join(items, ",") + "]"
	case Map:
		items := make([]string, len(v))
		for i, e := range v {
			items[i] = overrideText(e.Key) + ":" + overrideText(e.Value)
		}
		return "{" + strings.Join(items, ",") + "}"
	}
	return pyStr(v)
}

// withQuotes returns the string as it can be typed: a quote of its kind gets a
// backslash, and backslashes before one or at the end are doubled.
func (q quotedString) withQuotes() string {
	var b strings.Builder
	b.WriteByte(q.quote)
	for i := 0; i < len(q.text); {
		run := i
		for run < len(q.text) && q.text[run] == '\\' {
			run++
		}
		backslashes := run - i
		if run == len(q.text) || q.text[run] == q.quote {
			backslashes *= 2
		}
		b.WriteString(strings.Repeat(`\`, backslashes))
		if run < len(q.text) {
			if q.text[run] == q.quote {
				b.WriteByte('\\')
			}
			b.WriteByte(q.text[run])
		}
		i = run + 1
	}
	b.WriteByte(q.quote)
	return b.String()
}

// escapeSpecial puts a backslash before the characters that would end an
// unquoted value.
func escapeSpecial(s string) string {
	const special = "\\()[]{}:=, \t"
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
