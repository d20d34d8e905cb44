package token

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// trie finds which of many strings a text begins with: a double array, in which
// the child of node n by byte c is node base(n) XOR c, if its parent is n.
type trie struct{ units []trieUnit }

type trieUnit struct {
	base   uint32
	parent uint32
	value  int32 // of the string that ends here, or noValue
}

const (
	root     = 0
	noValue  = -1
	noParent = 1<<32 - 1
	nodesPer = 256 // children of a node lie in one block of so many
)

// next returns the child of a node by a byte.
func (t *trie) next(node uint32, c byte) (uint32, bool) {
	child := t.units[node].base ^ uint32(c)
	return child, t.units[child].parent == node
}

// find returns the value of a string.
func (t *trie) find(s []byte) (int32, bool) {
	node := uint32(root)
	for _, c := range s {
		var ok bool
		if node, ok = t.next(node, c); !ok {
			return 0, false
		}
	}
	value := t.units[node].value
	return value, value != noValue
}

// longest returns the value and the length of the longest string that a text
// begins with.
func (t *trie) longest(text []byte) (value int32, length int) {
	node := uint32(root)
	value = noValue
	for i, c := range text {
		var ok bool
		if node, ok = t.next(node, c); !ok {
			break
		}
		if v := t.units[node].value; v != noValue {
			value, length = v, i+1
		}
	}
	return value, length
}

// key is a string to be found, and the start of it as a number, by which most
// comparisons are made.
type key struct {
	start uint64
	text  string
	value int32
	order int32
}

// trieBuilder places the nodes of a trie one after another, each with all of its
// children. Places that are free form a list.
type trieBuilder struct {
	units      []trieUnit
	next, prev []uint32 // the list, through place 0, which the root has
}

// newTrie makes a trie of strings that are not empty and their values. Of equal
// strings the last counts.
func newTrie(keys []key) *trie {
	for i := range keys {
		var start [8]byte
		copy(start[:], keys[i].text)
		keys[i].start, keys[i].order = binary.BigEndian.Uint64(start[:]), int32(i)
	}
	slices.SortFunc(keys, func(a, b key) int {
		switch {
		case a.start < b.start:
			return -1
		case a.start > b.start:
			return 1
		}
		return cmp.Or(strings.Compare(a.text, b.text), cmp.Compare(a.order, b.order))
	})
	var b trieBuilder
	b.grow()
	b.take(root, noParent)
	b.place(root, keys, 0)
	return &trie{units: slices.Clip(b.units)}
}

// grow adds a block of free places.
func (b *trieBuilder) grow() {
	start := uint32(len(b.units))
	for i := start; i < start+nodesPer; i++ {
		b.units = append(b.units, trieUnit{parent: noParent, value: noValue})
		b.next = append(b.next, i+1)
		b.prev = append(b.prev, i-1)
	}
	last := start + nodesPer - 1
	if start == 0 {
		b.next[last], b.prev[0] = 0, last
		return
	}
	tail := b.prev[0]
	b.next[tail], b.prev[start] = start, tail
	b.next[last], b.prev[0] = 0, last
}

// take gives a place to a child. The root stays in the list, as its head.
func (b *trieBuilder) take(place, parent uint32) {
	b.units[place].parent = parent
	if place == root {
		return
	}
	b.next[b.prev[place]], b.prev[b.next[place]] = b.next[place], b.prev[place]
}

// free reports whether a place may be taken.
func (b *trieBuilder) free(place uint32) bool {
	return place != root && b.units[place].parent == noParent
}

// place gives places to the children of a node, which the sorted keys have in
// common up to depth.
func (b *trieBuilder) place(node uint32, keys []key, depth int) {
	for len(keys) > 0 && len(keys[0].text) == depth {
		b.units[node].value = keys[0].value
		keys = keys[1:]
	}
	if len(keys) == 0 {
		return
	}
	var buffer [nodesPer]byte
	labels := buffer[:0]
	for _, k := range keys {
		if c := k.text[depth]; len(labels) == 0 || labels[len(labels)-1] != c {
			labels = append(labels, c)
		}
	}
	base := b.base(labels)
	b.units[node].base = base
	for _, c := range labels {
		b.take(base^uint32(c), node)
	}
	for len(keys) > 0 {
		c := keys[0].text[depth]
		n := 1
		for n < len(keys) && keys[n].text[depth] == c {
			n++
		}
		b.place(base^uint32(c), keys[:n], depth+1)
		keys = keys[n:]
	}
}

// maxTries bounds the search for a place: one place more in many costs less than
// looking at all that are free.
const maxTries = 64

// base returns a base by which all labels have free places.
func (b *trieBuilder) base(labels []byte) uint32 {
	tries := 0
	for e := b.next[root]; e != root && tries < maxTries; e = b.next[e] {
		if base := e ^ uint32(labels[0]); b.fits(base, labels[1:]) {
			return base
		}
		tries++
	}
	start := uint32(len(b.units))
	b.grow()
	return start
}

func (b *trieBuilder) fits(base uint32, labels []byte) bool {
	for _, c := range labels {
		if !b.free(base ^ uint32(c)) {
			return false
		}
	}
	return true
}
