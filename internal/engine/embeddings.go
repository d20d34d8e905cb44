package engine

import (
	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/parallel"
)

// embeddings is the table of word embeddings in training, which begins the flat
// vectors. It is more than half of the base model's parameters, but a batch has
// few of its rows: all other rows of its gradient are 0. They are neither
// cleared nor read, and what the optimizer would do to them is put off until a
// row is needed.
type embeddings struct {
	rows, width int // of the table

	gradients *ort.Buffer
	touched   []int64 // rows with a gradient
	isTouched []bool
	nonzero   []bool // blocks of [optim.NormBlock] gradients that touched rows lie in

	// lazy puts updates off; nil for optimizers that update all rows at once.
	lazy *lazyRows
}

func newEmbeddings(l layout, gradients *ort.Buffer) *embeddings {
	table := l.params[0]
	if table.Name != deberta.WordEmbeddings {
		panic("engine: " + table.Name + " comes before the word embeddings")
	}
	return &embeddings{
		rows: table.Shape[0], width: table.Shape[1], gradients: gradients,
		isTouched: make([]bool, table.Shape[0]),
		nonzero:   make([]bool, table.Size()/optim.NormBlock),
	}
}

// end is where the table ends in the flat vectors.
func (w *embeddings) end() int { return roundUp(w.rows*w.width, alignment) }

// row returns the elements of a row in a flat vector.
func (w *embeddings) row(flat []float32, id int64) []float32 {
	from := int(id) * w.width
	return flat[from : from+w.width : from+w.width]
}

// add adds the gradients of looked-up rows to the table's, in the order of the
// tokens. Row 0 is padding, which torch keeps without gradient (padding_idx)
// even where the id occurs as a token.
// mask, which may be nil, has 0 for ids that are padding.
func (w *embeddings) add(ids, mask []int64, rows []float32) {
	gradients := w.gradients.Float32()
	for i, id := range ids {
		if id == 0 || mask != nil && mask[i] == 0 {
			continue
		}
		if !w.isTouched[id] {
			w.isTouched[id] = true
			w.touched = append(w.touched, id)
			w.mark(id, true)
		}
		to, from := w.row(gradients, id), rows[i*w.width:][:w.width]
		for j, x := range from {
			to[j] += x
		}
	}
}

// mark notes that the blocks of a row are, or are not, to be read.
func (w *embeddings) mark(id int64, nonzero bool) {
	from := int(id) * w.width
	for b := from / optim.NormBlock; b <= (from+w.width-1)/optim.NormBlock && b < len(w.nonzero); b++ {
		w.nonzero[b] = nonzero
	}
}

// zero reports whether a block of the flat gradients is known to be 0.
func (w *embeddings) zero(block int) bool { return block < len(w.nonzero) && !w.nonzero[block] }

// clear sets the gradient back to 0.
func (w *embeddings) clear() {
	gradients := w.gradients.Float32()
	for _, id := range w.touched {
		clear(w.row(gradients, id))
		w.isTouched[id] = false
		w.mark(id, false)
	}
	w.touched = w.touched[:0]
}

// lazyRows are the updates of AdamW that the rows of the table have not got yet.
type lazyRows struct {
	*embeddings
	params, m, v []float32 // flat vectors
	deferred     optim.Deferred
	applied      []int32 // per row: how many of the deferred updates it has got
	threads      int
}

func newLazyRows(w *embeddings, params, m, v []float32, threads int) *lazyRows {
	return &lazyRows{embeddings: w, params: params, m: m, v: v, applied: make([]int32, w.rows), threads: threads}
}

// settle brings one row up to date.
func (r *lazyRows) settle(id int64) {
	if n := int32(r.deferred.Len()); r.applied[id] < n {
		r.deferred.Apply(r.row(r.params, id), r.row(r.m, id), r.row(r.v, id), int(r.applied[id]))
		r.applied[id] = n
	}
}

// settleAll brings the table up to date.
func (r *lazyRows) settleAll() {
	if r.deferred.Len() == 0 {
		return
	}
	parallel.Do((len(r.applied)+rowsAtOnce-1)/rowsAtOnce, r.threads, func(part int) {
		for id := part * rowsAtOnce; id < min((part+1)*rowsAtOnce, len(r.applied)); id++ {
			r.settle(int64(id))
		}
	})
	r.forget()
}

// rowsAtOnce is how many rows a thread takes at a time.
const rowsAtOnce = 256

// forget drops the updates that were put off, when all rows are up to date or
// have been replaced.
func (r *lazyRows) forget() {
	r.deferred.Clear()
	clear(r.applied)
}

// step updates the touched rows, which must be up to date, and puts the update
// of all others off.
func (r *lazyRows) step(o optim.AdamW, u optim.Update) {
	r.deferred.Add(o, u)
	threads := u.Threads
	u.Threads = 1 // for one row
	stepRows.Run((len(r.touched)+stepRowsAtOnce-1)/stepRowsAtOnce, threads, steppedRows{r, o, u})
}

// stepRowsAtOnce is how many touched rows a thread takes at a time.
const stepRowsAtOnce = 32

// steppedRows is what a step of the touched rows works on.
type steppedRows struct {
	*lazyRows
	adamW  optim.AdamW
	update optim.Update
}

var stepRows = parallel.New(func(r *steppedRows, part int) {
	from, to := part*stepRowsAtOnce, min((part+1)*stepRowsAtOnce, len(r.touched))
	gradients, n := r.gradients.Float32(), int32(r.deferred.Len())
	for _, id := range r.touched[from:to] {
		r.adamW.Step(r.row(r.params, id), r.row(r.m, id), r.row(r.v, id), r.row(gradients, id), r.update)
		r.applied[id] = n
	}
})
