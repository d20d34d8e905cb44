package lint

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// ownFiles are the Go files that open files without internal/readfile, and why
// nobody else's can be among them.
var ownFiles = map[string]string{
	"internal/atomicfile/sync_unix.go": "folders, to sync them",
	"internal/weights/write.go":        "folders, to sync them",
	"internal/readfile/readfile.go":    "it is the reader",
	"memory.go":                        "/proc and /sys",
	"internal/parallel/cores.go":       "/proc and /sys",
	"examples/predict/main.go":         "a stream of any length, also from a pipe",
}

// unbounded are functions that read whatever a path leads to, to its end.
var unbounded = map[string]bool{"os.ReadFile": true, "os.Open": true, "fs.ReadFile": true, "ioutil.ReadFile": true}

// TestReaders: files of others are read by internal/readfile, which waits for no
// pipe and knows a limit.
func TestReaders(t *testing.T) {
	used := map[string]bool{}
	sources(t, func(name string, fset *token.FileSet, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") || forDevelopers(name) {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok || !unbounded[x.Name+"."+sel.Sel.Name] {
				return true
			}
			if used[name] = true; ownFiles[name] == "" {
				t.Errorf("%s uses %s.%s: read files of others with internal/readfile", fset.Position(n.Pos()), x.Name, sel.Sel.Name)
			}
			return true
		})
	})
	for name, why := range ownFiles {
		if !used[name] && name != "internal/readfile/readfile.go" {
			t.Errorf("%s opens no file any more (%s): take it off the list", name, why)
		}
	}
}

// forDevelopers reports whether a file belongs to what only developers run.
func forDevelopers(name string) bool {
	if strings.HasPrefix(name, "internal/cmd/") || strings.HasPrefix(name, "criteriatest/") {
		return true
	}
	for _, room := range testOnly {
		if strings.HasPrefix(name, room+"/") {
			return true
		}
	}
	return false
}

// TestFuzzTargets: every fuzz target watches the memory that is taken.
func TestFuzzTargets(t *testing.T) {
	targets := 0
	sources(t, func(name string, fset *token.FileSet, f *ast.File) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			targets++
			watched := false
			ast.Inspect(fn, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Start" {
					x, ok := sel.X.(*ast.Ident)
					watched = watched || ok && x.Name == "memwatch"
				}
				return true
			})
			if !watched {
				t.Errorf("%s: %s does not begin with memwatch.Start", fset.Position(fn.Pos()), fn.Name.Name)
			}
		}
	})
	if targets < 20 {
		t.Errorf("only %d fuzz targets were found", targets)
	}
}
