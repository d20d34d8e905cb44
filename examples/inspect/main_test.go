package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/graphaudit"
)

func TestWrite(t *testing.T) {
	neg := graphaudit.Operator{Type: "Neg", Inputs: []string{"a"}, Outputs: []string{"b"}}
	report := graphaudit.Report{
		Inputs: []string{"a", "b", "c", "d", "e", "f"}, Outputs: []string{"logits"},
		Operators: []graphaudit.Operator{neg, neg, neg}, CriticalPath: []graphaudit.Operator{neg, neg},
		Census: map[string]int{"MatMul": 1, "Neg": 2},
	}
	cost := graphaudit.Cost{
		Parameters: 1234567, Bytes: 4938268, Rows: 2, FLOPs: 3000, OnceFLOPs: 10, HeaviestFLOPs: 2000,
		ByType: map[string]int{"MatMul": 3000}, Unknown: map[string]int{"Einsum": 1},
	}
	var out bytes.Buffer
	if err := write(&out, report, cost, true); err != nil {
		t.Fatal(err)
	}
	const want = `inputs                 a, b, c, d and 2 more
outputs                logits
parameters             1 234 567, 4 938 268 bytes
operations of a run    3 000, and 10 once, when it is loaded
operations for a pair  1 500, in a batch of 2
critical path          2 of 3 operators
heaviest path          2 000 operations, so parallel operators gain at most 1.50×
not counted            Einsum: operations and paths are more than that

operator  number  operations  share
MatMul    1       3 000       100.0 %
Neg       2       0           0.0 %

critical path
  b = Neg(a)
  b = Neg(a)
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.onnx")
	if err := os.WriteFile(broken, []byte("not a model"), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"one argument":   nil,
		"positive sizes": {"-batch", "0", "x"},
		"no such file":   {filepath.Join(t.TempDir(), "missing")},
		"graphaudit":     {broken},
	} {
		var out bytes.Buffer
		if err := run(args, &out, &out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want one that says %q", args, err, want)
		}
	}
}
