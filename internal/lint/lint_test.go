package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/criteria-go/criteria"

// rooms lists the packages and which others of this module each may import,
// tests included. A new package gets its line here first. "..." after a name
// stands for all packages below it.
var rooms = map[string][]string{
	"":                           {"conf", "internal/..."}, // the public package; see alsoOutside
	"conf":                       {},
	"internal/atomicfile":        {},
	"internal/coexist":           {"", "internal/graph"}, // tests of programs that use the library
	"internal/data":              {"internal/readfile"},
	"internal/deberta":           {"internal/graph"},
	"internal/dropout":           {"internal/parallel"},
	"internal/engine":            {"internal/atomicfile", "internal/deberta", "internal/dropout", "internal/graph", "internal/optim", "internal/ort", "internal/parallel", "internal/weights", "internal/readfile"},
	"internal/fakecuda":          {},
	"internal/fakes":             {""},
	"internal/golden":            {},
	"internal/golden/tensors":    {"internal/weights"},
	"internal/graph":             {},
	"internal/graphaudit":        {},
	"internal/hub":               {"internal/atomicfile", "internal/readfile", "internal/redact"},
	"internal/hydra":             {"internal/readfile", "internal/redact"},
	"internal/kernels":           {},
	"internal/lint":              {},
	"internal/memwatch":          {},
	"internal/metrics":           {},
	"internal/mlflow":            {"internal/atomicfile", "internal/readfile", "internal/redact", "internal/sqldriver"},
	"internal/mlflow/mlflowtest": {},
	"internal/modelstore":        {"internal/atomicfile", "internal/hub", "internal/mlflow", "internal/sumfile", "internal/weights", "internal/readfile"},
	"internal/optim":             {"internal/parallel"},
	"internal/optunadb":          {"internal/study", "internal/redact", "internal/sqldriver"},
	"internal/ort":               {"internal/kernels", "internal/parallel"},
	"internal/parallel":          {},
	"internal/readfile":          {},
	"internal/redact":            {},
	"internal/report":            {"internal/atomicfile"},
	"internal/study":             {},
	"internal/sqldriver":         {},
	"sqlite":                     {},
	"postgres":                   {},
	"mysql":                      {"internal/sqldriver"},
	"internal/sumfile":           {"internal/atomicfile", "internal/readfile"},
	"internal/token":             {"internal/atomicfile", "internal/parallel", "internal/readfile"},
	"internal/weights":           {"internal/atomicfile", "internal/readfile"},
	"internal/wheel":             {},
	"cmd/criteria-deps":          {"internal/wheel"},
	"serve":                      {""}, // on top of the public package, for programs that serve
	"internal/cmd/...":           {"", "internal/..."},
	"examples":                   {},
	"examples/...":               {"", "mysql", "postgres", "sqlite", "conf", "internal/hydra", "serve"},
	"examples/inspect":           {"internal/graphaudit", "internal/readfile"},
}

// testOnly are packages that only tests, commands in internal/cmd and programs
// in apart import.
var testOnly = []string{"internal/fakecuda", "internal/fakes", "internal/golden", "internal/golden/tensors", "internal/graphaudit", "internal/lint", "internal/memwatch", "internal/mlflow/mlflowtest"}

// testImports are what tests import beyond what their package may.
var testImports = map[string][]string{
	"internal/ort":      {"internal/graph"},                   // models to run
	"internal/graph":    {"internal/ort"},                     // operators run in ONNX Runtime
	"internal/deberta":  {"internal/dropout", "internal/ort"}, // golden cases run, with the masks of training
	"internal/optim":    {"internal/weights"},
	"internal/kernels":  {"internal/dropout", "internal/graph", "internal/optim"}, // what the kernels compute, on the CPU
	"":                  {"sqlite"},
	"internal/mlflow":   {"sqlite"},
	"internal/optunadb": {"mysql", "postgres", "sqlite"},
}

