package hydra

import (
	"strings"
	"time"
)

// Limits on one reading of the configuration, against interpolations that refer
// to themselves in a way that reading does not detect or that multiply each
// other. No configuration is nested as deeply as maxValueDepth.
const (
	maxResolveSteps = 1 << 20
	maxResolveDepth = 200
	maxValueDepth   = 5 * maxTreeDepth
	maxResolvedText = 1 << 24
)

// environment is what interpolations see besides the configuration.
type environment struct {
	lookupEnv func(string) (string, bool)
	now       time.Time // of ${now:…}, the same for the whole run
	hydra     *node     // for ${hydra:…}
	warn      func(string)
}

// container returns the container that an interpolation refers to, or nil if it
// fails or is something else.
func (env *environment) container(n *node) *node {
	target, err := (&resolution{env: env}).dereference(n)
	if err != nil {
		return nil
	}
	c, _ := target.(*node)
	if c == nil || !c.isContainer() {
		return nil
	}
	return c
}

// resolution is one reading of a configuration.
type resolution struct {
	env *environment
	// lenient lets an interpolation of a missing value be missing itself.
	lenient bool
	// reading holds the nodes whose interpolations are being resolved.
	reading map[*node]bool
	depth   int // of interpolations within interpolations
	level   int // of containers within containers
	steps   int
}

// step counts work against the limits.
func (r *resolution) step() *Error {
	if r.steps++; r.steps > maxResolveSteps {
		return errorf(KindInterpolation, "resolving takes more than %d steps", maxResolveSteps)
	}
	return nil
}

// value returns the value of the subtree of n with all interpolations resolved.
func (r *resolution) value(n *node) (any, error) {
	// An interpolation that leads to a container around it recurs for ever.
	if r.level++; r.level > maxValueDepth {
		return nil, n.blame(errorf(KindInterpolation, "Recursive interpolation detected"))
	}
	defer func() { r.level-- }()
	if err := r.step(); err != nil {
		return nil, n.blame(err)
	}
	if n.isInterpolation() {
		target, err := r.dereference(n)
		if err != nil {
			if r.lenient && asError(err).Kind == KindInterpolationMissing {
				return missing, nil
			}
			return nil, n.blame(err)
		}
		c, isNode := target.(*node)
		if !isNode {
			return target, nil
		}
		n = c
	}
	if value, ok := n.special(); ok || n.kind == scalarNode {
		return value, nil
	}
	if n.kind == sequenceNode {
		items := make([]any, len(n.items))
		for i, c := range n.items {
			value, err := r.value(c)
			if err != nil {
				return nil, err
			}
			items[i] = value
		}
		return items, nil
	}
	m := make(Map, len(n.fields))
	for i, c := range n.fields {
		value, err := r.value(c)
		if err != nil {
			return nil, err
		}
		m[i] = Entry{c.key, value}
	}
	return m, nil
}

// dereference resolves the interpolation of n, if it has one. The result is a
// container of the tree as a *node, or a value.
func (r *resolution) dereference(n *node) (any, error) {
	if !n.isInterpolation() {
		return n.content(), nil
	}
	if n.parent == nil {
		return nil, errorf(KindInterpolation, "Cannot resolve interpolation for a node without a parent")
	}
	text, _ := n.scalar.(string)
	t, parseErr := parseTemplate(text)
	if parseErr != nil {
		return nil, parseErr
	}
	resolved, err := r.template(t, n)
	if err != nil {
		return nil, asInterpolationError(err)
	}
	if n.declared == nil || n.declared.isContainer() {
		return resolved, nil
	}
	value := resolved
	if c, ok := resolved.(*node); ok {
		value = c.plain()
	}
	converted, convertErr := n.declared.convert(value)
	if convertErr != nil {
		convertErr.Kind = KindInterpolationValidation
		convertErr.Msg = "While dereferencing interpolation '" + text + "': " + convertErr.Msg
		return nil, n.parent.locate(convertErr, n.key)
	}
	return converted, nil
}

// asInterpolationError wraps an error that is not one of interpolation in one.
func asInterpolationError(err error) error {
	e := asError(err)
	if e.Kind.isInterpolation() {
		return e
	}
	return errorf(KindInterpolation, "%s raised while resolving interpolation: %s", e.Kind, e.Error())
}

// content returns n itself if it is a container, else its value.
func (n *node) content() any {
	if value, ok := n.special(); ok || n.kind == scalarNode {
		return value
	}
	return n
}

// template resolves a template that stands at n. A lone interpolation keeps its
// type, anything else becomes text.
func (r *resolution) template(t template, n *node) (any, error) {
	if len(t) == 1 && t[0].inter != nil {
		return r.interpolation(t[0].inter, n)
	}
	return r.text(t, n, false)
}

