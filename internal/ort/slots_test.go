package ort_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What api.def.h says of the functions in ONNX Runtime's table, their places and
// their types, is compared with the declaration of the table in the header that
// onnxruntime_go carries.
func TestSlots(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "onnxruntime_c_api.h"))
	if err != nil {
		t.Fatal(err)
	}
	table := string(header)
	_, table, ok := strings.Cut(table, "\nstruct OrtApi {\n")
	if !ok {
		t.Fatal("no struct OrtApi in the header")
	}
	table, _, _ = strings.Cut(table, "\n};\n")
	table = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`).ReplaceAllString(table, "")
	want := map[string]function{}
	i := 0
	for declaration := range strings.SplitSeq(table, ";") {
		if f, name, ok := declared(declaration); ok {
			f.slot = i
			want[name] = f
			i++
		}
	}

	ours, err := os.ReadFile("api.def.h")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?s)\nORT_FUNCTION\((\d+), ([^,]+), (\w+), (.*?)\)(?:\n|$)`).FindAllStringSubmatch(
		strings.ReplaceAll(string(ours), "\nORT_FUNCTION", "\n\nORT_FUNCTION"), -1)
	if n := strings.Count(string(ours), "\nORT_FUNCTION("); len(rows) != n || n < 40 {
		t.Fatalf("read %d of %d rows of api.def.h", len(rows), n)
	}
	for _, row := range rows {
		slot, _ := strconv.Atoi(row[1])
		got := function{slot, types(row[2]), parameters(row[4])}
		if w, ok := want[row[3]]; !ok || got != w {
			t.Errorf("%s: api.def.h says %+v, the header %+v (found: %t)", row[3], got, w, ok)
		}
	}
}

// function is a function of the table, without the names of its parameters.
type function struct {
	slot                int
	returns, parameters string
}

var (
	annotation = regexp.MustCompile(`\b_\w+_\b(\([^()]*\))?`)
	spaces     = regexp.MustCompile(`\s+`)
	status     = regexp.MustCompile(`ORT_API2_STATUS\(\s*(\w+),?\s*(.*)\)`)
	release    = regexp.MustCompile(`ORT_CLASS_RELEASE\(\s*(\w+)\s*\)`)
	pointer    = regexp.MustCompile(`^(.*?)\(\s*ORT_API_CALL\s*\*\s*(\w+)\s*\)\s*\((.*)\)`)
	typed      = regexp.MustCompile(`ORT_API_T\(\s*([^,]+),\s*(\w+),?\s*(.*)\)`)
	named      = regexp.MustCompile(`^(.*?[ *])\w+(\[\])?$`)
	callback   = regexp.MustCompile(`\(\*\w*\)`)
)

// declared reads one declaration of the header.
func declared(text string) (f function, name string, ok bool) {
	text = strings.TrimSpace(spaces.ReplaceAllString(text, " "))
	if m := release.FindStringSubmatch(text); m != nil {
		return function{returns: "void", parameters: "Ort" + m[1] + "*"}, "Release" + m[1], true
	}
	if m := status.FindStringSubmatch(text); m != nil {
		return function{returns: "OrtStatus*", parameters: parameters(m[2])}, m[1], true
	}
	for _, form := range []*regexp.Regexp{pointer, typed} {
		if m := form.FindStringSubmatch(text); m != nil {
			return function{returns: types(m[1]), parameters: parameters(m[3])}, m[2], true
		}
	}
	return function{}, "", false
}

// types spells a type without spaces that mean nothing and by what api.def.h calls it.
func types(text string) string {
	text = annotation.ReplaceAllString(text, "")
	for from, to := range map[string]string{"enum ": "", "ORTCHAR_T": "char", "_Bool": "bool"} {
		text = strings.ReplaceAll(text, from, to)
	}
	text = strings.TrimSpace(spaces.ReplaceAllString(text, " "))
	return strings.NewReplacer(" *", "*", "* const", "*const").Replace(text)
}

// parameters lists the types of parameters.
func parameters(text string) string {
	var list []string
	depth, from := 0, 0
	for i, c := range text + "," {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			p := types(text[from:i])
			if callback.MatchString(p) {
				p = callback.ReplaceAllString(p, "(*)")
			} else if m := named.FindStringSubmatch(p); m != nil {
				p = strings.TrimSpace(m[1]) + strings.ReplaceAll(m[2], "[]", "*")
			}
			list = append(list, p)
			from = i + 1
		}
	}
	return strings.Join(list, ", ")
}
