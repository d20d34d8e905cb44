package deberta

import (
	"fmt"
	"math"
	"slices"

	"github.com/criteria-go/criteria/internal/graph"
)

// Names of the inputs and outputs that both graphs have. L is the length,
// B the number of rows.
const (
	InputIDs      = "input_ids"      // int64 [B, L]
	AttentionMask = "attention_mask" // int64 [B, L]: 1 for tokens, 0 for padding
	Labels        = "labels"         // int64 [B]
	SampleWeights = "sample_weights" // float32 [B]; 0 takes a row out of the loss
	LossScale     = "loss_scale"     // float32 []: factor of all gradients; training only

	Loss   = "loss"   // float32 []: Σ w·nll / Σ w
	Logits = "logits" // float32 [B, 2]
)

// GradientOf returns the name of the output that holds a parameter's gradient.
// The one of [WordEmbeddings] is by rows, [B·L, hidden]: row i is to be added
// to the row of the table that input_ids names.
func GradientOf(param string) string { return "grad." + param }

// SumOf returns the name of the input that the gradient of a parameter is added
// to: the sum is output [GradientOf]. Both may be the same memory.
func SumOf(param string) string { return "sum." + param }

// LowOf returns the name of the input that has a parameter in low precision, in a
// graph for a device whose products read it.
func LowOf(param string) string { return "low." + param }

// Mask is an input that says which elements dropout keeps. Where several
// layers drop out the same way each has a mask of its own.
type Mask struct {
	Name  string
	Shape []int
	Drop  float64 // probability of false
	// Table numbers the rows of the relative embeddings that the mask is for; nil: it is
	// for the rows of the batch, of which attention's masks, [heads, B, queries, keys],
	// have several elements for each head.
	Table []int
}

// Weight is an input that holds a parameter, or several that are neighbours in
// [Model.Params] and make one larger matrix or vector.
type Weight struct {
	Name  string // of the input
	First string // the parameter that its memory begins with
	Shape []int
	// Trained tells whether a training graph has the output [GradientOf] for it.
	// Every parameter is part of one weight that is trained.
	Trained bool

	value *graph.Value
	part  *Weight // the first rows, which are an input of their own as well
}

// Alignment is what the sizes of neighbours must be multiples of, in elements, for
// one input to hold them: a layout that begins every parameter at such a multiple,
// as a cache line does, then leaves no gaps between them.
const Alignment = 16

// Graph is a model for batches of one shape.
type Graph struct {
	*graph.Graph
	Rows, Length int
	Masks        []Mask   // none in an evaluation graph
	Weights      []Weight // as long as all of them are in float32
}

// Evaluation returns the graph batch + parameters → loss, logits, without
// dropout.
func (m Model) Evaluation(rows, length int, kernels graph.Kernels) *Graph {
	return m.newBuilder("eval_model", rows, length, kernels, nil).evaluation()
}

func (b *builder) evaluation() *Graph {
	b.forwardOnly = true
	loss, logits := b.classify()
	b.g.Output(Loss, loss)
	b.g.Output(Logits, logits)
	return b.graph()
}

// Training returns the graph batch + masks + parameters → loss, logits and the
// gradient of every parameter. scale returns what dropout with probability p
// multiplies the kept elements by: 1/(1−p) for the p that the mask generator
// really has.
func (m Model) Training(rows, length int, kernels graph.Kernels, scale func(p float64) float64) *Graph {
	return m.newBuilder("training_model", rows, length, kernels, scale).training(leave)
}

// Accumulating returns the graph [Model.Training] with the inputs [SumOf], which
// gradients are added to: what the micro-batches of an update have left that came
// before. Only rows of the word embeddings come alone.
func (m Model) Accumulating(rows, length int, kernels graph.Kernels, scale func(p float64) float64) *Graph {
	return m.newBuilder("training_model", rows, length, kernels, scale).training(addToSum)
}

// A finish has the last word on the gradient of a weight.
type finish func(g *graph.Graph, w Weight, gradient *graph.Value) *graph.Value

// leave leaves a gradient as it is.
func leave(_ *graph.Graph, _ Weight, d *graph.Value) *graph.Value { return d }

// addToSum adds a gradient to what the micro-batches before have left.
func addToSum(g *graph.Graph, w Weight, d *graph.Value) *graph.Value {
	if w.Name == WordEmbeddings {
		return d
	}
	return g.AddTo(g.Input(SumOf(w.Name), graph.Float32, w.Shape...), d)
}

// training returns a training graph.
func (b *builder) training(finish finish) *Graph {
	lossScale := b.g.Input(LossScale, graph.Float32)
	loss, logits := b.classify()
	b.g.Output(Loss, loss)
	b.g.Output(Logits, logits)

	for _, t := range b.gradients(loss, lossScale) {
		b.g.Output(GradientOf(t.Name), finish(b.g, t.Weight, t.gradient))
	}
	return b.graph()
}

// trained is a weight with its gradient: for the word embeddings' table that of
// the rows that were looked up.
type trained struct {
	Weight
	gradient *graph.Value
}

// gradients returns the gradients of loss, times a factor.
func (b *builder) gradients(loss, scale *graph.Value) []trained {
	var all []trained
	var with []*graph.Value
	for _, w := range b.weights {
		switch {
		case !w.Trained:
			continue
		case w.Name == WordEmbeddings:
			with = append(with, b.embedded)
		default:
			with = append(with, w.value)
		}
		all = append(all, trained{Weight: *w})
		if w.part != nil {
			with = append(with, w.part.value)
		}
	}
	gradients := b.g.Gradients(loss, scale, with)
	for i := range all {
		all[i].gradient, gradients = gradients[0], gradients[1:]
		if all[i].part != nil {
			all[i].gradient, gradients = b.g.AddRows(all[i].gradient, gradients[0]), gradients[1:]
		}
	}
	return all
}

// builder holds what the parts of one graph share.
type builder struct {
	Model
	g            *graph.Graph
	rows, length int
	forwardOnly  bool                    // no gradient will be asked for
	scale        func(p float64) float64 // nil: no dropout
	masks        []Mask
	random       func(x *graph.Value, p float64) *graph.Value // dropout without masks; nil: with them
	sites        int                                          // dropouts by random
	seed         uint64                                       // of them
	position     *graph.Value                                 // the input that they depend on; nil: none does so far
	flash        bool                                         // attention by the operators of a device
	packed       *packed                                      // nil: batches are padded
	weights      []*Weight                                    // what inputs hold, in the order of the inputs

	// int64 [B, L], or [T] if packed; float32 [B·L, 1], the attention mask
	ids, tokens *graph.Value
	embedded    *graph.Value // rows of the word embeddings [B·L, D]
	input       *graph.Value // of the first layer: the same, normalised [B·L, D]
	relative    *graph.Value // normalised relative embeddings [R, D]
	positions   positions
	keyBias     *graph.Value // [1, B, 1, L]: 0 for tokens, very negative for padding
	// allRows computes every row of the last layer even if pooling reads one.
	allRows bool
	hidden  *graph.Value // output of the last layer, [B·L, D], or [B, D] for cls pooling
	pooled  *graph.Value // [B, D]
}

func (m Model) newBuilder(name string, rows, length int, kernels graph.Kernels, scale func(float64) float64) *builder {
	b := &builder{Model: m, g: graph.New(name, kernels), rows: rows, length: length, scale: scale,
		positions: m.Config.positionsFor(length)}
	b.ids = b.g.Input(InputIDs, graph.Int64, rows, length)
	mask := b.g.Input(AttentionMask, graph.Int64, rows, length)
	b.tokens = b.g.Reshape(b.g.Cast(mask, graph.Float32), rows*length, 1)
	b.declare()
	return b
}

// declare declares the inputs for all parameters.
func (b *builder) declare() {
	for _, p := range b.Params() {
		b.weight(p.Name, p.Name, p.Shape...)
	}
}

