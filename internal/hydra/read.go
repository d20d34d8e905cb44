package hydra

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxYAMLNodes bounds the size of a document after its aliases are expanded. It is
// far above what a configuration needs and keeps aliases of aliases from
// exhausting memory.
const maxYAMLNodes = 1 << 20

// readConfig reads a configuration document as OmegaConf.load does. name is
// used in messages. The result is a Map or a []any.
func readConfig(name string, data []byte) (any, error) {
	value, err := readYAML(name, data)
	if err != nil {
		return nil, err
	}
	switch value := value.(type) {
	case nil:
		return Map{}, nil
	case string:
		return Map{{value, nil}}, nil
	case Map, []any:
		return value, nil
	}
	return nil, errorf(KindOS, "Invalid loaded object type: %s", pyType(value))
}

// readYAML reads one YAML document. The syntax is left to the yaml package; what
// a scalar means is decided here, since no reader follows OmegaConf's mix of
// YAML 1.1 and 1.2.
func readYAML(name string, data []byte) (any, error) {
	data = acceptVersion(bytes.TrimPrefix(data, []byte("\uFEFF")))
	r := yamlReader{name: name, open: make(map[*yaml.Node]bool)}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, errorf(KindYAML, "in %q: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var next yaml.Node
	if err := dec.Decode(&next); err == nil {
		return nil, errorf(KindYAML, "expected a single document in the stream%s\nbut found another document%s",
			r.at(&doc), r.at(&next))
	} else if !errors.Is(err, io.EOF) {
		return nil, errorf(KindYAML, "in %q: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, nil
	}
	if err := (&yamlChecker{reader: &r, rest: string(data), anchors: make(map[string]bool)}).check(doc.Content[0], 0); err != nil {
		return nil, err
	}
	return r.value(doc.Content[0], 0)
}

// acceptVersion makes a %YAML directive of any version 1.x say 1.1, which is the
// only one that the yaml package accepts; to PyYAML they are all the same.
func acceptVersion(data []byte) []byte {
	offset := 0
	for line := range bytes.Lines(data) {
		start := offset
		offset += len(line)
		fields := bytes.Fields(line)
		switch {
		case len(fields) == 0 || bytes.HasPrefix(fields[0], []byte("#")):
			continue
		case !bytes.HasPrefix(line, []byte("%")):
			return data
		case len(fields) == 2 && string(fields[0]) == "%YAML" && bytes.HasPrefix(fields[1], []byte("1.")):
			return slices.Concat(data[:start], []byte("%YAML 1.1\n"), data[offset:])
		}
	}
	return data
}

// yamlReader turns the nodes of one document into values.
type yamlReader struct {
	name  string
	nodes int                 // nodes visited, aliases expanded
	open  map[*yaml.Node]bool // the nodes around the current one, to find cycles
}

// at says where n starts, in PyYAML's form.
func (r *yamlReader) at(n *yaml.Node) string {
	return fmt.Sprintf("\n  in %q, line %d, column %d", r.name, n.Line, n.Column)
}

func (r *yamlReader) fail(n *yaml.Node, format string, args ...any) error {
	return errorf(KindYAML, "%s%s", fmt.Sprintf(format, args...), r.at(n))
}

// visit counts n against the limits.
func (r *yamlReader) visit(n *yaml.Node, depth int) error {
	r.nodes++
	if r.nodes > maxYAMLNodes {
		return r.fail(n, "document has more than %d nodes", maxYAMLNodes)
	}
	if depth > maxTreeDepth {
		return r.fail(n, "document is nested deeper than %d levels", maxTreeDepth)
	}
	return nil
}

func (r *yamlReader) value(n *yaml.Node, depth int) (any, error) {
	if err := r.visit(n, depth); err != nil {
		return nil, err
	}
	if n.Kind == yaml.AliasNode {
		if r.open[n.Alias] {
			return nil, r.fail(n, "found unconstructable recursive node")
		}
		return r.content(n.Alias, depth)
	}
	return r.content(n, depth)
}

func (r *yamlReader) content(n *yaml.Node, depth int) (any, error) {
	tag := tagOf(n)
	if class, ok := pathClass(tag); ok {
		r.open[n] = true
		defer delete(r.open, n)
		return r.path(n, class, depth)
	}
	switch n.Kind {
	case yaml.ScalarNode:
		return r.scalar(n, tag)
	case yaml.SequenceNode:
		r.open[n] = true
		defer delete(r.open, n)
		switch tag {
		case tagSeq:
			return r.sequence(n, depth)
		case tagOmap, tagPairs:
			return r.pairs(n, depth)
		}
	case yaml.MappingNode:
		r.open[n] = true
		defer delete(r.open, n)
		switch tag {
		case tagMap:
			return r.mapping(n, depth)
		case tagSet:
			if _, err := r.mapping(n, depth); err != nil {
				return nil, err
			}
			return foreign{"set"}, nil
		}
	}
	switch tag {
	case tagNull, tagBool, tagInt, tagFloat, tagStr, tagBinary, tagTimestamp:
		return nil, r.fail(n, "expected a scalar node, but found %s", kindName(n))
	case tagSeq, tagOmap, tagPairs:
		return nil, r.fail(n, "expected a sequence node, but found %s", kindName(n))
	case tagMap, tagSet:
		return nil, r.fail(n, "expected a mapping node, but found %s", kindName(n))
	}
	return nil, r.unknownTag(n, tag)
}

func (r *yamlReader) unknownTag(n *yaml.Node, tag string) error {
	return r.fail(n, "could not determine a constructor for the tag '%s'", longTag(tag))
}

func (r *yamlReader) scalar(n *yaml.Node, tag string) (any, error) {
	switch tag {
	case tagBinary:
		// Python skips whatever is not of the alphabet.
		text := strings.Map(func(c rune) rune {
			if strings.ContainsRune("+/=", c) || c < 0x80 && (isLetter(byte(c)) || isDigit(byte(c))) {
				return c
			}
			return -1
		}, n.Value)
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, r.fail(n, "failed to decode base64 data: %v", err)
		}
		return data, nil
	case tagTimestamp:
		if len(n.Value) == len("2006-01-02") {
			return foreign{"date"}, nil
		}
		return foreign{"datetime"}, nil
	case tagNull, tagBool, tagInt, tagFloat, tagStr:
		value, err := parseScalar(tag, n.Value)
		if err != nil {
			err.At = strings.TrimSpace(r.at(n))
			return nil, err
		}
		return value, nil
	case tagSeq, tagOmap, tagPairs:
		return nil, r.fail(n, "expected a sequence node, but found scalar")
	case tagMap, tagSet:
		return nil, r.fail(n, "expected a mapping node, but found scalar")
	}
	return nil, r.unknownTag(n, tag)
}

func (r *yamlReader) sequence(n *yaml.Node, depth int) (any, error) {
	items := make([]any, len(n.Content))
	for i, item := range n.Content {
		value, err := r.value(item, depth+1)
		if err != nil {
			return nil, err
		}
		items[i] = value
	}
	return items, nil
}

// pairs reads a sequence of mappings of one entry each as a list of pairs.
func (r *yamlReader) pairs(n *yaml.Node, depth int) (any, error) {
	items := make([]any, len(n.Content))
	for i, item := range n.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		if item.Kind != yaml.MappingNode || len(item.Content) != 2 {
			return nil, r.fail(item, "expected a mapping of length 1, but found %s", kindName(item))
		}
		pair, err := r.sequence(item, depth+1)
		if err != nil {
			return nil, err
		}
		items[i] = pair
	}
	return items, nil
}

