package lint

import (
	"bytes"
	"flag"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/api.txt instead of comparing with it")

// TestAPI compares what the packages export that others may import with
// testdata/api.txt, so that nobody changes a promise to users unawares.
func TestAPI(t *testing.T) {
	var paths []string
	for _, p := range packages(t) {
		if p.Name != "main" && !strings.Contains(p.ImportPath+"/", "/internal/") && !strings.HasPrefix(p.room(), "examples") {
			paths = append(paths, p.ImportPath)
		}
	}
	exported := map[string]string{} // import path → file of export data
	list := golist(t, append([]string{"-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, paths...)...)
	for line := range strings.Lines(string(list)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		exported[path] = file
	}
	from := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exported[path])
	})
	var api []string
	for _, path := range paths {
		p, err := from.Import(path)
		if err != nil {
			t.Fatal(err)
		}
		api = append(api, surface(p)...)
	}
	if len(api) < 100 {
		t.Fatalf("the public packages export only %d things: %v", len(api), api)
	}

	golden := filepath.Join("testdata", "api.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(strings.Join(api, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(bytes.TrimSpace(want)), "\n"), api); diff != "" {
		t.Errorf("the public API is not that of internal/lint/%s (-recorded +found). If that is meant, run: make api\n"+
			"and say so in CHANGELOG.md.\n%s", filepath.ToSlash(golden), diff)
	}
}

// surface lists what a package exports, a line for each constant, function,
// variable, type, field and method, sorted.
func surface(p *types.Package) []string {
	short := func(other *types.Package) string {
		if other == p {
			return ""
		}
		return other.Name()
	}
	var lines []string
	add := func(format string, args ...any) {
		lines = append(lines, p.Name()+": "+fmt.Sprintf(format, args...))
	}
	for _, name := range p.Scope().Names() {
		object := p.Scope().Lookup(name)
		if !object.Exported() {
			continue
		}
		switch o := object.(type) {
		case *types.Const:
			add("const %s %s = %s", name, types.TypeString(o.Type(), short), o.Val())
		case *types.Var:
			add("var %s %s", name, types.TypeString(o.Type(), short))
		case *types.Func:
			add("func %s%s", name, strings.TrimPrefix(types.TypeString(o.Type(), short), "func"))
		case *types.TypeName:
			if o.IsAlias() {
				add("type %s = %s", name, types.TypeString(types.Unalias(o.Type()), short))
				continue
			}
			switch u := o.Type().Underlying().(type) {
			case *types.Struct:
				add("type %s struct", name)
				for field := range u.Fields() {
					if field.Exported() {
						add("type %s struct, field %s %s", name, field.Name(), types.TypeString(field.Type(), short))
					}
				}
			case *types.Interface:
				add("type %s interface", name)
				for method := range u.Methods() {
					if method.Exported() {
						add("type %s interface, method %s%s", name, method.Name(), strings.TrimPrefix(types.TypeString(method.Type(), short), "func"))
					} else {
						add("type %s interface, others cannot implement it", name)
					}
				}
			default:
				add("type %s %s", name, types.TypeString(u, short))
			}
			if types.IsInterface(o.Type()) {
				continue
			}
			methods := types.NewMethodSet(types.NewPointer(o.Type()))
			for selection := range methods.Methods() {
				if method := selection.Obj().(*types.Func); method.Exported() {
					receiver := name
					if _, ok := method.Signature().Recv().Type().(*types.Pointer); ok {
						receiver = "*" + name
					}
					add("method (%s) %s%s", receiver, method.Name(), strings.TrimPrefix(types.TypeString(method.Type(), short), "func"))
				}
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
