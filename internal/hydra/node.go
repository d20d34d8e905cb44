package hydra

import (
	"slices"
	"strconv"
)

// A node of the configuration tree is a scalar, a mapping or a sequence.
//
// A scalar may be null, "???" (a value still to be given) or a string with
// interpolations; these are resolved only when they are read. The same three can
// also stand in the place of a typed container.
type node struct {
	parent *node
	key    any // in the parent: a key of the mapping or the int index; nil for a root
	kind   nodeKind

	scalar any // the value of a scalar; of a container what stands in its place
	absent bool
	fields []*node // of a mapping, in order
	index  map[any]*node
	items  []*node // of a sequence

	// declared is the type of the place that the node fills, object that of the
	// mapping which fills it. Both are nil for untyped nodes.
	declared, object *schema
	// closed says whether unknown keys of the subtree are refused; nil leaves it
	// to the parent.
	closed *bool
}

type nodeKind int

const (
	scalarNode nodeKind = iota
	mappingNode
	sequenceNode
)

// newTree returns the tree of a value without a declared type.
func newTree(value any) (*node, error) {
	n := &node{}
	if err := n.assign(value); err != nil {
		return nil, err
	}
	return n, nil
}

// newTyped returns a tree of the given type with its defaults.
func newTyped(s *schema) (*node, error) {
	n := &node{kind: mappingNode, index: map[any]*node{}, object: s}
	for _, f := range s.fields {
		if _, err := n.add(f.name, f.value, f.schema); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *node) isContainer() bool { return n.kind != scalarNode }

// special returns what stands in the place of a value: null, "???" or an
// interpolation.
func (n *node) special() (any, bool) {
	if n.kind == scalarNode {
		return n.scalar, n.scalar == nil || isMissing(n.scalar) || isInterpolation(n.scalar)
	}
	return n.scalar, n.absent
}

func (n *node) isMissing() bool {
	value, ok := n.special()
	return ok && isMissing(value)
}

func (n *node) isNull() bool {
	value, ok := n.special()
	return ok && value == nil
}

func (n *node) isInterpolation() bool {
	value, ok := n.special()
	return ok && isInterpolation(value)
}

func (n *node) root() *node {
	for n.parent != nil {
		n = n.parent
	}
	return n
}

// isClosed tells whether unknown keys are refused.
func (n *node) isClosed() bool {
	for ; n != nil; n = n.parent {
		if n.closed != nil {
			return *n.closed
		}
	}
	return false
}

// withClosed runs do while the subtree of n is closed or open.
func (n *node) withClosed(closed bool, do func() error) error {
	defer func(old *bool) { n.closed = old }(n.closed)
	n.closed = &closed
	return do()
}

// elementSchema is the type of new children.
func (n *node) elementSchema() *schema {
	if n.declared != nil {
		return n.declared.element
	}
	return nil
}

// child returns the child of a mapping under key, or nil.
func (n *node) child(key any) *node { return n.index[keyID(key)] }

// lookup is child for writing: an unknown key of a closed or typed mapping is
// an error, and so is an index beyond the sequence.
func (n *node) lookup(key any) (*node, error) {
	if n.kind == sequenceNode {
		i, ok := key.(int)
		if !ok {
			return nil, n.fail(KindKeyValidation, key, "ListConfig indices must be integers or slices, not %s", pyType(key))
		}
		if i < -len(n.items) || i >= len(n.items) {
			return nil, n.fail(KindIndex, key, "list index out of range")
		}
		if i < 0 {
			i += len(n.items)
		}
		return n.items[i], nil
	}
	if c := n.child(key); c != nil {
		return c, nil
	}
	switch {
	case n.object != nil && (n.closed == nil || *n.closed):
		return nil, n.fail(KindAttribute, key, "Key '%s' not in '%s'", pyStr(key), n.object.name)
	case n.object == nil && n.isClosed():
		return nil, n.fail(KindAttribute, key, "Key '%s' is not in struct", pyStr(key))
	}
	return nil, nil
}

// append adds a child without any check.
func (n *node) append(key any, c *node) {
	c.parent, c.key = n, key
	if n.kind == sequenceNode {
		n.items = append(n.items, c)
		return
	}
	n.index[keyID(key)] = c
	n.fields = append(n.fields, c)
}

// add adds a child of the given type to a container, or sets the one that a
// repeated key has.
func (n *node) add(key, value any, s *schema) (*node, error) {
	if n.kind == mappingNode {
		if err := n.checkKey(key); err != nil {
			return nil, err
		}
		if c := n.child(key); c != nil {
			return c, c.assign(value)
		}
	}
	c := &node{parent: n, key: key, declared: s}
	if err := c.assign(value); err != nil {
		return nil, n.locate(err, key)
	}
	n.append(key, c)
	return c, nil
}

// checkKey reports a key that a mapping cannot have.
func (n *node) checkKey(key any) error {
	switch key.(type) {
	case nil, posixPath:
		return n.fail(KindKeyValidation, nil, "Incompatible key type '%s'", pyType(key))
	}
	if _, isString := key.(string); !isString && n.declared != nil && n.declared.kind == dictSchema {
		return n.fail(KindKeyValidation, key, "Key %s (%s) is incompatible with (str)", pyStr(key), pyType(key))
	}
	return nil
}

// remove deletes a child of a mapping.
func (n *node) remove(c *node) {
	delete(n.index, keyID(c.key))
	n.fields = slices.DeleteFunc(n.fields, func(f *node) bool { return f == c })
}

// children returns the children of a container in order.
func (n *node) children() []*node {
	switch {
	case n.absent:
		return nil
	case n.kind == sequenceNode:
		return n.items
	}
	return n.fields
}

// assign gives a node a value of its type, which replaces everything it had.
// The error, if any, is located by the caller.
func (n *node) assign(value any) error {
	if value == nil || isMissing(value) || isInterpolation(value) {
		return n.assignSpecial(value)
	}
	switch {
	case n.declared == nil:
		return n.assignAny(value)
	case n.declared.isContainer():
		return n.assignContainer(value)
	}
	converted, err := n.declared.convert(value)
	if err != nil {
		return err
	}
	n.scalar = converted
	return nil
}

// assignSpecial sets null, "???" or an interpolation, whose grammar is checked
// here so that a bad one is reported where it stands and not where it is read.
func (n *node) assignSpecial(value any) error {
	if s, ok := value.(string); ok && isInterpolation(value) {
		if _, err := parseTemplate(s); err != nil {
			return err
		}
	}
	if value == nil && n.declared != nil && !n.declared.optional {
		if n.parent != nil && n.parent.kind == sequenceNode {
			return errorf(KindValidation, "%s is not optional and cannot be assigned None", n.fullKey())
		}
		return errorf(KindValidation, "field '%s' is not Optional", n.fullKey())
	}
	n.clear(scalarNode)
	if n.declared.isContainer() {
		n.setContainer()
		n.absent = true
	}
	n.scalar = value
	return nil
}

func (n *node) clear(kind nodeKind) {
	n.kind, n.scalar, n.absent = kind, nil, false
	n.fields, n.items, n.index = nil, nil, nil
	if kind == mappingNode {
		n.index = map[any]*node{}
	}
}

// setContainer makes n an empty container of its declared type.
func (n *node) setContainer() {
	if n.declared.kind == listSchema {
		n.clear(sequenceNode)
		return
	}
	n.clear(mappingNode)
	if n.declared.kind == structSchema {
		n.object = n.declared
	}
}

func (n *node) assignAny(value any) error {
	switch v := value.(type) {
	case Map:
		n.clear(mappingNode)
		n.object = nil
		for _, e := range v {
			if _, err := n.add(e.Key, e.Value, nil); err != nil {
				return err
			}
		}
	case []any:
		n.clear(sequenceNode)
		for i, item := range v {
			if _, err := n.add(i, item, nil); err != nil {
				return err
			}
		}
	case foreign, sweep:
		return errorf(KindUnsupportedValue, "Value '%s' is not a supported primitive type", pyType(value))
	default:
		n.clear(scalarNode)
		n.scalar = value
	}
	return nil
}

func (n *node) assignContainer(value any) error {
	s := n.declared
	switch v := value.(type) {
	case []any:
		if s.kind == listSchema {
			n.setContainer()
			for i, item := range v {
				if _, err := n.add(i, item, s.element); err != nil {
					return err
				}
			}
			return nil
		}
	case Map:
		if s.isMapping() {
			n.setContainer()
			for _, f := range s.fields {
				if _, err := n.add(f.name, f.value, f.schema); err != nil {
					return err
				}
			}
			for _, e := range v {
				if err := n.set(e.Key, e.Value); err != nil {
					return err
				}
			}
			return nil
		}
	}
	switch s.kind {
	case structSchema:
		return errorf(KindValidation, "Invalid type assigned: %s is not a subclass of %s. value: %s", pyType(value), s.name, pyStr(value))
	case dictSchema:
		return errorf(KindValidation, "Cannot assign %s to %s", pyType(value), s)
	}
	return errorf(KindValidation, "Invalid value assigned: %s is not a ListConfig, list or tuple.", pyType(value))
}

// set gives the child under key a value; an untyped one is replaced.
func (n *node) set(key, value any) error {
	if n.kind == mappingNode {
		if err := n.checkKey(key); err != nil {
			return err
		}
	}
	c, err := n.lookup(key)
	if err != nil {
		return err
	}
	if c == nil {
		_, err := n.add(key, value, n.elementSchema())
		return err
	}
	if err := c.assign(value); err != nil {
		return n.locate(err, key)
	}
	return nil
}

// plain returns the value of the subtree, interpolations kept.
func (n *node) plain() any {
	if value, ok := n.special(); ok || n.kind == scalarNode {
		return value
	}
	if n.kind == sequenceNode {
		items := make([]any, len(n.items))
		for i, c := range n.items {
			items[i] = c.plain()
		}
		return items
	}
	m := make(Map, len(n.fields))
	for i, c := range n.fields {
		m[i] = Entry{c.key, c.plain()}
	}
	return m
}

// copy returns a copy of the subtree without a parent.
func (n *node) copy() *node {
	c := *n
	c.parent = nil
	c.fields, c.items, c.index = nil, nil, nil
	if n.index != nil {
		c.index = make(map[any]*node, len(n.index))
		c.fields = make([]*node, 0, len(n.fields))
	}
	for _, f := range n.fields {
		c.append(f.key, f.copy())
	}
	for i, item := range n.items {
		c.append(i, item.copy())
	}
	return &c
}

// fullKey returns the path of n from the root, as in a.b[0].c.
func (n *node) fullKey() string {
	switch {
	case n.parent == nil:
		return ""
	case n.key == nil:
		return n.parent.fullKey()
	}
	return n.parent.fullKeyOf(n.key)
}

// fullKeyOf returns the path of the child that key names, whether or not it
// exists; for an empty key it is that of n itself.
func (n *node) fullKeyOf(key any) string {
	if key == nil || key == "" {
		// OmegaConf writes the last key without brackets here.
		if n.parent == nil {
			return ""
		}
		return n.parent.prefix(n.parent.kind) + pyStr(plainKey(n.key))
	}
	if i, ok := key.(int); ok && n.kind == sequenceNode {
		kind := sequenceNode
		if n.key == nil {
			kind = mappingNode // a sequence that a resolver returned
		}
		return n.prefix(kind) + "[" + strconv.Itoa(i) + "]"
	}
	return n.prefix(mappingNode) + pyStr(plainKey(key))
}

// prefix returns the path of n with the dot that a key in it needs, if n is of
// a kind that separates its keys so.
func (n *node) prefix(kind nodeKind) string {
	path := n.fullKey()
	if path != "" && kind == mappingNode {
		path += "."
	}
	return path
}

// plainKey returns a key as a value.
func plainKey(key any) any {
	if i, ok := key.(int); ok {
		return int64(i)
	}
	return key
}

// fail returns an error about the child of n under key, or about n for key nil.
func (n *node) fail(kind Kind, key any, format string, args ...any) error {
	return n.locate(errorf(kind, format, args...), key)
}

// locate adds to an error of OmegaConf where in the tree it happened, if it does
// not say so yet.
func (n *node) locate(err error, key any) error {
	e := asError(err)
	if e.Kind == KindType {
		e.Kind = KindConfigType
	}
	if e.located || !e.Kind.isOmegaConf() {
		return e
	}
	e.located = true
	e.Key = n.fullKeyOf(key)
	e.Msg += "\n    full_key: " + e.Key
	if n.declared != nil {
		e.Msg += "\n    reference_type=" + n.declared.String()
	}
	object := "dict"
	switch {
	case n.object != nil:
		object = n.object.name
	case n.kind == sequenceNode:
		object = "list"
	}
	e.Msg += "\n    object_type=" + object
	return e
}

// blame says in err that it happened at n. The top of a config has no name.
func (n *node) blame(err error) error {
	if n.parent == nil {
		return err
	}
	return n.parent.locate(err, n.key)
}
