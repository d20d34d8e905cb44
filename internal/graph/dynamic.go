package graph

import (
	"fmt"
	"io"
	"slices"
)

// A graph with dynamic shapes serves batches of any size. The runtime finds the
// shapes, so they are not checked here: its nodes are made by [Graph.Op], and
// mixing them with the operators above, which need static shapes, panics or
// gives a graph that the runtime refuses. It cannot be differentiated.

// Dim is a dimension of an input or output: a number, or the name of a size
// that differs from batch to batch.
type Dim struct {
	Name string // e.g. "batch"; "" for a fixed size
	Size int
}

// DynamicInput declares an input with dimensions of which some have names.
func (g *Graph) DynamicInput(name string, t Type, dims ...Dim) *Value {
	v := g.Input(name, t)
	v.dims = slices.Clone(dims)
	return v
}

// DynamicOutput declares v to be an output with dimensions of which some have
// names.
func (g *Graph) DynamicOutput(name string, v *Value, dims ...Dim) {
	v.dims = slices.Clone(dims)
	g.Output(name, v)
}

// Op appends a node of a standard operator. Outputs are of the given types;
// most operators have one.
func (g *Graph) Op(op string, types []Type, inputs []*Value, attributes ...Attribute) []*Value {
	outputs := g.apply(op, "", slices.Clone(inputs), 0, make([][]int, len(types)), attributes...)
	for i, v := range outputs {
		v.Type = types[i]
	}
	return outputs
}

// Stored returns a constant whose elements are written when the model is.
// write is called once or more and writes them little-endian and in row-major
// order, exactly as many bytes as type and shape ask for.
func (g *Graph) Stored(name string, t Type, write func(io.Writer) error, shape ...int) *Value {
	if t.Size() == 0 {
		panic(fmt.Sprintf("graph: %s is stored as %v", name, t))
	}
	return &Value{Name: name, Type: t, Shape: slices.Clone(shape), write: write}
}

// External says where the elements of stored constants go instead of into the
// model: protobuf allows no message of 2 GiB.
type External struct {
	Location string // path of the file, relative to the model's folder
	W        io.Writer
}

// externalAlignment of tensors in an external file lets a runtime map them into
// memory.
const externalAlignment = 4096

// ErrTooLarge means that a model exceeds the 2 GiB that protobuf allows.
var ErrTooLarge = fmt.Errorf("graph: an ONNX file of more than %d bytes needs external data", maxModel)

const maxModel = 1<<31 - 1

// piece is a part of the encoded model: bytes, or the elements of a stored
// constant.
type piece struct {
	bytes  []byte
	stored *Value
}

func (p piece) size() int {
	if p.stored != nil {
		return p.stored.bytes()
	}
	return len(p.bytes)
}

// writeStored writes the elements of v and checks their number.
func writeStored(w io.Writer, v *Value) error {
	c := &counter{w: w}
	if err := v.write(c); err != nil {
		return err
	}
	if want := v.bytes(); c.n != want {
		return fmt.Errorf("graph: %s has %d bytes, want %d", v.Name, c.n, want)
	}
	return nil
}

// counter counts the bytes that pass to w.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}
