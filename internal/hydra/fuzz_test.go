package hydra

import (
	"io"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzOverride checks that parsing an override never fails badly, that its tokens
// make up the whole line, and that what a sweep writes for a job parses again.
func FuzzOverride(f *testing.F) {
	for _, line := range []string{
		"a=1", "+a.b=1e-5", "++a={b:[1,'c d'],e:\"f\"}", "~a", "~a/b=c", "a/b@c.d=e", "a=", "a= 1 , 2 ",
		"a=choice(a,b)", "a=range(1,10,step=2)", "a=sort([3,1,2],reverse=true)", "a=int(float('3.7'))", "a=glob(*,exclude=[b,c])",
		`a='it\'s'`, `a="\\"`, `a=\\\,\ \(x\)`, "a=${b.c}", "a=${oc.env:X,1}", "a=${", "a=[[[[", "a={a:", "a=x:y/z-1.2.3", "a=tag(t,interval(0,1))",
		"a=1_000", "a=+.5e-1_0", "a=-inf", "a=NaN", "a=nUlL", "a=shuffle(1,2)", "$a.$b=1", "a.0.b=1", "a=\té\n",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		memwatch.Start(t, len(line))
		if tokens, err := lex(line); err == nil {
			var joined strings.Builder
			for _, token := range tokens[:len(tokens)-1] {
				joined.WriteString(token.text)
			}
			if joined.String() != line {
				t.Fatalf("tokens of %q join to %q", line, joined.String())
			}
		}
		o, err := parseOverride(line)
		if err != nil {
			if kind := asError(err).Kind; kind != KindOverrideParse {
				t.Fatalf("error of kind %s: %v", kind, err)
			}
			return
		}
		if q, ok := o.value.(quotedString); ok {
			again, err := parseOverride("a=" + q.withQuotes())
			if err != nil || again.plainValue() != q.text {
				t.Fatalf("%q quoted as %s parses to %v (%v)", q.text, q.withQuotes(), again, err)
			}
		}
		if jobs, err := expandSweep([]*override{o}, func(string) []string { return []string{"x", "y"} }); err == nil && !strings.Contains(line, "(") {
			for _, job := range jobs {
				if _, err := parseOverride(job[0]); err != nil && !strings.HasPrefix(job[0], "~") && !wasRelaxed(line) {
					t.Fatalf("job %q of %q does not parse: %v", job[0], line, err)
				}
			}
		}
	})
}

// wasRelaxed tells overrides whose values Hydra cannot write back: an
// interpolation loses its token when its braces are escaped.
func wasRelaxed(line string) bool { return strings.Contains(line, "${") }

// FuzzReadConfig checks that any document is either refused or survives being
// written and read again.
func FuzzReadConfig(f *testing.F) {
	for _, doc := range []string{
		"a: 1\nb: [1.5, 1e-5, .5e3, 0x1F, 012, 12:30:45, 1_000, yes, ~, '', \"x\\ny\"]\n",
		"base: &b {p: 1}\nd:\n  <<: [*b, {p: 2, q: 3}]\n  r: *b\n",
		"- a\n- - b\n  - c: {d: e}\n", "k: |\n  x\n   y\n\n", "k: >-\n  x\n  y\n", "? a b\n: c\n", "%YAML 1.2\n---\na: on\n", "!!binary aGk=: 1",
		"a: !!set {x}\n", "a: !!omap [x: 1]\n", "1: a\ntrue: b\n1.0: c\n1.5: d\n", "a: ${b}\n", "a: ${\n", "a: \t1\n", "a: x\ty\n", "null: 1\n",
		"a: 2024-01-02\n", "a: =\n", "<<: 1\n", "a: -0.0\nb: .nan\nc: -.INF\n", "\ufeffa: 1\r\nb: 2\r\n", "hello\n", "5\n", "", "---\na: 1\n---\nb: 2\n",
		"a: &x [*x]\n", "a: 123456789012345678901234567890\n", "a: \"\\u2028\\x85\\u00a0\\x07\"\n",
	} {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		memwatch.Start(t, len(doc))
		value, err := readConfig("fuzz", []byte(doc))
		if err != nil {
			return
		}
		tree, err := newTree(value)
		if err != nil || hasNextLine(pyRepr(value)) {
			return
		}
		want := tree.plain()
		written := dump(want)
		again, err := readConfig("again", written)
		if err != nil {
			t.Fatalf("%q was written as %q, which cannot be read: %v", doc, written, err)
		}
		if diff := cmp.Diff(want, again, valueOptions); diff != "" {
			t.Fatalf("%q was written as %q, which reads as something else (-want +got):\n%s", doc, written, diff)
		}
	})
}

// hasNextLine tells the strings that PyYAML's style does not preserve: it writes a
// next-line character as a line break, which reads as a space.
func hasNextLine(s string) bool { return strings.Contains(s, "\u0085") || strings.Contains(s, `\x85`) }

