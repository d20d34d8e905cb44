package graph

import (
	"fmt"
	"slices"
)

// check panics with a message that names the operator unless ok.
func check(ok bool, op string, format string, args ...any) {
	if !ok {
		panic("graph: " + op + ": " + fmt.Sprintf(format, args...))
	}
}

// broadcast returns the shape of an elementwise operation on a and b, by
// NumPy's rule: shapes are aligned at their last dimension, and a dimension of
// 1 stretches.
func broadcast(op string, a, b []int) []int {
	shape := make([]int, max(len(a), len(b)))
	for i := range shape {
		da, db := 1, 1
		if k := i - len(shape) + len(a); k >= 0 {
			da = a[k]
		}
		if k := i - len(shape) + len(b); k >= 0 {
			db = b[k]
		}
		check(da == db || da == 1 || db == 1, op, "shapes %v and %v do not broadcast", a, b)
		shape[i] = max(da, db)
	}
	return shape
}

func (g *Graph) binary(op string, a, b *Value) *Value {
	check(a.Type == b.Type, op, "%v and %v have different types", a, b)
	return g.apply1(op, "", []*Value{a, b}, a.Type, broadcast(op, a.Shape, b.Shape))
}

// compare is a binary operator with a boolean result.
func (g *Graph) compare(op string, a, b *Value) *Value {
	check(a.Type == b.Type, op, "%v and %v have different types", a, b)
	return g.apply1(op, "", []*Value{a, b}, Bool, broadcast(op, a.Shape, b.Shape))
}

func (g *Graph) unary(op string, x *Value) *Value {
	check(x.Type == Float32 || x.Type == Float64, op, "%v has no fractions", x)
	return g.apply1(op, "", []*Value{x}, x.Type, x.Shape)
}

// Elementwise operators with NumPy's broadcasting.

// Add returns a + b.
func (g *Graph) Add(a, b *Value) *Value { return g.binary("Add", a, b) }

// Sub returns a − b.
func (g *Graph) Sub(a, b *Value) *Value { return g.binary("Sub", a, b) }

// Mul returns a · b, element by element.
func (g *Graph) Mul(a, b *Value) *Value { return g.binary("Mul", a, b) }

// Div returns a / b, element by element.
func (g *Graph) Div(a, b *Value) *Value { return g.binary("Div", a, b) }

// Max returns the larger of a and b. It is not differentiable here.
func (g *Graph) Max(a, b *Value) *Value { return g.binary("Max", a, b) }

// Min returns the smaller of a and b. It is not differentiable here.
func (g *Graph) Min(a, b *Value) *Value { return g.binary("Min", a, b) }

// Pow returns aᵇ. It is not differentiable here.
func (g *Graph) Pow(a, b *Value) *Value { return g.binary("Pow", a, b) }

// Equal returns whether a = b. Greater returns whether a > b.
func (g *Graph) Equal(a, b *Value) *Value { return g.compare("Equal", a, b) }

// Greater returns whether a > b, element by element.
func (g *Graph) Greater(a, b *Value) *Value { return g.compare("Greater", a, b) }

// Where returns a where condition holds and b elsewhere.
func (g *Graph) Where(condition, a, b *Value) *Value {
	check(condition.Type == Bool, "Where", "the condition %v is not bool", condition)
	check(a.Type == b.Type, "Where", "%v and %v have different types", a, b)
	shape := broadcast("Where", condition.Shape, broadcast("Where", a.Shape, b.Shape))
	return g.apply1("Where", "", []*Value{condition, a, b}, a.Type, shape)
}

// Neg returns −x.
func (g *Graph) Neg(x *Value) *Value { return g.unary("Neg", x) }

// Exp returns eˣ.
func (g *Graph) Exp(x *Value) *Value { return g.unary("Exp", x) }

// Erf returns the error function of x.
func (g *Graph) Erf(x *Value) *Value { return g.unary("Erf", x) }

// Sqrt returns the square root of x. It is not differentiable here.
func (g *Graph) Sqrt(x *Value) *Value { return g.unary("Sqrt", x) }

