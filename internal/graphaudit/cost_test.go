package graphaudit

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// dynamic returns a ModelProto that multiplies x [batch, 4] with a weight
// [4, 6], reshapes the product to [batch·3, 2] by its own shape and adds a row
// that is made of constants alone.
func dynamic() []byte {
	ints := func(name string, shape bool, elements ...uint64) []byte {
		var raw []byte
		for _, e := range elements {
			raw = binary.LittleEndian.AppendUint64(raw, e)
		}
		dims := []byte{}
		if shape {
			dims = integer(1, uint64(len(elements)))
		}
		return sub(5, dims, integer(2, 7), text(8, name), sub(9, raw))
	}
	floats := func(name string, dims ...uint64) []byte {
		size := uint64(4)
		var head []byte
		for _, d := range dims {
			head, size = append(head, integer(1, d)...), size*d
		}
		return sub(5, head, integer(2, 1), text(8, name), sub(9, make([]byte, size)))
	}
	axis := sub(5, text(1, "axis"), integer(3, 0), integer(20, 2))
	node := func(s string, attributes ...[]byte) []byte { return sub(1, op(s)[2:], message(attributes...)) }
	graph := message(
		node("s = Shape(x)"),
		node("b = Gather(s first)", axis),
		node("b3 = Mul(b three)"),
		node("to = Concat(b3 two)", axis),
		node("p = MatMul(x w)"),
		node("r = Reshape(p to)"),
		node("c = Add(v v)"),
		node("y = Add(r c)"),
		text(2, "main"),
		ints("first", true, 0), ints("three", true, 3), ints("two", true, 2),
		floats("w", 4, 6), floats("v", 2),
		sub(11, text(1, "x"), sub(2, sub(1, integer(1, 1), sub(2, sub(1, text(2, "batch")), sub(1, integer(1, 4)))))),
		sub(12, text(1, "y")),
	)
	return message(integer(1, 10), sub(7, graph), sub(8, integer(2, 20)))
}

func TestInspect(t *testing.T) {
	report, got, err := Inspect(dynamic(), map[string]int{"batch": 5})
	if err != nil {
		t.Fatal(err)
	}
	want := Cost{
		Parameters: 4*6 + 2, Bytes: 4 * (4*6 + 2), Rows: 5,
		FLOPs:     2*5*4*6 + 15*2 + 1, // product, sum, and 3·batch
		ByType:    map[string]int{"MatMul": 2 * 5 * 4 * 6, "Add": 15 * 2, "Mul": 1},
		OnceFLOPs: 2, HeaviestFLOPs: 2*5*4*6 + 15*2,
		Unknown: map[string]int{},
	}
	got.Heaviest = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("cost (-want +got):\n%s", diff)
	}
	if len(report.Operators) != 8 {
		t.Errorf("%d operators, want 8", len(report.Operators))
	}
}

func TestInspectUnknown(t *testing.T) {
	_, cost, err := Inspect(model("y", "a = Einsum(x w)", "b = Neg(a)", "y = Exp(b)"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"Einsum": 1, "Neg": 1, "Exp": 1}, cost.Unknown); diff != "" {
		t.Errorf("not counted (-want +got):\n%s", diff)
	}
	if _, _, err := Inspect(model("y", "y = Neg(x)")[:20], nil); err == nil {
		t.Error("no error for half a model")
	}
}

func FuzzInspect(f *testing.F) {
	whole := dynamic()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(model("y", "y = Reshape(x w)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		memwatch.Start(t, len(b))
		if report, cost, err := Inspect(b, map[string]int{"batch": 3}); err == nil && len(cost.Heaviest) > len(report.Operators) {
			t.Errorf("a path of %d operators among %d", len(cost.Heaviest), len(report.Operators))
		}
	})
}
