package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// model trains the tiny model for a moment.
func model(t *testing.T) string {
	t.Helper()
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint("../../testdata/sample/tiny-deberta"), criteria.WithDataset(fakes.Dataset(6, 6, 6, 1)),
		criteria.Configure(func(c *criteria.Config) { c.Train.Epochs = 1 }), criteria.WithOutputDir(t.TempDir()), criteria.Configure(func(c *criteria.Config) { c.Model.Tokenizer.MaxLength = 64 }),
	)
	if err != nil {
		t.Fatal(err)
	}
	result, err := trainer.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return result.ModelDir()
}

func TestPredict(t *testing.T) {
	dir := model(t)
	in, err := os.Open("sample.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out, stderr strings.Builder
	if err := run(t.Context(), []string{dir}, in, &out, &stderr); err != nil {
		t.Fatal(err)
	}
	fromJSONL := out.String()
	lines := strings.Split(strings.TrimSpace(fromJSONL), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d answers, want 5:\n%s", len(lines), fromJSONL)
	}
	for _, line := range lines {
		var a answer
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Probability <= 0 || a.Probability >= 1 || a.Label != (a.Probability > 0.5) {
			t.Errorf("answer %s (%v)", line, err)
		}
	}
	if !strings.HasPrefix(stderr.String(), "5 pairs in ") {
		t.Errorf("progress %q", stderr.String())
	}

	// The same as CSV, with an id.
	file := filepath.Join(t.TempDir(), "pairs.CSV")
	writeCSV(t, file, "sample.jsonl")
	out.Reset()
	if err := run(t.Context(), []string{"-progress", "0", dir, file}, nil, &out, &stderr); err != nil {
		t.Fatal(err)
	}
	want := ""
	for i, line := range lines {
		want += fmt.Sprintf(`{"id":"n%d",%s`, i, line[1:]) + "\n"
	}
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("answers (-JSONL +CSV):\n%s", diff)
	}

	// A fault in the input comes after the answers to what stood before it.
	out.Reset()
	err = run(t.Context(), []string{dir}, strings.NewReader("{\"id\": 7, \"post\": \"a\", \"criterion\": \"b\"}\n\n{\"post\": \"a\"}\n"), &out, &stderr)
	if err == nil || !strings.Contains(err.Error(), "line 3") || strings.Count(out.String(), "\n") != 1 || !strings.HasPrefix(out.String(), `{"id":7,`) {
		t.Errorf("error %v after the answers %q; want one answer and an error in line 3", err, out.String())
	}
}

// writeCSV writes the pairs of a JSONL file as CSV.
func writeCSV(t *testing.T, to, from string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	rows := [][]string{{"criterion", "id", "post"}}
	for line := range strings.Lines(string(text)) {
		var p criteria.Pair
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, []string{p.Criterion, fmt.Sprintf("n%d", len(rows)-1), p.Post})
	}
	if err := errors.Join(w.WriteAll(rows), os.WriteFile(to, []byte("\ufeff"+b.String()), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// TestRead judges single lines, of both formats.
func TestRead(t *testing.T) {
	for name, tc := range map[string]struct{ format, text, want string }{
		"nothing":            {"jsonl", "", ""},
		"blank lines":        {"jsonl", "\n  \n", ""},
		"no JSON":            {"jsonl", "{\"post\": \"a\", \"criterion\": \"b\"}\npost", "line 2: "},
		"no object":          {"jsonl", "[]", "line 1: "},
		"wrong type":         {"jsonl", `{"post": 1, "criterion": "b"}`, "line 1: "},
		"invalid UTF-8":      {"jsonl", "\n{\"post\": \"\xff\", \"criterion\": \"b\"}", "line 2: not UTF-8"},
		"very long line":     {"jsonl", "\n" + strings.Repeat("x", maxLine+1), "line 2: has more than"},
		"CSV without header": {"csv", "", "header"},
		"CSV columns":        {"csv", "text,criterion\n", "want post and criterion"},
		"CSV fields":         {"csv", "post,criterion\na\n", "line 2"},
		"CSV quotes":         {"csv", "post,criterion\na,\"b\n", "line 2"},
		"CSV empty":          {"csv", "post,criterion\n\"a\nb\",c\n,b\n", "line 4: want post"},
		"CSV invalid UTF-8":  {"csv", "post,criterion\n\xff,b\n", "line 2: not UTF-8"},
		"format":             {"xml", "", "want jsonl or csv"},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := open(tc.format, strings.NewReader(tc.text))
			for err == nil {
				_, err = source()
			}
			if errors.Is(err, io.EOF) && tc.want == "" {
				return
			}
			if tc.want == "" || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v; want %q", err, tc.want)
			}
		})
	}
}

func TestPredictUsage(t *testing.T) {
	for _, args := range [][]string{nil, {filepath.Join(t.TempDir(), "none")}, {"a", "b"}, {"a", "b", "c"}, {"-format", "xml", "a"}, {"-nonsense"}} {
		if err := run(t.Context(), args, strings.NewReader(""), &strings.Builder{}, &strings.Builder{}); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
