package graph

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Products are computed in low precision; what sums many numbers, divides or
// takes exponentials stays in float32; everything else is computed in the
// precision of its inputs, in float32 if they differ. That is how torch.autocast
// divides operators.
var (
	lowered = []string{"FusedMatMul", gemm, FlashAttention, FlashAttentionGrad}
	follows = []string{"Add", "Sub", "Mul", "Neg", "Where", "Transpose", "Reshape", "Slice", "Concat", "Expand", "Identity",
		"Gather", "Gelu", "Relu", "Tanh", dropoutRandom, PhiloxDropout}
	// Operators of ours that know low precision.
	lowKernels = []string{PhiloxDropout, FlashAttention, FlashAttentionGrad}
	// Inputs and outputs, by number, that stay float32 whatever the others are: the
	// ratio of dropout; tokens, and what attention knows of every row of its scores.
	fullInputs  = map[string][]int{dropoutRandom: {1}, FlashAttention: {5}, FlashAttentionGrad: {7, 8}}
	fullOutputs = map[string][]int{FlashAttention: {1}, FlashAttentionGrad: {5}}
)

// LowerPrecision converts the model, when all of it is there, to mixed
// precision: products in to, which is Float16 or BFloat16. Inputs and outputs
// remain float32.
//
// Inputs that are in copies, by their names, the caller also has in low precision:
// where that is read, the model gets an input with the name that copies has for it,
// in the place of the other if nothing reads that any more. All other inputs that
// products read are rounded anew in every run.
//
// Only operators that ONNX Runtime computes in bfloat16 on a GPU are converted.
// The fused kernels of [KernelDomain] know float32 alone, but for those of dropout
// and of attention.
func (g *Graph) LowerPrecision(to Type, copies map[string]string) {
	check(to.IsLow(), "LowerPrecision", "%v is not a low precision", to)
	c := converter{g: g, low: to, copies: copies, values: map[*Value]*Value{}, casts: map[*Value]*Value{}}
	for _, n := range g.live() {
		c.convert(n)
	}
	for i, o := range g.outputs {
		g.outputs[i].value = c.as(o.value, o.value.Type)
	}
	g.nodes = c.nodes
	g.segments = nil
	g.inputs = c.inputs()
}

type converter struct {
	g      *Graph
	low    Type
	copies map[string]string
	nodes  []*Node
	values map[*Value]*Value // float32 values that are computed in low precision
	casts  map[*Value]*Value // a value → the same in the other precision
}

// inputs returns the inputs of the model as it has become.
func (c *converter) inputs() (inputs []*Value) {
	read := map[*Value]bool{}
	for _, n := range c.nodes {
		for _, v := range n.Inputs {
			read[v] = true
		}
	}
	for _, o := range c.g.outputs {
		read[o.value] = true
	}
	for _, v := range c.g.inputs {
		low := c.casts[v]
		copied := low != nil && low.node == nil
		if read[v] || !copied {
			inputs = append(inputs, v)
		}
		if copied {
			inputs = append(inputs, low)
		}
	}
	return inputs
}

func (c *converter) convert(n *Node) {
	low := slices.Contains(lowered, n.Op) && !delicate(n) || slices.Contains(follows, n.Op) && c.allLow(n)
	if n.Domain == KernelDomain && !slices.Contains(lowKernels, n.Op) {
		low = false
	}
	inputs := make([]*Value, len(n.Inputs))
	for i, v := range n.Inputs {
		inputs[i] = v
		if v.Type == Float32 {
			t := Float32
			if low && !slices.Contains(fullInputs[n.Op], i) {
				t = c.low
			}
			inputs[i] = c.as(v, t)
		}
	}
	copied := &Node{Op: n.Op, Domain: n.Domain, Inputs: inputs, Attributes: n.Attributes}
	for i, v := range n.Outputs {
		if !low || v.Type != Float32 || slices.Contains(fullOutputs[n.Op], i) {
			// Its readers know the value by this pointer.
			v.node = copied
			copied.Outputs = append(copied.Outputs, v)
			continue
		}
		lowValue := &Value{Name: v.Name, Type: c.low, Shape: v.Shape, node: copied}
		c.values[v] = lowValue
		copied.Outputs = append(copied.Outputs, lowValue)
	}
	c.nodes = append(c.nodes, copied)
}

