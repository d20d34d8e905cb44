package graphaudit

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// A model written by hand, field by field as onnx.proto numbers them.

func message(fields ...[]byte) []byte {
	var b []byte
	for _, f := range fields {
		b = append(b, f...)
	}
	return b
}

func text(number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), s)
}

func sub(number protowire.Number, fields ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), message(fields...))
}

func integer(number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), v)
}

// op returns NodeProto, "y z = Type(a b)" with "-" for an omitted value.
func op(s string) []byte {
	outputs, call, _ := strings.Cut(s, " = ")
	kind, inputs, _ := strings.Cut(strings.TrimSuffix(call, ")"), "(")
	var b []byte
	for _, name := range strings.Fields(inputs) {
		b = append(b, text(1, strings.TrimPrefix(name, "-"))...)
	}
	for _, name := range strings.Fields(outputs) {
		b = append(b, text(2, strings.TrimPrefix(name, "-"))...)
	}
	b = append(b, text(4, kind)...)
	if kind == "Cast" {
		b = append(b, sub(5, text(1, "to"), integer(3, 9), integer(20, 2))...) // AttributeProto: name, i, type INT
	}
	return sub(1, b)
}

// model returns a ModelProto with inputs x and w, initializers c and h.
func model(outputs string, ops ...string) []byte {
	var g []byte
	for _, s := range ops {
		g = append(g, op(s)...)
	}
	g = append(g, text(2, "main")...)
	g = append(g, sub(5, integer(1, 1), integer(2, 1), text(8, "c"), sub(9, []byte{0, 0, 128, 63}))...) // float32 1
	g = append(g, sub(5, integer(1, 0), integer(2, 10), text(8, "h"))...)                               // float16, no elements
	g = append(g, sub(11, text(1, "x"))...)
	g = append(g, sub(11, text(1, "w"))...)
	for _, name := range strings.Fields(outputs) {
		g = append(g, sub(12, text(1, name))...)
	}
	return message(integer(1, 10), sub(7, g), sub(8, integer(2, 21)))
}

func TestAudit(t *testing.T) {
	got, err := Audit(model("y n",
		"k = Constant()",
		"s = Mul(x x)",
		"n - d = LayerNormalization(s w -)",
		"b = Cast(n)",
		"q = Clip(b - k)",
		"y = Where(q c d)",
	))
	if err != nil {
		t.Fatal(err)
	}
	operators := []Operator{
		{Type: "Constant", Outputs: []string{"k"}},
		{Type: "Mul", Inputs: []string{"x", "x"}, Outputs: []string{"s"}},
		{Type: "LayerNormalization", Inputs: []string{"s", "w", ""}, Outputs: []string{"n", "", "d"}},
		{Type: "Cast", Inputs: []string{"n"}, Outputs: []string{"b"}, Attributes: map[string]any{"to": int64(9)}},
		{Type: "Clip", Inputs: []string{"b", "", "k"}, Outputs: []string{"q"}},
		{Type: "Where", Inputs: []string{"q", "c", "d"}, Outputs: []string{"y"}},
	}
	want := Report{
		Inputs:       []string{"x", "w"},
		Outputs:      []string{"y", "n"},
		Initializers: []string{"c", "h"},
		Operators:    operators,
		Census:       map[string]int{"Constant": 1, "Mul": 1, "LayerNormalization": 1, "Cast": 1, "Clip": 1, "Where": 1},
		CriticalPath: operators[1:],
	}
	emptyIsNil := cmp.Transformer("emptyIsNil", func(m map[string]any) map[string]any {
		if len(m) == 0 {
			return nil
		}
		return m
	})
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Attributes" }, emptyIsNil)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

func TestAuditFindings(t *testing.T) {
	for _, test := range []struct {
		name  string
		model []byte
		want  string
	}{
		{"no bytes", nil, "decoding"},
		{"truncated", model("y", "y = Neg(x)")[:20], "decoding"},
		{"operator without effect", model("y", "y = Neg(x)", "z = Exp(y)"), "contributes to no output: z = Exp(y)"},
		{"value from nowhere", model("y", "y = Add(x nowhere)"), `"nowhere" is read but never made`},
		{"output from nowhere", model("y z", "y = Neg(x)"), `output "z" is never made`},
		{"made twice", model("y", "y = Neg(x)", "y = Exp(x)"), `"y" is made twice`},
		{"input overwritten", model("y", "x = Neg(w)", "y = Exp(x)"), `"x" is given and made`},
		{"wrong order", model("y", "y = Neg(z)", "z = Exp(x)"), "stands before one that it needs: y = Neg(z); z = Exp(x)"},
		{"cycle", model("y", "a = Neg(b)", "b = Exp(a)", "y = Add(a b)"), "cycle"},
		{"short circuit", model("y", "y = Add(x y)"), "reads its own result"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Audit(test.model)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one that says %q", err, test.want)
			}
		})
	}
}

func FuzzAudit(f *testing.F) {
	whole := model("y", "k = Constant()", "b = Cast(x)", "y = Clip(b - k)")
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		memwatch.Start(t, len(b))
		if r, err := Audit(b); err == nil && len(r.Operators) == 0 {
			t.Error("a model without operators passed")
		}
	})
}