// graph returns what was built.
func (b *builder) graph() *Graph {
	g := &Graph{Graph: b.g, Rows: b.rows, Length: b.length, Masks: b.masks}
	for _, w := range b.weights {
		g.Weights = append(g.Weights, *w)
	}
	return g
}

// weight declares an input for the memory that begins with a parameter.
func (b *builder) weight(name, first string, shape ...int) *Weight {
	w := &Weight{Name: name, First: first, Shape: shape, Trained: true, value: b.g.Input(name, graph.Float32, shape...)}
	b.weights = append(b.weights, w)
	return w
}

func (b *builder) param(name string) *graph.Value { return b.find(name).value }

func (b *builder) find(name string) *Weight {
	i := slices.IndexFunc(b.weights, func(w *Weight) bool { return w.Name == name })
	if i < 0 {
		panic("deberta: no parameter is called " + name)
	}
	return b.weights[i]
}

func (b *builder) linear(x *graph.Value, prefix string) *graph.Value {
	return b.g.Linear(x, b.param(prefix+".weight"), b.param(prefix+".bias"))
}

func (b *builder) norm(x *graph.Value, prefix string) *graph.Value {
	return b.g.LayerNorm(x, b.param(prefix+".weight"), b.param(prefix+".bias"), b.Config.LayerNormEps)
}

func (b *builder) dropout(x *graph.Value, p float64) *graph.Value {
	if p > 0 && b.random != nil {
		return b.random(x, p)
	}
	mask := b.mask(p, x.Shape...)
	if mask == nil {
		return x
	}
	if x == b.relative {
		b.masks[len(b.masks)-1].Table = b.positions.rows
	}
	return b.g.Dropout(x, mask, b.scale(p))
}

// mask declares the input that says what one place of dropout keeps; nil if
// nothing is dropped.
func (b *builder) mask(p float64, shape ...int) *graph.Value {
	if b.scale == nil || p == 0 {
		return nil
	}
	m := Mask{Name: fmt.Sprintf("dropout.%d", len(b.masks)), Shape: shape, Drop: p}
	b.masks = append(b.masks, m)
	return b.g.Input(m.Name, graph.Bool, m.Shape...)
}

// classify builds the whole forward pass.
func (b *builder) classify() (loss, logits *graph.Value) {
	x := b.embed()
	for l := range b.Config.Layers {
		if layer := func() *graph.Value { return b.layer(x, l) }; b.Recompute {
			x = b.g.Recompute(layer)
		} else {
			x = layer()
		}
	}
	b.hidden = x
	b.pooled = b.pool(x)
	logits = b.classifier(b.pooled)
	return b.crossEntropy(logits), logits
}

// masked is added to the scores of padding. It is far below every score, yet far
// from the end of float32: the sum of both stays finite, and exp of it is 0 as
// soon as one key is a token.
const masked = -1e30

// embed looks the tokens up and prepares what all layers share.
func (b *builder) embed() *graph.Value {
	if b.packed != nil {
		return b.embedPacked()
	}
	g, n := b.g, b.rows*b.length
	b.embedded = g.Gather(b.param(WordEmbeddings), g.Reshape(b.ids, n))
	x := b.norm(b.embedded, "deberta.embeddings.LayerNorm")
	x = b.dropout(g.Mul(x, b.tokens), b.Config.HiddenDropout)
	b.input = x

	used := g.Gather(b.param(relEmbeddings), g.Ints(b.positions.rows, len(b.positions.rows)))
	b.relative = b.norm(used, "deberta.encoder.LayerNorm")

	b.keyBias = g.Reshape(g.Scale(g.Sub(g.Scalar(1), b.tokens), masked), 1, b.rows, 1, b.length)
	return x
}