// text joins the parts of a template. Backslashes in pairs escape each other
// before an interpolation and, if quoted, at the end.
func (r *resolution) text(t template, n *node, quoted bool) (string, error) {
	var b strings.Builder
	for i, p := range t {
		text := p.text
		if p.slashes {
			last := i+1 == len(t)
			if last && quoted || !last && t[i+1].inter != nil {
				text = text[:len(text)/2]
			}
		}
		if p.inter != nil {
			value, err := r.interpolation(p.inter, n)
			if err != nil {
				return "", err
			}
			text = r.string(value)
		}
		if b.Len()+len(text) > maxResolvedText {
			return "", errorf(KindInterpolation, "interpolated text is longer than %d bytes", maxResolvedText)
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func (r *resolution) string(value any) string {
	if c, ok := value.(*node); ok {
		value = c.plain()
	}
	return pyStr(value)
}

// interpolation resolves ${…} at n.
func (r *resolution) interpolation(inter *interpolation, n *node) (any, error) {
	if err := r.step(); err != nil {
		return nil, err
	}
	if r.depth++; r.depth > maxResolveDepth {
		return nil, errorf(KindInterpolation, "Recursive interpolation detected")
	}
	defer func() { r.depth-- }()
	var name strings.Builder
	for _, p := range inter.name {
		if p.inter == nil {
			name.WriteString(p.text)
			continue
		}
		value, err := r.interpolation(p.inter, n)
		if err != nil {
			return nil, err
		}
		s, ok := value.(string)
		if !ok {
			return nil, errorf(KindInterpolation, "The following interpolation is used to denote a config key and thus should return "+
				"a string, but instead returned `%s` of type `<class '%s'>`: %s", r.string(value), pyType(plainOf(value)), p.inter.source)
		}
		name.WriteString(s)
	}
	if !inter.resolver {
		return r.reference(name.String(), n.parent)
	}
	args := make([]any, len(inter.args))
	for i, arg := range inter.args {
		value, err := r.expression(arg, n)
		if err != nil {
			return nil, err
		}
		args[i] = value
	}
	return r.resolver(name.String(), args, n)
}

// expression evaluates an argument of a resolver.
func (r *resolution) expression(e expression, n *node) (any, error) {
	switch e := e.(type) {
	case template:
		return r.template(e, n)
	case quotedTemplate:
		if len(e) == 1 && e[0].inter != nil {
			value, err := r.interpolation(e[0].inter, n)
			if err != nil {
				return nil, err
			}
			return r.string(value), nil
		}
		return r.text(template(e), n, true)
	case listExpression:
		items := make([]any, len(e))
		for i, item := range e {
			value, err := r.expression(item, n)
			if err != nil {
				return nil, err
			}
			items[i] = plainOf(value)
		}
		return items, nil
	case dictExpression:
		var b mapBuilder
		for _, pair := range e {
			value, err := r.expression(pair.value, n)
			if err != nil {
				return nil, err
			}
			b.set(pair.key, plainOf(value))
		}
		return b.build(), nil
	}
	return e, nil
}

// plainOf returns the plain value of a container of the tree; other values as
// they are.
func plainOf(v any) any {
	if c, ok := v.(*node); ok {
		return c.plain()
	}
	return v
}

// reference resolves ${path} in the container from. A path that starts with a
// dot is relative to it, one with more dots to the containers around it.
func (r *resolution) reference(path string, from *node) (any, error) {
	root, key, err := from.anchor(path)
	if err != nil {
		return nil, errorf(KindInterpolationKey, "ConfigKeyError while resolving interpolation: %s", err.Msg)
	}
	target, found, selectErr := r.find(root, key, true)
	switch {
	case selectErr != nil && asError(selectErr).Kind == KindMissingValue:
		return nil, errorf(KindInterpolationMissing, "MissingMandatoryValue while resolving interpolation: %s", asError(selectErr).Msg)
	case selectErr != nil:
		return nil, asInterpolationError(selectErr)
	case !found:
		return nil, errorf(KindInterpolationKey, "Interpolation key '%s' not found", key)
	}
	for n := from; n != nil; n = n.parent {
		if n == target {
			return nil, errorf(KindInterpolation, "Interpolation to parent node detected")
		}
	}
	return target, nil
}

// anchor returns the container that a path starts from and the path without its
// leading dots.
func (n *node) anchor(path string) (*node, string, *Error) {
	if !strings.HasPrefix(path, ".") {
		return n.root(), path, nil
	}
	at, rest := n, path[1:]
	for strings.HasPrefix(rest, ".") {
		at, rest = at.parent, rest[1:]
		if at == nil {
			return nil, "", errorf(KindKey, "Error resolving key '%s'", path)
		}
	}
	return at, rest, nil
}

// find follows a path from root and resolves what lies there. With strict, a
// missing value on the way is an error.
func (r *resolution) find(root *node, path string, strict bool) (target any, found bool, err error) {
	if path == "" {
		return root, true, nil
	}
	parts := splitKey(path)
	at := root
	for i, part := range parts {
		child, key, err := at.step(part)
		if err != nil {
			return nil, false, err
		}
		if child == nil {
			return nil, false, nil
		}
		if child.isMissing() {
			if strict {
				return nil, false, errorf(KindMissingValue, "Missing mandatory value: %s", at.fullKeyOf(key))
			}
			if i == len(parts)-1 {
				return missing, true, nil
			}
		}
		value, err := r.read(child)
		if err != nil {
			return nil, false, err
		}
		if i == len(parts)-1 {
			return value, true, nil
		}
		next, ok := value.(*node)
		if !ok {
			return nil, false, errorf(KindConfigType, "Error trying to access %s: node `%s` is not a container and thus cannot contain `%s`",
				path, strings.Join(parts[:i+1], "."), parts[i+1])
		}
		at = next
	}
	return nil, false, nil
}

// read dereferences n and detects when that is already under way.
func (r *resolution) read(n *node) (any, error) {
	if !n.isInterpolation() {
		return n.content(), nil
	}
	if r.reading[n] {
		return nil, errorf(KindInterpolation, "Recursive interpolation detected")
	}
	if r.reading == nil {
		r.reading = make(map[*node]bool)
	}
	r.reading[n] = true
	defer delete(r.reading, n)
	return r.dereference(n)
}