// onlyIn says which package alone may import a library. Each of them has
// process-wide state or a native part, kept behind one door.
var onlyIn = map[string][]string{
	"github.com/yalue/onnxruntime_go": {"internal/ort", "internal/coexist"},
	"github.com/daulet/tokenizers":    {"internal/token"},
	"github.com/owulveryck/onnx-go":   {"internal/graphaudit"},
	"github.com/c-bata/goptuna":       {"", "internal/study", "internal/optunadb"}, // its interfaces are options of the root's
	"modernc.org/sqlite":              {"sqlite"},
	"github.com/jackc/pgx/v5/stdlib":  {"postgres"},
	"github.com/go-sql-driver/mysql":  {"mysql"},
	"gonum.org/v1/plot":               {"internal/report"},

	"github.com/prometheus/client_golang": {"serve"},
}

// withCgo are the packages that contain C.
var withCgo = []string{"internal/ort", "internal/optim"}

// notInUsersBinary are modules that no program gets by importing criteria:
// onnx-go registers protobuf messages called onnx.*, which panics beside any
// other package generated from the same definitions.
var notInUsersBinary = []string{
	"github.com/owulveryck/onnx-go",
	"github.com/golang/protobuf",
	"github.com/gogo/protobuf",
	"gorgonia.org/",
	"github.com/c-bata/goptuna/rdb", // needs a cgo SQLite driver
	"github.com/mattn/go-sqlite3",
	"github.com/chromedp/", // a browser is for tests
}

// apart are programs that nobody imports and that are not built on the public
// package, so that they may link what users must not get.
var apart = []string{"examples/inspect"}

// large are the tracked files that may exceed 2 MiB.
var large = []string{}

// pkg is what go list says about a package.
type pkg struct {
	ImportPath, Dir, Name              string
	CgoFiles, CFiles                   []string
	Imports, TestImports, XTestImports []string
}

// room returns the path within the module.
func (p pkg) room() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

func golist(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, &stderr)
	}
	return out
}

func packages(t *testing.T) []pkg {
	t.Helper()
	var all []pkg
	d := json.NewDecoder(bytes.NewReader(golist(t, "-json=ImportPath,Dir,Name,CgoFiles,CFiles,Imports,TestImports,XTestImports", "./...")))
	for d.More() {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("go list found no packages")
	}
	return all
}

// listed reports whether a list of rooms has the room in it.
func listed(list []string, room string) bool {
	return slices.ContainsFunc(list, func(entry string) bool {
		parent, tree := strings.CutSuffix(entry, "/...")
		return entry == room || tree && strings.HasPrefix(room, parent+"/")
	})
}

func allowedImports(room string) (allowed []string, known bool) {
	if allowed, known := rooms[room]; known {
		return allowed, true
	}
	for name, allowed := range rooms {
		if listed([]string{name}, room) {
			return allowed, true
		}
	}
	return nil, false
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := allowedImports(p.room())
		if !known {
			t.Errorf("package %s has no line in rooms: decide what it may import", p.room())
			continue
		}
		check := func(kind string, imports, allowed []string, test bool) {
			for _, path := range imports {
				for library, doors := range onlyIn {
					if (path == library || strings.HasPrefix(path, library+"/")) && !listed(doors, p.room()) {
						t.Errorf("%s %s %s, which only %q may", p.room(), kind, path, doors)
					}
				}
				if path != module && !strings.HasPrefix(path, module+"/") {
					continue
				}
				other := pkg{ImportPath: path}.room()
				if other == p.room() {
					continue // an external test imports its own package
				}
				helper := slices.Contains(testOnly, other) || strings.HasPrefix(other, "internal/cmd/")
				switch {
				case test && slices.Contains(testOnly, other):
				case helper && !strings.HasPrefix(p.room(), "internal/cmd/") && !slices.Contains(apart, p.room()):
					t.Errorf("%s %s %s, which is for tests only", p.room(), kind, other)
				case !listed(allowed, other):
					t.Errorf("%s %s %s, but may import only %q", p.room(), kind, other, allowed)
				}
			}
		}
		check("imports", p.Imports, allowed, false)
		inTests := append(slices.Clone(allowed), testImports[p.room()]...)
		check("imports in tests", p.TestImports, inTests, true)
		check("imports in tests", p.XTestImports, inTests, true)
	}
}

