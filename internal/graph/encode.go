package graph

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"slices"
	"strconv"

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
		if v.data == nil && v.write == nil || seen[v] {
			return
		}
		seen[v] = true
		g.checkClosed(v)
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
// as pairs of key and value. The same graph always gives the same bytes. A
// graph with stored constants is written by [Graph.WriteModel].
func (g *Graph) Encode(metadata ...[2]string) []byte {
	var b bytes.Buffer
	if err := g.WriteModel(&b, nil, metadata...); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}

// WriteModel writes what [Graph.Encode] returns, one stored constant after the
// other, so that they never are all in memory. With external, which may be nil,
// their elements go there. The error is [ErrTooLarge] before anything is
// written if the model would be.
func (g *Graph) WriteModel(w io.Writer, external *External, metadata ...[2]string) error {
	pieces, elsewhere := g.pieces(external, metadata)
	total := 0
	for _, p := range pieces {
		total += p.size()
	}
	if total > maxModel {
		return ErrTooLarge
	}
	for _, p := range pieces {
		if p.stored != nil {
			if err := writeStored(w, p.stored); err != nil {
				return err
			}
		} else if _, err := w.Write(p.bytes); err != nil {
			return err
		}
	}
	for _, p := range elsewhere {
		if p.stored != nil {
			if err := writeStored(external.W, p.stored); err != nil {
				return err
			}
		} else if _, err := external.W.Write(p.bytes); err != nil {
			return err
		}
	}
	return nil
}

// pieces encodes the model, and lists what belongs into the external file.
func (g *Graph) pieces(external *External, metadata [][2]string) (model, elsewhere []piece) {
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
	var parts []piece // of the graph's message, before body
	size, offset := 0, 0
	flush := func(more ...piece) {
		for _, p := range append([]piece{{bytes: body}}, more...) {
			size += p.size()
			parts = append(parts, p)
		}
		body = nil
	}
	for _, n := range p.nodes {
		body = appendMessage(body, 1, p.appendNode(nil, n, read))
	}
	body = appendString(body, 2, g.Name)
	for _, v := range p.initializers {
		switch {
		case v.write == nil:
			body = appendMessage(body, 5, appendTensor(nil, v, v.Shape))
		case external != nil:
			padding := (externalAlignment - offset%externalAlignment) % externalAlignment
			elsewhere = append(elsewhere, piece{bytes: make([]byte, padding)}, piece{stored: v})
			body = appendMessage(body, 5, appendExternal(appendTensorHeader(nil, v, v.Shape), external.Location, offset+padding, v.bytes()))
			offset += padding + v.bytes()
		default:
			// The elements end the message: field 9, raw_data.
			header := protowire.AppendTag(appendTensorHeader(nil, v, v.Shape), 9, protowire.BytesType)
			header = protowire.AppendVarint(header, uint64(v.bytes()))
			body = protowire.AppendTag(body, 5, protowire.BytesType)
			body = protowire.AppendVarint(body, uint64(len(header)+v.bytes()))
			body = append(body, header...)
			flush(piece{stored: v})
		}
	}
	for _, v := range g.inputs {
		body = appendMessage(body, 11, appendValueInfo(nil, v.Name, v.Type, g.dims(v)))
	}
	for _, o := range g.outputs {
		body = appendMessage(body, 12, appendValueInfo(nil, o.name, o.value.Type, g.dims(o.value)))
	}
	flush()

	var head, tail []byte
	head = appendInt(head, 1, irVersion)
	head = appendString(head, 2, "criteria")
	head = protowire.AppendTag(head, 7, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	for _, domain := range p.domains() {
		version := 1
		if domain == "" {
			version = opset
		}
		id := appendString(nil, 1, domain)
		tail = appendMessage(tail, 8, appendInt(id, 2, version))
	}
	for _, kv := range metadata {
		tail = appendMessage(tail, 14, appendString(appendString(nil, 1, kv[0]), 2, kv[1]))
	}
	return slices.Concat([]piece{{bytes: head}}, parts, []piece{{bytes: tail}}), elsewhere
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
// pass that it does not have. (Fused operators have no optional outputs.)
func (p plan) appendNode(b []byte, n *Node, read map[*Value]bool) []byte {
	for _, v := range n.Inputs {
		b = appendString(b, 1, p.name(v))
	}
	outputs := n.Outputs
	for n.Domain != KernelDomain && len(outputs) > 1 && !read[outputs[len(outputs)-1]] {
		outputs = outputs[:len(outputs)-1]
	}
	for _, v := range outputs {
		b = appendString(b, 2, p.name(v))
	}
	op := n.Op
	if op == attentionProbs && len(outputs) == 1 {
		op = Attention // which need not write the probabilities
	}
	b = appendString(b, 3, "node_"+p.name(n.Outputs[0]))
	b = appendString(b, 4, op)
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

func appendTensorHeader(b []byte, v *Value, shape []int) []byte {
	for _, d := range shape {
		b = appendInt(b, 1, d)
	}
	b = appendInt(b, 2, int(v.Type))
	return appendString(b, 8, v.Name)
}

func appendTensor(b []byte, v *Value, shape []int) []byte {
	return appendMessage(appendTensorHeader(b, v, shape), 9, v.data)
}

// appendExternal says in which file the elements of a tensor are, and where.
func appendExternal(b []byte, location string, offset, length int) []byte {
	for _, kv := range [][2]string{{"location", location}, {"offset", strconv.Itoa(offset)}, {"length", strconv.Itoa(length)}} {
		b = appendMessage(b, 13, appendString(appendString(nil, 1, kv[0]), 2, kv[1]))
	}
	const external = 1 // TensorProto.DataLocation
	return appendInt(b, 14, external)
}

// dims returns the dimensions of an input or output.
func (g *Graph) dims(v *Value) []Dim {
	if v.dims != nil {
		return v.dims
	}
	var dims []Dim
	for _, d := range v.Shape {
		dims = append(dims, Dim{Name: g.symbols[d], Size: d})
	}
	return dims
}

func appendValueInfo(b []byte, name string, t Type, dims []Dim) []byte {
	var shape []byte
	for _, d := range dims {
		if d.Name != "" {
			shape = appendMessage(shape, 1, appendString(nil, 2, d.Name))
		} else {
			shape = appendMessage(shape, 1, appendInt(nil, 1, d.Size))
		}
	}
	tensor := appendInt(nil, 1, int(t))
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

// floats returns the elements of a float32 constant.
func (v *Value) floats() []float64 {
	out := make([]float64, 0, len(v.data)/4)
	for i := 0; i+4 <= len(v.data); i += 4 {
		out = append(out, float64(math.Float32frombits(binary.LittleEndian.Uint32(v.data[i:]))))
	}
	return out
}
