// Command inspect says what a model in ONNX consists of and what it costs:
// operators by type, parameters, floating point operations for a pair and the
// critical path.
//
//	go run ./examples/inspect exported/model.onnx
//	go run ./examples/inspect -length 512 outputs/DATE/TIME/best_model/training_model.onnx
//
// The model is decoded by onnx-go, which shares no code with what wrote it, and
// examined as a graph of gonum.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/criteria-go/criteria/internal/graphaudit"
	"github.com/criteria-go/criteria/internal/readfile"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "inspect:", err)
		os.Exit(1)
	}
}

func run(args []string, out, messages io.Writer) error {
	flags := flag.NewFlagSet("inspect", flag.ContinueOnError)
	flags.SetOutput(messages)
	flags.Usage = func() {
		fmt.Fprintln(messages, "usage: inspect [FLAGS] MODEL.onnx")
		flags.PrintDefaults()
	}
	batch := flags.Int("batch", 1, "number of pairs, in a model for batches of any size")
	length := flags.Int("length", 128, "tokens of a pair, in a model for pairs of any length")
	path := flags.Bool("path", false, "list the operators on the critical path")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || *batch < 1 || *length < 1 {
		return errors.New("want one argument, an ONNX file, and positive sizes")
	}
	model, err := readfile.All(context.Background(), flags.Arg(0), readfile.Graph)
	if err != nil {
		return err
	}
	report, cost, err := graphaudit.Inspect(model, map[string]int{"batch": *batch, "sequence": *length})
	if err != nil {
		return err
	}
	return write(out, report, cost, *path)
}

func write(out io.Writer, r graphaudit.Report, c graphaudit.Cost, path bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "inputs\t%s\n", names(r.Inputs))
	fmt.Fprintf(w, "outputs\t%s\n", names(r.Outputs))
	fmt.Fprintf(w, "parameters\t%s, %s bytes\n", count(c.Parameters), count(c.Bytes))
	fmt.Fprintf(w, "operations of a run\t%s, and %s once, when it is loaded\n", count(c.FLOPs), count(c.OnceFLOPs))
	if c.Rows > 0 {
		fmt.Fprintf(w, "operations for a pair\t%s, in a batch of %d\n", count(c.FLOPs/c.Rows), c.Rows)
	}
	fmt.Fprintf(w, "critical path\t%d of %d operators\n", len(r.CriticalPath), len(r.Operators))
	fmt.Fprintf(w, "heaviest path\t%s operations, so parallel operators gain at most %.2f×\n", count(c.HeaviestFLOPs), ratio(c.FLOPs, c.HeaviestFLOPs))
	if len(c.Unknown) > 0 {
		fmt.Fprintf(w, "not counted\t%s: operations and paths are more than that\n", strings.Join(slices.Sorted(maps.Keys(c.Unknown)), ", "))
	}
	fmt.Fprintf(w, "\noperator\tnumber\toperations\tshare\n")
	types := slices.SortedFunc(maps.Keys(r.Census), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.ByType[b], c.ByType[a]), cmp.Compare(r.Census[b], r.Census[a]), cmp.Compare(a, b))
	})
	for _, t := range types {
		fmt.Fprintf(w, "%s\t%d\t%s\t%.1f %%\n", t, r.Census[t], count(c.ByType[t]), 100*ratio(c.ByType[t], c.FLOPs))
	}
	if path {
		fmt.Fprintf(w, "\ncritical path\n")
		for _, o := range r.CriticalPath {
			fmt.Fprintf(w, "  %v\n", o)
		}
	}
	return w.Flush()
}

// names lists a few names.
func names(all []string) string {
	const few = 4
	if len(all) <= few {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:few], ", "), len(all)-few)
}

// count writes a number with the thousands set apart.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