// Tanh returns the hyperbolic tangent of x.
func (g *Graph) Tanh(x *Value) *Value { return g.unary("Tanh", x) }

// Relu returns max(x, 0).
func (g *Graph) Relu(x *Value) *Value { return g.unary("Relu", x) }

// Gelu returns x·Φ(x) with the exact normal distribution function Φ, as
// torch.nn.functional.gelu(approximate="none") does.
func (g *Graph) Gelu(x *Value) *Value {
	return g.apply1("Gelu", microsoft, []*Value{x}, x.Type, x.Shape)
}

// Scale returns factor · x.
func (g *Graph) Scale(x *Value, factor float64) *Value { return g.Mul(x, g.Scalar(factor)) }

// Cast converts x to another type. It stops gradients.
func (g *Graph) Cast(x *Value, to Type) *Value {
	return g.apply1("Cast", "", []*Value{x}, to, x.Shape, Attribute{"to", to})
}

// Identity returns x under a name of its own.
func (g *Graph) Identity(x *Value) *Value {
	return g.apply1("Identity", "", []*Value{x}, x.Type, x.Shape)
}

// Products.

// MatMulOptions say how the last two dimensions of the factors are read.
type MatMulOptions struct {
	TransA, TransB bool
	Alpha          float64 // factor of the product; 0 means 1
}

// MatMul multiplies the matrices in the last two dimensions of a and b. All
// other dimensions must agree.
func (g *Graph) MatMul(a, b *Value, o MatMulOptions) *Value {
	rank := a.Rank()
	check(rank >= 2 && rank == b.Rank() && slices.Equal(a.Shape[:rank-2], b.Shape[:rank-2]),
		"MatMul", "the leading dimensions of %v and %v differ", a, b)
	m, k := a.Shape[rank-2], a.Shape[rank-1]
	if o.TransA {
		m, k = k, m
	}
	kb, n := b.Shape[rank-2], b.Shape[rank-1]
	if o.TransB {
		kb, n = n, kb
	}
	check(k == kb, "MatMul", "inner dimensions of %v (transposed %t) and %v (transposed %t) differ", a, o.TransA, b, o.TransB)
	if o.Alpha == 0 {
		o.Alpha = 1
	}
	shape := append(slices.Clone(a.Shape[:rank-2]), m, n)
	// FusedMatMul is MatMul with transposition and a factor folded in.
	return g.apply1("FusedMatMul", microsoft, []*Value{a, b}, Float32, shape,
		Attribute{"transA", toInt(o.TransA)}, Attribute{"transB", toInt(o.TransB)}, Attribute{"alpha", float32(o.Alpha)})
}

// Linear returns x·Wᵀ + b for x [n, in], weight [out, in] (torch's layout) and
// bias [out], which may be nil.
func (g *Graph) Linear(x, weight, bias *Value) *Value {
	return g.gemm(x, weight, bias, false, true)
}

// gemm multiplies two matrices and adds bias, a row vector, if it is not nil.
func (g *Graph) gemm(a, b, bias *Value, transA, transB bool) *Value {
	check(a.Rank() == 2 && b.Rank() == 2, gemm, "%v and %v must be matrices", a, b)
	m, k := a.Shape[0], a.Shape[1]
	if transA {
		m, k = k, m
	}
	kb, n := b.Shape[0], b.Shape[1]
	if transB {
		kb, n = n, kb
	}
	check(k == kb, gemm, "inner dimensions of %v (transposed %t) and %v (transposed %t) differ", a, transA, b, transB)
	inputs := []*Value{a, b}
	if bias != nil {
		check(slices.Equal(bias.Shape, []int{n}), gemm, "bias %v must have shape [%d]", bias, n)
		inputs = append(inputs, bias)
	}
	domain := ""
	if g.kernels[gemm] {
		domain = KernelDomain
	}
	return g.apply1(gemm, domain, inputs, Float32, []int{m, n},
		Attribute{"transA", toInt(transA)}, Attribute{"transB", toInt(transB)})
}

