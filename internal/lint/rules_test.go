package lint

import (
	"go/parser"
	"go/token"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The rules themselves can be wrong; these are their own tests. Texts that a
// rule would find in this file are put together from halves.

func TestPatterns(t *testing.T) {
	for _, test := range []struct {
		line         string
		path, undone bool
	}{
		{line: "see /ho" + "me/ann/model", path: true},
		{line: `"/Use` + `rs/Ann/x"`, path: true},
		{line: "(/ro" + "ot/.cache)", path: true},
		{line: `C:\Use` + `rs\Ann`, path: true},
		{line: "$HO" + "ME/.cache, ~/.cache, path/root/x, https://example.org/home/page/"},
		{line: "// TO" + "DO: later", undone: true},
		{line: "// FIX" + "ME", undone: true},
		{line: "MASTODON"},
	} {
		if got := machinePath.MatchString(test.line); got != test.path {
			t.Errorf("machinePath matches %q: %v", test.line, got)
		}
		if got := unfinished.MatchString(test.line); got != test.undone {
			t.Errorf("unfinished matches %q: %v", test.line, got)
		}
	}
}

func TestUndocumented(t *testing.T) {
	const src = `package p

func Bare() {}

// Told is documented.
func Told() {}

func (T) Method() {}
func (*G[K, V]) Method2() {}
func (t) Method3() {}
func (T) String() string { return "" }

type T struct{}

// Group of constants.
const (
	A = 1
)

var (
	B = 1
	C = 2 // beside it
)
`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range undocumented(f) {
		got = append(got, name.Name)
	}
	if diff := cmp.Diff([]string{"Bare", "Method", "Method2", "T", "B"}, got); diff != "" {
		t.Errorf("undocumented (-want +got):\n%s", diff)
	}
}

func TestListed(t *testing.T) {
	for _, test := range []struct {
		list []string
		room string
		want bool
	}{
		{[]string{""}, "", true},
		{[]string{""}, "internal/x", false},
		{[]string{"internal/x"}, "internal/x", true},
		{[]string{"internal/x"}, "internal/xy", false},
		{[]string{"internal/..."}, "internal/x/y", true},
		{[]string{"internal/..."}, "internals", false},
	} {
		if got := listed(test.list, test.room); got != test.want {
			t.Errorf("listed(%q, %q) = %v", test.list, test.room, got)
		}
	}
}

func TestFieldsOf(t *testing.T) {
	const src = `package p

type (
	A struct{}
	B struct {
		A
		x, y int
		f    func(a, b int)
	}
	C struct{ in struct{ a, b int } }
	D int
)
`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"A": 0, "B": 4, "C": 1}, fieldsOf(f)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