// layer is one encoder layer: disentangled attention, then the feed-forward
// network, each with dropout, residual and LayerNorm.
//
// With cls pooling nothing reads the last layer's output but its first row per
// pair, so only keys and values are computed for the others.
func (b *builder) layer(x *graph.Value, l int) *graph.Value {
	g, prefix := b.g, layerPrefix(l)
	queries := x
	firstOnly := l == b.Config.Layers-1 && b.Head.Pooling == "cls" && !b.allRows
	if firstOnly {
		queries = b.firstRows(x)
	}
	context := b.attention(queries, x, prefix, firstOnly)
	y := b.dropout(b.linear(context, prefix+"attention.output.dense"), b.Config.HiddenDropout)
	y = b.norm(g.Add(y, queries), prefix+"attention.output.LayerNorm")
	z := b.linear(g.Gelu(b.linear(y, prefix+"intermediate.dense")), prefix+"output.dense")
	z = b.dropout(z, b.Config.HiddenDropout)
	return b.norm(g.Add(z, y), prefix+"output.LayerNorm")
}

// firstRows returns the [CLS] row of every pair: [B·L, D] → [B, D].
func (b *builder) firstRows(x *graph.Value) *graph.Value {
	if b.packed != nil {
		return b.g.PackedPool(x, b.packed.offsets, graph.First)
	}
	d := x.Shape[1]
	first := b.g.Slice(b.g.Reshape(x, b.rows, b.length, d), 1, 0, 1)
	return b.g.Reshape(first, b.rows, d)
}

// heads splits [B·n, D] into [heads, B, n, D/heads]. Heads come first, so that
// the products with relative positions, which all rows of the batch share, are
// one product per head.
func (b *builder) heads(x *graph.Value) *graph.Value {
	h := b.Config.Heads
	n := x.Shape[0] / b.rows
	x = b.g.Reshape(x, b.rows, n, h, x.Shape[1]/h)
	return b.g.Transpose(x, 2, 0, 1, 3)
}

// relativeHeads takes the rows of x [R, D] that the given relative positions
// need and splits them into [heads, len(relative)+zeros, D/heads].
func (b *builder) relativeHeads(x *graph.Value, relative []int, zeros int) *graph.Value {
	g, h, d := b.g, b.Config.Heads, x.Shape[1]
	rows := make([]int, len(relative))
	identity := len(rows) == x.Shape[0]
	for i, r := range relative {
		rows[i] = b.positions.index(r)
		identity = identity && rows[i] == i
	}
	if !identity {
		x = g.Gather(x, g.Ints(rows, len(rows)))
	}
	if zeros > 0 {
		x = g.Concat(0, x, g.Zeros(zeros, d))
	}
	return g.Transpose(g.Reshape(x, len(rows)+zeros, h, d/h), 1, 0, 2)
}

// attention is disentangled attention with the content-to-position and
// position-to-content terms, whose projections are shared with the content's:
//
//	A[i,j] = (q_i·k_j + q_i·pk[i−j] + k_j·pq[i−j]) / sqrt(3·d)
//
// queries is [B·L, D], or [B, D] if only the first row of each pair is wanted.
func (b *builder) attention(queries, x *graph.Value, prefix string, firstOnly bool) *graph.Value {
	g, c, n := b.g, b.Config, b.length
	size := c.HiddenSize / c.Heads
	const terms = 3 // content to content, content to position, position to content
	scale := 1 / math.Sqrt(float64(terms*size))
	self := prefix + "attention.self."
	if b.packed != nil {
		return b.packedAttention(queries, x, self, scale, firstOnly)
	}
	if g.Offers(graph.Attention) && !firstOnly && b.random == nil && c.HiddenSize%Alignment == 0 {
		return b.fusedAttention(x, self, scale)
	}
	q := b.linear(queries, self+"query_proj")
	k := b.linear(x, self+"key_proj")
	v := b.linear(x, self+"value_proj")
	relative := b.dropout(b.relative, c.HiddenDropout)
	pq := b.linear(relative, self+"query_proj")
	pk := b.linear(relative, self+"key_proj")
	if b.flash && !firstOnly {
		return b.flashAttention(q, k, v, pq, pk, scale)
	}
	q, k, v = b.heads(q), b.heads(k), b.heads(v)
	var scores *graph.Value
	if firstOnly {
		scores = b.firstScores(q, k, pq, pk, scale)
	} else {
		scores = b.allScores(q, k, pq, pk, scale)
	}
	probs := g.Softmax(g.Add(scores, b.keyBias))
	probs = b.dropout(probs, c.AttentionDropout)
	context := g.MatMul(probs, v, graph.MatMulOptions{}) // [heads, B, n, size]
	context = g.Transpose(context, 1, 2, 0, 3)
	if firstOnly {
		n = 1
	}
	return g.Reshape(context, b.rows*n, c.HiddenSize)
}