func (r *yamlReader) mapping(n *yaml.Node, depth int) (any, error) {
	seen := make(map[string]bool)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || tagOf(key) != tagStr {
			continue
		}
		if seen[key.Value] {
			return nil, errorf(KindYAML, "while constructing a mapping%s\nfound duplicate key %s%s", r.at(n), key.Value, r.at(key))
		}
		seen[key.Value] = true
	}
	var pairs []*yaml.Node
	if err := r.flatten(n, depth, &pairs); err != nil {
		return nil, err
	}
	var b mapBuilder
	for i := 0; i < len(pairs); i += 2 {
		key, err := r.key(pairs[i], depth)
		if err != nil {
			return nil, err
		}
		switch key.(type) {
		case []any, Map, foreign:
			return nil, errorf(KindYAML, "while constructing a mapping%s\nfound unhashable key%s", r.at(n), r.at(pairs[i]))
		}
		value, err := r.value(pairs[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		b.set(key, value)
	}
	return b.build(), nil
}

// key reads the key of an entry. A lone = is a value of its own type in YAML
// 1.1, but as a key it is a string.
func (r *yamlReader) key(n *yaml.Node, depth int) (any, error) {
	if n.Kind == yaml.ScalarNode && tagOf(n) == tagValue {
		return n.Value, nil
	}
	return r.value(n, depth+1)
}

// flatten appends the entries of n to pairs as alternating keys and values,
// those merged by << first, so that the entries of n itself override them.
func (r *yamlReader) flatten(n *yaml.Node, depth int, pairs *[]*yaml.Node) error {
	if err := r.visit(n, depth); err != nil {
		return err
	}
	var own []*yaml.Node
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || tagOf(key) != tagMerge {
			own = append(own, key, value)
			continue
		}
		sources := []*yaml.Node{value}
		target := dealias(value)
		if target.Kind == yaml.SequenceNode {
			// The first source has the last word, so it comes last.
			sources = slices.Clone(target.Content)
			slices.Reverse(sources)
		}
		for _, source := range sources {
			m := dealias(source)
			if m.Kind != yaml.MappingNode {
				return errorf(KindYAML, "while constructing a mapping%s\nexpected a mapping or list of mappings for merging, but found %s%s",
					r.at(n), kindName(m), r.at(source))
			}
			if r.open[m] && m != source {
				return r.fail(source, "found unconstructable recursive node")
			}
			r.open[m] = true
			err := r.flatten(m, depth+1, pairs)
			delete(r.open, m)
			if err != nil {
				return err
			}
		}
	}
	r.nodes += len(own)
	*pairs = append(*pairs, own...)
	return nil
}