// AddTo returns sum + v. If v is a product that nothing else reads, and the
// runtime offers it, the product is added up in the place of the sum.
func (g *Graph) AddTo(sum, v *Value) *Value {
	check(sum.Type == v.Type && slices.Equal(sum.Shape, v.Shape), "AddTo", "%v and %v do not fit", sum, v)
	if g.absorb(v, sum) {
		return v
	}
	return g.Add(sum, v)
}

// AddRows returns v with rows, a matrix or a vector, added to its first rows or
// elements; by the product that computes v, if [Graph.AddTo] would do so.
func (g *Graph) AddRows(v, rows *Value) *Value {
	rest := slices.Clone(v.Shape)
	rest[0] -= rows.Shape[0]
	check(rest[0] > 0 && slices.Equal(rows.Shape[1:], v.Shape[1:]), "AddRows", "%v does not fit %v", rows, v)
	if v.node != nil && v.node.Op == linearGrad && g.absorb(v, rows) {
		return v
	}
	return g.Add(v, g.Concat(0, rows, g.Zeros(rest...)))
}

// absorb lets the operator that computes v add to it what it is to be added to,
// if it can: a fused product with nothing to add yet, whose result nobody reads.
// An operator must come after what it reads.
func (g *Graph) absorb(v, addend *Value) bool {
	n := v.node
	if n == nil || n.Domain != KernelDomain {
		return false
	}
	for _, other := range g.nodes[slices.Index(g.nodes, n):] {
		if other == addend.node || slices.Contains(other.Inputs, v) && !g.waits[other] {
			return false
		}
	}
	switch n.Op {
	case gemm:
		if len(n.Inputs) == 2 {
			n.Inputs = append(n.Inputs, addend)
			return true
		}
	case linearGrad:
		if in := &n.Inputs[2+slices.Index(n.Outputs, v)]; (*in).Size() == 0 {
			*in = addend
			return true
		}
	}
	return false
}

