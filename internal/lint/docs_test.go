package lint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The pages are checked against what they speak of: links lead somewhere, Go code
// compiles, commands name targets, programs, flags and keys that exist, and
// every error that a caller can meet is explained.

// page is a text in Markdown.
type page struct {
	name   string
	prose  string // without code blocks
	blocks []block
}

// block is a code block.
type block struct {
	page, language, text string
	line                 int // of its first line
}

func pages(t *testing.T) []page {
	t.Helper()
	var all []page
	for _, name := range tracked(t) {
		if path.Ext(name) != ".md" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, parsePage(name, string(text)))
	}
	if len(all) == 0 {
		t.Fatal("no pages found")
	}
	return all
}

func parsePage(name, text string) page {
	p := page{name: name}
	var open *block
	n := 0
	for line := range strings.Lines(text) {
		n++
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			open = &block{page: name, language: fence, line: n + 1}
		case isFence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		default:
			p.prose += line
		}
	}
	return p
}

func (b block) where() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// Links.

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors are the names that headings get on the usual hosts.
func (p page) anchors() map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(p.prose, -1) {
		names[strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return names
}

func TestDocsLinks(t *testing.T) {
	all := pages(t)
	byName := map[string]page{}
	for _, p := range all {
		byName[p.name] = p
	}
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(p.prose, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") { // https:, mailto:
				continue
			}
			name := p.name
			if target != "" {
				name = path.Join(path.Dir(p.name), target)
				if !exists(filepath.Join(root, name)) {
					t.Errorf("%s: the link to %s leads nowhere", p.name, m[1])
					continue
				}
			}
			if other, ok := byName[name]; ok && anchor != "" && !other.anchors()[anchor] {
				t.Errorf("%s: %s has no heading for the link #%s", p.name, name, anchor)
			}
		}
	}
}

// Go.

// packagesInDocs are what code in the pages may use without importing it.
var packagesInDocs = map[string]string{
	"criteria": module, "serve": module + "/serve", "context": "", "errors": "", "fmt": "", "log": "", "os": "", "time": "", "io": "", "strings": "", "sync": "",
	"slog": "log/slog", "http": "net/http", "signal": "os/signal", "filepath": "path/filepath", "iter": "", "slices": "", "embed": "", "fs": "io/fs",
}

// given are the variables that code in the pages may use without declaring them.
const given = `package given

import (
	"context"

	"github.com/criteria-go/criteria"
)

var (
	ctx             context.Context
	trainer         *criteria.Trainer
	result          *criteria.Result
	classifier      *criteria.Classifier
	pairs           []criteria.Pair
	post, criterion string
	err             error
)
`

// TestDocsGo compiles the Go code in the pages: whole programs as they stand,
// anything else as the body of a function or the rest of a file.
func TestDocsGo(t *testing.T) {
	dir := t.TempDir()
	overlay := map[string]string{}
	var targets []string
	where := map[string]block{}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "go" {
				continue
			}
			if formatted, err := format.Source([]byte(b.text)); err != nil || string(formatted) != b.text {
				t.Errorf("%s: the code is not formatted: %v", b.where(), err)
				continue
			}
			name := fmt.Sprintf("docs%d", len(targets)) // belongs to this module without lying in it
			for file, text := range map[string]string{"code.go": wholeFile(b.text), "given.go": given} {
				if strings.HasPrefix(b.text, "package ") && file == "given.go" {
					continue
				}
				source := filepath.Join(dir, name+"_"+file)
				if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				overlay[filepath.Join(root, "examples", name, file)] = source
			}
			where[name] = b
			targets = append(targets, "./examples/"+name)
		}
	}
	if len(targets) == 0 {
		t.Fatal("the pages show no Go code")
	}
	replace, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, replace, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", append([]string{"build", "-gcflags=-e", "-overlay", file}, targets...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	complaint := regexp.MustCompile(`(docs\d+)_(?:code|given)\.go:\d+:\d+: (.*)`)
	found := false
	for _, m := range complaint.FindAllStringSubmatch(string(out), -1) {
		found = true
		if !strings.HasPrefix(m[2], "declared and not used") && !strings.Contains(m[2], "is not used") { // a page may stop there
			t.Errorf("%s: %s", where[m[1]].where(), m[2])
		}
	}
	if !found {
		t.Errorf("the code of the pages does not compile: %v\n%s", err, out)
	}
}

