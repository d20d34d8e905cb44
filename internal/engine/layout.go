package engine

import (
	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/ort"
)

// layout places every parameter in a flat vector: first those that decay, then
// the others, each at a multiple of alignment. What lies between two
// parameters is 0 and stays 0.
type layout struct {
	params  []deberta.Param
	offsets []int          // of params, in elements
	index   map[string]int // name → position in params
	decayed int            // elements before this one belong to decayed parameters
	copied  int            // elements from this one on have a copy in low precision on a device that computes in it
	size    int            // elements, a multiple of chunk
}

const (
	// alignment of a parameter, in elements: a cache line.
	alignment = deberta.Alignment
	// chunk is the number of elements of the portable optimizer's graph. Both
	// parts of the vector are multiples of it.
	chunk = 1 << 16
)

func newLayout(params []deberta.Param) layout {
	l := layout{params: params, offsets: make([]int, len(params)), index: map[string]int{}}
	for i, p := range params {
		if !p.Decay && l.decayed == 0 {
			l.size = roundUp(l.size, chunk)
			l.decayed = l.size
		}
		l.index[p.Name] = i
		l.offsets[i] = l.size
		l.size = roundUp(l.size+p.Size(), alignment)
		if p.Name == deberta.WordEmbeddings {
			l.copied = l.size // they are looked up in float32, and half of the base model
		}
	}
	l.size = roundUp(l.size, chunk)
	return l
}

// slice returns the elements of parameter i in a flat vector.
func (l layout) slice(flat []float32, i int) []float32 {
	from := l.offsets[i]
	return flat[from : from+l.params[i].Size() : from+l.params[i].Size()]
}

// tensor returns parameter i as a view of a flat buffer.
func (l layout) tensor(flat *ort.Buffer, i int) (ort.Tensor, error) {
	return flat.Tensor(ort.Float32, l.offsets[i], l.params[i].Shape...)
}

// view returns what a graph reads as one input as a view of a flat buffer.
func (l layout) view(flat *ort.Buffer, w deberta.Weight) (ort.Tensor, error) {
	return flat.Tensor(ort.Float32, l.offsets[l.index[w.First]], w.Shape...)
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }
