package deberta

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/criteria-go/criteria/internal/graph"
)

// TokenTypeIDs is an input of the inference graph, int64 [B, L], that nothing
// reads: DeBERTaV3 has no token types, but tokenizers of transformers give them,
// and programs pass on what they are given.
const TokenTypeIDs = "token_type_ids"

// Source returns the elements of a parameter, row-major. It may be asked for
// the same one twice, and its slice is used before it is asked for the next.
type Source func(p Param) ([]float32, error)

// Inference returns the graph input_ids, attention_mask, token_type_ids →
// logits, with the parameters in it, for batches of any number of rows and any
// length. All its operators are of the ONNX standard.
//
// With int8 the embeddings and the weights of the encoder's linear layers are
// stored in eight bits, with a scale for each row, and the products of linear
// layers are computed in integers on activations that are quantised as they
// come (ONNX's DynamicQuantizeLinear, MatMulInteger). Attention, LayerNorms
// and head stay in float32.
//
// It is [Model.Evaluation] with shapes that the runtime finds: the formulas
// are explained there.
func (m Model) Inference(source Source, int8 bool) *graph.Graph {
	b := &dynamicBuilder{Model: m, g: graph.New("model", nil), source: source, int8: int8,
		params: map[string]Param{}, stored: map[string]*graph.Value{}, quantized: map[*graph.Value]activation{}}
	for _, p := range m.Params() {
		b.params[p.Name] = p
	}
	rows, length := graph.Dim{Name: "batch"}, graph.Dim{Name: "sequence"}
	ids := b.g.DynamicInput(InputIDs, graph.Int64, rows, length)
	mask := b.g.DynamicInput(AttentionMask, graph.Int64, rows, length)
	b.g.DynamicInput(TokenTypeIDs, graph.Int64, rows, length)
	b.sizes(ids)
	x := b.embed(ids, mask)
	for l := range m.Config.Layers {
		x = b.layer(x, l)
	}
	b.g.DynamicOutput(Logits, b.classifier(b.pool(x)), rows, graph.Dim{Size: Classes})
	return b.g
}

// dynamicBuilder is [builder] for shapes known only at run time. Comments give
// the shapes: B rows of length L, N = B·L, D the hidden size, H heads of size S,
// R rows of relative embeddings.
type dynamicBuilder struct {
	Model
	g      *graph.Graph
	source Source
	int8   bool
	params map[string]Param
	stored map[string]*graph.Value // parameters that are in the graph, by name

	rows, length                     *graph.Value // B and L, int64 [1]
	towardsKeys, towardsQueries      *graph.Value // rows of the relative embeddings by offset, int64 [2L]
	fromFirst                        *graph.Value // rows for the offsets of the first query, int64 [L]
	headsShape, productShape         *graph.Value // for Reshape: [B, ·, H, S] and [H, B, ·]
	stretchShape                     *graph.Value // for Reshape: [H, B, L, ·]
	skewStart, skewEnd, zero, minus1 *graph.Value // int64 [1]

	tokens    *graph.Value // float32 [N, 1], the attention mask
	relative  *graph.Value // normalised relative embeddings [R, D]
	keyBias   *graph.Value // [1, B, 1, L]: 0 for tokens, very negative for padding
	quantized map[*graph.Value]activation
}

// activation is a quantised activation: uint8 with one scale and zero point.
type activation struct{ q, scale, zero *graph.Value }

// Short forms of [graph.Graph.Op] for operators with one result.

func (b *dynamicBuilder) float(op string, inputs ...*graph.Value) *graph.Value {
	return b.g.Op(op, []graph.Type{graph.Float32}, inputs)[0]
}

func (b *dynamicBuilder) int(op string, inputs ...*graph.Value) *graph.Value {
	return b.g.Op(op, []graph.Type{graph.Int64}, inputs)[0]
}

func (b *dynamicBuilder) with(op string, t graph.Type, attributes []graph.Attribute, inputs ...*graph.Value) *graph.Value {
	return b.g.Op(op, []graph.Type{t}, inputs, attributes...)[0]
}

// axes returns a list of integers as operators take it.
func (b *dynamicBuilder) axes(elements ...int) *graph.Value {
	return b.g.Ints(elements, len(elements))
}

// joined concatenates lists of integers.
func (b *dynamicBuilder) joined(parts ...*graph.Value) *graph.Value {
	return b.with("Concat", graph.Int64, []graph.Attribute{{Name: "axis", Value: 0}}, parts...)
}

func (b *dynamicBuilder) reshape(x, shape *graph.Value) *graph.Value {
	return b.g.Op("Reshape", []graph.Type{x.Type}, []*graph.Value{x, shape})[0]
}

func (b *dynamicBuilder) transpose(x *graph.Value, perm ...int) *graph.Value {
	return b.with("Transpose", x.Type, []graph.Attribute{{Name: "perm", Value: perm}}, x)
}

func (b *dynamicBuilder) gather(table, indices *graph.Value, axis int) *graph.Value {
	return b.with("Gather", table.Type, []graph.Attribute{{Name: "axis", Value: axis}}, table, indices)
}

func (b *dynamicBuilder) slice(x, start, end *graph.Value, axis int) *graph.Value {
	return b.g.Op("Slice", []graph.Type{x.Type}, []*graph.Value{x, start, end, b.axes(axis)})[0]
}

func (b *dynamicBuilder) cast(x *graph.Value, to graph.Type) *graph.Value {
	return b.with("Cast", to, []graph.Attribute{{Name: "to", Value: to}}, x)
}

func (b *dynamicBuilder) reduce(op string, x *graph.Value, axis int) *graph.Value {
	return b.with(op, graph.Float32, []graph.Attribute{{Name: "keepdims", Value: 0}}, x, b.axes(axis))
}

// sizes computes what depends on the shape of a batch alone, once for all
// layers.
func (b *dynamicBuilder) sizes(ids *graph.Value) {
	g, h, size := b.g, b.Config.Heads, b.Config.HiddenSize/b.Config.Heads
	shape := b.int("Shape", ids)
	b.rows, b.length = b.gather(shape, b.axes(0), 0), b.gather(shape, b.axes(1), 0)
	b.zero, b.minus1 = b.axes(0), b.axes(-1)

	// The row of the relative embeddings for every relative position from −far
	// to far; beyond these it does not change.
	far := b.Config.farthest()
	table := make([]int, 2*far+1)
	for i := range table {
		table[i] = b.Config.row(i - far)
	}
	rowsOf := func(relative *graph.Value) *graph.Value {
		bounded := b.int("Clip", relative, g.Ints([]int{-far}), g.Ints([]int{far}))
		return b.gather(g.Ints(table, len(table)), b.int("Add", bounded, b.axes(far)), 0)
	}
	length := b.gather(shape, g.Ints([]int{1}), 0) // without dimensions, as Range takes it
	one := g.Ints([]int{1})
	// Offset from a row to the other side, 1−L … L−1, and one more, which fills
	// the rows up to 2L and is never read.
	offsets := b.int("Range", b.int("Sub", one, length), b.int("Add", length, one), one)
	b.towardsKeys, b.towardsQueries = rowsOf(b.int("Neg", offsets)), rowsOf(offsets)
	b.fromFirst = rowsOf(b.int("Neg", b.int("Range", g.Ints([]int{0}), length, one)))

	b.headsShape = b.joined(b.rows, b.axes(-1, h, size))
	b.productShape = b.joined(b.axes(h), b.rows, b.minus1)
	b.stretchShape = b.joined(b.axes(h), b.rows, b.length, b.minus1)
	width := b.int("Sub", b.int("Mul", b.length, b.axes(2)), b.axes(1))
	b.skewStart = b.int("Sub", b.length, b.axes(1))
	b.skewEnd = b.int("Add", b.skewStart, b.int("Mul", b.length, width))
}

// farthest returns a distance from which on, in both directions, every relative
// position has the same row.
func (c Config) farthest() int {
	far := c.PositionBuckets
	for c.row(far) != 2*c.PositionBuckets-1 || c.row(-far) != 0 {
		far++
	}
	return far
}

// param puts a parameter into the graph as it is.
func (b *dynamicBuilder) param(name string) *graph.Value {
	p := b.known(name)
	return b.store(name, graph.Float32, p.Shape, func(w io.Writer) error {
		elements, err := b.source(p)
		if err != nil {
			return err
		}
		return writeFloats(w, elements)
	})
}

func (b *dynamicBuilder) known(name string) Param {
	p, ok := b.params[name]
	if !ok {
		panic("deberta: no parameter is called " + name)
	}
	return p
}