// wholeFile makes a file out of the code of a page. Programs become ordinary
// packages, which need not be linked.
func wholeFile(code string) string {
	if rest, ok := strings.CutPrefix(code, "package main\n"); ok {
		return "package program\n" + rest
	}
	imports := ""
	for name, from := range packagesInDocs {
		if regexp.MustCompile(`\b` + name + `\.[A-Z]`).MatchString(code) {
			imports += "import " + strconv.Quote(cmpOr(from, name)) + "\n"
		}
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "", "package p\n"+code, parser.SkipObjectResolution); err == nil {
		if strings.Contains(code, "import ") {
			imports = ""
		}
		return "package given\n" + imports + code
	}
	return "package given\n" + imports + "func _() error {\n" + code + "\nreturn nil\n}\n"
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Commands.

func TestDocsCommands(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "sh" {
				continue
			}
			for _, words := range commands(b.text) {
				n++
				for _, problem := range checkCommand(words, string(makefile)) {
					t.Errorf("%s: %s: %s", b.where(), strings.Join(words, " "), problem)
				}
			}
		}
	}
	if n == 0 {
		t.Fatal("the pages show no commands")
	}
}

// commands splits a block for the shell into the words of its commands.
func commands(text string) [][]string {
	var all [][]string
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		var words []string
		var word strings.Builder
		started, quote := false, rune(0)
		flush := func() {
			if started {
				words = append(words, word.String())
			}
			word.Reset()
			started = false
		}
		end := func() {
			flush()
			if len(words) > 0 {
				all = append(all, words)
			}
			words = nil
		}
	scan:
		for _, r := range line {
			switch {
			case quote != 0:
				if r == quote {
					quote = 0
				} else {
					word.WriteRune(r)
				}
			case r == '\'' || r == '"':
				quote, started = r, true
			case r == ' ' || r == '\t' || r == '\n':
				flush()
			case r == '#' && !started:
				break scan
			case r == '|' || r == ';' || r == '&' || r == '(' || r == ')':
				end()
			default:
				started = true
				word.WriteRune(r)
			}
		}
		end()
	}
	return all
}

var (
	variable = regexp.MustCompile(`^[A-Z_]+=`)
	override = regexp.MustCompile(`^(\+\+|\+|~)?([a-z][\w./@]*)=(.*)$`)
)

// checkCommand says what in a command does not exist.
func checkCommand(words []string, makefile string) (problems []string) {
	fail := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for len(words) > 0 && variable.MatchString(words[0]) {
		words = words[1:] // the environment of the command
	}
	if len(words) > 1 && words[0] == "timeout" {
		words = words[2:]
	}
	switch {
	case len(words) == 0:
	case words[0] == "make" || strings.HasPrefix(words[0], "$(make"):
		for _, w := range words[1:] {
			name, _, isVariable := strings.Cut(w, "=")
			switch {
			case strings.HasPrefix(w, "-") || strings.HasPrefix(w, "../"):
			case isVariable:
				if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `\s*\?=`).MatchString(makefile) {
					fail("the Makefile has no variable %s", name)
				}
			case !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(w) + `:`).MatchString(makefile):
				fail("the Makefile has no target %s", w)
			}
		}
	case len(words) > 2 && words[0] == "go" && words[1] == "run" && strings.HasPrefix(words[2], "./"):
		program := path.Clean(words[2])
		if !exists(filepath.Join(root, program, "main.go")) {
			fail("there is no program %s", program)
			return problems
		}
		source := goText(filepath.Join(root, program))
		composed := strings.Contains(source, "hydra.App{")
		if composed {
			source += goText(filepath.Join(root, "internal", "hydra"))
		}
		for _, w := range words[3:] {
			if w == "<" || w == ">" {
				break
			}
			if name, ok := strings.CutPrefix(w, "--"); ok || strings.HasPrefix(w, "-") && len(w) > 1 {
				name, _, _ = strings.Cut(strings.TrimLeft(cmpOr(name, w), "-"), "=")
				if !strings.Contains(source, `"`+name+`"`) && !strings.Contains(source, `"--`+name+`"`) && !strings.Contains(source, `"-`+name+`"`) {
					fail("%s has no flag %s", program, w)
				}
				continue
			}
			if m := override.FindStringSubmatch(w); composed && m != nil {
				if problem := checkOverride(m[2], m[3]); problem != "" {
					fail("%s", problem)
				}
			}
		}
	case strings.HasPrefix(words[0], "scripts/"), strings.HasPrefix(words[0], "./"):
		if !exists(filepath.Join(root, words[0])) {
			fail("there is no %s", words[0])
		}
	case words[0] == "sh" || words[0] == "bash":
		if len(words) > 1 && !strings.HasPrefix(words[1], "-") && !exists(filepath.Join(root, words[1])) {
			fail("there is no %s", words[1])
		}
	}
	return problems
}

