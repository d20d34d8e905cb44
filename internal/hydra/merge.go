package hydra

import (
	"strings"
)

// merge merges src into dest: mappings entry by entry, sequences as a whole. What
// src does not have yet ("???") leaves dest as it is. A mapping does not merge
// with a sequence.
func merge(dest, src *node, env *environment) error {
	if err := mergeContainers(dest, src, env); err != nil {
		return dest.locate(err, nil)
	}
	return nil
}

func mergeContainers(dest, src *node, env *environment) error {
	switch {
	case dest.kind != src.kind:
		return errorf(KindType, "Cannot merge DictConfig with ListConfig")
	case dest.kind == mappingNode:
		return mergeMappings(dest, src, env)
	}
	return mergeSequences(dest, src)
}

func mergeMappings(dest, src *node, env *environment) error {
	if src.isNull() || src.isInterpolation() {
		return dest.assignSpecial(src.scalar)
	}
	if dest.absent && !src.isMissing() {
		dest.setContainer()
	}
	for _, from := range src.children() {
		if err := mergeChild(dest, from, env); err != nil {
			return err
		}
	}
	dest.adoptTypes(src)
	return nil
}

// mergeChild merges the child from of another mapping into dest.
func mergeChild(dest, from *node, env *environment) error {
	to := dest.child(from.key)
	if to == nil {
		return insert(dest, from)
	}
	if to.isInterpolation() {
		// Merging into ${other} merges into a copy of other.
		if target := env.container(to); target != nil {
			replace(to, target.copy())
		}
	}
	switch {
	case to.isContainer() && from.isContainer():
		if to.isNull() && !from.isMissing() && !from.isNull() {
			to.setContainer()
		}
		return mergeContainers(to, from, env)
	case from.isMissing():
		if from.declared != nil && to.declared == nil {
			typed := from.copy()
			if err := typed.assign(to.plain()); err != nil {
				return dest.locate(err, from.key)
			}
			replace(to, typed)
		}
		return nil
	case to.declared != nil:
		if err := to.assign(from.plain()); err != nil {
			return dest.locate(err, from.key)
		}
		return nil
	}
	replace(to, from.copy())
	return nil
}

// insert adds a copy of from to dest, which has no such key.
func insert(dest, from *node) error {
	if from.declared == nil && from.object == nil {
		if _, err := dest.lookup(from.key); err != nil {
			e := asError(err)
			e.Kind = KindKey // in Python, what __setitem__ raises
			return e
		}
		if element := dest.elementSchema(); element != nil {
			_, err := dest.add(from.key, from.plain(), element)
			return err
		}
	}
	dest.append(from.key, from.copy())
	return nil
}

// replace gives old the content and the types of n, which must not be used any
// more. It keeps its place and its key.
func replace(old, n *node) {
	n.parent, n.key = old.parent, old.key
	*old = *n
	for _, child := range old.children() {
		child.parent = old
	}
}

func mergeSequences(dest, src *node) error {
	switch {
	case src.isMissing():
		return nil
	case src.absent:
		return dest.assignSpecial(src.scalar)
	}
	items := src.items
	dest.clear(sequenceNode)
	for i, item := range items {
		if element := dest.elementSchema(); element != nil {
			if _, err := dest.add(i, item.plain(), element); err != nil {
				return err
			}
			continue
		}
		dest.append(i, item.copy())
	}
	return nil
}

// adoptTypes gives dest, if it is untyped, the types of what was merged into it.
func (n *node) adoptTypes(src *node) {
	if src.object != nil {
		n.object = src.object
	}
	if n.declared == nil {
		n.declared = src.declared
	}
}

// maxTreeDepth bounds the nesting of a configuration: of a document, of a dotted
// key and of the value of an override.
const maxTreeDepth = 200

// update sets the value at a dotted path. A mapping or sequence is merged into
// one that is there. With force, keys that do not exist are added, together with
// the mappings on the way.
func update(root *node, path string, value any, force bool, env *environment) error {
	keys := splitKey(path)
	if len(keys) > maxTreeDepth {
		return errorf(KindValue, "a key must not have more than %d parts, got %d", maxTreeDepth, len(keys))
	}
	at := root
	for _, key := range keys[:len(keys)-1] {
		next, id, err := at.step(key)
		if err != nil {
			return err
		}
		if next == nil || !next.isContainer() || next.isNull() {
			// A scalar on the way makes room for a mapping.
			makeRoom := func() error { return asKeyError(at.set(id, Map{})) }
			if force {
				err = at.withClosed(false, makeRoom)
			} else {
				err = makeRoom()
			}
			if err != nil {
				return err
			}
			next, _, _ = at.step(key)
		}
		if next.isMissing() {
			return at.fail(KindMissingValue, id, "Missing mandatory value: %s", at.fullKeyOf(id))
		}
		at = next
	}
	var last any = keys[len(keys)-1]
	if at.kind == sequenceNode {
		index, err := parseInt(keys[len(keys)-1])
		if err != nil {
			return err
		}
		i, ok := index.(int64)
		if !ok {
			return at.fail(KindIndex, last, "list index out of range")
		}
		last = int(i)
	}
	set := func() error {
		switch value.(type) {
		case Map, []any:
			existing, err := at.lookup(last)
			if err != nil {
				return err
			}
			if existing != nil && existing.isContainer() {
				tree, err := newTree(value)
				if err != nil {
					return err
				}
				return merge(existing, tree, env)
			}
		}
		return at.set(last, value)
	}
	if force {
		return at.withClosed(false, set)
	}
	return set()
}

// asKeyError turns the error of an unknown key into the one that Python's
// subscript access raises.
func asKeyError(err error) error {
	if err == nil {
		return nil
	}
	e := asError(err)
	if e.Kind == KindAttribute {
		e.Kind = KindKey
	}
	return e
}

// step returns the child of n for one part of a path, nil if there is none, and
// the part as a key of n.
func (n *node) step(part string) (child *node, key any, err error) {
	switch {
	case n.isNull():
		return nil, part, nil
	case n.kind == mappingNode:
		return n.child(part), part, nil
	}
	index, parseErr := parseInt(part)
	if parseErr != nil {
		return nil, part, errorf(KindType, "Index '%s' (str) is not an int", part)
	}
	i, ok := index.(int64)
	if !ok || i < 0 || i >= int64(len(n.items)) {
		if !ok {
			i = int64(len(n.items))
		}
		return nil, int(i), nil
	}
	return n.items[i], int(i), nil
}

// splitKey splits a path as in a.b[0].c into its parts.
func splitKey(path string) []string {
	end := strings.IndexByte(path, '[')
	if end < 0 {
		return strings.Split(path, ".")
	}
	parts := strings.Split(path[:end], ".")
	if parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1] // [a].b has no part in front of the bracket
	}
	for rest := path[end:]; rest != ""; {
		if rest[0] == '[' {
			if closing := strings.IndexByte(rest, ']'); closing > 0 {
				parts = append(parts, rest[1:closing])
				rest = rest[closing+1:]
				continue
			}
		}
		next := strings.IndexAny(rest[1:], ".[") + 1
		if next == 0 {
			next = len(rest)
		}
		if rest[0] == '.' {
			parts = append(parts, rest[1:next])
		}
		rest = rest[next:]
	}
	return parts
}
