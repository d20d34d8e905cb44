package deberta

import (
	"fmt"

	"github.com/criteria-go/criteria/internal/graph"
)

// DeviceOptions says how the graphs for a GPU are written.
type DeviceOptions struct {
	// Low is the precision of products: graph.Float32, Float16 or BFloat16. In
	// another than float32 they read parameters from inputs called [LowOf]. What
	// reads a parameter in float32 does so from its own input, which is there only
	// if something does: for the weights of LayerNorms and the embeddings.
	Low graph.Type
	// Seed of the dropout, which the graph draws itself.
	Seed uint64
	// Kernels are the operators of the device beside those of ONNX. With
	// PhiloxDropout the graph has the input [DropoutPosition] if it drops anything.
	Kernels graph.Kernels
	// Flash computes attention by the operators FlashAttention and
	// FlashAttentionGrad, which Kernels must have; see [Config.CheckFlash].
	Flash bool
}

// CheckFlash tells whether there are kernels of fused attention for the model.
func (c Config) CheckFlash() error {
	const step, largest = 8, 64
	if size := c.HiddenSize / c.Heads; size%step != 0 || size > largest {
		return fmt.Errorf("train.optimizations.attention_implementation=flash_attention_2 is for heads of 8, 16, … 64 elements, and those of this model have %d: take sdpa", size)
	}
	return nil
}

// DropoutPosition is the input that dropout depends on, beside the seed: an int64
// [1], which must be another number for every micro-batch.
const DropoutPosition = "dropout_position"

// DeviceEvaluation is [Model.Evaluation] in standard operators, and those of fused
// attention, with products in low precision if asked for.
func (m Model) DeviceEvaluation(rows, length int, o DeviceOptions) *Graph {
	b := m.newBuilder("eval_model", rows, length, o.Kernels, nil)
	b.flash = o.Flash
	g := b.evaluation()
	m.lower(g, o)
	return g
}

// DeviceTraining returns the graph batch + parameters + sums → loss, logits and
// the sums of gradients, in standard operators and those of the device. It differs from
// [Model.Training] in what a GPU had to wait for: it draws its dropout itself,
// adds the gradients of looked-up rows to the table, and all gradients to what
// the micro-batches before have left. Padding, row 0 of the table, gets no
// gradient, as in torch.
func (m Model) DeviceTraining(rows, length int, o DeviceOptions) *Graph {
	b := m.newBuilder("training_model", rows, length, o.Kernels, nil)
	b.flash, b.seed = o.Flash, o.Seed
	b.random = func(x *graph.Value, p float64) *graph.Value {
		b.sites++
		if b.g.Offers(graph.PhiloxDropout) {
			return b.g.PhiloxDropout(x, b.dropoutPosition(), p, o.Seed, b.sites)
		}
		// Consecutive seeds give independent streams of the counter-based
		// generator; the factor keeps those of two runs apart.
		return b.g.DropoutRandom(x, p, int((o.Seed*1_000_003+uint64(b.sites))&(1<<62-1)))
	}
	lossScale := b.g.Input(LossScale, graph.Float32)
	loss, logits := b.classify()
	b.g.Output(Loss, loss)
	b.g.Output(Logits, logits)
	for _, t := range b.gradients(loss, lossScale) {
		sum, d := b.g.Input(SumOf(t.Name), graph.Float32, t.Shape...), t.gradient
		if t.Name == WordEmbeddings {
			ids := b.g.Reshape(b.ids, rows*length)
			padding := b.g.Reshape(b.g.Equal(ids, b.g.Ints([]int{0}, 1)), rows*length, 1)
			sum = b.g.ScatterAdd(sum, ids, b.g.Where(padding, b.g.Scalar(0), d))
		} else {
			sum = b.g.Add(sum, d)
		}
		b.g.Output(GradientOf(t.Name), sum)
	}
	g := b.graph()
	m.lower(g, o)
	return g
}

// dropoutPosition is the input of this name, once it is needed.
func (b *builder) dropoutPosition() *graph.Value {
	if b.position == nil {
		b.position = b.g.Input(DropoutPosition, graph.Int64, 1)
	}
	return b.position
}

// flashAttention is attention of all rows by the device's own operators. The tables
// of products with relative positions are computed again in the backward pass: they
// are larger than all else that a layer keeps.
func (b *builder) flashAttention(q, k, v, pq, pk *graph.Value, scale float64) *graph.Value {
	in := graph.FlashInputs{Query: q, Key: k, Value: v, Tokens: b.tokens, Scale: scale, Seed: b.seed}
	if p := b.Config.AttentionDropout; p > 0 && b.random != nil {
		b.sites++
		in.Dropout, in.Position, in.Site = p, b.dropoutPosition(), b.sites
	}
	attend := func() *graph.Value {
		in.ContentToPosition, in.PositionToContent = b.positionScores(b.heads(q), b.heads(k), pq, pk, scale)
		return b.g.FlashAttention(in)
	}
	if b.Recompute { // the layer's part contains this one
		return attend()
	}
	return b.g.Recompute(attend)
}

// lower takes leave of what a GPU lacks, or computes slowly.
func (m Model) lower(g *Graph, o DeviceOptions) {
	g.SplitReduceMax()
	switch o.Low {
	case 0, graph.Float32:
	case graph.Float16, graph.BFloat16:
		copies := map[string]string{}
		for _, p := range m.Params() {
			copies[p.Name] = LowOf(p.Name)
		}
		g.LowerPrecision(o.Low, copies)
	default:
		panic(fmt.Sprintf("deberta: products in %v", o.Low))
	}
}