// goText returns the Go files of a folder, tests left out.
func goText(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	var b strings.Builder
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && !strings.HasSuffix(name, "_test.go") {
			b.Write(text)
		}
	}
	return b.String()
}

// checkOverride says what conf/ lacks for an override: a group, an option of it,
// or a key.
func checkOverride(key, value string) string {
	if strings.HasPrefix(key, "hydra") {
		return ""
	}
	group, rest, nested := strings.Cut(key, ".")
	dir := filepath.Join(root, "conf", group)
	if !exists(dir) && !nested {
		// A key beside the groups.
		if text, err := os.ReadFile(filepath.Join(root, "conf", "config.yaml")); err == nil && strings.Contains(string(text), "\n"+key+": ") {
			return ""
		}
	}
	if !exists(dir) {
		return "conf/ has no group " + group
	}
	if !nested {
		for name := range strings.SplitSeq(value, ",") {
			if !exists(filepath.Join(dir, name+".yaml")) {
				return fmt.Sprintf("conf/%s has no %s.yaml", group, name)
			}
		}
		return ""
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.yaml"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		var tree any
		if err := yaml.Unmarshal(text, &tree); err != nil {
			return err.Error()
		}
		for name := range strings.SplitSeq(rest, ".") {
			branch, _ := tree.(map[string]any)
			tree = branch[name]
			if _, ok := branch[name]; !ok {
				tree = missing{}
				break
			}
		}
		if tree != (missing{}) {
			return ""
		}
	}
	return "conf/ has no key " + key
}

type missing struct{}

// TestDocsYAML reads the YAML in the pages, and looks up the keys that arguments
// in it override.
func TestDocsYAML(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "yaml" {
				continue
			}
			var tree any
			if err := yaml.Unmarshal([]byte(b.text), &tree); err != nil {
				t.Errorf("%s: %v", b.where(), err)
			}
			for line := range strings.Lines(b.text) {
				item, ok := strings.CutPrefix(strings.TrimSpace(line), "- ")
				if m := override.FindStringSubmatch(item); ok && m != nil {
					if problem := checkOverride(m[2], m[3]); problem != "" {
						t.Errorf("%s: %s: %s", b.where(), item, problem)
					}
				}
			}
		}
	}
}

// TestDocsIndex: every page can be found from the first one.
func TestDocsIndex(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(root, "docs", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages(t) {
		name, ok := strings.CutPrefix(p.name, "docs/")
		if ok && !strings.Contains(name, "/") && name != "README.md" && !strings.Contains(string(index), "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}

// Errors.

const troubleshooting = "docs/troubleshooting.md"

// TestErrorsExplained: what a caller of the public package can ask for by
// errors.Is and errors.As is explained.
func TestErrorsExplained(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, troubleshooting))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	sources(t, func(name string, _ *token.FileSet, f *ast.File) {
		if path.Dir(name) != "." || strings.HasSuffix(name, "_test.go") {
			return
		}
		for _, decl := range f.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range d.Specs {
				var names []*ast.Ident
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if strings.HasSuffix(s.Name.Name, "Error") {
						names = append(names, s.Name)
					}
				case *ast.ValueSpec:
					for _, id := range s.Names {
						if strings.HasPrefix(id.Name, "Err") {
							names = append(names, id)
						}
					}
				}
				for _, id := range names {
					n++
					if id.IsExported() && !regexp.MustCompile(`\b`+id.Name+`\b`).Match(text) {
						t.Errorf("%s does not explain %s: say what it means and what to do", troubleshooting, id.Name)
					}
				}
			}
		}
	})
	if n < 10 {
		t.Errorf("found %d errors", n)
	}
}