func TestUsersBinary(t *testing.T) {
	targets := []string{"."}
	for _, p := range packages(t) {
		if strings.HasPrefix(p.room(), "examples/") && !slices.Contains(apart, p.room()) {
			targets = append(targets, p.ImportPath)
		}
	}
	if len(targets) < 3 {
		t.Fatalf("there are no examples: %v", targets)
	}
	for _, target := range targets {
		for _, path := range strings.Fields(string(golist(t, "-deps", target))) {
			for _, prefix := range notInUsersBinary {
				if strings.HasPrefix(path, prefix) {
					t.Errorf("go list -deps %s has %s", target, path)
				}
			}
		}
	}
}

func TestCgo(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.CgoFiles)+len(p.CFiles) > 0 && !slices.Contains(withCgo, p.room()) {
			t.Errorf("%s has C in %v; only %v may", p.room(), append(p.CgoFiles, p.CFiles...), withCgo)
		}
	}
}

// sources parses the Go files that go list does not even see on this platform,
// too.
func sources(t *testing.T, visit func(name string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	n := 0
	for _, name := range tracked(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(root, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		visit(name, fset, f)
		n++
	}
	if n == 0 {
		t.Fatal("no Go files found")
	}
}

// mainOnly reports whether a file belongs to a program, which owns its process.
func mainOnly(name string) bool {
	return strings.HasPrefix(name, "examples/") || strings.HasPrefix(name, "internal/lint/testdata/") || strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "internal/cmd/")
}

// TestLibraryKeepsOut checks that what is embedded in other people's programs
// leaves to them what is theirs: signals, flags, the end of the process, the
// default logger; and that it does nothing at start.
func TestLibraryKeepsOut(t *testing.T) {
	forbidden := map[string]map[string]bool{
		"os/signal": nil, "flag": nil, "log": nil, // nil: all of it
		"os":       {"Exit": true, "Stdout": true},
		"log/slog": {"Default": true, "SetDefault": true, "Debug": true, "Info": true, "Warn": true, "Error": true},
		"fmt":      {"Print": true, "Println": true, "Printf": true},
	}
	sources(t, func(name string, fset *token.FileSet, f *ast.File) {
		if mainOnly(name) || strings.HasSuffix(name, "_test.go") {
			return
		}
		imported := map[string]string{} // name in the file → path
		for _, spec := range f.Imports {
			p := strings.Trim(spec.Path.Value, `"`)
			local := path.Base(p)
			if spec.Name != nil {
				local = spec.Name.Name
			}
			imported[local] = p
			if names, ok := forbidden[p]; ok && names == nil {
				t.Errorf("%s imports %s", fset.Position(spec.Pos()), p)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if strings.HasPrefix(name, "internal/hydra/") && n.Sel.Name == "Stdout" {
					return true // the command line of the programs that use it
				}
				if x, ok := n.X.(*ast.Ident); ok && forbidden[imported[x.Name]][n.Sel.Name] {
					t.Errorf("%s uses %s.%s", fset.Position(n.Pos()), x.Name, n.Sel.Name)
				}
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" && !strings.HasPrefix(name, "mysql/") { // registers a driver, and is imported for it
					t.Errorf("%s: a function init runs in programs that only import the package", fset.Position(n.Pos()))
				}
			case *ast.TypeSpec:
				s, ok := n.Type.(*ast.StructType)
				if !ok || !n.Name.IsExported() {
					return true // the state of one call may hold that call's context
				}
				for _, field := range s.Fields.List {
					if sel, ok := field.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
						if x, ok := sel.X.(*ast.Ident); ok && imported[x.Name] == "context" {
							t.Errorf("%s: a context is stored; pass it as the first argument", fset.Position(field.Pos()))
						}
					}
				}
			}
			return true
		})
	})
}

