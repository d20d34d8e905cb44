package lint

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// operatorList is where the operators of domain "criteria" are listed, and
// operatorNames where package graph names them.
const (
	operatorList  = "internal/ort/ops.def.h"
	operatorNames = "internal/graph/kernels.go"
)

// alsoONNX are operators whose names ONNX has, too.
var alsoONNX = []string{"Gemm"}

var operatorRow = regexp.MustCompile(`(?m)^(?:HOST|DEVICE)_OPERATOR\(\w+, (\w+), \w+\)$`)

// TestOneListOfOperators: outside of that list and of the constants in package graph
// no code of the product spells the name of an operator, in Go or C.
func TestOneListOfOperators(t *testing.T) {
	list, err := os.ReadFile(filepath.Join(root, operatorList))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, row := range operatorRow.FindAllSubmatch(list, -1) {
		if name := string(row[1]); !slices.Contains(alsoONNX, name) {
			names = append(names, name)
		}
	}
	if len(names) < 10 {
		t.Fatalf("%s: found only the operators %v", operatorList, names)
	}
	sources(t, func(name string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") || name == operatorNames || strings.HasPrefix(name, "internal/graphaudit/") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil && slices.Contains(names, text) {
				t.Errorf("%v: %s is the name of an operator: use the constant in %s", fset.Position(n.Pos()), literal.Value, operatorNames)
			}
			return true
		})
	})
	for _, name := range tracked(t) {
		if ext := path.Ext(name); ext != ".c" && ext != ".h" {
			continue
		}
		eachLine(t, name, func(n int, line string) {
			for _, operator := range names {
				if strings.Contains(line, strconv.Quote(operator)) {
					t.Errorf("%s:%d: %q is the name of an operator, which stands in %s alone", name, n, operator, operatorList)
				}
			}
		})
	}
}
