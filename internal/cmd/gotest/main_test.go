package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const events = `{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestOne"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"=== RUN   TestOne\n"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"    a_test.go:1: noise\n"}
{"Action":"output","Package":"m/a","Test":"TestOne","Output":"--- PASS: TestOne (0.00s)\n"}
{"Action":"pass","Package":"m/a","Test":"TestOne"}
{"Action":"output","Package":"m/a","Test":"TestTwo","Output":"=== RUN   TestTwo\n"}
{"Action":"output","Package":"m/a","Test":"TestTwo/good","Output":"    a_test.go:2: good\n"}
{"Action":"output","Package":"m/a","Test":"TestTwo/bad","Output":"        a_test.go:3: want 1, got 2\n"}
{"Action":"output","Package":"m/a","Test":"TestTwo","Output":"--- FAIL: TestTwo (0.00s)\n"}
{"Action":"output","Package":"m/a","Test":"TestTwo/bad","Output":"    --- FAIL: TestTwo/bad (0.00s)\n"}
{"Action":"pass","Package":"m/a","Test":"TestTwo/good"}
{"Action":"fail","Package":"m/a","Test":"TestTwo/bad"}
{"Action":"fail","Package":"m/a","Test":"TestTwo"}
{"Action":"skip","Package":"m/a","Test":"TestThree"}
{"Action":"output","Package":"m/a","Output":"FAIL\n"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a\t0.1s\n"}
{"Action":"fail","Package":"m/a"}
{"Action":"output","Package":"m/b","Output":"PASS\n"}
{"Action":"output","Package":"m/b","Output":"ok  \tm/b\t0.1s\n"}
{"Action":"pass","Package":"m/b"}
{"ImportPath":"m/c","Action":"build-output","Output":"c.go:1: syntax error\n"}
{"ImportPath":"m/c","Action":"build-fail"}
{"Action":"output","Package":"m/c","Output":"FAIL\tm/c [build failed]\n"}
{"Action":"fail","Package":"m/c"}
a line of the go command
`

func TestReport(t *testing.T) {
	var out strings.Builder
	got, err := report(strings.NewReader(events), &out, false)
	if err != nil {
		t.Fatal(err)
	}
	want := tally{passed: 2, failed: 3, skipped: 1}
	if got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
	wantOut := "        a_test.go:3: want 1, got 2\n" +
		"--- FAIL: TestTwo (0.00s)\n" +
		"    --- FAIL: TestTwo/bad (0.00s)\n" +
		"FAIL\nFAIL\tm/a\t0.1s\nok  \tm/b\t0.1s\n" +
		"c.go:1: syntax error\nFAIL\tm/c [build failed]\n" +
		"a line of the go command\n" +
		"2 passed, 3 failed, 1 skipped\n"
	if diff := cmp.Diff(wantOut, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestReportVerbose(t *testing.T) {
	var out strings.Builder
	if _, err := report(strings.NewReader(events), &out, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"=== RUN   TestOne\n", "noise\n", "PASS\n", "syntax error\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("verbose output lacks %q", want)
		}
	}
}

// TestRun runs go test on a package that passes, one that fails and one that
// does not build.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("GOFLAGS", "")
	for name, text := range map[string]string{
		"go.mod":      "module m\ngo 1.26\n",
		"a/a_test.go": "package a\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Run(\"x\", func(t *testing.T) {}) }\n",
		"b/b_test.go": "package b\nimport \"testing\"\nfunc TestB(t *testing.T) { t.Error(\"wrong\") }\n",
		"c/c_test.go": "package c\nfunc {\n",
		"d/d_test.go": "package d\nimport (\"os\"; \"testing\")\nfunc TestD(t *testing.T) { println(\"last words\"); os.Exit(3) }\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		pkg  string
		want tally
	}{
		{"./a", tally{passed: 2}},
		{"./b", tally{failed: 1}},
		{"./c", tally{failed: 1}},
		{"./d", tally{failed: 1}},
	} {
		var out strings.Builder
		got, err := run([]string{test.pkg}, &out, false)
		if got != test.want {
			t.Errorf("%s: counted %v, want %v\n%s", test.pkg, got, test.want, &out)
		}
		if (err != nil) != (test.want.failed > 0) {
			t.Errorf("%s: error %v", test.pkg, err)
		}
		if test.pkg == "./d" && !strings.Contains(out.String(), "last words") {
			t.Errorf("output of the test that died is missing:\n%s", &out)
		}
	}
}
