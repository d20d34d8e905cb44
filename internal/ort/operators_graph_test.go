package ort_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/ort"
)

// TestOperatorsOfGraph: package graph names the operators that there are, no more
// and no fewer.
func TestOperatorsOfGraph(t *testing.T) {
	rt := acquire(t)
	if rt.Info().BLAS == "" {
		t.Fatal("there is no BLAS, which some operators need: run make deps")
	}
	there := append(rt.Operators(), ort.HostDevice().Operators()...)
	slices.Sort(there)
	file, err := parser.ParseFile(token.NewFileSet(), "../graph/kernels.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				name, err := strconv.Unquote(s.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				named = append(named, name)
			}
		}
	}
	slices.Sort(named)
	if diff := cmp.Diff(there, named); diff != "" {
		t.Errorf("operators of ops.def.h and constants of graph/kernels.go (-C +Go):\n%s", diff)
	}
}
