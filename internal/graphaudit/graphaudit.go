// Package graphaudit reads ONNX models with a decoder that shares no code with
// the one that writes them, github.com/owulveryck/onnx-go, and checks their
// structure as a graph. A codec that is tested only against itself proves
// nothing about field numbers, wire types and attribute kinds; a foreign one
// does.
//
// It judges structure, not meaning: what operators compute and which versions
// of them exist is for onnx.checker and ONNX Runtime to say.
//
// Import it only from tests, internal/cmd/graphaudit and examples/inspect. onnx-go registers
// protobuf messages called onnx.*, and a program that links another package
// generated from the same definitions would panic at start.
package graphaudit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/owulveryck/onnx-go"
	"gonum.org/v1/gonum/graph"
	"gonum.org/v1/gonum/graph/simple"
	"gonum.org/v1/gonum/graph/topo"
	"google.golang.org/protobuf/encoding/protowire"
)

// Report is what the decoder found in a model.
type Report struct {
	Inputs       []string // graph inputs without initializers, in order
	Outputs      []string // graph outputs, in order
	Initializers []string // names of the constants stored in the graph, in order
	Operators    []Operator
	Census       map[string]int // operators by type
	// CriticalPath is the longest chain of operators of which each needs the
	// result of the one before: what no parallelism can shorten.
	CriticalPath []Operator
}

// Operator is one node of an ONNX graph. The decoder delivers neither its name
// nor its domain.
type Operator struct {
	Type       string
	Inputs     []string // "" where an optional input is left out
	Outputs    []string // "" where an optional output is left out
	Attributes map[string]any
}

// String returns the operator as an assignment.
func (o Operator) String() string {
	return fmt.Sprintf("%s = %s(%s)", strings.Join(o.Outputs, ", "), o.Type, strings.Join(o.Inputs, ", "))
}

// String returns the report as text of a few lines.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "inputs         %d\noutputs        %d\ninitializers   %d\noperators      %d\ncritical path  %d\n",
		len(r.Inputs), len(r.Outputs), len(r.Initializers), len(r.Operators), len(r.CriticalPath))
	for _, name := range slices.Sorted(maps.Keys(r.Census)) {
		fmt.Fprintf(&b, "%6d %s\n", r.Census[name], name)
	}
	return b.String()
}

// Audit decodes a serialized ONNX model and checks that
//
//   - every value that is read is an input, an initializer or the result of an operator,
//   - every value is made once, and every output is made,
//   - the graph has no cycle, and operators stand after what they need, as ONNX demands,
//   - every operator contributes to an output.
//
// The error joins all findings; the report is filled as far as possible. A
// model with subgraphs (If, Loop, Scan) or with tensor attributes of type bool
// or float16 cannot be decoded; the artifacts of criteria have neither.
func Audit(model []byte) (report Report, err error) {
	defer func() {
		if p := recover(); p != nil { // onnx-go does so on some malformed models
			err = fmt.Errorf("graphaudit: decoding the model: %v", p)
		}
	}()
	r := &recorder{}
	m := onnx.NewModel(r)
	if err := m.UnmarshalBinary(model); err != nil {
		return Report{}, fmt.Errorf("graphaudit: decoding the model: %w", err)
	}
	initializers, err := initializerNames(model)
	if err != nil {
		return Report{}, fmt.Errorf("graphaudit: reading the initializers: %w", err)
	}
	report = Report{
		Inputs:       r.names(m.Input),
		Outputs:      r.names(m.Output),
		Initializers: initializers,
		Operators:    r.operators,
		Census:       map[string]int{},
	}
	for _, o := range report.Operators {
		report.Census[o.Type]++
	}
	findings := append(r.findings, report.check()...)
	if len(findings) > 0 {
		return report, fmt.Errorf("graphaudit: %w", errors.Join(findings...))
	}
	return report, nil
}

// check looks for structural faults and sets the critical path.
func (r *Report) check() (findings []error) {
	report := func(format string, args ...any) { findings = append(findings, fmt.Errorf(format, args...)) }

	given := map[string]bool{"": true} // "": an optional input left out
	for _, name := range slices.Concat(r.Inputs, r.Initializers) {
		given[name] = true
	}
	producer := map[string]int{}
	for i, o := range r.Operators {
		for _, name := range o.Outputs {
			if name == "" {
				continue
			}
			if j, ok := producer[name]; ok {
				report("value %q is made twice: %v; %v", name, r.Operators[j], o)
			} else if given[name] {
				report("value %q is given and made: %v", name, o)
			}
			producer[name] = i
		}
	}
	for _, name := range r.Outputs {
		if _, made := producer[name]; !made && !given[name] {
			report("output %q is never made", name)
		}
	}

	// A graph of operators, edges from what makes a value to what reads it.
	g := simple.NewDirectedGraph()
	for i := range r.Operators {
		g.AddNode(simple.Node(i))
	}
	for i, o := range r.Operators {
		for _, name := range o.Inputs {
			j, made := producer[name]
			switch {
			case made && j == i:
				report("operator reads its own result: %v", o)
				return findings
			case made && j > i:
				report("operator stands before one that it needs: %v; %v", o, r.Operators[j])
				g.SetEdge(g.NewEdge(simple.Node(j), simple.Node(i)))
			case made:
				g.SetEdge(g.NewEdge(simple.Node(j), simple.Node(i)))
			case !given[name]:
				report("value %q is read but never made: %v", name, o)
			}
		}
	}
	order, err := topo.Sort(g)
	if err != nil {
		report("cycle of operators: %v", err)
		return findings
	}

	live := make([]bool, len(r.Operators))
	for _, name := range r.Outputs {
		if i, made := producer[name]; made {
			live[i] = true
		}
	}
	// longest[i] is the length of the longest chain that ends at operator i,
	// before[i] its last but one.
	longest := make([]int, len(r.Operators))
	before := make([]int, len(r.Operators))
	last := -1
	for _, n := range order {
		i := int(n.ID())
		before[i] = -1
		for _, p := range graph.NodesOf(g.To(n.ID())) {
			// The lower index decides between equals, so that the path is
			// the same every time.
			j := int(p.ID())
			if longest[j] > longest[i] || longest[j] == longest[i] && before[i] > j {
				longest[i], before[i] = longest[j], j
			}
		}
		longest[i]++
		if last < 0 || longest[i] > longest[last] {
			last = i
		}
	}
	for i := last; i >= 0; i = before[i] {
		r.CriticalPath = append(r.CriticalPath, r.Operators[i])
	}
	slices.Reverse(r.CriticalPath)
	for _, n := range slices.Backward(order) {
		for _, s := range graph.NodesOf(g.From(n.ID())) {
			live[n.ID()] = live[n.ID()] || live[s.ID()]
		}
		if !live[n.ID()] {
			report("operator contributes to no output: %v", r.Operators[n.ID()])
		}
	}
	return findings
}

