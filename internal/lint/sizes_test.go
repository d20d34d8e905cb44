package lint

import (
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// A type with many fields, or a file with many lines, is several that have not been
// taken apart yet.
const (
	mostFields    = 10  // of a struct type of the root package
	mostLines     = 600 // of a file of Go or C
	mostRootLines = 560 // of a file of the root package
)

// wideTypes may have more fields, with the reason.
var wideTypes = map[string]string{
	"TrainConfig": "public data: the keys of train",
	"HPOConfig":   "public data: the keys of hpo",
	"StepEvent":   "public data: all that is known of a step",
}

// tooWide are types still to be taken apart. The list may only shrink.
var tooWide = []string{"Classifier", "MLflowTracker", "batcher", "settings"}

// tooLong are files still to be taken apart. The list may only shrink.
var tooLong = []string{
	"config.go", "internal/hub/download.go", "internal/hydra/defaults.go",
	"internal/mlflow/files.go", "internal/mlflow/recorder.go", "internal/mlflow/rest.go", "internal/mlflow/sqlite.go",
}

// product reports whether a file is part of what users link: neither a test nor
// generated.
func product(name string) bool {
	return !strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "testdata/") && !strings.HasPrefix(name, "internal/cmd/")
}

// fieldsOf counts the fields of each struct type at the top of a file; an embedded
// type is one.
func fieldsOf(f *ast.File) map[string]int {
	n := make(map[string]int)
	for _, decl := range f.Decls {
		d, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range d.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if s, ok := t.Type.(*ast.StructType); ok {
				n[t.Name.Name] = s.Fields.NumFields()
			}
		}
	}
	return n
}

func TestTypeSizes(t *testing.T) {
	sources(t, func(name string, _ *token.FileSet, f *ast.File) {
		if path.Dir(name) != "." || !product(name) {
			return
		}
		all := fieldsOf(f)
		for _, typ := range slices.Sorted(maps.Keys(all)) {
			if n := all[typ]; n > mostFields && wideTypes[typ] == "" && !slices.Contains(tooWide, typ) {
				t.Errorf("%s: type %s has %d fields, want at most %d: take it apart", name, typ, n, mostFields)
			}
		}
	})
}

func TestFileLengths(t *testing.T) {
	seen := 0
	for _, name := range tracked(t) {
		if !slices.Contains([]string{".go", ".c", ".h"}, path.Ext(name)) || !product(name) {
			continue
		}
		lines, generated := 0, false
		eachLine(t, name, func(n int, line string) {
			lines = n
			generated = generated || n < 5 && strings.Contains(line, "Code generated") && strings.Contains(line, "DO NOT EDIT")
		})
		most := mostLines
		if path.Dir(name) == "." {
			most = mostRootLines
		}
		if lines > most && !generated && !slices.Contains(tooLong, name) {
			t.Errorf("%s has %d lines, want at most %d: take it apart", name, lines, most)
		}
		seen++
	}
	if seen < 100 {
		t.Errorf("only %d files were looked at", seen)
	}
}
