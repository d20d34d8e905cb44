package hydra

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
)

// goldenCase is one line of a file of golden cases; each file uses some fields.
type goldenCase struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`

	ConfigName  string            `json:"config_name"`
	Overrides   []string          `json:"overrides"`
	Env         map[string]string `json:"env"`
	Config      json.RawMessage   `json:"config"`
	YAML        *string           `json:"yaml"`
	Hydra       json.RawMessage   `json:"hydra"`
	MissingKeys []string          `json:"missing_keys"`
	Recorded    *string           `json:"overrides_yaml"`

	Phase     string `json:"phase"`
	ErrorType string `json:"error_type"`
	Error     string `json:"error"`
	CauseType string `json:"cause_type"`
	Cause     string `json:"cause"`
	CLIExit   *int   `json:"cli_exit"`
	CLIStderr string `json:"cli_stderr"`

	YAMLOut *string         `json:"yaml_out"`
	Value   json.RawMessage `json:"value"`
	Jobs    [][]string      `json:"jobs"`
}

// goldenCases reads the cases of testdata/golden/hydra/<file>.
func goldenCases(t *testing.T, file string) []goldenCase {
	t.Helper()
	f, err := os.Open(filepath.Join(golden.Dir(t), "hydra", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []goldenCase
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var c goldenCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if c.Name == "" {
			c.Name = fmt.Sprintf("line_%d", len(cases)+1)
		}
		cases = append(cases, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s has no cases", file)
	}
	return cases
}

// fromJSON decodes a value of the golden files, with {"$float": …}, {"$map": …}
// and {"$bytes": …} for what JSON cannot say.
func fromJSON(t *testing.T, raw json.RawMessage) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var decode func() any
	next := func() json.Token {
		token, err := dec.Token()
		if err != nil {
			t.Fatalf("decoding %s: %v", raw, err)
		}
		return token
	}
	decode = func() any {
		switch token := next().(type) {
		case json.Delim:
			if token == '[' {
				items := []any{}
				for dec.More() {
					items = append(items, decode())
				}
				next()
				return items
			}
			m := Map{}
			for dec.More() {
				key := next()
				m = append(m, Entry{key, decode()})
			}
			next()
			return special(t, m)
		case json.Number:
			text := token.String()
			if strings.ContainsAny(text, ".eE") {
				f, err := token.Float64()
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
			i, ok := new(big.Int).SetString(text, 10)
			if !ok {
				t.Fatalf("%q is not an integer", text)
			}
			return smallest(i)
		default:
			return token
		}
	}
	return decode()
}

func special(t *testing.T, m Map) any {
	t.Helper()
	if len(m) != 1 {
		return m
	}
	switch m[0].Key {
	case "$float":
		return map[any]float64{"inf": math.Inf(1), "-inf": math.Inf(-1), "nan": math.NaN()}[m[0].Value]
	case "$bytes":
		data, err := hex.DecodeString(m[0].Value.(string))
		if err != nil {
			t.Fatal(err)
		}
		return data
	case "$map":
		out := Map{}
		for _, pair := range m[0].Value.([]any) {
			out = append(out, Entry{pair.([]any)[0], pair.([]any)[1]})
		}
		return out
	}
	return m
}

var valueOptions = cmp.Options{
	cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }),
	cmp.Comparer(func(a, b float64) bool {
		return a == b && math.Signbit(a) == math.Signbit(b) || math.IsNaN(a) && math.IsNaN(b)
	}),
}

// kindOf maps the exception of a golden case to the kind it has here.
func kindOf(exception string) Kind {
	if strings.HasPrefix(exception, "yaml.") {
		return KindYAML
	}
	return Kind(exception[strings.LastIndexByte(exception, '.')+1:])
}

// wordingIsOurs tells the errors whose text Hydra does not choose: it comes from a
// parser generator, from the YAML library or from Python, so that only the kind
// has to agree.
func wordingIsOurs(kind Kind) bool {
	return kind == KindYAML || kind == KindGrammar || kind == KindOverrideParse || !kind.isHydra() && !kind.isOmegaConf()
}

var fullKey = regexp.MustCompile(`(?m)^    full_key: .*$`)

// checkError compares an error with the one of a golden case.
func checkError(t *testing.T, c goldenCase, got error) {
	t.Helper()
	if got == nil {
		t.Fatalf("no error, want %s: %s", c.ErrorType, c.Error)
	}
	e := asError(got)
	if want := kindOf(c.ErrorType); e.Kind != want {
		t.Fatalf("error kind is %s, want %s\n got: %v\nwant: %s", e.Kind, want, got, c.Error)
	}
	if want := fullKey.FindString(c.Error); want != "" && want != fullKey.FindString(e.Msg) {
		t.Errorf("error says %q, want %q", fullKey.FindString(e.Msg), want)
	}
	if wordingIsOurs(e.Kind) {
		return
	}
	if diff := cmp.Diff(c.Error, e.Msg); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if c.CauseType == "" {
		return
	}
	if e.Cause == nil {
		t.Fatalf("error has no cause, want %s: %s", c.CauseType, c.Cause)
	}
	cause := asError(e.Cause)
	if want := kindOf(c.CauseType); cause.Kind != want {
		t.Errorf("kind of the cause is %s, want %s", cause.Kind, want)
	}
	if diff := cmp.Diff(c.Cause, cause.Msg); diff != "" && !wordingIsOurs(cause.Kind) {
		t.Errorf("cause (-want +got):\n%s", diff)
	}
}

// goldenComposer composes from the golden config tree, as Hydra's compose API.
func goldenComposer(t *testing.T, env map[string]string) *composer {
	t.Helper()
	dir := filepath.Join(golden.Dir(t), "hydra", "conf")
	main := dirSource("main", dir)
	main.path = "<CONF>"
	return &composer{
		jobName: "train",
		sources: []source{hydraSource(), main, schemaSource()},
		env: environment{
			lookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
			now:       time.Date(2026, 11, 22, 15, 3, 37, 0, time.Local),
		},
		warn: func(string) {},
	}
}

func TestGoldenHydraOverrides(t *testing.T) {
	for _, c := range goldenCases(t, "overrides.jsonl") {
		t.Run(c.Name, func(t *testing.T) {
			name := c.ConfigName
			if name == "" {
				name = "config"
			}
			composed, err := goldenComposer(t, c.Env).compose(request{config: name, overrides: c.Overrides, mode: modeRun})
			if !c.OK && c.Phase != "resolve" {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			job := composed.job()
			if c.YAML != nil {
				got, err := job.YAML()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(*c.YAML, string(got)); diff != "" {
					t.Errorf("config.yaml (-want +got):\n%s", diff)
				}
			}
			resolved, err := job.Resolved()
			if !c.OK {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fromJSON(t, c.Config), any(resolved), valueOptions); diff != "" {
				t.Errorf("resolved config (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.MissingKeys, job.MissingKeys()); diff != "" {
				t.Errorf("missing keys (-want +got):\n%s", diff)
			}
			if c.Recorded != nil {
				got := dump(composed.hydra().child("overrides").child("task").plain())
				if diff := cmp.Diff(*c.Recorded, string(got)); diff != "" {
					t.Errorf("overrides.yaml (-want +got):\n%s", diff)
				}
			}
			if c.Hydra != nil {
				checkHydra(t, composed, fromJSON(t, c.Hydra).(Map))
			}
		})
	}
}

// checkHydra compares selected values of the node "hydra".
func checkHydra(t *testing.T, composed *composition, want Map) {
	t.Helper()
	config := Config{root: composed.root, env: composed.env}
	for _, e := range want {
		got, err := config.Get(e.Key.(string))
		if err != nil {
			t.Errorf("%s: %v", e.Key, err)
			continue
		}
		if diff := cmp.Diff(e.Value, got, valueOptions); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e.Key, diff)
		}
	}
}

func TestGoldenHydraFiles(t *testing.T) {
	for _, c := range goldenCases(t, "files.jsonl") {
		t.Run(c.Name, func(t *testing.T) {
			if c.YAML == nil {
				t.Fatal("case without a document")
			}
			value, err := readConfig("<FILE>", []byte(*c.YAML))
			var root *node
			if err == nil {
				root, err = newTree(value)
			}
			if !c.OK && c.Phase == "load" {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			config := Config{root, &goldenComposer(t, c.Env).env}
			resolved, err := (&resolution{env: config.env}).value(root)
			if !c.OK {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fromJSON(t, c.Config), resolved, valueOptions); diff != "" {
				t.Errorf("values (-want +got):\n%s", diff)
			}
			text, err := config.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if c.YAMLOut != nil {
				if diff := cmp.Diff(*c.YAMLOut, string(text)); diff != "" {
					t.Errorf("written again (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestGoldenHydraDump(t *testing.T) {
	for i, c := range goldenCases(t, "dump.jsonl") {
		t.Run(c.Name, func(t *testing.T) {
			value := fromJSON(t, c.Value)
			if c.Name == fmt.Sprintf("line_%d", i+1) {
				value = Map{{"k", value}}
			}
			got, err := MarshalYAML(value)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*c.YAML, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoldenHydraMultirun(t *testing.T) {
	repo := newRepository(goldenComposer(t, nil).sources)
	for _, c := range goldenCases(t, "multirun.jsonl") {
		t.Run(strings.Join(c.Overrides, " "), func(t *testing.T) {
			overrides, err := parseOverrides(c.Overrides)
			var jobs [][]string
			if err == nil {
				jobs, err = expandSweep(overrides, repo.options)
			}
			if !c.OK {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.Jobs, jobs); diff != "" {
				t.Errorf("jobs (-want +got):\n%s", diff)
			}
		})
	}
}

// goldenSchema is the typed configuration of structured.jsonl, described in the
// README of the golden cases.
func goldenSchema() *schema {
	str := &schema{kind: stringSchema}
	integer := &schema{kind: intSchema}
	number := &schema{kind: floatSchema}
	boolean := &schema{kind: boolSchema}
	pooling := &schema{kind: enumSchema, name: "Sched", members: []member{{"linear", 1}, {"cosine", 2}}}
	opt := &schema{kind: structSchema, name: "Opt", fields: []field{
		{"use_compile", boolean, false}, {"amp_dtype", str, "bfloat16"}}}
	train := &schema{kind: structSchema, name: "Train", fields: []field{
		{"seed", integer, int64(42)},
		{"learning_rate", number, 2e-5},
		{"name", str, "x"},
		{"note", &schema{kind: stringSchema, optional: true}, nil},
		{"pooling", pooling, "linear"},
		{"hidden_dims", &schema{kind: listSchema, element: integer}, []any{int64(512), int64(256)}},
		{"space", &schema{kind: dictSchema, element: number}, Map{}},
		{"optimizations", opt, Map{}},
		{"need", integer, missing},
		{"anyv", nil, nil},
	}}
	return &schema{kind: structSchema, name: "Config", fields: []field{{"train", train, Map{}}}}
}

func TestGoldenHydraStructured(t *testing.T) {
	for _, c := range goldenCases(t, "structured.jsonl") {
		t.Run(strings.Join(c.Overrides, " "), func(t *testing.T) {
			root, err := newTyped(goldenSchema())
			if err != nil {
				t.Fatal(err)
			}
			closed := true
			root.closed = &closed
			env := &goldenComposer(t, nil).env
			overrides, err := parseOverrides(c.Overrides)
			for _, o := range overrides {
				if err == nil {
					err = applyOverride(root, o, env)
				}
			}
			if !c.OK && c.Phase == "compose" {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			config := Config{root, env}
			resolved, err := config.Resolved()
			if !c.OK {
				checkError(t, c, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fromJSON(t, c.Config), any(resolved), valueOptions); diff != "" {
				t.Errorf("resolved config (-want +got):\n%s", diff)
			}
		})
	}
}
