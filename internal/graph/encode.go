package graph

import (
	"encoding/binary"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// irVersion 10 goes with opset 20 and newer; ONNX Runtime 1.24 reads it.
	irVersion = 10
	// opset 20 is the newest version of ONNX's operators that our graphs need.
	opset = 20
)

// plan is what Encode writes: the live nodes, with repeated-element constants
// as nodes in front and an Identity for every output that has no node of its
// own.
type plan struct {
	nodes        []*Node
	initializers []*Value
	names        map[*Value]string
}

func (g *Graph) plan() plan {
	p := plan{names: map[*Value]string{}}
	live := g.live()
	seen := map[*Value]bool{}
	use := func(v *Value) {
		if v.data == nil || seen[v] {
			return
		}
		seen[v] = true
		if !v.fill {
			p.initializers = append(p.initializers, v)
			return
		}
		p.nodes = append(p.nodes, &Node{Op: "ConstantOfShape", Inputs: []*Value{g.vector(v.Shape...)}, Outputs: []*Value{v},
			Attributes: []Attribute{{"value", v}}})
		if shape := g.vector(v.Shape...); !seen[shape] {
			seen[shape] = true
			p.initializers = append(p.initializers, shape)
		}
	}
	for _, n := range live {
		for _, v := range n.Inputs {
			use(v)
		}
	}
	p.nodes = append(p.nodes, live...)
	for _, o := range g.outputs {
		use(o.value)
		if _, taken := p.names[o.value]; taken || o.value.node == nil {
			id := &Value{Name: o.name, Type: o.value.Type, Shape: o.value.Shape}
			p.nodes = append(p.nodes, &Node{Op: "Identity", Inputs: []*Value{o.value}, Outputs: []*Value{id}})
			continue
		}
		p.names[o.value] = o.name
	}
	return p
}

func (p plan) name(v *Value) string {
	if name, ok := p.names[v]; ok {
		return name
	}
	return v.Name
}

// Encode returns the model as an ONNX file: the inputs in the order of their
// declaration (also unused ones), the nodes that the outputs need, and metadata
// as pairs of key and value. The same graph always gives the same bytes.
func (g *Graph) Encode(metadata ...[2]string) []byte {
	p := g.plan()
	read := map[*Value]bool{}
	for _, n := range p.nodes {
		for _, v := range n.Inputs {
			read[v] = true
		}
	}
	for _, o := range g.outputs {
		read[o.value] = true
	}

	var body []byte
	for _, n := range p.nodes {
		body = appendMessage(body, 1, p.appendNode(nil, n, read))
	}
	body = appendString(body, 2, g.Name)
	for _, v := range p.initializers {
		body = appendMessage(body, 5, appendTensor(nil, v, v.Shape))
	}
	for _, v := range g.inputs {
		body = appendMessage(body, 11, appendValueInfo(nil, v.Name, v))
	}
	for _, o := range g.outputs {
		body = appendMessage(body, 12, appendValueInfo(nil, o.name, o.value))
	}

	var model []byte
	model = appendInt(model, 1, irVersion)
	model = appendString(model, 2, "criteria")
	model = appendMessage(model, 7, body)
	for _, domain := range p.domains() {
		version := 1
		if domain == "" {
			version = opset
		}
		id := appendString(nil, 1, domain)
		model = appendMessage(model, 8, appendInt(id, 2, version))
	}
	for _, kv := range metadata {
		model = appendMessage(model, 14, appendString(appendString(nil, 1, kv[0]), 2, kv[1]))
	}
	return model
}

func (p plan) domains() []string {
	domains := []string{""}
	for _, n := range p.nodes {
		if !slices.Contains(domains, n.Domain) {
			domains = append(domains, n.Domain)
		}
	}
	slices.Sort(domains)
	return domains
}

// appendNode appends a NodeProto. Trailing outputs that nobody reads are left
// out, so that an inference graph does not compute statistics for a backward
// pass that it does not have.
func (p plan) appendNode(b []byte, n *Node, read map[*Value]bool) []byte {
	for _, v := range n.Inputs {
		b = appendString(b, 1, p.name(v))
	}
	outputs := n.Outputs
	for len(outputs) > 1 && !read[outputs[len(outputs)-1]] {
		outputs = outputs[:len(outputs)-1]
	}
	for _, v := range outputs {
		b = appendString(b, 2, p.name(v))
	}
	b = appendString(b, 3, "node_"+p.name(n.Outputs[0]))
	b = appendString(b, 4, n.Op)
	for _, a := range n.Attributes {
		b = appendMessage(b, 5, appendAttribute(nil, a))
	}
	if n.Domain != "" {
		b = appendString(b, 7, n.Domain)
	}
	return b
}

func appendAttribute(b []byte, a Attribute) []byte {
	// The numbers are AttributeProto's fields and, for field 20, its types.
	const (
		typeFloat  = 1
		typeInt    = 2
		typeString = 3
		typeTensor = 4
		typeInts   = 7
	)
	b = appendString(b, 1, a.Name)
	kind := 0
	switch v := a.Value.(type) {
	case float32:
		b = protowire.AppendTag(b, 2, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, math.Float32bits(v))
		kind = typeFloat
	case int:
		b = appendInt(b, 3, v)
		kind = typeInt
	case Type:
		b = appendInt(b, 3, int(v))
		kind = typeInt
	case string:
		b = appendString(b, 4, v)
		kind = typeString
	case *Value: // the element of a ConstantOfShape
		b = appendMessage(b, 5, appendTensor(nil, v, []int{1}))
		kind = typeTensor
	case []int:
		for _, i := range v {
			b = appendInt(b, 8, i)
		}
		kind = typeInts
	default:
		panic("graph: attribute " + a.Name + " has a type that ONNX does not know")
	}
	return appendInt(b, 20, kind)
}

func appendTensor(b []byte, v *Value, shape []int) []byte {
	for _, d := range shape {
		b = appendInt(b, 1, d)
	}
	b = appendInt(b, 2, int(v.Type))
	b = appendString(b, 8, v.Name)
	return appendMessage(b, 9, v.data)
}

func appendValueInfo(b []byte, name string, v *Value) []byte {
	var shape []byte
	for _, d := range v.Shape {
		shape = appendMessage(shape, 1, appendInt(nil, 1, d))
	}
	tensor := appendInt(nil, 1, int(v.Type))
	tensor = appendMessage(tensor, 2, shape)
	b = appendString(b, 1, name)
	return appendMessage(b, 2, appendMessage(nil, 1, tensor))
}

func appendInt(b []byte, field protowire.Number, v int) []byte {
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(int64(v)))
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func appendMessage(b []byte, field protowire.Number, m []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, m)
}

// ints returns the elements of an int64 constant.
func (v *Value) ints() []int {
	out := make([]int, 0, len(v.data)/8)
	for i := 0; i+8 <= len(v.data); i += 8 {
		out = append(out, int(int64(binary.LittleEndian.Uint64(v.data[i:]))))
	}
	return out
}
