package token

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// maxPieceSize bounds a piece, in bytes: encoding a text takes time in proportion
// to its length and to that of the longest piece that it may begin anywhere with.
const maxPieceSize = 1 << 10

// unknownPenalty is by how much an unknown character scores worse than the worst
// piece.
const unknownPenalty = 10

// unigram splits words into the pieces with the highest sum of scores
// (Kudo 2018, "Subword Regularization").
type unigram struct {
	pieces  *trie
	scores  []float64 // by id
	unknown int32     // id
	worst   float64   // score of an unknown character
	bytes   *[256]int32
}

// step is the best way to a byte of a word: by which piece, from where.
type step struct {
	score float64
	id    int32
	from  int32 // or noStep
}

const noStep = -1

// foundPiece is a part of a word with its id. Unknown characters in a row are
// one piece.
type foundPiece struct {
	from, to int
	unknown  bool
	id       int32
}

// newUnigram makes a model of a vocabulary. No text yields the ids in hidden.
func newUnigram(v *vocabulary, unknown int, byteFallback bool, hidden map[int]bool) (*unigram, error) {
	if len(v.pieces) == 0 {
		return nil, errors.New("found a model without pieces, want those of a DeBERTaV3 checkpoint")
	}
	if unknown < 0 || unknown >= len(v.pieces) {
		return nil, fmt.Errorf("found unk_id %d in a model of %d pieces, want the id of a piece", unknown, len(v.pieces))
	}
	m := &unigram{scores: v.scores, unknown: int32(unknown)}
	lowest := math.Inf(1)
	keys := make([]key, 0, len(v.pieces))
	for id, piece := range v.pieces {
		lowest = min(lowest, v.scores[id])
		if len(piece) > maxPieceSize {
			return nil, fmt.Errorf("found the piece %d with %d bytes, want at most %d", id, len(piece), maxPieceSize)
		}
		if piece != "" && !hidden[id] {
			keys = append(keys, key{text: piece, value: int32(id)})
		}
	}
	m.worst = lowest - unknownPenalty
	m.pieces = newTrie(keys)
	if byteFallback {
		m.bytes = m.bytePieces()
	}
	return m, nil
}

// bytePieces returns the ids of the pieces that stand for single bytes, -1 for
// those that are missing.
func (m *unigram) bytePieces() *[256]int32 {
	var ids [256]int32
	for b := range ids {
		id, ok := m.pieces.find(fmt.Appendf(nil, "<0x%02X>", b))
		if !ok {
			id = noValue
		}
		ids[b] = id
	}
	return &ids
}

// word puts out the ids of a word, part of a text.
func (m *unigram) word(w *work, t *located, start, end int) {
	if start == end {
		return
	}
	word := t.bytes[start:end]
	m.viterbi(w, word)
	m.backtrack(w, len(word))
	for i := len(w.found) - 1; i >= 0; i-- {
		p := w.found[i]
		if p.unknown {
			m.unknownPiece(w, t, word, start, p)
			continue
		}
		w.put(p.id, t, start+p.from, start+p.to)
	}
}

// viterbi finds the best way to every byte of a word. Of two that are equally
// good the one found first stays: that with the longer last piece.
func (m *unigram) viterbi(w *work, word []byte) {
	if cap(w.path) <= len(word) {
		w.path = make([]step, len(word)+1, 2*len(word)+64)
	}
	path := w.path[:len(word)+1]
	for i := range path {
		path[i].from = noStep
	}
	path[0].score = 0
	units := m.pieces.units
	for i := 0; i < len(word); {
		size := 1
		if word[i] >= utf8.RuneSelf {
			_, size = utf8.DecodeRune(word[i:])
		}
		before := path[i].score
		single := false
		node := uint32(root)
		for j := i; j < len(word); j++ {
			child := units[node].base ^ uint32(word[j])
			if units[child].parent != node {
				break
			}
			node = child
			if id := units[node].value; id != noValue {
				path[j+1].offer(before+m.scores[id], id, i)
				single = single || j+1-i == size
			}
		}
		if !single {
			path[i+size].offer(before+m.worst, m.unknown, i)
		}
		i += size
	}
	w.path = path
}

// offer takes a way if it is better than the best so far.
func (s *step) offer(score float64, id int32, from int) {
	if s.from == noStep || score > s.score {
		*s = step{score, id, int32(from)}
	}
}

// backtrack lists the pieces of the best way to the end, last first.
func (m *unigram) backtrack(w *work, end int) {
	w.found = w.found[:0]
	for end > 0 {
		s := w.path[end]
		unknown := s.id == m.unknown
		if last := len(w.found) - 1; unknown && last >= 0 && w.found[last].unknown {
			w.found[last].from = int(s.from)
		} else {
			w.found = append(w.found, foundPiece{int(s.from), end, unknown, s.id})
		}
		end = int(s.from)
	}
}

// unknownPiece puts out what stands for unknown characters: a piece that is all
// of them, else one for each byte, else [UNK].
func (m *unigram) unknownPiece(w *work, t *located, word []byte, start int, p foundPiece) {
	text := word[p.from:p.to]
	if id, ok := m.pieces.find(text); ok {
		w.put(id, t, start+p.from, start+p.to)
		return
	}
	if m.bytes != nil && m.haveBytes(text) {
		for _, b := range text {
			w.put(m.bytes[b], t, start+p.from, start+p.to)
		}
		return
	}
	w.put(m.unknown, t, start+p.from, start+p.to)
}

func (m *unigram) haveBytes(text []byte) bool {
	for _, b := range text {
		if m.bytes[b] == noValue {
			return false
		}
	}
	return true
}

// put puts out an id and, if asked for, where it comes from.
func (w *work) put(id int32, t *located, start, end int) {
	w.ids = append(w.ids, id)
	if !w.located {
		return
	}
	s := span{t.spans[start].from, t.spans[end-1].to}
	// A mark by itself stands for a space, or for nothing: before the first word
	// it has the place of the first letter, which is the next token's.
	if string(t.bytes[start:end]) == "▁" {
		s.to = s.from
	}
	w.spans = append(w.spans, s)
}
