package ort_test

import (
	"encoding/binary"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/criteria-go/criteria/internal/ort"
)

// A minimal writer of ONNX models, so that these tests depend on nothing but
// the format.

type value struct {
	name  string
	dtype ort.DType
	shape []int // -1: open dimension
}

type node struct {
	op, domain string
	in, out    []string
	ints       map[string]int64
	floats     map[string]float32
	lists      map[string][]int64
}

type model struct {
	inputs, outputs []value
	nodes           []node
	floats          map[string][]float32 // one-dimensional constants
	int64s          map[string][]int64   // one-dimensional constants
	version         int64                // of ONNX's operator set
}

func message(b []byte, field protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
}

func text(b []byte, field protowire.Number, s string) []byte { return message(b, field, []byte(s)) }

func number(b []byte, field protowire.Number, n int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n))
}

func (v value) encode() []byte {
	var shape []byte
	for _, d := range v.shape {
		if d < 0 {
			shape = message(shape, 1, text(nil, 2, "n"))
		} else {
			shape = message(shape, 1, number(nil, 1, int64(d)))
		}
	}
	tensor := message(number(nil, 1, int64(v.dtype)), 2, shape)
	return message(text(nil, 1, v.name), 2, message(nil, 1, tensor))
}

func (n node) encode() []byte {
	var b []byte
	for _, s := range n.in {
		b = text(b, 1, s)
	}
	for _, s := range n.out {
		b = text(b, 2, s)
	}
	b = text(b, 4, n.op)
	for name, i := range n.ints {
		b = message(b, 5, number(number(text(nil, 1, name), 3, i), 20, 2))
	}
	for name, f := range n.floats {
		a := protowire.AppendFixed32(protowire.AppendTag(text(nil, 1, name), 2, protowire.Fixed32Type), math.Float32bits(f))
		b = message(b, 5, number(a, 20, 1))
	}
	for name, list := range n.lists {
		a := text(nil, 1, name)
		for _, i := range list {
			a = number(a, 8, i)
		}
		b = message(b, 5, number(a, 20, 7))
	}
	return text(b, 7, n.domain)
}

func (m model) encode() []byte {
	var g []byte
	for _, n := range m.nodes {
		g = message(g, 1, n.encode())
	}
	g = text(g, 2, "test")
	for name, data := range m.floats {
		var raw []byte
		for _, f := range data {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(f))
		}
		g = message(g, 5, message(text(number(number(nil, 1, int64(len(data))), 2, int64(ort.Float32)), 8, name), 9, raw))
	}
	for name, data := range m.int64s {
		var raw []byte
		for _, i := range data {
			raw = binary.LittleEndian.AppendUint64(raw, uint64(i))
		}
		g = message(g, 5, message(text(number(number(nil, 1, int64(len(data))), 2, int64(ort.Int64)), 8, name), 9, raw))
	}
	for _, v := range m.inputs {
		g = message(g, 11, v.encode())
	}
	for _, v := range m.outputs {
		g = message(g, 12, v.encode())
	}
	version := m.version
	if version == 0 {
		version = 17
	}
	b := message(number(nil, 1, 8), 7, g)
	b = message(b, 8, number(text(nil, 1, ""), 2, version))
	b = message(b, 8, number(text(nil, 1, "com.microsoft"), 2, 1))
	return message(b, 8, number(text(nil, 1, "criteria"), 2, 1))
}

// affine is the model y = x·w + 1, loss = Σy of x [2,3] and w [3,4].
func affine() []byte {
	return model{
		inputs:  []value{{"x", ort.Float32, []int{2, 3}}, {"w", ort.Float32, []int{3, 4}}},
		outputs: []value{{"y", ort.Float32, []int{2, 4}}, {"loss", ort.Float32, []int{}}},
		nodes: []node{
			{op: "MatMul", in: []string{"x", "w"}, out: []string{"xw"}},
			{op: "Add", in: []string{"xw", "one"}, out: []string{"y"}},
			{op: "ReduceSum", in: []string{"y"}, out: []string{"loss"}, ints: map[string]int64{"keepdims": 0}},
		},
		floats: map[string][]float32{"one": {1}},
	}.encode()
}

func acquire(t testing.TB) *ort.Runtime {
	t.Helper()
	r, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func tensor(t testing.TB, dtype ort.DType, shape ...int) ort.Tensor {
	t.Helper()
	x, err := ort.NewTensor(dtype, shape...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Buffer().Free(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func session(t testing.TB, r *ort.Runtime, model []byte, opts ort.SessionOptions) *ort.Session {
	t.Helper()
	s, err := r.NewSession(model, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// bind binds a new tensor to every input and output of the session.
func bind(t testing.TB, s *ort.Session) (*ort.Binding, map[string]ort.Tensor) {
	t.Helper()
	b, err := s.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	tensors := map[string]ort.Tensor{}
	for _, v := range s.Inputs() {
		tensors[v.Name] = tensor(t, v.DType, v.Shape...)
		if err := b.BindInput(v.Name, tensors[v.Name]); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range s.Outputs() {
		tensors[v.Name] = tensor(t, v.DType, v.Shape...)
		if err := b.BindOutput(v.Name, tensors[v.Name]); err != nil {
			t.Fatal(err)
		}
	}
	return b, tensors
}