// value is a named value of the model. It takes no tensor: onnx-go refuses
// several data types only for nodes that do.
type value struct {
	id   int64
	name string
}

func (v *value) ID() int64        { return v.id }
func (v *value) SetName(n string) { v.name = n }
func (v *value) GetName() string  { return v.name }

// recorder receives a model from onnx-go. As a gonum graph it would merge the
// edges of Mul(x, x) and tie all omitted inputs together, so it only writes
// down what it is told, in order.
type recorder struct {
	values    []*value
	edges     []graph.WeightedEdge // of the operator that is being decoded
	operators []Operator
	findings  []error
}

var _ onnx.Backend = (*recorder)(nil)

func (r *recorder) NewNode() graph.Node {
	return &value{id: int64(len(r.values))}
}

func (r *recorder) AddNode(n graph.Node) { r.values = append(r.values, n.(*value)) }

func (r *recorder) NewWeightedEdge(from, to graph.Node, w float64) graph.WeightedEdge {
	return simple.WeightedEdge{F: from, T: to, W: w}
}

// SetWeightedEdge receives the edge from an operator's result to its input
// number Weight.
func (r *recorder) SetWeightedEdge(e graph.WeightedEdge) { r.edges = append(r.edges, e) }

// ApplyOperation receives an operator after the edges of all of its results.
func (r *recorder) ApplyOperation(op onnx.Operation, results ...graph.Node) error {
	o := Operator{Type: op.Name, Attributes: op.Attributes}
	var whose graph.Node // the first result that has a name has all inputs
	for _, result := range results {
		o.Outputs = append(o.Outputs, result.(*value).name)
		if whose == nil && result.(*value).name != "" {
			whose = result
		}
	}
	for _, e := range r.edges {
		if e.From() != whose {
			continue
		}
		if int(e.Weight()) != len(o.Inputs) {
			r.findings = append(r.findings, fmt.Errorf("input %d of %s arrives as input %v", len(o.Inputs), op.Name, e.Weight()))
		}
		o.Inputs = append(o.Inputs, e.To().(*value).name)
	}
	if sources[op.Name] {
		o.Inputs = nil // onnx-go makes one up for operators without inputs
	}
	r.edges = r.edges[:0]
	r.operators = append(r.operators, o)
	return nil
}

// sources are the operators that have no inputs.
var sources = map[string]bool{"Constant": true, "RandomNormal": true, "RandomUniform": true}

func (r *recorder) names(ids []int64) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = r.values[id].name
	}
	return names
}

// The remaining methods make recorder a graph. onnx-go only builds, it never
// asks.

func (r *recorder) Node(id int64) graph.Node                     { return r.values[id] }
func (r *recorder) Nodes() graph.Nodes                           { return graph.Empty }
func (r *recorder) From(int64) graph.Nodes                       { return graph.Empty }
func (r *recorder) To(int64) graph.Nodes                         { return graph.Empty }
func (r *recorder) HasEdgeBetween(int64, int64) bool             { return false }
func (r *recorder) HasEdgeFromTo(int64, int64) bool              { return false }
func (r *recorder) Edge(int64, int64) graph.Edge                 { return nil }
func (r *recorder) WeightedEdge(int64, int64) graph.WeightedEdge { return nil }
func (r *recorder) Weight(int64, int64) (float64, bool)          { return 0, false }

// initializerNames reads what onnx-go does not deliver for nodes without
// tensors: ModelProto.graph (7) . initializer (5) . name (8).
func initializerNames(model []byte) ([]string, error) {
	var names []string
	err := fields(model, 7, func(graph []byte) error {
		return fields(graph, 5, func(tensor []byte) error {
			return fields(tensor, 8, func(name []byte) error {
				names = append(names, string(name))
				return nil
			})
		})
	})
	return names, err
}

// fields calls f with every occurrence of a length-delimited field.
func fields(message []byte, number protowire.Number, f func([]byte) error) error {
	for len(message) > 0 {
		got, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if got == number && kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(message)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if err := f(value); err != nil {
				return err
			}
			message = message[n:]
			continue
		}
		n = protowire.ConsumeFieldValue(got, kind, message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
	}
	return nil
}