func TestDocumented(t *testing.T) {
	documented := map[string]bool{} // by directory
	sources(t, func(name string, fset *token.FileSet, f *ast.File) {
		dir := path.Dir(name)
		if strings.HasSuffix(f.Name.Name, "_test") || strings.Contains(name, "testdata/") {
			return
		}
		documented[dir] = documented[dir] || f.Doc != nil
		if strings.HasSuffix(name, "_test.go") || f.Name.Name == "main" {
			return
		}
		for _, missing := range undocumented(f) {
			t.Errorf("%s: %s has no doc comment", fset.Position(missing.Pos()), missing.Name)
		}
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package in %s has no doc comment", dir)
		}
	}
}

// conventional methods say by their name alone what they do.
var conventional = []string{"Close", "Error", "Is", "Len", "String", "Unwrap"}

// undocumented returns the exported top-level identifiers without a comment. In
// a group one comment above it or beside each is enough.
func undocumented(f *ast.File) (missing []*ast.Ident) {
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if !d.Name.IsExported() || d.Doc != nil {
				continue
			}
			if d.Recv != nil && (slices.Contains(conventional, d.Name.Name) || !receiver(d.Recv.List[0].Type).IsExported()) {
				continue
			}
			missing = append(missing, d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
						missing = append(missing, s.Name)
					}
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
							missing = append(missing, name)
						}
					}
				}
			}
		}
	}
	return missing
}

func receiver(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return ast.NewIdent("_")
		}
	}
}

func TestFormatted(t *testing.T) {
	for _, name := range tracked(t) {
		if path.Ext(name) != ".go" {
			continue
		}
		src, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := format.Source(src)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(src, want) {
			t.Errorf("%s is not formatted: make fmt", name)
		}
	}
}

func TestFileSizes(t *testing.T) {
	for _, name := range tracked(t) {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 2<<20 && !slices.Contains(large, name) {
			t.Errorf("%s has %.1f MiB", name, float64(info.Size())/(1<<20))
		}
	}
}

// Words that say that something is left to do are split here, so that this file
// does not contain them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)

func TestNothingLeftToDo(t *testing.T) {
	for _, name := range tracked(t) {
		if strings.HasPrefix(name, "testdata/golden/") {
			continue
		}
		eachLine(t, name, func(n int, line string) {
			if word := unfinished.FindString(line); word != "" {
				t.Errorf("%s:%d: %s", name, n, word)
			}
		})
	}
}

// machinePath matches the absolute paths of somebody's home folder.
var machinePath = regexp.MustCompile(`(^|[^\w.~-])(/home/[a-z][\w.-]*/|/Users/[A-Za-z][\w.-]*/|/ro` + `ot/[\w.]|[A-Z]:\\Users\\)`)

func TestNoMachinePaths(t *testing.T) {
	here := []string{root + "/"}
	for _, name := range tracked(t) {
		eachLine(t, name, func(n int, line string) {
			if m := machinePath.FindString(line); m != "" {
				t.Errorf("%s:%d: path of a machine: %s", name, n, m)
			}
			for _, p := range here {
				if strings.Contains(line, p) {
					t.Errorf("%s:%d: path of this machine: %s", name, n, p)
				}
			}
		})
	}
}

// TestPins checks what go.mod must keep, see the comments there.
func TestPins(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ require, why string }{
		{`gorgonia\.org/tensor v0\.9\.3\b`, "later ones panic at start under this version of Go"},
		{`github\.com/gogo/protobuf v1\.(3\.[2-9]|[4-9])`, "earlier ones have a known decoder vulnerability"},
	} {
		if !regexp.MustCompile(test.require).Match(mod) {
			t.Errorf("go.mod does not require %s: %s", test.require, test.why)
		}
	}
}

// eachLine calls f with the lines of a text file.
func eachLine(t *testing.T, name string, f func(n int, line string)) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return // not text
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		f(n, line)
	}
}

// tracked returns the files that belong to the repository: what git tracks or
// would, or, without git, everything but hidden folders.
func tracked(t *testing.T) []string {
	t.Helper()
	var names []string
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil {
		for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
			if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
				names = append(names, name)
			}
		}
	} else {
		err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" {
				return fs.SkipDir
			}
			if err == nil && d.Type().IsRegular() {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) == 0 {
		t.Fatal(fmt.Errorf("no files found in %s", root))
	}
	return names
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