func (b *dynamicBuilder) store(name string, t graph.Type, shape []int, write func(io.Writer) error) *graph.Value {
	if v, ok := b.stored[name]; ok {
		return v
	}
	v := b.g.Stored(name, t, write, shape...)
	b.stored[name] = v
	return v
}

// Eight-bit weights are within ±63 where they meet eight-bit activations: two
// products then fit the 16 bits in which processors without VNNI add them, so
// that all processors compute the same.
const (
	factorRange = 63
	tableRange  = 127 // of weights that are only looked up
)

// quantize puts a matrix [rows, columns] into the graph in eight bits, and the
// scale of each row: w ≈ q·scale. With transposed q is [columns, rows] and the
// scale [rows], else q is [rows, columns] and the scale [rows, 1].
func (b *dynamicBuilder) quantize(name string, limit float32, transposed bool) (q, scale *graph.Value) {
	p := b.known(name)
	rows, columns := p.Shape[0], p.Shape[1]
	shape, scaleShape := []int{rows, columns}, []int{rows, 1}
	if transposed {
		shape, scaleShape = []int{columns, rows}, []int{rows}
	}
	q = b.store(name+".int8", graph.Int8, shape, func(w io.Writer) error {
		elements, err := b.source(p)
		if err != nil {
			return err
		}
		scales := rowScales(elements, columns, limit)
		out := make([]byte, len(elements))
		for r := range rows {
			for c := range columns {
				at := r*columns + c
				if transposed {
					at = c*rows + r
				}
				out[at] = byte(int8(math.RoundToEven(float64(elements[r*columns+c] / scales[r]))))
			}
		}
		_, err = w.Write(out)
		return err
	})
	scale = b.store(name+".scale", graph.Float32, scaleShape, func(w io.Writer) error {
		elements, err := b.source(p)
		if err != nil {
			return err
		}
		return writeFloats(w, rowScales(elements, columns, limit))
	})
	return q, scale
}

// rowScales returns for each row what maps its largest element to limit.
func rowScales(elements []float32, columns int, limit float32) []float32 {
	scales := make([]float32, len(elements)/columns)
	for r := range scales {
		var largest float32
		for _, w := range elements[r*columns:][:columns] {
			largest = max(largest, w, -w)
		}
		scales[r] = largest / limit
		if scales[r] == 0 {
			scales[r] = 1
		}
	}
	return scales
}

func writeFloats(w io.Writer, elements []float32) error {
	buffer := make([]byte, 0, 1<<16)
	for i, x := range elements {
		buffer = binary.LittleEndian.AppendUint32(buffer, math.Float32bits(x))
		if len(buffer) == cap(buffer) || i == len(elements)-1 {
			if _, err := w.Write(buffer); err != nil {
				return err
			}
			buffer = buffer[:0]
		}
	}
	return nil
}

// linear returns x·Wᵀ + b for a linear layer of the encoder, in eight bits if
// that is asked for.
func (b *dynamicBuilder) linear(x *graph.Value, prefix string) *graph.Value {
	if !b.int8 {
		return b.floatLinear(x, prefix)
	}
	a, ok := b.quantized[x] // query, key and value share it
	if !ok {
		v := b.g.Op("DynamicQuantizeLinear", []graph.Type{graph.Uint8, graph.Float32, graph.Uint8}, []*graph.Value{x})
		a = activation{v[0], v[1], v[2]}
		b.quantized[x] = a
	}
	q, scale := b.quantize(prefix+".weight", factorRange, true)
	sum := b.with("MatMulInteger", graph.Int32, nil, a.q, q, a.zero)
	y := b.float("Mul", b.cast(sum, graph.Float32), b.float("Mul", a.scale, scale))
	return b.float("Add", y, b.param(prefix+".bias"))
}

func (b *dynamicBuilder) floatLinear(x *graph.Value, prefix string) *graph.Value {
	return b.with("Gemm", graph.Float32, []graph.Attribute{{Name: "transB", Value: 1}}, x, b.param(prefix+".weight"), b.param(prefix+".bias"))
}

