package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxCharsmap bounds a precompiled_charsmap, in bytes. That of DeBERTaV3, which
// is SentencePiece's nmt_nfkc, has 242,000.
const maxCharsmap = 16 << 20

// charsmap is SentencePiece's precompiled_charsmap: rules that replace
// characters, in a double array trie of the darts-clone library.
//
// The bytes are the length of the trie in bytes, the trie, and the replacements,
// each of which ends with a NUL; all numbers have 32 bits, little end first.
type charsmap struct {
	units        []uint32
	replacements string
	ascii        [utf8.RuneSelf]asciiRule
}

// asciiRule is what becomes of an ASCII character.
type asciiRule struct {
	replaced bool
	by       string
}

// The parts of a unit of the trie.
func unitHasLeaf(u uint32) bool  { return u>>8&1 == 1 }
func unitValue(u uint32) uint32  { return u & (1<<31 - 1) }
func unitLabel(u uint32) uint32  { return u & (1<<31 | 0xFF) }
func unitOffset(u uint32) uint32 { return u >> 10 << (u & (1 << 9) >> 6) }

// parseCharsmap reads a charsmap and checks every unit that a text can reach.
func parseCharsmap(data []byte) (*charsmap, error) {
	if len(data) > maxCharsmap {
		return nil, fmt.Errorf("found a precompiled_charsmap of %d bytes, want at most %d", len(data), maxCharsmap)
	}
	if len(data) < 4 {
		return nil, fmt.Errorf("found a precompiled_charsmap of %d bytes, want a trie and its replacements", len(data))
	}
	size := int(binary.LittleEndian.Uint32(data))
	data = data[4:]
	if size%4 != 0 || size == 0 || size > len(data) {
		return nil, fmt.Errorf("found a precompiled_charsmap whose trie says it has %d bytes of %d, want a multiple of 4",
			size, len(data))
	}
	if !utf8.Valid(data[size:]) {
		return nil, errors.New("found a precompiled_charsmap with replacements that are not UTF-8")
	}
	m := &charsmap{units: make([]uint32, size/4), replacements: string(data[size:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(data[4*i:])
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("found a damaged precompiled_charsmap: %w", err)
	}
	for c := range m.ascii {
		by, ok := m.lookup([]byte{byte(c)})
		m.ascii[c] = asciiRule{ok, by}
	}
	return m, nil
}

// check walks through all of the trie that the root leads to.
func (m *charsmap) check() error {
	seen := make([]bool, len(m.units))
	// A node is the place that the labels of its children are added to.
	nodes := []uint32{unitOffset(m.units[0])}
	for len(nodes) > 0 {
		node := nodes[len(nodes)-1]
		nodes = nodes[:len(nodes)-1]
		if int(node|0xFF) >= len(m.units) {
			return fmt.Errorf("the trie has %d units, and leads to %d", len(m.units), node|0xFF)
		}
		if seen[node] {
			continue
		}
		seen[node] = true
		for c := uint32(1); c <= 0xFF; c++ {
			unit := m.units[node^c]
			if unitLabel(unit) != c {
				continue
			}
			child := node ^ c ^ unitOffset(unit)
			if unitHasLeaf(unit) {
				if err := m.checkLeaf(child); err != nil {
					return err
				}
			}
			nodes = append(nodes, child)
		}
	}
	return nil
}

func (m *charsmap) checkLeaf(node uint32) error {
	if int(node) >= len(m.units) {
		return fmt.Errorf("the trie has %d units, and leads to %d", len(m.units), node)
	}
	at := int(unitValue(m.units[node]))
	if at > len(m.replacements) || at < len(m.replacements) && !utf8.RuneStart(m.replacements[at]) {
		return fmt.Errorf("a rule leads to byte %d of the replacements, want the start of one in %d bytes", at, len(m.replacements))
	}
	return nil
}

// lookup returns what replaces text: the replacement of the shortest beginning
// of it that has one. (The shortest, not the longest, is what the Rust library
// takes; SentencePiece itself takes the longest.)
func (m *charsmap) lookup(text []byte) (string, bool) {
	node := unitOffset(m.units[0])
	for _, c := range text {
		if c == 0 {
			break
		}
		node ^= uint32(c)
		unit := m.units[node]
		if unitLabel(unit) != uint32(c) {
			break
		}
		node ^= unitOffset(unit)
		if unitHasLeaf(unit) {
			return m.replacement(int(unitValue(m.units[node]))), true
		}
	}
	return "", false
}

// replacement returns the one that begins at a place.
func (m *charsmap) replacement(at int) string {
	end := at
	for end < len(m.replacements) && m.replacements[end] != 0 {
		end++
	}
	return m.replacements[at:end]
}

// longCluster is from how many bytes on a grapheme cluster is replaced character
// by character only.
const longCluster = 6

// normalize replaces what has a rule: a grapheme cluster of fewer than six bytes
// as a whole, if a beginning of it has one, else each character.
func (m *charsmap) normalize(w *work) {
	table := graphemes()
	text := w.text.bytes
	var state graphemeState
	for i := 0; i < len(text); {
		// Clusters of one ASCII character are most of an English text.
		c := text[i]
		if c < utf8.RuneSelf && (i+1 == len(text) || text[i+1] < utf8.RuneSelf && c != '\r') {
			m.rewrite(w, text[i:i+1], m.ascii[c].by, m.ascii[c].replaced)
			state = graphemeState{}
			i++
			continue
		}
		var end int
		end, state = table.clusterEnd(text, i, state)
		m.cluster(w, text[i:end])
		i = end
	}
	w.transformed(0)
}

// cluster replaces in one grapheme cluster.
func (m *charsmap) cluster(w *work, cluster []byte) {
	if len(cluster) < longCluster {
		if by, ok := m.lookup(cluster); ok {
			m.rewrite(w, cluster, by, true)
			return
		}
	}
	for len(cluster) > 0 {
		_, n := utf8.DecodeRune(cluster)
		by, ok := m.lookup(cluster[:n])
		m.rewrite(w, cluster[:n], by, ok)
		cluster = cluster[n:]
	}
}

// rewrite puts out what becomes of part of the text.
func (m *charsmap) rewrite(w *work, part []byte, by string, replaced bool) {
	switch {
	case !w.located:
		if replaced {
			w.next.bytes = append(w.next.bytes, by...)
		} else {
			w.next.bytes = append(w.next.bytes, part...)
		}
	case replaced:
		w.replace(part, by)
	default:
		r, _ := utf8.DecodeRune(part)
		w.emit(r, 0)
	}
}
