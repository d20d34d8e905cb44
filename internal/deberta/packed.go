package deberta

import (
	"fmt"

	"github.com/criteria-go/criteria/internal/graph"
)

// Names of the inputs of a graph for packed batches, in place of [AttentionMask]. The
// tokens of all rows lie end to end: [InputIDs] is [T]. T, R and L may differ from run
// to run; a graph knows the number of rows alone.
const (
	Offsets        = "offsets"        // int64 [B+1]: row r is tokens offsets[r] … offsets[r+1]−1; what follows the last is ignored
	RelativeRows   = "relative_rows"  // int64 [R]: see [Relative]
	RelativeIndex  = "relative_index" // int64 [2L−1]
	DropoutKey     = "dropout_key"    // int64 [1]; training only
	nameTokens     = "tokens"         // T
	namePositions  = "positions"      // R
	nameDistances  = "distances"      // 2L−1
	packedRowWidth = Alignment        // what the width of a model must be a multiple of
)

// Relative says which rows of the relative embeddings rows of up to some number of
// tokens need, and for every relative position which of them.
type Relative struct {
	Rows  []int64 // of the table, rising
	Index []int64 // of the relative position i−(L−1): an index of Rows
}

// RelativeFor returns what a packed batch needs whose longest row has so many tokens.
func (c Config) RelativeFor(length int) Relative {
	p := c.positionsFor(length)
	r := Relative{Index: make([]int64, 2*length-1)}
	for _, row := range p.rows {
		r.Rows = append(r.Rows, int64(row))
	}
	for i := range r.Index {
		r.Index[i] = int64(p.index(i - (length - 1)))
	}
	return r
}

// Drawn says how dropout with probability p is drawn: of 65536 values threshold drop
// an element, and what is kept is multiplied by scale.
type Drawn func(p float64) (threshold int, scale float64)

// packed is what a builder for packed batches has in addition.
type packed struct {
	offsets, rows, index, key *graph.Value
	drawn                     Drawn // nil: no dropout
}

// Packs reports whether there are graphs of the model for packed batches.
func (m Model) Packs(k graph.Kernels) bool {
	return k.OffersPacked() && m.Config.HiddenSize%packedRowWidth == 0
}

// PackedEvaluation is [Model.Evaluation] of packed batches.
func (m Model) PackedEvaluation(rows int, kernels graph.Kernels) *Graph {
	return m.newPackedBuilder("eval_model", rows, kernels, nil).evaluation()
}

// PackedTraining is [Model.Training] of packed batches. It has no masks: operators draw
// their dropout from the input [DropoutKey].
func (m Model) PackedTraining(rows int, kernels graph.Kernels, drawn Drawn) *Graph {
	return m.newPackedBuilder("training_model", rows, kernels, drawn).training(leave)
}

// PackedAccumulating is [Model.Accumulating] of packed batches.
func (m Model) PackedAccumulating(rows int, kernels graph.Kernels, drawn Drawn) *Graph {
	return m.newPackedBuilder("training_model", rows, kernels, drawn).training(addToSum)
}

func (m Model) newPackedBuilder(name string, rows int, kernels graph.Kernels, drawn Drawn) *builder {
	b := &builder{Model: m, g: graph.New(name, kernels), rows: rows}
	g := b.g
	b.packed = &packed{drawn: drawn}
	b.ids = g.Input(InputIDs, graph.Int64, g.Symbol(nameTokens))
	b.packed.offsets = g.Input(Offsets, graph.Int64, rows+1)
	b.packed.rows = g.Input(RelativeRows, graph.Int64, g.Symbol(namePositions))
	b.packed.index = g.Input(RelativeIndex, graph.Int64, g.Symbol(nameDistances))
	b.packed.key = g.Ints([]int{0}, 1)
	if drawn != nil {
		b.packed.key = g.Input(DropoutKey, graph.Int64, 1)
		b.random = b.draw
	}
	b.declare()
	return b
}

// site returns how the next place of dropout draws. Places that drop nothing have no
// number, as they have no mask in padded graphs.
func (b *builder) site(p float64) graph.Draw {
	d := graph.Draw{Key: b.packed.key, Scale: 1}
	if b.packed.drawn != nil && p > 0 {
		d.Site = b.sites
		d.Threshold, d.Scale = b.packed.drawn(p)
		b.sites++
	}
	return d
}

// draw is dropout of what all tokens have, what the first tokens alone have, or what
// all rows share.
func (b *builder) draw(x *graph.Value, p float64) *graph.Value {
	g, d := b.g, b.site(p)
	switch n := x.Shape[0]; n {
	case b.ids.Shape[0]:
		return g.PackedDropout(x, b.packed.offsets, d)
	case b.packed.rows.Shape[0]:
		return g.TableDropout(x, b.packed.rows, d)
	case b.rows:
		each := make([]int, n+1)
		for i := range each {
			each[i] = i
		}
		return g.PackedDropout(x, g.Ints(each, n+1), d)
	}
	panic(fmt.Sprintf("deberta: dropout of %v in a packed batch", x))
}

// embed is [builder.embed] of a packed batch.
func (b *builder) embedPacked() *graph.Value {
	g := b.g
	b.embedded = g.Gather(b.param(WordEmbeddings), b.ids)
	b.input = b.dropout(b.norm(b.embedded, "deberta.embeddings.LayerNorm"), b.Config.HiddenDropout)
	b.relative = b.norm(g.GatherDistinct(b.param(relEmbeddings), b.packed.rows), "deberta.encoder.LayerNorm")
	return b.input
}

// packedAttention is attention of a packed batch.
func (b *builder) packedAttention(queries, x *graph.Value, self string, scale float64, firstOnly bool) *graph.Value {
	g, c := b.g, b.Config
	in := graph.PackedAttentionInputs{Offsets: b.packed.offsets, Index: b.packed.index, Heads: c.Heads, Scale: scale}
	if !firstOnly {
		projections, positions := b.project(x, self)
		in.Dropout = b.site(c.AttentionDropout)
		return g.PackedAttention(projections, positions, in, !b.forwardOnly)
	}
	q := b.linear(queries, self+"query_proj")
	k := b.linear(x, self+"key_proj")
	v := b.linear(x, self+"value_proj")
	relative := b.dropout(b.relative, c.HiddenDropout)
	pq := b.linear(relative, self+"query_proj")
	pk := b.linear(relative, self+"key_proj")
	in.Dropout = b.site(c.AttentionDropout)
	return g.PackedFirstAttention(q, k, v, pq, pk, in)
}

// packedPool is [builder.pool] of a packed batch.
func (b *builder) packedPool(x *graph.Value) *graph.Value {
	kind := map[string]graph.Pooling{"cls": graph.First, "mean": graph.Mean, "max": graph.Maximum}[b.Head.Pooling]
	return b.g.PackedPool(x, b.packed.offsets, kind)
}
