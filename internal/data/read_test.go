package data

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/memwatch"
	"github.com/google/go-cmp/cmp"
)

// write makes a folder of files and returns its source, with the criteria
// file beside it.
func write(t testing.TB, criteria string, files map[string]string) Source {
	t.Helper()
	root := t.TempDir()
	src := Source{Dir: filepath.Join(root, "data"), Criteria: filepath.Join(root, "criteria.json"),
		DirKey: "data.redsm5_dir", CriteriaKey: "data.dsm5_criteria_path"}
	if err := os.Mkdir(src.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src.Criteria, []byte(criteria), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(src.Dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return src
}

// nineCriteria are A.1 to A.9, the file of form three.
func nineCriteria() string {
	var b strings.Builder
	for i := 1; i <= 9; i++ {
		if i > 1 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, `    {"id": "A.%d", "text": "criterion %d"}`, i, i)
	}
	return "{\n  \"diagnosis\": \"D\",\n  \"criteria\": [\n" + b.String() + "\n  ]\n}\n"
}

const annotationHeader = "post_id,sentence_id,sentence_text,DSM5_symptom,status,explanation\n"

func TestReadCorpus(t *testing.T) {
	src := write(t, nineCriteria(), map[string]string{
		postsFile: "\ufeffpost_id,text\np2,\"second, with a comma\nand a second line\"\np1,first\np3,third\n",
		annotationsFile: annotationHeader +
			"p1,s1,x,SLEEP_ISSUES,1,e\np1,s2,x,SLEEP_ISSUES,0,e\np2,s3,x,DEPRESSED_MOOD,0,e\np2,s4,x,SPECIAL_CASE,1,e\np3,s5,x,SUICIDAL_THOUGHTS,1,e\n",
		"notes.txt": "not read",
	})
	d, err := Read(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	var want []Example
	for _, p := range []struct{ id, text string }{{"p1", "first"}, {"p2", "second, with a comma\nand a second line"}, {"p3", "third"}} {
		for i := 1; i <= 9; i++ {
			e := Example{PostID: p.id, CriterionID: fmt.Sprintf("A.%d", i), Post: p.text, Criterion: fmt.Sprintf("criterion %d", i)}
			if p.id == "p1" && i == 4 || p.id == "p3" && i == 9 {
				e.Label = 1
			}
			want = append(want, e)
		}
	}
	if diff := cmp.Diff(want, d.Examples); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
	if len(d.Hashes) != 3 || len(d.Hashes["criteria.json"]) != 64 {
		t.Errorf("got the hashes %v, want one for each of the three files", d.Hashes)
	}
	if got := d.Examples[0].Pair(); got != (Pair{"first", "criterion 1"}) {
		t.Errorf("pair: got %v", got)
	}
}

// TestReadIsIndependentOfOrder shuffles the rows of the files.
func TestReadIsIndependentOfOrder(t *testing.T) {
	posts, annotations := corpus(60)
	read := func(seed uint64) *Dataset {
		r := rand.New(rand.NewPCG(seed, 0))
		shuffled := func(header string, rows []string) string {
			rows = append([]string(nil), rows...)
			r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
			return header + strings.Join(rows, "")
		}
		d, err := Read(context.Background(), write(t, nineCriteria(), map[string]string{
			postsFile:       shuffled("post_id,text\n", posts),
			annotationsFile: shuffled(annotationHeader, annotations),
		}))
		if err != nil {
			t.Fatal(err)
		}
		d.Hashes = nil
		return d
	}
	a, b := read(1), read(2)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Fatalf("dataset of shuffled files (-want +got):\n%s", diff)
	}
	ratios := Ratios{0.8, 0.1, 0.1}
	sa, err := a.Split(ratios, 42)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := b.Split(ratios, 42)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sa, sb); diff != "" {
		t.Errorf("splits of shuffled files (-want +got):\n%s", diff)
	}
}

// corpus makes the rows of n posts with about two symptoms each.
func corpus(n int) (posts, annotations []string) {
	r := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		posts = append(posts, fmt.Sprintf("p%03d,text %d\n", i, i))
		for _, s := range symptoms {
			if r.IntN(4) == 0 {
				annotations = append(annotations, fmt.Sprintf("p%03d,s,x,%s,1,e\n", i, s))
			}
		}
	}
	return posts, annotations
}