// FuzzDump checks that every string, as a value, in a list and as a key, reads
// back from what is written.
func FuzzDump(f *testing.F) {
	for _, s := range []string{
		"", "a", "yes", "1e5", "0x_", " a", "a ", "a: b", "a #b", "- a", "?", "...", "--- a", "it's", "a\nb", "\n", "a\n", " \n ", "a\tb", "\x07", "\\", "\"",
		"é模🙂", "\u2028", "\u0085", "\ufeff", "\u00a0", strings.Repeat("word ", 30), strings.Repeat("w\"ord ", 30), strings.Repeat("x", 130), "${a}", "???",
		"=", "<<", "~", "null", "2024-01-02", "1:30", "!x", "&x", "*x", "%x", "@x", "`x", "|", ">", "[a]", "{a}", "a,b", "#",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		memwatch.Start(t, len(s))
		if !utf8.ValidString(s) || hasNextLine(s) {
			return
		}
		want := Map{{"value", s}, {"list", []any{s, []any{s}}}, {"map", Map{{s, Map{{"k", s}}}}}}
		written := dump(want)
		got, err := readYAML("fuzz", written)
		if err != nil {
			t.Fatalf("%q was written as %q, which cannot be read: %v", s, written, err)
		}
		if diff := cmp.Diff(any(want), got, valueOptions); diff != "" {
			t.Fatalf("%q was written as %q, which reads as something else (-want +got):\n%s", s, written, diff)
		}
	})
}

// FuzzInterpolation checks that resolving any string ends with a value or with an
// error that says where.
func FuzzInterpolation(f *testing.F) {
	for _, s := range []string{
		"${a}", "${b.c}", "${.a}", "${..a}", "${l[0]}", "${l.1}", "${${k}}", "x${a}y", `\${a}`, `\\${a}`, "${s}", "${b}", "${oc.env:X,1}", "${oc.env:X,'a ${a} b'}",
		"${oc.decode:'[1,{a:b}]'}", "${oc.create:{a:1}}", "${oc.select:nope,[1,2]}", "${oc.dict.keys:b}", "${oc.dict.values:b}", "${now:%Y}", "${hydra:x}",
		"${oc.deprecated:a}", "${nope:1}", "${", "${}", "${a", "${a:b", "${f:{a:b}}", "${f:\"q\\\"\"}", "${f:,,}", "$$", `\`, "${a}${a}${a}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		memwatch.Start(t, len(s))
		tree, err := newTree(Map{{"a", int64(1)}, {"k", "a"}, {"b", Map{{"c", "text"}, {"d", "${a}"}}}, {"l", []any{int64(1), "x"}}, {"m", missing}, {"s", s}})
		if err != nil {
			if e := asError(err); e.Kind != KindGrammar || e.Key != "s" {
				t.Fatalf("%q: error of kind %s at %q: %v", s, e.Kind, e.Key, err)
			}
			return
		}
		env := &environment{lookupEnv: func(string) (string, bool) { return "", false }}
		value, err := (&resolution{env: env}).value(tree)
		if err != nil {
			if e := asError(err); e.Key == "" {
				t.Fatalf("%q: the error does not say where: %v", s, err)
			}
			return
		}
		dump(value)
	})
}

// FuzzCompose checks that no config and no override makes composing fail in any
// other way than with an error.
func FuzzCompose(f *testing.F) {
	for _, seed := range [][2]string{
		{"defaults:\n  - model: tiny\n  - _self_\na: ${b}\nb: {c: 1}\n", "+b.d=1"},
		{"defaults:\n  - optional model: nope\n  - override hydra/job_logging: none\n", "model@x=tiny"},
		{"hydra: null\n", "a=1"}, {"hydra: {job: {name: x}}\n", "hydra.job=${x}"}, {"{}", "hydra.run='???'"}, {"hydra: 5\n", "~hydra"},
		{"defaults: [model: ???]\n", "~model"}, {"defaults:\n  - model: ${model}\n", "+model=[tiny,mentalbert]"},
		{"# @package a.b\nx: 1\n", "++a.b.x.y=2"}, {"- 1\n", "0=2"}, {"a: [1, {b: 2}]\n", "a.1.b=3"}, {"a: ???\n", "~a=1"},
		{"{}", "hydra.searchpath=[x]"}, {"hydra: {searchpath: ${x}}\n", "+hydra=config"}, {"{}", "hydra/output=default"}, {"{}", "hydra.overrides=null"},
		{"a: {b: ${..c}}\nc: ${a}\n", "a={b:{c:1}}"}, {"a: 1\n", "hydra.runtime.choices='${a}'"}, {"hydra: {job: {config: ${a}}}\na: {}\n", "a@b=1"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, config, override string) {
		memwatch.Start(t, len(config)+len(override))
		conf := smallConf().(fstest.MapFS)
		conf["config.yaml"] = &fstest.MapFile{Data: []byte(config)}
		app := App{Name: "fuzz", ConfigFS: conf, ConfigName: "config", Stderr: io.Discard, LookupEnv: func(string) (string, bool) { return "", false }}
		composed, err := app.Compose(override)
		if err != nil {
			return
		}
		if _, err := composed.YAML(); err != nil {
			t.Fatal(err)
		}
		if _, err := composed.Resolved(); err != nil && asError(err).Key == "" {
			t.Fatalf("the error does not say where: %v", err)
		}
	})
}
