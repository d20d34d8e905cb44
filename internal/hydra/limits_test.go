package hydra

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// hostile are inputs that would be expensive for careless readers, by size.
// Reading one ends with a value or with an error; which does not matter here.
func hostile() map[string]func(size int) error {
	repeat := func(s string, size int) string { return strings.Repeat(s, size/len(s)) }
	override := func(format, unit string) func(int) error {
		return func(size int) error { _, err := parseOverride(fmt.Sprintf(format, repeat(unit, size))); return err }
	}
	interpolation := func(format, unit string) func(int) error {
		return func(size int) error {
			tree, err := newTree(Map{{"a", int64(1)}, {"s", fmt.Sprintf(format, repeat(unit, size))}})
			if err != nil {
				return err
			}
			env := &environment{lookupEnv: func(string) (string, bool) { return "", false }}
			_, err = (&resolution{env: env}).value(tree)
			return err
		}
	}
	document := func(format, unit string) func(int) error {
		return func(size int) error {
			value, err := readConfig("hostile", []byte(fmt.Sprintf(format, repeat(unit, size))))
			if err == nil {
				dump(value)
			}
			return err
		}
	}
	return map[string]func(int) error{
		"override: nested lists":              override("a=%s", "["),
		"override: nested calls":              override("a=%s", "int("),
		"override: list":                      override("a=[%s1]", "1,"),
		"override: open interpolations":       override("a=%s", "${"),
		"override: interpolations":            override("a=%s", "${a}"),
		"override: escaped quotes":            override("a='%s", `\'`),
		"override: backslashes":               override("a='%s'", `\`),
		"override: spaces":                    override("a=x%sx", " "),
		"override: digits":                    override("a=%s", "1"),
		"override: repeated keys":             override("a={%sa:1}", "a:1,"),
		"override: key":                       override("%sa=1", "a."),
		"interpolation: nested":               interpolation("%s", "${"),
		"interpolation: many":                 interpolation("%s", "${a}"),
		"interpolation: nested arguments":     interpolation("${oc.decode:%s}", "["),
		"interpolation: escaped":              interpolation("%s", `\${`),
		"interpolation: backslashes":          interpolation("%s${a}", `\`),
		"document: nested flow":               document("a: %s", "["),
		"document: nested blocks":             document("%sa", "- "),
		"document: list on one line":          document("[%s1]", "1, "),
		"document: aliases":                   document("a: &a [1, 2]\nb:\n%s", "- *a\n"),
		"document: digits":                    document("a: %s", "1"),
		"document: base 60":                   document("a: 1%s", ":1"),
		"document: comments":                  document("%s", "# c\n\n"),
		"document: quotes":                    document("a: '%s'", "''"),
		"document: folded":                    document("a: >\n%s", "  x\n"),
		"document: words":                     document("a: %s", "w "),
		"document: escapes":                   document("a: \"%s\"", `\a`),
		"document: tabs":                      document("a: x%s", "\t"),
		"document: byte order marks":          document("%s", "\ufeff"),
		"document: keys that are too long":    document("? %s\n: 1", "k"),
		"document: merges of the same anchor": document("a: &a {x: 1}\nb:\n  <<: [%s*a]\n", "*a, "),
	}
}

// TestHostileInputIsLinear reads hostile inputs of up to 1 MB. What is allocated
// for four times the input must not be much more than four times as much; a
// reader that takes quadratic time without allocating would not end.
func TestHostileInputIsLinear(t *testing.T) {
	const size = 256 << 10
	for name, read := range hostile() {
		t.Run(name, func(t *testing.T) {
			small, large := allocated(read, size), allocated(read, 4*size)
			if large > 8*small+1<<20 {
				t.Errorf("%d bytes allocated for %d KB, %d for %d KB", small, size>>10, large, 4*size>>10)
			}
		})
	}
}

// allocated returns how many bytes reading an input allocates.
func allocated(read func(int) error, size int) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_ = read(size)
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestLimits checks that what goes too deep or too far is refused with a clear
// error.
func TestLimits(t *testing.T) {
	laughs := "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
	merges := "a0: &a0 {x: 1}\n"
	chain := Map{{"x0", "0123456789"}}
	tree := Map{{"y0", Map{{"a", int64(1)}}}}
	for i := 1; i < 30; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10))
		merges += fmt.Sprintf("a%d: &a%d {<<: [*a%d, *a%d]}\n", i, i, i-1, i-1)
		chain = append(chain, Entry{fmt.Sprintf("x%d", i), strings.Repeat(fmt.Sprintf("${x%d}", i-1), 10)})
		reference := fmt.Sprintf("${y%d}", i-1)
		tree = append(tree, Entry{fmt.Sprintf("y%d", i), Map{{"a", reference}, {"b", reference}}})
	}
	read := func(doc string) error { _, err := readConfig("limits", []byte(doc)); return err }
	parse := func(line string) error { _, err := parseOverride(line); return err }
	resolve := func(m Map) error {
		n, err := newTree(m)
		if err == nil {
			_, err = (&resolution{env: &environment{}}).value(n)
		}
		return err
	}
	sweep := func(lines ...string) error {
		overrides, err := parseOverrides(lines)
		if err == nil {
			_, err = expandSweep(overrides, nil)
		}
		return err
	}
	path := func(key string) error {
		return update(&node{kind: mappingNode, index: map[any]*node{}}, key, int64(1), true, &environment{})
	}
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"nested list in an override", parse("a=" + strings.Repeat("[", 300) + strings.Repeat("]", 300)), "nested deeper than 200 levels"},
		{"nested list in a document", read("a: " + strings.Repeat("[", 300) + strings.Repeat("]", 300)), "nested deeper than 200 levels"},
		{"nested interpolation", resolve(Map{{"a", strings.Repeat("${", 300) + "b" + strings.Repeat("}", 300)}}), "nested deeper than 100 levels"},
		{"long path", path(strings.Repeat("a.", 300) + "a"), "more than 200 parts"},
		{"aliases of aliases", read(laughs), "more than 1048576 nodes"},
		{"merges of merges", read(merges), "more than 1048576 nodes"},
		{"alias of itself", read("a: &a [*a]\n"), "recursive"},
		{"merge of itself", read("a: &a {<<: *a}\n"), "recursive"},
		{"interpolations that multiply", resolve(chain), "more than 1048576 steps"},
		{"text that multiplies", resolve(Map{{"a", strings.Repeat("x", 1<<20)}, {"b", strings.Repeat("${a}", 20)}}), "longer than 16777216 bytes"},
		{"references that multiply", resolve(tree), "more than 1048576 steps"},
		{"interpolation of itself", resolve(Map{{"a", "${a}"}}), "Recursive interpolation detected"},
		{"interpolation through itself", resolve(Map{{"a", "${a.b}"}}), "Recursive interpolation detected"},
		{"containers that contain each other", resolve(Map{{"a", Map{{"b", "${c}"}}}, {"c", Map{{"d", "${a}"}}}}), "Recursive interpolation detected"},
		{"top within itself", resolve(Map{{"a", "${oc.select:''}"}}), "Recursive interpolation detected\n    full_key: a"},
		{"digits", parse("a=" + strings.Repeat("1", 5000)), "Exceeds the limit (4300 digits)"},
		{"jobs of one key", sweep("a=range(0,10000000)"), "more than 100000 values"},
		{"jobs of several keys", sweep("a=range(0,1000)", "b=range(0,1000)"), "more than 100000 jobs"},
	} {
		if test.err == nil || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: error is %v, want %q", test.name, test.err, test.want)
		}
	}
}

// TestSelfIncludingDefaults checks that a config that includes itself is refused.
func TestSelfIncludingDefaults(t *testing.T) {
	for name, conf := range map[string]map[string]string{
		"itself":     {"config.yaml": "defaults: [config]\n"},
		"each other": {"config.yaml": "defaults: [a]\n", "a.yaml": "defaults: [config]\n"},
		"twice each": {"config.yaml": "defaults: [a, a]\n", "a.yaml": "defaults: [b, b]\n", "b.yaml": "defaults: [a, a]\n"},
	} {
		app := App{Name: "train", ConfigFS: mapFS(conf), ConfigName: "config"}
		if _, err := app.Compose(); err == nil || !strings.Contains(err.Error(), "include itself") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
