package graphaudit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/encoding/protowire"
)

// Cost is what a model takes to store and to run on a batch of one shape.
//
// Floating point operations are counted as usual: a product of matrices m×k and
// k×n has 2·m·k·n, an elementwise operator one for each element, Softmax and
// LayerNormalization five, Gelu eight; moving data has none. Products of
// integers count like others. What depends on constants alone is computed once,
// when a runtime loads the model, and counted apart.
type Cost struct {
	Parameters int // elements of weights: initializers, and inputs called …weight or …bias
	Bytes      int // of the weights

	Rows      int            // first dimension of the first input: the batch
	FLOPs     int            // of a run
	ByType    map[string]int // of a run, by type of operator
	OnceFLOPs int            // when the model is loaded

	// Heaviest is the chain of operators, of which each needs the one before,
	// with the most operations.
	Heaviest      []Operator
	HeaviestFLOPs int

	// Unknown counts, by type, the operators whose results have a shape that
	// could not be found; they and those that need them are not in FLOPs.
	Unknown map[string]int
}

// Inspect is [Audit], and the cost of the model, with sizes for dimensions that
// have names; others are 1. Weights are not decoded, so that large models cost
// little.
func Inspect(model []byte, sizes map[string]int) (report Report, cost Cost, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("graphaudit: following the shapes of the model: %v", p)
		}
	}()
	bare, values, err := skeleton(model, sizes)
	if err != nil {
		return Report{}, Cost{}, fmt.Errorf("graphaudit: reading the model: %w", err)
	}
	if report, err = Audit(bare); err != nil {
		return report, Cost{}, err
	}
	cost = values.run(report.Operators)
	if len(report.Inputs) > 0 {
		if shape := values[report.Inputs[0]].shape; len(shape) > 0 {
			cost.Rows = shape[0]
		}
	}
	return report, cost, nil
}

// tensor is what is known of a value: its shape, and the elements if they are
// few integers, of which other shapes are made.
type tensor struct {
	shape    []int
	ints     []int // nil: not known
	constant bool  // whether it depends on constants alone
	weight   bool
	bytes    int
}

func (t tensor) size() int {
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	return n
}

type tensors map[string]tensor

// maxInts is the number of elements up to which integers are computed: sizes,
// shapes and lists of positions.
const maxInts = 1 << 16

// elementBytes is the size of an element by TensorProto's number of its type.
var elementBytes = map[uint64]int{1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

const int64Type = 7

// weightName matches inputs that a training passes its weights in.
var weightName = regexp.MustCompile(`\.(weight|bias)$`)

// skeleton returns the model without the elements of its weights, and what is
// known of inputs and initializers.
func skeleton(model []byte, sizes map[string]int) ([]byte, tensors, error) {
	values := tensors{}
	bare, err := rewrite(model, 7, func(graph []byte) ([]byte, error) {
		out, err := rewrite(graph, 5, func(initializer []byte) ([]byte, error) {
			name, t, short, err := readInitializer(initializer)
			if err == nil {
				values[name] = t
			}
			return short, err
		})
		if err != nil {
			return nil, err
		}
		err = fields(graph, 11, func(info []byte) error {
			name, t, err := readInput(info, sizes)
			if _, stored := values[name]; err == nil && !stored {
				values[name] = t
			}
			return err
		})
		return out, err
	})
	return bare, values, err
}

// rewrite returns the message with every occurrence of a length-delimited field
// replaced.
func rewrite(message []byte, number protowire.Number, replace func([]byte) ([]byte, error)) ([]byte, error) {
	var out []byte
	for len(message) > 0 {
		got, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(got, kind, message[n:])
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		field := message[:n+size]
		if got == number && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(message[n:])
			value, err := replace(value)
			if err != nil {
				return nil, err
			}
			out = protowire.AppendTag(out, number, protowire.BytesType)
			out = protowire.AppendBytes(out, value)
		} else {
			out = append(out, field...)
		}
		message = message[n+size:]
	}
	return out, nil
}