// linearGradients returns the gradients of the weight, dyᵀ·x, and of the bias,
// the sum of the rows of dy. Nothing is added to them yet.
func (g *Graph) linearGradients(dy, x *Value) (weight, bias *Value) {
	out, in := dy.Shape[1], x.Shape[1]
	n := g.apply(linearGrad, KernelDomain, []*Value{dy, x, g.Float(nil, 0, in), g.Float(nil, 0)}, Float32, [][]int{{out, in}, {out}})
	return n[0], n[1]
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Shape operators.

// Reshape returns the elements of x in another shape of the same size.
func (g *Graph) Reshape(x *Value, shape ...int) *Value {
	check(product(shape) == x.Size(), "Reshape", "%v does not have the %d elements of %v", x, product(shape), shape)
	if slices.Equal(shape, x.Shape) {
		return x
	}
	return g.apply1("Reshape", "", []*Value{x, g.vector(g.openShape(shape)...)}, x.Type, shape)
}

// Transpose permutes dimensions: dimension i of the result is dimension
// perm[i] of x.
func (g *Graph) Transpose(x *Value, perm ...int) *Value {
	check(len(perm) == x.Rank(), "Transpose", "permutation %v does not fit %v", perm, x)
	shape := make([]int, len(perm))
	for i, p := range perm {
		shape[i] = x.Shape[p]
	}
	return g.apply1("Transpose", "", []*Value{x}, x.Type, shape, Attribute{"perm", slices.Clone(perm)})
}

// Expand repeats x along its dimensions of 1 until it has the given shape.
func (g *Graph) Expand(x *Value, shape ...int) *Value {
	check(slices.Equal(broadcast("Expand", x.Shape, shape), shape), "Expand", "%v does not broadcast to %v", x, shape)
	if slices.Equal(shape, x.Shape) {
		return x
	}
	return g.apply1("Expand", "", []*Value{x, g.vector(shape...)}, x.Type, shape)
}

// Slice returns x[…, start:end, …] along one axis.
func (g *Graph) Slice(x *Value, axis, start, end int) *Value {
	check(0 <= axis && axis < x.Rank() && 0 <= start && start < end && end <= x.Shape[axis],
		"Slice", "[%d:%d] along axis %d does not fit %v", start, end, axis, x)
	if start == 0 && end == x.Shape[axis] {
		return x
	}
	shape := slices.Clone(x.Shape)
	shape[axis] = end - start
	return g.apply1("Slice", "", []*Value{x, g.vector(start), g.vector(end), g.vector(axis)}, x.Type, shape)
}

// Concat joins values along one axis.
func (g *Graph) Concat(axis int, parts ...*Value) *Value {
	if len(parts) == 1 {
		return parts[0]
	}
	shape := slices.Clone(parts[0].Shape)
	shape[axis] = 0
	for _, p := range parts {
		rest := slices.Clone(p.Shape)
		rest[axis] = shape[axis]
		check(slices.Equal(rest, shape), "Concat", "%v does not fit %v along axis %d", p, parts[0], axis)
		shape[axis] += p.Shape[axis]
	}
	return g.apply1("Concat", "", slices.Clone(parts), parts[0].Type, shape, Attribute{"axis", axis})
}

// Gather returns the rows of table, a matrix, that indices (int64, any shape)
// name: [indices…, columns].
//
// It can be differentiated if indices is a constant. For indices known only at
// run time, differentiate with respect to the gathered rows and add them up
// outside: a dense gradient of a large table would be mostly zeros.
func (g *Graph) Gather(table, indices *Value) *Value {
	check(table.Rank() == 2 && indices.Type == Int64, "Gather", "%v must be a matrix and %v int64", table, indices)
	shape := append(slices.Clone(indices.Shape), table.Shape[1])
	return g.apply1("Gather", "", []*Value{table, indices}, table.Type, shape, Attribute{"axis", 0})
}

// Reductions.

func (g *Graph) reduced(x *Value, axes []int, keep bool) []int {
	var shape []int
	for i, d := range x.Shape {
		switch {
		case !slices.Contains(axes, i):
			shape = append(shape, d)
		case keep:
			shape = append(shape, 1)
		}
	}
	return shape
}

func (g *Graph) reduce(op string, x *Value, axes []int, keep bool) *Value {
	for _, a := range axes {
		check(0 <= a && a < x.Rank(), op, "axis %d does not exist in %v", a, x)
	}
	return g.apply1(op, "", []*Value{x, g.vector(axes...)}, x.Type, g.reduced(x, axes, keep),
		Attribute{"keepdims", toInt(keep)})
}

// ReduceSum adds up x along axes, which stay as dimensions of 1 if keep is set.
func (g *Graph) ReduceSum(x *Value, keep bool, axes ...int) *Value {
	return g.reduce("ReduceSum", x, axes, keep)
}

// ReduceMean averages x along axes.
func (g *Graph) ReduceMean(x *Value, keep bool, axes ...int) *Value {
	return g.reduce("ReduceMean", x, axes, keep)
}

// ReduceMax takes the maximum of x along axes. Where several elements are the
// maximum they share its gradient equally.
func (g *Graph) ReduceMax(x *Value, keep bool, axes ...int) *Value {
	return g.reduce("ReduceMax", x, axes, keep)
}

// Layers.

// Softmax normalises the last dimension of x.
func (g *Graph) Softmax(x *Value) *Value {
	return g.apply1("Softmax", "", []*Value{x}, x.Type, x.Shape, Attribute{"axis", -1})
}

// LogSoftmax returns the logarithm of [Graph.Softmax].
func (g *Graph) LogSoftmax(x *Value) *Value {
	return g.apply1("LogSoftmax", "", []*Value{x}, x.Type, x.Shape, Attribute{"axis", -1})
}

// LayerNorm normalises the last dimension of x [n, d] to mean 0 and variance 1
// (biased, epsilon inside the root), then scales by weight [d] and adds bias [d].
func (g *Graph) LayerNorm(x, weight, bias *Value, epsilon float64) *Value {
	d := []int{x.Shape[x.Rank()-1]}
	check(x.Rank() == 2 && slices.Equal(weight.Shape, d) && slices.Equal(bias.Shape, d),
		"LayerNormalization", "%v, %v and %v do not fit", x, weight, bias)
	stat := []int{x.Shape[0], 1}
	// Mean and reciprocal deviation are outputs as well: the backward pass
	// needs them. Without it they are dropped from the encoded node.
	return g.apply("LayerNormalization", "", []*Value{x, weight, bias}, Float32, [][]int{x.Shape, stat, stat},
		Attribute{"axis", -1}, Attribute{"epsilon", float32(epsilon)})[0]
}

// Dropout zeroes the elements of x where mask (bool, same shape) is false and
// multiplies the others by scale, which is 1/(probability to keep).
func (g *Graph) Dropout(x, mask *Value, scale float64) *Value {
	check(mask.Type == Bool && slices.Equal(mask.Shape, x.Shape), "Dropout", "mask %v does not fit %v", mask, x)
	if g.kernels[dropoutMask] {
		return g.apply1(dropoutMask, KernelDomain, []*Value{x, mask}, Float32, x.Shape, Attribute{"scale", float32(scale)})
	}
	return g.Where(mask, g.Scale(x, scale), g.Scalar(0))
}

// Skew turns products with all relative positions into products with the key
// at each position. x is [heads, batch, L, 2L]: column t of row i belongs to
// the relative position t − (L−1), the last column is ignored. The result is
// y[…, i, j] = x[…, i, j−i+L−1], of shape [heads, batch, L, L].
//
// Nothing is gathered: shifting row i by i is the same as reading the rows one
// element shorter than they are.
func (g *Graph) Skew(x *Value) *Value {
	check(x.Rank() == 4 && x.Shape[3] == 2*x.Shape[2], skew, "%v is not [heads, batch, L, 2L]", x)
	h, b, l := x.Shape[0], x.Shape[1], x.Shape[2]
	if g.kernels[skew] {
		return g.apply1(skew, KernelDomain, []*Value{x}, Float32, []int{h, b, l, l})
	}
	width := 2*l - 1
	y := g.Reshape(x, h, b, 2*l*l)
	y = g.Slice(y, 2, l-1, l-1+l*width)
	y = g.Reshape(y, h, b, l, width)
	return g.Slice(y, 3, 0, l)
}

// AttentionInputs are the values that disentangled attention reads, for B
// sequences of L positions, H heads of size D/H and R relative positions.
type AttentionInputs struct {
	Projections *Value // [B·L, 3·D]: query, key and value side by side
	Positions   *Value // [R, 2·D]: the relative embeddings' query pq and key pk
	Tokens      *Value // [B·L, 1]: 1 for a token, 0 for padding
	Index       *Value // int64 [2L−1], rising: row of the relative position i−(L−1)
	Mask        *Value // bool [H, B, L, L]: dropout of the probabilities; nil: none
	Heads       int
	Scale       float64 // factor of the scores
	Keep        float64 // factor of the probabilities that dropout keeps
}

// Attention returns disentangled attention, [B·L, D]:
//
//	softmax(scale·(q_i·k_j + q_i·pk[i−j] + k_j·pq[i−j]))·v
//
// It exists only as a fused operator; see [Graph.Offers]. differentiable says
// whether a gradient will be asked for: then the probabilities are kept.
func (g *Graph) Attention(in AttentionInputs, differentiable bool) *Value {
	check(g.Offers(Attention), Attention, "the runtime does not offer it")
	x, length := in.Projections, (in.Index.Size()+1)/2
	check(in.Index.Type == Int64 && x.Rank() == 2 && x.Shape[0]%length == 0 && 2*x.Shape[1] == 3*in.Positions.Shape[1],
		Attention, "%v, %v and %v do not fit", x, in.Positions, in.Index)
	inputs := []*Value{x, in.Positions, in.Tokens, in.Index}
	if in.Mask != nil {
		inputs = append(inputs, in.Mask)
	}
	attributes := []Attribute{{"heads", in.Heads}, {"scale", float32(in.Scale)}, {"keep", float32(in.Keep)}}
	context := []int{x.Shape[0], x.Shape[1] / 3}
	if !differentiable {
		return g.apply1(Attention, KernelDomain, inputs, Float32, context, attributes...)
	}
	probs := []int{in.Heads, x.Shape[0] / length, length, length}
	return g.apply(attentionProbs, KernelDomain, inputs, Float32, [][]int{context, probs}, attributes...)[0]
}