// fusedAttention is attention of all rows in one operator, which reads query,
// key and value as one product yields them.
func (b *builder) fusedAttention(x *graph.Value, self string, scale float64) *graph.Value {
	g, n := b.g, b.length
	projections, positions := b.project(x, self)
	index := make([]int, 2*n-1)
	for i := range index {
		index[i] = b.positions.index(i - (n - 1))
	}
	in := graph.AttentionInputs{Projections: projections, Positions: positions, Tokens: b.tokens,
		Index: g.Ints(index, len(index)), Heads: b.Config.Heads, Scale: scale, Keep: 1}
	if in.Mask = b.mask(b.Config.AttentionDropout, b.Config.Heads, b.rows, n, n); in.Mask != nil {
		in.Keep = b.scale(b.Config.AttentionDropout)
	}
	return g.Attention(in, !b.forwardOnly)
}

// project returns query, key and value of all tokens side by side, and query and key
// of the relative positions.
func (b *builder) project(x *graph.Value, self string) (projections, positions *graph.Value) {
	weight, bias := b.joined(self, ".weight", b.Config.HiddenSize), b.joined(self, ".bias")
	projections = b.g.Linear(x, weight.value, bias.value)
	relative := b.dropout(b.relative, b.Config.HiddenDropout)
	return projections, b.g.Linear(relative, weight.part.value, bias.part.value)
}

// joined declares the weights, or the biases, of the projections to query, key
// and value as one input. Its part, those to query and key, is another one, over
// the same memory.
func (b *builder) joined(self, kind string, columns ...int) *Weight {
	shape := func(n int) []int { return append([]int{n * b.Config.HiddenSize}, columns...) }
	first := self + "query_proj" + kind
	for _, name := range []string{"query_proj", "key_proj", "value_proj"} {
		b.find(self + name + kind).Trained = false
	}
	all := b.weight(self+"query_key_value_proj"+kind, first, shape(3)...)
	all.part = b.weight(self+"query_key_proj"+kind, first, shape(2)...)
	all.part.Trained = false
	return all
}

// allScores returns the attention scores of every query: [heads, B, L, L].
func (b *builder) allScores(q, k, pq, pk *graph.Value, scale float64) *graph.Value {
	g := b.g
	content := g.MatMul(q, k, graph.MatMulOptions{TransB: true, Alpha: scale})
	c2p, p2c := b.positionScores(q, k, pq, pk, scale)
	return g.Add(g.Add(content, g.Skew(c2p)), g.Transpose(g.Skew(p2c), 0, 1, 3, 2))
}

// positionScores returns the products of queries, and of keys, with all relative
// positions: [heads, B, L, 2L], to be skewed.
func (b *builder) positionScores(q, k, pq, pk *graph.Value, scale float64) (c2p, p2c *graph.Value) {
	g, h, n := b.g, b.Config.Heads, b.length
	size := q.Shape[3]
	times := graph.MatMulOptions{TransB: true, Alpha: scale}
	// Column t of a product with relative positions stands for the offset
	// t−(L−1) from the row to the other side.
	towardsKeys, towardsQueries := make([]int, 2*n-1), make([]int, 2*n-1)
	for t := range towardsKeys {
		offset := t - (n - 1)
		towardsKeys[t] = -offset   // row is the query i, other side the key j: i−j
		towardsQueries[t] = offset // row is the key j, other side the query i: i−j
	}
	byPosition := func(rows, positions *graph.Value) *graph.Value {
		p := g.MatMul(g.Reshape(rows, h, b.rows*n, size), positions, times)
		return g.Reshape(p, h, b.rows, n, 2*n)
	}
	return byPosition(q, b.relativeHeads(pk, towardsKeys, 1)), byPosition(k, b.relativeHeads(pq, towardsQueries, 1))
}