func dealias(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// tagOf returns the tag of n, given in the document or implied.
func tagOf(n *yaml.Node) string {
	if n.Style&yaml.TaggedStyle != 0 {
		return n.Tag
	}
	switch n.Kind {
	case yaml.SequenceNode:
		return tagSeq
	case yaml.MappingNode:
		return tagMap
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return tagStr
	}
	return readTag(n.Value)
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "sequence"
	case yaml.MappingNode:
		return "mapping"
	}
	return "scalar"
}

// foreign stands for a value that YAML knows and a configuration cannot hold.
type foreign struct{ typ string }

// yamlChecker refuses what the yaml package accepts and PyYAML does not. It
// walks the nodes in the order of the document, along with its text.
type yamlChecker struct {
	reader  *yamlReader
	rest    string // the document from line and column on
	line    int    // of rest, counted from 0
	column  int    // of rest, in characters
	tab     bool   // whether the blanks before rest contain a tab
	anchors map[string]bool
}

func (c *yamlChecker) check(n *yaml.Node, depth int) error {
	if depth > maxTreeDepth {
		return c.reader.fail(n, "document is nested deeper than %d levels", maxTreeDepth)
	}
	if n.Anchor != "" {
		if c.anchors[n.Anchor] {
			return c.reader.fail(n, "found duplicate anchor '%s'", n.Anchor)
		}
		c.anchors[n.Anchor] = true
	}
	if n.Line > 0 {
		c.advance(n.Line-1, n.Column-1)
	}
	if c.hasTab(n) {
		return c.reader.fail(n, "found character '\\t' that cannot start any token")
	}
	for _, child := range n.Content {
		if err := c.check(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// advance moves to a later place of the document.
func (c *yamlChecker) advance(line, column int) {
	for c.rest != "" && (c.line < line || c.line == line && c.column < column) {
		r, size := utf8.DecodeRuneInString(c.rest)
		c.rest = c.rest[size:]
		c.column++
		c.tab = r == '\t' || c.tab && r == ' '
		if isBreak(r) || r == '\r' && !strings.HasPrefix(c.rest, "\n") {
			c.line, c.column = c.line+1, 0
		}
	}
}

// hasTab tells a tab next to n or within it if it is plain. To PyYAML it is no
// space.
func (c *yamlChecker) hasTab(n *yaml.Node) bool {
	if c.tab {
		return true
	}
	if n.Kind != yaml.ScalarNode || n.Style != 0 || n.Anchor != "" || n.Value == "" {
		return false
	}
	after := strings.TrimLeft(strings.TrimPrefix(c.rest, n.Value), " ")
	return strings.HasPrefix(after, "\t") || strings.Contains(n.Value, "\t")
}