// relativeLinear projects the relative embeddings. Its operands are constants,
// so a runtime computes it once, when it loads the model; in float32, therefore,
// whatever the weights are stored in.
func (b *dynamicBuilder) relativeLinear(prefix string) *graph.Value {
	if !b.int8 {
		return b.floatLinear(b.relative, prefix)
	}
	q, scale := b.quantize(prefix+".weight", factorRange, true)
	weight := b.float("Mul", b.cast(q, graph.Float32), scale) // [in, out]
	return b.float("Gemm", b.relative, weight, b.param(prefix+".bias"))
}

func (b *dynamicBuilder) norm(x *graph.Value, prefix string) *graph.Value {
	return b.with("LayerNormalization", graph.Float32,
		[]graph.Attribute{{Name: "axis", Value: -1}, {Name: "epsilon", Value: float32(b.Config.LayerNormEps)}},
		x, b.param(prefix+".weight"), b.param(prefix+".bias"))
}

// embed looks the tokens up, [N, D], and prepares what all layers share.
func (b *dynamicBuilder) embed(ids, mask *graph.Value) *graph.Value {
	g := b.g
	b.tokens = b.reshape(b.cast(mask, graph.Float32), b.axes(-1, 1))
	flat := b.reshape(ids, b.minus1)
	var x *graph.Value
	if b.int8 {
		q, scale := b.quantize(WordEmbeddings, tableRange, false)
		x = b.float("Mul", b.cast(b.gather(q, flat, 0), graph.Float32), b.gather(scale, flat, 0))
	} else {
		x = b.gather(b.param(WordEmbeddings), flat, 0)
	}
	x = b.float("Mul", b.norm(x, "deberta.embeddings.LayerNorm"), b.tokens)
	b.relative = b.norm(b.param(relEmbeddings), "deberta.encoder.LayerNorm")
	bias := b.float("Mul", b.float("Sub", g.Scalar(1), b.tokens), g.Scalar(masked))
	b.keyBias = b.reshape(bias, b.joined(b.axes(1), b.rows, b.axes(1), b.length))
	return x
}

func (b *dynamicBuilder) layer(x *graph.Value, l int) *graph.Value {
	prefix := layerPrefix(l)
	queries := x
	firstOnly := l == b.Config.Layers-1 && b.Head.Pooling == "cls"
	if firstOnly {
		queries = b.firstRows(x)
	}
	y := b.linear(b.attention(queries, x, prefix, firstOnly), prefix+"attention.output.dense")
	y = b.norm(b.float("Add", y, queries), prefix+"attention.output.LayerNorm")
	z := b.linear(b.float("Gelu", b.linear(y, prefix+"intermediate.dense")), prefix+"output.dense")
	return b.norm(b.float("Add", z, y), prefix+"output.LayerNorm")
}

// states returns x [N, D] as [B, L, D].
func (b *dynamicBuilder) states(x *graph.Value) *graph.Value {
	return b.reshape(x, b.joined(b.rows, b.length, b.axes(b.Config.HiddenSize)))
}

// firstRows returns the [CLS] row of every pair: [N, D] → [B, D].
func (b *dynamicBuilder) firstRows(x *graph.Value) *graph.Value {
	return b.gather(b.states(x), b.g.Ints([]int{0}), 1)
}

// heads splits [B·n, D] into [H, B, n, S].
func (b *dynamicBuilder) heads(x *graph.Value) *graph.Value {
	return b.transpose(b.reshape(x, b.headsShape), 2, 0, 1, 3)
}

// relativeHeads projects the relative embeddings and takes the given rows:
// [H, n, S].
func (b *dynamicBuilder) relativeHeads(prefix string, rows *graph.Value, scale float64) *graph.Value {
	h, size := b.Config.Heads, b.Config.HiddenSize/b.Config.Heads
	x := b.relativeLinear(prefix)
	if scale != 1 {
		x = b.float("Mul", x, b.g.Scalar(scale))
	}
	x = b.transpose(b.reshape(x, b.axes(-1, h, size)), 1, 0, 2) // [H, R, S], a constant
	return b.gather(x, rows, 1)
}