// firstScores returns the attention scores of the first query of each pair,
// [heads, B, 1, L]: there the relative position of key j is always −j.
func (b *builder) firstScores(q, k, pq, pk *graph.Value, scale float64) *graph.Value {
	g, h, n := b.g, b.Config.Heads, b.length
	size := q.Shape[3]
	relative := make([]int, n)
	for j := range relative {
		relative[j] = -j
	}
	c2p := g.MatMul(g.Reshape(q, h, b.rows, size), b.relativeHeads(pk, relative, 0),
		graph.MatMulOptions{TransB: true, Alpha: scale})
	// k_j·q + k_j·pq[−j] = k_j·(q + pq[−j])
	query := g.Add(q, g.Reshape(b.relativeHeads(pq, relative, 0), h, 1, n, size))
	content := g.ReduceSum(g.Mul(k, query), false, 3)
	return g.Reshape(g.Add(g.Scale(content, scale), c2p), h, b.rows, 1, n)
}

// pool reduces the hidden states of a pair to one vector: [B·L, D] → [B, D].
func (b *builder) pool(x *graph.Value) *graph.Value {
	g, d := b.g, b.Config.HiddenSize
	if b.Head.Pooling == "cls" {
		if x.Shape[0] == b.rows && !b.allRows {
			return x
		}
		return b.firstRows(x)
	}
	if b.packed != nil {
		return b.packedPool(x)
	}
	states := g.Reshape(x, b.rows, b.length, d)
	tokens := g.Reshape(b.tokens, b.rows, b.length, 1)
	if b.Head.Pooling == "mean" {
		count := g.Max(g.ReduceSum(tokens, false, 1), g.Scalar(1e-9)) // [B, 1]
		return g.Div(g.ReduceSum(g.Mul(states, tokens), false, 1), count)
	}
	lowest := g.Scalar(-math.MaxFloat32)
	return g.ReduceMax(g.Where(g.Greater(tokens, g.Scalar(0)), states, lowest), false, 1)
}

// classifier is the head: hidden layers with activation and dropout, then the
// logits.
func (b *builder) classifier(x *graph.Value) *graph.Value {
	for k := range b.Head.HiddenDims {
		x = b.linear(x, fmt.Sprintf("head.%d", k))
		switch b.Head.Activation {
		case "relu":
			x = b.g.Relu(x)
		case "gelu":
			x = b.g.Gelu(x)
		case "tanh":
			x = b.g.Tanh(x)
		}
		x = b.dropout(x, b.Head.Dropout)
	}
	return b.linear(x, fmt.Sprintf("head.%d", len(b.Head.HiddenDims)))
}

// crossEntropy is torch's: Σ w·nll / Σ w, with a weight for every row.
func (b *builder) crossEntropy(logits *graph.Value) *graph.Value {
	g := b.g
	labels := g.Input(Labels, graph.Int64, b.rows)
	weights := g.Input(SampleWeights, graph.Float32, b.rows)
	classes := make([]int, Classes)
	for i := range classes {
		classes[i] = i
	}
	target := g.Cast(g.Equal(g.Reshape(labels, b.rows, 1), g.Ints(classes, 1, Classes)), graph.Float32)
	nll := g.Neg(g.ReduceSum(g.Mul(g.LogSoftmax(logits), target), false, 1))
	// The bound keeps a batch without labels at 0 instead of 0/0.
	total := g.Max(g.ReduceSum(weights, false, 0), g.Scalar(1e-30))
	return g.Div(g.ReduceSum(g.Mul(nll, weights), false, 0), total)
}
