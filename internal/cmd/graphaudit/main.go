// Command graphaudit reads ONNX models with an independent decoder and prints
// what they consist of: inputs, outputs, operators by type and the length of
// the critical path. It exits with 1 if the structure of a model is broken.
//
// Usage: graphaudit FILE...
package main

import (
	"fmt"
	"os"

	"github.com/criteria-go/criteria/internal/graphaudit"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: graphaudit FILE...")
		os.Exit(2)
	}
	failed := false
	for _, name := range os.Args[1:] {
		model, err := os.ReadFile(name)
		if err == nil {
			var report graphaudit.Report
			report, err = graphaudit.Audit(model)
			fmt.Printf("%s\n%v", name, report)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}
