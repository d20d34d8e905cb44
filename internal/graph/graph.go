// Package graph builds ONNX models in Go: values with static shapes, operators,
// reverse-mode differentiation and the encoding as an ONNX file.
//
// A [Graph] is a list of nodes in the order in which they were made, so every
// node comes after the nodes whose values it reads. [Graph.Gradients] appends
// the backward pass as ordinary nodes; [Graph.Encode] writes what the outputs
// need and leaves the rest out. The package knows nothing of the model that is
// built with it, nor of the runtime that will execute it.
//
// Operators check the shapes and types of their inputs and panic if these do
// not fit, as package gonum/mat does: a graph is written by a programmer, and
// a wrong shape is a mistake in the program, never in its data.
package graph

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Type is the element type of a value, with the numbers of ONNX's TensorProto.
type Type int32

// The element types that our graphs use.
const (
	Float32  Type = 1
	Uint8    Type = 2
	Int8     Type = 3
	Int32    Type = 6
	Int64    Type = 7
	Bool     Type = 9
	Float16  Type = 10
	Float64  Type = 11
	BFloat16 Type = 16
)

// String returns the name that ONNX gives to the type.
func (t Type) String() string {
	switch t {
	case Float32:
		return "float32"
	case Uint8:
		return "uint8"
	case Int8:
		return "int8"
	case Int32:
		return "int32"
	case Int64:
		return "int64"
	case Bool:
		return "bool"
	case Float16:
		return "float16"
	case Float64:
		return "float64"
	case BFloat16:
		return "bfloat16"
	}
	return fmt.Sprintf("type %d", int32(t))
}

// Size returns the bytes of one element, 0 for a type that is none of ours.
func (t Type) Size() int {
	switch t {
	case Uint8, Int8, Bool:
		return 1
	case Float16, BFloat16:
		return 2
	case Float32, Int32:
		return 4
	case Int64, Float64:
		return 8
	}
	return 0
}

// IsLow reports whether the type is one of low precision, which products may be in.
func (t Type) IsLow() bool { return t == Float16 || t == BFloat16 }

// Value is a tensor in a graph: an input, a constant or an output of a node.
type Value struct {
	Name  string
	Type  Type
	Shape []int

	node *Node  // nil for inputs and constants
	data []byte // constants: the elements, little-endian
	// Constants that repeat one element are written as a ConstantOfShape node,
	// which keeps blocks of zeros out of the file.
	fill bool

	dims  []Dim                 // of an input or output of a graph with dynamic shapes
	write func(io.Writer) error // of a stored constant
}

// Size returns the number of elements.
func (v *Value) Size() int { return product(v.Shape) }

// bytes returns the size of the elements in memory.
func (v *Value) bytes() int { return v.Size() * v.Type.Size() }

func (v *Value) String() string { return fmt.Sprintf("%s %s%v", v.Name, v.Type, v.Shape) }

// Rank returns the number of dimensions.
func (v *Value) Rank() int { return len(v.Shape) }

// Node is one application of an operator.
type Node struct {
	Op, Domain string
	Inputs     []*Value
	Outputs    []*Value
	Attributes []Attribute
}

// Attribute is a named constant of a node. Value is an int, float32, []int,
// string or Type.
type Attribute struct {
	Name  string
	Value any
}

func (n *Node) intAttr(name string) int {
	for _, a := range n.Attributes {
		if a.Name == name {
			return a.Value.(int)
		}
	}
	return 0
}

func (n *Node) floatAttr(name string, missing float32) float32 {
	for _, a := range n.Attributes {
		if a.Name == name {
			return a.Value.(float32)
		}
	}
	return missing
}

func (n *Node) intsAttr(name string) []int {
	for _, a := range n.Attributes {
		if a.Name == name {
			return a.Value.([]int)
		}
	}
	return nil
}

// Graph is a model under construction. It is not safe for concurrent use.
type Graph struct {
	Name string

	nodes     []*Node
	segments  []segment
	waits     map[*Node]bool // nodes that read a value only to come after it
	distinct  map[*Node]bool // nodes that gather no row twice
	symbols   map[int]string // names of sizes known only at run time
	inputs    []*Value
	outputs   []output
	constants map[string]*Value
	kernels   Kernels
	count     int
}

type output struct {
	name  string
	value *Value
}

// Kernels names the fused operators of the domain "criteria" that the runtime
// offers. Where one is missing, the graph uses standard operators that compute
// the same.
type Kernels map[string]bool

// Offers reports whether the runtime has a fused operator that graphs must build
// differently for.
func (g *Graph) Offers(kernel string) bool { return g.kernels[kernel] }

// KernelDomain is the operator domain of the fused kernels.
const KernelDomain = "criteria"

// microsoft is the domain of the operators that ONNX Runtime adds to ONNX.
const microsoft = "com.microsoft"

// New returns an empty graph. kernels may be nil.
func New(name string, kernels Kernels) *Graph {
	return &Graph{Name: name, kernels: kernels, constants: map[string]*Value{}, waits: map[*Node]bool{},
		distinct: map[*Node]bool{}}
}