// readInitializer reads a TensorProto, and returns it without raw_data.
func readInitializer(message []byte) (name string, t tensor, short []byte, err error) {
	t = tensor{shape: []int{}, constant: true}
	var raw []byte
	var list []int
	var kind uint64
	for rest := message; len(rest) > 0; {
		number, wire, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return "", t, nil, protowire.ParseError(n)
		}
		size := protowire.ConsumeFieldValue(number, wire, rest[n:])
		if size < 0 {
			return "", t, nil, protowire.ParseError(size)
		}
		value := rest[n : n+size]
		keep := true
		switch {
		case number == 1 || number == 7: // dims, int64_data
			ints, err := readInts(value, wire)
			if err != nil {
				return "", t, nil, err
			}
			if number == 1 {
				t.shape = append(t.shape, ints...)
			} else {
				list = append(list, ints...)
			}
		case number == 2 && wire == protowire.VarintType:
			kind, _ = protowire.ConsumeVarint(value)
		case number == 8 && wire == protowire.BytesType:
			text, _ := protowire.ConsumeBytes(value)
			name = string(text)
		case number == 9 && wire == protowire.BytesType:
			raw, _ = protowire.ConsumeBytes(value)
			keep = false
		}
		if keep {
			short = append(short, rest[:n+size]...)
		}
		rest = rest[n+size:]
	}
	for _, d := range t.shape {
		if d < 0 || d > 1<<40 {
			return "", t, nil, fmt.Errorf("initializer %q has dimensions %v", name, t.shape)
		}
	}
	t.bytes = t.size() * elementBytes[kind]
	t.weight = kind != int64Type && len(t.shape) > 0 && t.size() > 1
	if kind == int64Type && t.size() <= maxInts {
		switch {
		case len(list) == t.size():
			t.ints = list
		case len(raw) == 8*t.size():
			t.ints = make([]int, 0, t.size())
			for i := 0; i < len(raw); i += 8 {
				t.ints = append(t.ints, int(binary.LittleEndian.Uint64(raw[i:])))
			}
		}
	}
	return name, t, short, nil
}

// readInts reads a repeated integer, packed or not.
func readInts(value []byte, wire protowire.Type) ([]int, error) {
	if wire == protowire.VarintType {
		v, _ := protowire.ConsumeVarint(value)
		return []int{int(v)}, nil
	}
	if wire != protowire.BytesType {
		return nil, errors.New("an integer has the wrong wire type")
	}
	packed, _ := protowire.ConsumeBytes(value)
	var ints []int
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		ints = append(ints, int(v))
		packed = packed[n:]
	}
	return ints, nil
}

// readInput reads a ValueInfoProto of a tensor: name (1), type (2) . tensor (1)
// . elem_type (1), shape (2) . dim (1) . dim_value (1) or dim_param (2).
func readInput(info []byte, sizes map[string]int) (name string, t tensor, err error) {
	t.shape = []int{}
	if err := fields(info, 1, func(b []byte) error { name = string(b); return nil }); err != nil {
		return "", t, err
	}
	err = fields(info, 2, func(kind []byte) error {
		return fields(kind, 1, func(b []byte) error {
			for number, _, n := protowire.ConsumeTag(b); n > 0 && number == 1; n = 0 {
				element, _ := protowire.ConsumeVarint(b[n:])
				t.bytes = elementBytes[element]
			}
			return fields(b, 2, func(shape []byte) error {
				return fields(shape, 1, func(dim []byte) error {
					size := 1
					number, wire, n := protowire.ConsumeTag(dim)
					switch {
					case n > 0 && number == 1 && wire == protowire.VarintType:
						v, _ := protowire.ConsumeVarint(dim[n:])
						size = int(v)
					case n > 0 && number == 2 && wire == protowire.BytesType:
						text, _ := protowire.ConsumeBytes(dim[n:])
						if v, ok := sizes[string(text)]; ok {
							size = v
						}
					}
					if size < 0 || size > 1<<40 {
						return fmt.Errorf("input %q has a dimension %d", name, size)
					}
					t.shape = append(t.shape, size)
					return nil
				})
			})
		})
	})
	t.bytes *= t.size()
	t.weight = weightName.MatchString(name)
	return name, t, err
}
