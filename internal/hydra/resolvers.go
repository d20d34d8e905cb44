package hydra

import (
	"strings"

	"github.com/ncruces/go-strftime"
)

// resolver calls the resolver of ${name:args}, which stands at n.
func (r *resolution) resolver(name string, args []any, n *node) (any, error) {
	// arity checks the number of arguments like a Python call.
	arity := func(least, most int, params ...string) error {
		switch {
		case len(args) < least:
			return errorf(KindType, "%s() missing %d required positional argument: '%s'", lastPart(name), least-len(args), params[len(args)])
		case len(args) <= most:
			return nil
		case least < most:
			return errorf(KindType, "%s() takes from %d to %d positional arguments but %d were given", lastPart(name), least, most, len(args))
		}
		return errorf(KindType, "%s() takes %d positional argument but %d were given", lastPart(name), most, len(args))
	}
	// key returns the first argument, which must be a string.
	key := func() (string, error) {
		s, ok := args[0].(string)
		if !ok {
			return "", errorf(KindType, "`%s` requires a string as input, but obtained `%s` of type: %s", name, r.string(args[0]), pyType(plainOf(args[0])))
		}
		return s, nil
	}
	var err error
	switch name {
	case "oc.env":
		if err = arity(1, 2, "key"); err != nil {
			return nil, err
		}
		variable, ok := args[0].(string)
		if !ok {
			return nil, errorf(KindType, "str expected, not %s", pyType(plainOf(args[0])))
		}
		if value, ok := r.env.lookupEnv(variable); ok {
			return value, nil
		}
		switch {
		case len(args) == 1:
			// The message is the repr of its text, as that of every KeyError.
			return nil, errorf(KindLookup, "%s", strRepr("Environment variable '"+variable+"' not found"))
		case args[1] == nil:
			return nil, nil
		}
		return r.string(args[1]), nil

	case "oc.decode":
		if err = arity(1, 1, "expr"); err != nil {
			return nil, err
		}
		if args[0] == nil {
			return nil, nil
		}
		text, ok := args[0].(string)
		if !ok {
			return nil, errorf(KindType, "`oc.decode` can only take strings or None as input, but `%s` is of type %s",
				r.string(args[0]), pyType(plainOf(args[0])))
		}
		e, parseErr := parseExpression(text)
		if parseErr != nil {
			return nil, parseErr
		}
		return r.expression(e, n)

	case "oc.create":
		if err = arity(1, 1, "obj"); err != nil {
			return nil, err
		}
		return r.create(args[0], n)

	case "oc.select":
		if err = arity(1, 2, "key"); err != nil {
			return nil, err
		}
		path, err := key()
		if err != nil {
			return nil, err
		}
		value, found, err := r.selectFrom(n.parent, path, false)
		if err != nil {
			return nil, err
		}
		if found && !isMissing(value) {
			return value, nil
		}
		if len(args) == 2 {
			return args[1], nil
		}
		return nil, nil

	case "oc.dict.keys", "oc.dict.values":
		if err = arity(1, 1, "key"); err != nil {
			return nil, err
		}
		path, err := key()
		if err != nil {
			return nil, err
		}
		return r.dictItems(name, path, n)

	case "oc.deprecated":
		if err = arity(1, 2, "key"); err != nil {
			return nil, err
		}
		path, err := key()
		if err != nil {
			return nil, err
		}
		return r.deprecated(path, args[1:], n)

	case "now":
		if err = arity(1, 1, "pattern"); err != nil {
			return nil, err
		}
		pattern, err := key()
		if err != nil {
			return nil, err
		}
		return strftime.Format(pattern, r.env.now), nil

	case "hydra":
		if err = arity(1, 1, "path"); err != nil {
			return nil, err
		}
		path, err := key()
		if err != nil {
			return nil, err
		}
		if r.env.hydra == nil {
			return nil, errorf(KindValue, "HydraConfig was not set")
		}
		value, found, err := r.selectFrom(r.env.hydra, "."+path, false)
		if err != nil || !found || isMissing(value) {
			return nil, err
		}
		return value, nil
	}
	return nil, errorf(KindUnsupportedInterpolation, "Unsupported interpolation type %s", name)
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// selectFrom follows a path as a resolver sees it from the container from. What
// lies below a scalar is not found.
func (r *resolution) selectFrom(from *node, path string, strict bool) (any, bool, error) {
	root, key, err := from.anchor(path)
	if err != nil {
		return nil, false, err
	}
	value, found, findErr := r.find(root, key, strict)
	if findErr != nil && asError(findErr).Kind == KindConfigType {
		return nil, false, nil
	}
	return value, found, findErr
}

// create returns a container whose interpolations are resolved as if it stood
// at n.
func (r *resolution) create(value any, n *node) (any, error) {
	switch v := plainOf(value).(type) {
	case Map, []any:
		value = v
	case nil:
		return nil, nil
	case string:
		document, err := readConfig("oc.create", []byte(v))
		if err != nil {
			return nil, err
		}
		value = document
	default:
		return nil, errorf(KindValidation, "Object of unsupported type: '%s'", pyType(value))
	}
	c, err := newTree(value)
	if err != nil {
		return nil, err
	}
	c.parent, c.key = n.parent, n.key
	return c, nil
}

// dictItems returns the keys or the values of a mapping.
func (r *resolution) dictItems(name, path string, n *node) (any, error) {
	value, found, err := r.selectFrom(n.parent, path, true)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errorf(KindKey, "Key not found: '%s'", path)
	}
	m, ok := value.(*node)
	if !ok || m.kind != mappingNode {
		return nil, errorf(KindType, "`%s` cannot be applied to objects of type: %s", name, containerType(value))
	}
	if name == "oc.dict.keys" {
		keys := make([]any, len(m.fields))
		for i, c := range m.fields {
			keys[i] = c.key
		}
		return keys, nil
	}
	// The values are references, resolved when they are read. They stand one
	// level deeper than the resolver, hence the dot.
	if strings.HasPrefix(path, ".") {
		path = "." + path
	}
	values := &node{parent: n.parent, kind: sequenceNode, declared: &schema{kind: listSchema, optional: true}}
	for i, c := range m.fields {
		values.append(i, &node{scalar: "${" + path + "." + pyStr(c.key) + "}"})
	}
	return values, nil
}

func containerType(v any) string {
	if c, ok := v.(*node); ok && c.kind == sequenceNode {
		return "ListConfig"
	}
	return pyType(plainOf(v))
}

// deprecated returns what lies at path, with a warning that names both keys.
func (r *resolution) deprecated(path string, message []any, n *node) (any, error) {
	value, found, err := r.selectFrom(n.parent, path, false)
	if err != nil {
		return nil, err
	}
	old := n.fullKey()
	if !found {
		return nil, errorf(KindKey, "In oc.deprecated resolver at '%s': Key not found: '%s'", old, path)
	}
	text := "'$OLD_KEY' is deprecated. Change your code and config to use '$NEW_KEY'"
	if len(message) > 0 {
		s, ok := message[0].(string)
		if !ok {
			return nil, errorf(KindType, "oc.deprecated: interpolation message type is not a string (%s)", pyType(message[0]))
		}
		text = s
	}
	if r.env.warn != nil {
		r.env.warn(strings.NewReplacer("$OLD_KEY", old, "$NEW_KEY", strings.TrimLeft(path, ".")).Replace(text))
	}
	return value, nil
}