// delicate tells products that add up what must not be rounded: sums written as
// a product with a column or a constant.
func delicate(n *Node) bool {
	out := n.Outputs[0].Shape
	return out[len(out)-1] == 1 || n.Inputs[0].data != nil || n.Inputs[1].data != nil
}

// allLow reports whether all float inputs that are computed are so in low precision.
func (c *converter) allLow(n *Node) bool {
	some := false
	for _, v := range n.Inputs {
		if v.Type != Float32 || v.data != nil {
			continue
		}
		if c.values[v] == nil {
			return false
		}
		some = true
	}
	return some
}

// as returns v, a value of the model as it was, in a precision.
func (c *converter) as(v *Value, t Type) *Value {
	have := v
	if l := c.values[v]; l != nil {
		have = l
	}
	if have.Type == t || v.Type != Float32 {
		return have
	}
	if v.data != nil {
		return c.g.lowConstant(v, t)
	}
	if name, ok := c.copies[v.Name]; ok && v.node == nil && c.casts[v] == nil {
		c.casts[v] = &Value{Name: name, Type: t, Shape: v.Shape}
	}
	if c.casts[v] == nil {
		n := &Node{Op: "Cast", Inputs: []*Value{have}, Attributes: []Attribute{{"to", t}}}
		n.Outputs = []*Value{{Name: c.g.newName("cast"), Type: t, Shape: v.Shape, node: n}}
		c.nodes = append(c.nodes, n)
		c.casts[v] = n.Outputs[0]
	}
	return c.casts[v]
}

// lowConstant returns a float32 constant in low precision.
func (g *Graph) lowConstant(v *Value, t Type) *Value {
	var data []byte
	for _, x := range v.floats() {
		data = binary.LittleEndian.AppendUint16(data, t.Bits(float32(x)))
	}
	return g.intern(&Value{Type: t, Shape: v.Shape, data: data, fill: v.fill})
}

// Bits returns the number of a low precision that is nearest to x, ties to even.
func (t Type) Bits(x float32) uint16 {
	check(t.IsLow(), "Bits", "%v is not a low precision", t)
	if t == Float16 {
		return float16(x)
	}
	return bfloat16(x)
}

// bfloat16 rounds to the nearest number with 8 bits of mantissa, ties to even.
func bfloat16(x float32) uint16 {
	bits := math.Float32bits(x)
	if x != x {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// float16 rounds to the nearest number of IEEE 754 binary16, ties to even; what
// is too large becomes infinite.
func float16(x float32) uint16 {
	bits := math.Float32bits(x)
	sign := uint16(bits >> 16 & 0x8000)
	abs := math.Abs(float64(x))
	switch {
	case x != x:
		return sign | 0x7e00
	case abs >= 65520: // halfway between the largest number and the next one
		return sign | 0x7c00
	case abs < 0x1p-14: // subnormal: multiples of 2⁻²⁴
		return sign | uint16(math.RoundToEven(abs*0x1p24))
	}
	fraction, exponent := math.Frexp(abs) // fraction in [0.5, 1)
	mantissa := math.RoundToEven(fraction * 2048)
	// The leading 1 of the mantissa, 1024, adds to the exponent what is missing.
	return sign | uint16((exponent+13)<<10+int(mantissa))
}

// LowPrecision returns the type that a name of the configuration stands for:
// bf16 or fp16.
func LowPrecision(name string) (Type, error) {
	switch name {
	case "bf16":
		return BFloat16, nil
	case "fp16":
		return Float16, nil
	}
	return 0, fmt.Errorf("graph: no low precision is called %q, want bf16 or fp16", name)
}