// Input declares an input of the model.
func (g *Graph) Input(name string, t Type, shape ...int) *Value {
	for _, v := range g.inputs {
		if v.Name == name {
			panic("graph: two inputs are called " + name)
		}
	}
	v := &Value{Name: name, Type: t, Shape: slices.Clone(shape)}
	g.inputs = append(g.inputs, v)
	return v
}

// Output declares v to be an output of the model under the given name.
func (g *Graph) Output(name string, v *Value) {
	g.outputs = append(g.outputs, output{name, v})
}

// Inputs returns the inputs that were declared, in order, also unused ones.
func (g *Graph) Inputs() []*Value { return g.inputs }

// HasInput reports whether the model has an input of this name.
func (g *Graph) HasInput(name string) bool {
	return slices.ContainsFunc(g.inputs, func(v *Value) bool { return v.Name == name })
}

// Float returns a constant with the given shape and elements.
func (g *Graph) Float(elements []float32, shape ...int) *Value {
	data := make([]byte, 0, 4*len(elements))
	for _, e := range elements {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(e))
	}
	return g.constant(Float32, data, len(elements), shape)
}

// Scalar returns a float32 constant without dimensions.
func (g *Graph) Scalar(x float64) *Value { return g.Float([]float32{float32(x)}) }

// Double returns a float64 constant without dimensions.
func (g *Graph) Double(x float64) *Value {
	return g.constant(Float64, binary.LittleEndian.AppendUint64(nil, math.Float64bits(x)), 1, nil)
}

// Ints returns an int64 constant with the given shape.
func (g *Graph) Ints(elements []int, shape ...int) *Value {
	data := make([]byte, 0, 8*len(elements))
	for _, e := range elements {
		data = binary.LittleEndian.AppendUint64(data, uint64(int64(e)))
	}
	return g.constant(Int64, data, len(elements), shape)
}

// vector returns a one-dimensional int64 constant: what operators take as axes.
func (g *Graph) vector(elements ...int) *Value { return g.Ints(elements, len(elements)) }

// Zeros returns a float32 constant of zeros.
func (g *Graph) Zeros(shape ...int) *Value { return g.Fill(0, shape...) }

// Fill returns a float32 constant that repeats one element.
func (g *Graph) Fill(x float32, shape ...int) *Value {
	data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(x))
	return g.intern(&Value{Type: Float32, Shape: slices.Clone(shape), data: data, fill: true})
}

func (g *Graph) constant(t Type, data []byte, n int, shape []int) *Value {
	if n != product(shape) {
		panic(fmt.Sprintf("graph: constant of shape %v needs %d elements, not %d", shape, product(shape), n))
	}
	return g.intern(&Value{Type: t, Shape: slices.Clone(shape), data: data})
}

// intern returns the constant that equals v, which it makes if there is none.
func (g *Graph) intern(v *Value) *Value {
	key := fmt.Sprint(v.Type, v.Shape, v.fill, string(v.data))
	if have, ok := g.constants[key]; ok {
		return have
	}
	v.Name = g.newName("const")
	g.constants[key] = v
	return v
}

func (g *Graph) newName(prefix string) string {
	g.count++
	return fmt.Sprintf("%s_%d", prefix, g.count)
}

// apply appends a node with outputs of the given shapes, all of type t.
func (g *Graph) apply(op, domain string, inputs []*Value, t Type, shapes [][]int, attributes ...Attribute) []*Value {
	n := &Node{Op: op, Domain: domain, Inputs: inputs, Attributes: attributes}
	name := strings.ToLower(op)
	for _, s := range shapes {
		n.Outputs = append(n.Outputs, &Value{Name: g.newName(name), Type: t, Shape: slices.Clone(s), node: n})
	}
	g.nodes = append(g.nodes, n)
	return n.Outputs
}

func (g *Graph) apply1(op, domain string, inputs []*Value, t Type, shape []int, attributes ...Attribute) *Value {
	return g.apply(op, domain, inputs, t, [][]int{shape}, attributes...)[0]
}

// live returns the nodes that the outputs need, in order.
func (g *Graph) live() []*Node {
	needed := map[*Node]bool{}
	var visit []*Value
	for _, o := range g.outputs {
		visit = append(visit, o.value)
	}
	for len(visit) > 0 {
		v := visit[len(visit)-1]
		visit = visit[:len(visit)-1]
		if v.node == nil || needed[v.node] {
			continue
		}
		needed[v.node] = true
		visit = append(visit, v.node.Inputs...)
	}
	return slices.DeleteFunc(slices.Clone(g.nodes), func(n *Node) bool { return !needed[n] })
}

// Census counts the operators that [Graph.Encode] will write, by name.
func (g *Graph) Census() map[string]int {
	census := map[string]int{}
	for _, n := range g.plan().nodes {
		census[n.Op]++
	}
	return census
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