var quoted = regexp.MustCompile("(?m)^### `(.+)`$")

// TestErrorsQuoted: the messages that the page explains are those of the code.
// Parts that vary are written as …; those under "Building" come from other
// programs.
func TestErrorsQuoted(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, troubleshooting))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	sources(t, func(name string, _ *token.FileSet, f *ast.File) {
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if s := literal(e); s != "" {
					b.WriteString(s + "\n")
					_, joined := e.(*ast.BinaryExpr)
					return !joined
				}
			}
			return true
		})
	})
	code := b.String()
	count := 0
	for section := range strings.SplitSeq(string(text), "\n## ") {
		if strings.HasPrefix(section, "Building") {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(section, -1) {
			count++
			for part := range strings.SplitSeq(m[1], "…") {
				if len(strings.TrimSpace(part)) > 3 && !strings.Contains(code, strings.TrimSpace(part)) {
					t.Errorf("%s explains %q, but no message of the code has %q", troubleshooting, m[1], part)
				}
			}
		}
	}
	if count < 10 {
		t.Errorf("%s explains %d messages", troubleshooting, count)
	}
}

// literal returns the text of a string or of a sum of strings, else "".
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return s
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return literal(e.X) + literal(e.Y)
		}
	}
	return ""
}

// The rules themselves.

func TestCommandRules(t *testing.T) {
	makefile := "TEST ?= ./...\ntest: ## run\n\tgo test\n"
	for _, test := range []struct {
		line string
		want []string // parts of the problems
	}{
		{"make test TEST=./internal/graph # some", nil},
		{"make tests", []string{"no target tests"}},
		{"make test TSET=x", []string{"no variable TSET"}},
		{"go run ./examples/train model=tiny 'model.head.hidden_dims=[512,256]' train.seed=1,2 -m", nil},
		{"A=b go run ./examples/train hydra.run.dir=x --cfg job --resolve", nil},
		{"go run ./examples/trainer", []string{"no program examples/trainer"}},
		{"go run ./examples/train modle=tiny", []string{"no group modle"}},
		{"go run ./examples/train model=tinny", []string{"has no tinny.yaml"}},
		{"go run ./examples/train train.learnin_rate=1 \\\n  --nosuchflag", []string{"no key train.learnin_rate", "no flag --nosuchflag"}},
		{"cat x | go run ./examples/reproduce --run_id X --mode train --tolerence 1", []string{"no flag --tolerence"}},
		{"scripts/nothing.sh && bash .ci/nothing", []string{"no scripts/nothing.sh", "no .ci/nothing"}},
		{"curl http://localhost:8080/v1/predict -d '{\"a\": 1}'", nil},
	} {
		var got []string
		for _, words := range commands(test.line) {
			got = append(got, checkCommand(words, makefile)...)
		}
		ok := len(got) == len(test.want)
		for i := range test.want {
			ok = ok && slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, test.want[i]) })
		}
		if !ok {
			t.Errorf("%s: problems %q, want %q", test.line, got, test.want)
		}
	}
}

func TestPageRules(t *testing.T) {
	p := parsePage("x.md", "# A `b` c, d!\n\n```go\nx := 1\n```\n[l](#a-b-c-d)\n")
	if len(p.blocks) != 1 || p.blocks[0].text != "x := 1\n" || p.blocks[0].line != 4 || strings.Contains(p.prose, "x :=") {
		t.Errorf("%+v", p)
	}
	if !p.anchors()["a-b-c-d"] {
		t.Errorf("anchors %v", p.anchors())
	}
	for code, want := range map[string]string{
		"package main\n\nfunc main() {}\n": "package program\n\nfunc main() {}\n",
		"fmt.Println(post)\n":              "package given\nimport \"fmt\"\nfunc _() error {\nfmt.Println(post)\n\nreturn nil\n}\n",
		"type T struct{ slog.Level }\n":    "package given\nimport \"log/slog\"\ntype T struct{ slog.Level }\n",
	} {
		if got := wholeFile(code); !bytes.Equal([]byte(got), []byte(want)) {
			t.Errorf("%q became %q, want %q", code, got, want)
		}
	}
}