func TestReadFlat(t *testing.T) {
	src := write(t, `{"c1": "one", "c2": "two", "c3": "three"}`, map[string]string{
		"b.csv": "status,criterion_id,text,post_id\n0,c1,hello,p1\n1,c2,hello,p1\n1,c1,hello,p1\n",
		"a.csv": "post_id,text,criterion_id,status\np2,bye,c1,0\n",
	})
	d, err := Read(context.Background(), src)
	if err != nil {
		t.Fatal(err)
	}
	want := []Example{
		{"p1", "c1", "hello", "one", 1},
		{"p1", "c2", "hello", "two", 1},
		{"p2", "c1", "bye", "one", 0},
	}
	if diff := cmp.Diff(want, d.Examples); diff != "" {
		t.Errorf("examples (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"c3"}, d.Unused); diff != "" {
		t.Errorf("unused (-want +got):\n%s", diff)
	}
	if d.Given != nil {
		t.Error("found a split in files that bring none")
	}
}

func TestReadGivenSplit(t *testing.T) {
	const header = "post_id,text,criterion_id,status\n"
	d, err := Read(context.Background(), write(t, `{"c1": "one"}`, map[string]string{
		"train.csv": header + "p1,a,c1,0\np2,b,c1,1\n",
		"val.csv":   header + "p3,c,c1,0\np4,d,c1,1\n",
		"test.csv":  header + "p5,e,c1,0\np6,f,c1,1\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Split(Ratios{}, 1) // the ratios are ignored, even invalid ones
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for name, part := range map[string][]Example{"train": s.Train, "val": s.Val, "test": s.Test} {
		for _, e := range part {
			got[name] = append(got[name], e.PostID)
		}
	}
	want := map[string][]string{"train": {"p1", "p2"}, "val": {"p3", "p4"}, "test": {"p5", "p6"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("splits (-want +got):\n%s", diff)
	}
}

// TestReadErrors gives one fault to each case, and says where it is and what
// the message has to name.
func TestReadErrors(t *testing.T) {
	const flat = "post_id,text,criterion_id,status\n"
	ok := map[string]string{"a.csv": flat + "p1,x,c1,0\n"}
	for name, c := range map[string]struct {
		criteria string
		files    map[string]string
		file     string
		line     int
		field    string
		mentions []string
	}{
		"no CSV":         {`{"c1": "x"}`, nil, "data", 0, "data.redsm5_dir", []string{"no CSV files"}},
		"no annotations": {`{"c1": "x"}`, map[string]string{postsFile: "post_id,text\np1,x\n"}, annotationsFile, 0, "data.redsm5_dir", []string{"no such file", annotationsFile, "data.redsm5_dir"}},
		"no posts":       {`{"c1": "x"}`, map[string]string{annotationsFile: annotationHeader}, postsFile, 0, "data.redsm5_dir", []string{"no such file", "data.redsm5_dir"}},
		"empty file":     {`{"c1": "x"}`, map[string]string{"a.csv": ""}, "a.csv", 0, "", []string{"empty file", "post_id, text"}},
		"only a header":  {`{"c1": "x"}`, map[string]string{"a.csv": flat}, "a.csv", 0, "", []string{"no rows"}},
		"missing column": {`{"c1": "x"}`, map[string]string{"a.csv": "post_id,text,status\np1,x,0\n"}, "a.csv", 1, "criterion_id", []string{`"status"`}},
		"column twice":   {`{"c1": "x"}`, map[string]string{"a.csv": "post_id,text,text,criterion_id,status\n"}, "a.csv", 1, "text", []string{"two columns"}},
		"unknown criterion, after a record of two lines": {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p1,\"x\ny\",c1,0\np2,x,c9,0\n"}, "a.csv", 4, "criterion_id", []string{`"c9"`, "c1"}},
		"status":                  {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p1,x,c1,yes\n"}, "a.csv", 2, "status", []string{`"yes"`, "0 or 1"}},
		"status of the corpus":    {nineCriteria(), map[string]string{postsFile: "post_id,text\np1,x\n", annotationsFile: annotationHeader + "p1,s,x,SPECIAL_CASE,2,e\n"}, annotationsFile, 2, "status", []string{`"2"`}},
		"blank text":              {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p1,\" \t\",c1,0\n"}, "a.csv", 2, "text", []string{"blank"}},
		"blank id":                {`{"c1": "x"}`, map[string]string{"a.csv": flat + ",x,c1,0\n"}, "a.csv", 2, "post_id", []string{"blank"}},
		"post with two texts":     {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p1,x,c1,0\np1,y,c1,0\n"}, "a.csv", 3, "post_id", []string{`"p1"`, "a.csv:2"}},
		"unknown post":            {nineCriteria(), map[string]string{postsFile: "post_id,text\np1,x\n", annotationsFile: annotationHeader + "p7,s,x,FATIGUE,1,e\n"}, annotationsFile, 2, "post_id", []string{`"p7"`, postsFile}},
		"unmatched label":         {nineCriteria(), map[string]string{postsFile: "post_id,text\np1,x\n", annotationsFile: annotationHeader + "p1,s,x,FATIGUE,1,e\np1,s,x,MOOD,1,e\n"}, annotationsFile, 3, "DSM5_symptom", []string{`"MOOD"`, "FATIGUE", "A.1, A.2"}},
		"labels without criteria": {`{"c1": "x"}`, map[string]string{postsFile: "post_id,text\np1,x\n", annotationsFile: annotationHeader + "p1,s,x,FATIGUE,1,e\n"}, annotationsFile, 2, "DSM5_symptom", []string{`"FATIGUE"`, "c1", "data.dsm5_criteria_path"}},
		"fields":                  {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p1,x,c1\n"}, "a.csv", 2, "", []string{"number of fields"}},
		"quotes":                  {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p0,x,c1,0\np1,\"x,c1,0\n\n\n"}, "a.csv", 3, "", []string{"CSV"}},
		"Latin-1":                 {`{"c1": "x"}`, map[string]string{"a.csv": flat + "p1,\"a\nb\xfcc\",c1,0\n"}, "a.csv", 3, "text", []string{"UTF-8"}},
		"UTF-16":                  {`{"c1": "x"}`, map[string]string{"a.csv": "\xff\xfep\x00"}, "a.csv", 1, "", []string{"UTF-16"}},
		"split in part":           {`{"c1": "x"}`, map[string]string{"train.csv": flat, "test.csv": flat}, "data", 0, "data.redsm5_dir", []string{"test.csv, train.csv", "val.csv"}},
		"split and more":          {`{"c1": "x"}`, map[string]string{"train.csv": flat, "test.csv": flat, "val.csv": flat, "x.csv": flat}, "data", 0, "data.redsm5_dir", []string{"x.csv"}},
		"post in two splits": {`{"c1": "x"}`, map[string]string{
			"train.csv": flat + "p1,a,c1,0\np2,b,c1,1\n", "val.csv": flat + "p1,a,c1,1\n", "test.csv": flat + "p3,a,c1,1\n"}, "val.csv", 2, "post_id", []string{`"p1"`, "train.csv:2"}},
		"split of one class": {`{"c1": "x"}`, map[string]string{
			"train.csv": flat + "p1,a,c1,0\np2,b,c1,1\n", "val.csv": flat + "p3,a,c1,1\n", "test.csv": flat + "p4,a,c1,1\np5,a,c1,0\n"}, "data", 0, "status", []string{"0 negative and 1 positive", "val"}},
		"criteria: no JSON":        {`{"c1": "x",}`, ok, "criteria.json", 1, "", []string{"JSON"}},
		"criteria: cut off":        {"[{\"id\": \"c1\",\n\"text\"", ok, "criteria.json", 2, "", []string{"JSON"}},
		"criteria: a number":       {"7", ok, "criteria.json", 1, "", []string{"neither an object nor a list"}},
		"criteria: none":           {"{}", ok, "criteria.json", 0, "", []string{"no criteria"}},
		"criteria: twice":          {"{\"c1\": \"x\",\n\n\"c1\": \"y\"}", ok, "criteria.json", 3, "id", []string{`"c1"`, "line 1"}},
		"criteria: blank text":     {"{\"c1\":\n\n \" \"}", ok, "criteria.json", 1, "c1", []string{"blank"}},
		"criteria: text missing":   {"[\n{\"id\": \"c1\"}]", ok, "criteria.json", 2, "text", []string{`"c1"`}},
		"criteria: id missing":     {"{\"criteria\": [\n{\"text\": \"c1\"}]}", ok, "criteria.json", 2, "id", []string{"entry 1"}},
		"criteria: id no string":   {"[\n{\"id\": 3, \"text\": \"x\"}]", ok, "criteria.json", 2, "id", []string{"number", "string"}},
		"criteria: text no string": {"{\n\"c1\": [\"x\"]}", ok, "criteria.json", 2, "c1", []string{`["x"]`, "text of a criterion"}},
		"criteria: entry":          {"[\n\n\"x\"]", ok, "criteria.json", 3, "entry 1", []string{"object"}},
		"criteria: more":           {"{\"c1\": \"x\"}\n{}", ok, "criteria.json", 2, "", []string{"after the end"}},
		"criteria: Latin-1":        {"{\"c1\":\n\"\xfc\"}", ok, "criteria.json", 2, "", []string{"UTF-8"}},
		"criteria: symptom twice":  {"[{\"id\":\"c1\",\"text\":\"x\",\"symptom\":\"S\"},\n{\"id\":\"c2\",\"text\":\"x\",\"symptom\":\"S\"}]", ok, "criteria.json", 2, "symptom", []string{`"S"`, `"c1"`, `"c2"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(context.Background(), write(t, c.criteria, c.files))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			type at struct {
				File  string
				Line  int
				Field string
			}
			got, want := at{filepath.Base(e.File), e.Line, e.Field}, at{c.file, c.line, c.field}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("place of %q (-want +got):\n%s", err, diff)
			}
			for _, m := range c.mentions {
				if !strings.Contains(err.Error(), m) {
					t.Errorf("error %q does not mention %q", err, m)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q has more than one line", err)
			}
		})
	}
}

func TestReadMissingPaths(t *testing.T) {
	keys := Source{DirKey: "data.redsm5_dir", CriteriaKey: "data.dsm5_criteria_path"}
	good := write(t, `{"c1": "x"}`, nil)
	for name, c := range map[string]struct {
		dir, criteria string
		mentions      []string
	}{
		"no criteria path":   {good.Dir, "", []string{"set data.dsm5_criteria_path"}},
		"criteria file gone": {good.Dir, "/nowhere/criteria.json", []string{"/nowhere/criteria.json", "set data.dsm5_criteria_path"}},
		"no folder":          {"", good.Criteria, []string{"set data.redsm5_dir"}},
		"folder gone":        {"/nowhere/data", good.Criteria, []string{"/nowhere/data", "set data.redsm5_dir"}},
	} {
		t.Run(name, func(t *testing.T) {
			src := keys
			src.Dir, src.Criteria = c.dir, c.criteria
			_, err := Read(context.Background(), src)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got error %v, want an *Error", err)
			}
			for _, m := range c.mentions {
				if !strings.Contains(err.Error(), m) {
					t.Errorf("error %q does not mention %q", err, m)
				}
			}
		})
	}
}

const flatHeader = "post_id,text,criterion_id,status\n"

// What a stranger's folder holds beside, or instead of, what was asked for.
func TestReadStrangersFiles(t *testing.T) {
	rows := func(id string, statuses ...string) string {
		text := flatHeader
		for i, s := range statuses {
			text += fmt.Sprintf("%s%d,text %s%d,A.1,%s\n", id, i, id, i, s)
		}
		return text
	}
	for name, c := range map[string]struct {
		files  map[string]string
		labels string
		given  bool
		notes  []string // parts of them, in order
	}{
		"hidden files": {
			files:  map[string]string{"a.csv": rows("p", "0", "1"), "._a.csv": "\x00\x05\x16\x07", ".old.csv": "x"},
			labels: "01",
		},
		"status as pandas writes it": {
			files:  map[string]string{"a.csv": rows("p", "1.0", "0.0", "1.0"), "b.csv": rows("q", "True", "False"), "c.csv": rows("r", "0", "1")},
			labels: "1011001",
			notes:  []string{"a.csv, b.csv, c.csv", `a.csv:2: status "1.0" is read as 1`, `b.csv:2: status "True" is read as 1`},
		},
		"names like those of a split": {
			files:  map[string]string{"redsm5_train.csv": rows("p", "0"), "redsm5_test.csv": rows("q", "1")},
			labels: "01",
			notes:  []string{"redsm5_test.csv, redsm5_train.csv are put together, and split by post"},
		},
		"validation.csv": {
			files:  map[string]string{"train.csv": rows("p", "0", "1"), "validation.csv": rows("q", "1", "0"), "test.csv": rows("r", "0", "1")},
			labels: "011001",
			given:  true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Read(t.Context(), write(t, nineCriteria(), c.files))
			if err != nil {
				t.Fatal(err)
			}
			labels := ""
			for _, e := range d.Examples {
				labels += fmt.Sprint(e.Label)
			}
			if labels != c.labels || (d.Given != nil) != c.given {
				t.Errorf("labels %s, split given %t; want %s, %t", labels, d.Given != nil, c.labels, c.given)
			}
			if len(d.Notes) != len(c.notes) {
				t.Fatalf("notes %q, want %d", d.Notes, len(c.notes))
			}
			for i, part := range c.notes {
				if !strings.Contains(d.Notes[i], part) {
					t.Errorf("note %q, want one with %q", d.Notes[i], part)
				}
			}
		})
	}
	both := write(t, nineCriteria(), map[string]string{
		"train.csv": rows("p", "0", "1"), "val.csv": rows("q", "1", "0"), "validation.csv": rows("s", "1", "0"), "test.csv": rows("r", "0", "1"),
	})
	if _, err := Read(t.Context(), both); err == nil || !strings.Contains(err.Error(), "val.csv, validation.csv") {
		t.Errorf("error %v of a folder with val.csv and validation.csv", err)
	}
}

func TestBlank(t *testing.T) {
	for _, text := range []string{
		"", " \t\r\n\u00a0\u3000", "\u200b\u200c\u200d\u2060\ufeff", "\u00ad\u200e\u200f\u202a\u2066\u180e", "\u115f\u3164\u2800\ufe0f\u0000",
	} {
		if !Blank(text) {
			t.Errorf("%q has nothing to read, and is not blank", text)
		}
	}
	for _, text := range []string{"a", "\u200ba\u200b", ".", "\u0301", "\U0001f642", "\u0648\u200d"} {
		if Blank(text) {
			t.Errorf("%q is blank", text)
		}
	}
}

func TestReadStopsWhenCancelled(t *testing.T) {
	posts, annotations := corpus(30)
	src := write(t, nineCriteria(), map[string]string{
		postsFile: "post_id,text\n" + strings.Join(posts, ""), annotationsFile: annotationHeader + strings.Join(annotations, "")})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, src); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
}

func TestReadCriteriaForms(t *testing.T) {
	want := []Criterion{{ID: "MDD_1", Text: "mood"}, {ID: "MDD_2", Text: "joy"}}
	for name, text := range map[string]string{
		"map":         `{"MDD_2": "joy", "MDD_1": "mood"}`,
		"list":        `[{"criterion_id": "MDD_1", "text": "mood"}, {"criterion_id": "MDD_2", "text": "joy"}]`,
		"diagnosis":   `{"diagnosis": "x", "notes": {"a": [1]}, "criteria": [{"id": "MDD_1", "text": "mood"}, {"id": "MDD_2", "text": "joy"}], "year": 2013}`,
		"with a mark": "\ufeff" + `{"MDD_2": "joy", "MDD_1": "mood"}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadCriteria(strings.NewReader(text), "criteria.json")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	got, err := ReadCriteria(strings.NewReader(`[{"id": "x", "text": "t", "category": "c", "symptom": "S"}]`), "criteria.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Criterion{{ID: "x", Text: "t", Category: "c", Symptom: "S"}}, got); diff != "" {
		t.Errorf("all fields (-want +got):\n%s", diff)
	}
}

func TestMatchLabels(t *testing.T) {
	nine := func(format string) (list []Criterion) {
		for i := 1; i <= 9; i++ {
			list = append(list, Criterion{ID: fmt.Sprintf(format, i), Text: "x"})
		}
		return list
	}
	for name, c := range map[string]struct {
		criteria []Criterion
		label    string
		want     string
		unused   []string
	}{
		"A.n":             {nine("A.%d"), "SLEEP_ISSUES", "A.4", nil},
		"MDD_n":           {nine("MDD_%d"), "SUICIDAL_THOUGHTS", "MDD_9", nil},
		"MDD-A.n":         {nine("MDD-A.%d"), "DEPRESSED_MOOD", "MDD-A.1", nil},
		"by id":           {[]Criterion{{ID: "WORRY", Text: "x"}, {ID: "OTHER", Text: "y"}}, "WORRY", "WORRY", []string{"OTHER"}},
		"by symptom":      {[]Criterion{{ID: "G.1", Text: "x", Symptom: "WORRY"}}, "WORRY", "G.1", nil},
		"symptom wins":    {append(nine("A.%d"), Criterion{ID: "B", Text: "x", Symptom: "SLEEP_ISSUES"}), "SLEEP_ISSUES", "B", []string{"A.4"}},
		"others are left": {append(nine("A.%d"), Criterion{ID: "B", Text: "x"}), "FATIGUE", "A.6", []string{"B"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, used, unused, err := matchLabels(c.criteria, "f", map[string]int{c.label: 1})
			if err != nil {
				t.Fatal(err)
			}
			if got := m[c.label].ID; got != c.want {
				t.Errorf("%s stands for %q, want %q", c.label, got, c.want)
			}
			if diff := cmp.Diff(c.unused, unused); diff != "" {
				t.Errorf("unused (-want +got):\n%s", diff)
			}
			if len(used)+len(unused) != len(c.criteria) {
				t.Errorf("%d used and %d unused criteria of %d", len(used), len(unused), len(c.criteria))
			}
		})
	}
}

func FuzzReadCriteria(f *testing.F) {
	for _, s := range []string{nineCriteria(), `{"a": "b"}`, `[{"criterion_id": "a", "text": "b"}]`, `{"criteria": [}`, `[[[`, `{"criteria": [{"id": null}]}`, "\ufeff{}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		memwatch.Start(t, len(text))
		list, err := ReadCriteria(strings.NewReader(text), "f")
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v is no *Error", err)
			}
			if lines := 1 + strings.Count(text, "\n"); e.Line < 0 || e.Line > lines {
				t.Fatalf("error names line %d of %d", e.Line, lines)
			}
			return
		}
		for i, c := range list {
			if Blank(c.ID) || Blank(c.Text) || i > 0 && list[i-1].ID >= c.ID {
				t.Fatalf("accepted %+v", list)
			}
		}
	})
}

func FuzzReadTable(f *testing.F) {
	for _, s := range []string{"post_id,text\np1,x\n", "\ufeffpost_id,text\n\"a\nb\",c\n", "text\n", "post_id,text\n\"", "", "post_id,text\n,\n", "post_id,text\na,\xff\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		memwatch.Start(t, len(text))
		last := 0
		err := readTable(context.Background(), strings.NewReader(text), "f", []string{"post_id", "text"}, func(at place, row []string) error {
			if at.line <= last || Blank(row[0]) || Blank(row[1]) {
				t.Fatalf("row %q in line %d after line %d", row, at.line, last)
			}
			last = at.line
			return nil
		}, "post_id", "text")
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error %v is no *Error", err)
		}
		if lines := 1 + strings.Count(text, "\n"); e != nil && (e.Line < 0 || e.Line > lines+1) {
			t.Fatalf("error names line %d of %d", e.Line, lines)
		}
	})
}

func TestClassWeights(t *testing.T) {
	examples := make([]Example, 10)
	examples[0].Label, examples[1].Label = 1, 1
	want := [2]float32{10. / 16, 10. / 4}
	if diff := cmp.Diff(want, ClassWeights(ClassCounts(examples))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReadSample reads the sample that comes with the repository.
func TestReadSample(t *testing.T) {
	dir := filepath.Join(golden.Root(t), "testdata", "sample")
	d, err := Read(context.Background(), Source{Dir: dir, Criteria: filepath.Join(dir, "criteria.json")})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Examples) != 9*400 || len(d.Criteria) != 9 || len(d.Unused) != 0 {
		t.Errorf("got %d examples of %d criteria, %v unused; want 3600 of 9, none unused", len(d.Examples), len(d.Criteria), d.Unused)
	}
	s, err := d.Split(Ratios{0.8, 0.1, 0.1}, 42)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{2880, 360, 360}, []int{len(s.Train), len(s.Val), len(s.Test)}); diff != "" {
		t.Errorf("sizes of the splits (-want +got):\n%s", diff)
	}
}