// attention takes queries [N, D], or [B, D] if only the first row of each pair
// is wanted, and returns as many rows.
func (b *dynamicBuilder) attention(queries, x *graph.Value, prefix string, firstOnly bool) *graph.Value {
	self := prefix + "attention.self."
	const terms = 3 // content to content, content to position, position to content
	scale := 1 / math.Sqrt(float64(terms*b.Config.HiddenSize/b.Config.Heads))
	q := b.float("Mul", b.heads(b.linear(queries, self+"query_proj")), b.g.Scalar(scale))
	k := b.heads(b.linear(x, self+"key_proj"))
	v := b.heads(b.linear(x, self+"value_proj"))
	scores := b.float("MatMul", q, b.transpose(k, 0, 1, 3, 2)) // [H, B, n, L]
	if firstOnly {
		scores = b.float("Add", scores, b.firstPositions(q, k, self, scale))
	} else {
		c2p := b.byPosition(q, b.relativeHeads(self+"key_proj", b.towardsKeys, 1))
		p2c := b.byPosition(k, b.relativeHeads(self+"query_proj", b.towardsQueries, scale))
		scores = b.float("Add", b.float("Add", scores, c2p), b.transpose(p2c, 0, 1, 3, 2))
	}
	probs := b.with("Softmax", graph.Float32, []graph.Attribute{{Name: "axis", Value: -1}}, b.float("Add", scores, b.keyBias))
	context := b.transpose(b.float("MatMul", probs, v), 1, 2, 0, 3) // [B, n, H, S]
	return b.reshape(context, b.axes(-1, b.Config.HiddenSize))
}

// byPosition multiplies rows [H, B, L, S] with the relative positions [H, 2L, S]
// and shifts the products to where they belong, [H, B, L, L]; see
// [graph.Graph.Skew].
func (b *dynamicBuilder) byPosition(rows, positions *graph.Value) *graph.Value {
	h, size := b.Config.Heads, b.Config.HiddenSize/b.Config.Heads
	all := b.reshape(rows, b.axes(h, -1, size))
	p := b.float("MatMul", all, b.transpose(positions, 0, 2, 1)) // [H, N, 2L]
	p = b.reshape(p, b.productShape)                             // [H, B, 2L²]
	p = b.slice(p, b.skewStart, b.skewEnd, 2)
	p = b.reshape(p, b.stretchShape) // [H, B, L, 2L−1]
	return b.slice(p, b.zero, b.length, 3)
}

// firstPositions returns both terms with positions for the first query of each
// pair, [H, B, 1, L]: there the relative position of key j is always −j.
func (b *dynamicBuilder) firstPositions(q, k *graph.Value, self string, scale float64) *graph.Value {
	h, size := b.Config.Heads, b.Config.HiddenSize/b.Config.Heads
	pk := b.relativeHeads(self+"key_proj", b.fromFirst, 1)
	pq := b.relativeHeads(self+"query_proj", b.fromFirst, scale)
	c2p := b.float("MatMul", b.reshape(q, b.axes(h, -1, size)), b.transpose(pk, 0, 2, 1)) // [H, B, L]
	p2c := b.reduce("ReduceSum", b.float("Mul", k, b.reshape(pq, b.axes(h, 1, -1, size))), 3)
	return b.reshape(b.float("Add", c2p, p2c), b.joined(b.axes(h), b.rows, b.axes(1), b.minus1))
}

// pool reduces the hidden states of a pair to one vector: [N, D] → [B, D]. For
// cls pooling the last layer has done so.
func (b *dynamicBuilder) pool(x *graph.Value) *graph.Value {
	if b.Head.Pooling == "cls" {
		return x
	}
	states, tokens := b.states(x), b.reshape(b.tokens, b.joined(b.rows, b.length, b.axes(1)))
	if b.Head.Pooling == "mean" {
		count := b.float("Max", b.reduce("ReduceSum", tokens, 1), b.g.Scalar(1e-9))
		return b.float("Div", b.reduce("ReduceSum", b.float("Mul", states, tokens), 1), count)
	}
	isToken := b.with("Greater", graph.Bool, nil, tokens, b.g.Scalar(0))
	return b.reduce("ReduceMax", b.float("Where", isToken, states, b.g.Scalar(-math.MaxFloat32)), 1)
}

var activations = map[string]string{"relu": "Relu", "gelu": "Gelu", "tanh": "Tanh"}

func (b *dynamicBuilder) classifier(x *graph.Value) *graph.Value {
	for k := range b.Head.HiddenDims {
		x = b.float(activations[b.Head.Activation], b.floatLinear(x, fmt.Sprintf("head.%d", k)))
	}
	return b.floatLinear(x, fmt.Sprintf("head.%d", len(b.Head.HiddenDims)))
}
