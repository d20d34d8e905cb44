package data

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/criteria-go/criteria/internal/readfile"
)

// The files of the published corpus, and those that bring their own split.
const (
	postsFile       = "redsm5_posts.csv"
	annotationsFile = "redsm5_annotations.csv"
	trainFile       = "train.csv"
	valFile         = "val.csv"
	validationFile  = "validation.csv" // the same
	testFile        = "test.csv"
)

// Source says where a dataset lies and which configuration keys said so; the
// keys are for errors only.
type Source struct {
	Dir, Criteria       string
	DirKey, CriteriaKey string
}

// Read reads and checks a dataset: the folder of CSV files and the criteria of
// src. Every fault of the data is an *Error.
func Read(ctx context.Context, src Source) (*Dataset, error) {
	r := &reader{ctx: ctx, hashes: make(map[string]string), spelt: make(map[string]bool)}
	criteria, err := r.criteria(src)
	if err != nil {
		return nil, err
	}
	names, err := csvFiles(src)
	if err != nil {
		return nil, err
	}
	var d *Dataset
	if slices.Contains(names, postsFile) || slices.Contains(names, annotationsFile) {
		d, err = r.corpus(src, criteria)
	} else {
		d, err = r.flat(src, names, criteria)
	}
	if err != nil {
		return nil, err
	}
	d.Hashes, d.Notes = r.hashes, r.notes
	return d, nil
}

// csvFiles lists the CSV files of the folder, sorted, but for hidden ones: macOS
// puts a file ._posts.csv beside posts.csv on foreign disks, which is no table.
func csvFiles(src Source) ([]string, error) {
	remedy := "set " + src.DirKey + " to the folder of the data"
	if src.Dir == "" {
		return nil, &Error{Field: src.DirKey, Found: "no folder", Want: "the folder with the CSV files", Remedy: remedy}
	}
	entries, err := os.ReadDir(src.Dir)
	if err != nil {
		return nil, &Error{File: src.Dir, Field: src.DirKey, Found: "no readable folder", Want: "the folder with the CSV files", Remedy: remedy, Err: err}
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && filepath.Ext(e.Name()) == ".csv" && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil, &Error{File: src.Dir, Field: src.DirKey, Found: "no CSV files",
			Want: postsFile + " and " + annotationsFile + ", or *.csv with post_id,text,criterion_id,status", Remedy: remedy}
	}
	return names, nil
}

// reader reads files and keeps their hashes.
type reader struct {
	ctx    context.Context
	hashes map[string]string
	notes  []string
	spelt  map[string]bool // files whose status is spelt as pandas does, which has been noted
}

// open opens a file whose content is hashed while it is read; done must be
// called when all of it is wanted.
func (r *reader) open(path, key string) (file io.Reader, done func() error, err error) {
	f, err := readfile.Open(path)
	if err != nil {
		found := "no readable file"
		if errors.Is(err, os.ErrNotExist) {
			found = "no such file"
		}
		return nil, nil, &Error{File: path, Field: key, Found: found, Remedy: "set " + key + " to where it lies", Err: err}
	}
	h := sha256.New()
	tee := io.TeeReader(f, h)
	return tee, func() error {
		_, err := io.Copy(io.Discard, tee)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return &Error{File: path, Found: "a file that cannot be read to its end", Err: err}
		}
		r.hashes[filepath.Base(path)] = hex.EncodeToString(h.Sum(nil))
		return nil
	}, nil
}

func (r *reader) criteria(src Source) ([]Criterion, error) {
	if src.Criteria == "" {
		return nil, &Error{Field: src.CriteriaKey, Found: "no file", Want: "the JSON file of the criteria", Remedy: "set " + src.CriteriaKey}
	}
	f, done, err := r.open(src.Criteria, src.CriteriaKey)
	if err != nil {
		return nil, err
	}
	list, err := ReadCriteria(f, src.Criteria)
	return list, errors.Join(err, done())
}

// post is the text of a post and where it stands.
type post struct {
	text string
	at   place
}

type place struct {
	file string
	line int
}

// addPost keeps a post, which may come again, but not with another text.
func addPost(posts map[string]post, id, text string, at place) error {
	first, ok := posts[id]
	if !ok {
		posts[id] = post{text, at}
		return nil
	}
	if first.text != text {
		return &Error{File: at.file, Line: at.line, Field: "post_id",
			Found:  fmt.Sprintf("%q with another text than in %s:%d", id, first.at.file, first.at.line),
			Want:   "one text for each post",
			Remedy: "correct the text or give the post an id of its own"}
	}
	return nil
}

// pairID names a pair.
type pairID struct{ post, criterion string }

// corpus reads the layout of the published corpus. Every pair of a post and a
// criterion is an example: positive if some sentence of the post has status 1
// for that symptom, otherwise negative, whether an annotator said so or nobody
// said anything.
func (r *reader) corpus(src Source, criteria []Criterion) (*Dataset, error) {
	posts := make(map[string]post)
	path := filepath.Join(src.Dir, postsFile)
	err := r.table(path, src.DirKey, []string{"post_id", "text"}, func(at place, row []string) error {
		return addPost(posts, row[0], row[1], at)
	}, "post_id", "text")
	if err != nil {
		return nil, err
	}

	type mark struct {
		post, label string
	}
	shown := make(map[mark]bool)
	labels := make(map[string]int) // line of first appearance
	path = filepath.Join(src.Dir, annotationsFile)
	err = r.table(path, src.DirKey, []string{"post_id", "DSM5_symptom", "status"}, func(at place, row []string) error {
		id, label := row[0], row[1]
		if _, ok := posts[id]; !ok {
			return &Error{File: at.file, Line: at.line, Field: "post_id", Found: fmt.Sprintf("%q, which is not in %s", id, postsFile),
				Want: "the id of a post", Remedy: "add the post or remove the row"}
		}
		status, err := r.status(row[2], at)
		if err != nil || label == specialCase {
			return err
		}
		if _, ok := labels[label]; !ok {
			labels[label] = at.line
		}
		if status == 1 {
			shown[mark{id, label}] = true
		}
		return nil
	}, "post_id", "DSM5_symptom")
	if err != nil {
		return nil, err
	}

	match, used, unused, err := matchLabels(criteria, path, labels)
	if err != nil {
		return nil, err
	}
	positive := make(map[pairID]bool)
	for m := range shown {
		positive[pairID{m.post, match[m.label].ID}] = true
	}
	d := &Dataset{Criteria: used, Unused: unused}
	for id, p := range posts {
		for _, c := range used {
			e := Example{PostID: id, CriterionID: c.ID, Post: p.text, Criterion: c.Text}
			if positive[pairID{id, c.ID}] {
				e.Label = 1
			}
			d.Examples = append(d.Examples, e)
		}
	}
	sortExamples(d.Examples)
	return d, nil
}

// flat reads files of pairs. A pair that comes several times, as sentences of
// one post do, is positive if one of its rows is.
func (r *reader) flat(src Source, names []string, criteria []Criterion) (*Dataset, error) {
	split, err := bringsSplit(src, names)
	if err != nil {
		return nil, err
	}
	if !split && len(names) > 1 {
		r.note("the pairs of %s are put together, and split by post; to bring a split, call its files train.csv, val.csv and test.csv",
			strings.Join(names, ", "))
	}
	byID := make(map[string]Criterion)
	for _, c := range criteria {
		byID[c.ID] = c
	}
	posts := make(map[string]post)
	labels := make([]map[pairID]int, len(names))
	for i, name := range names {
		labels[i] = make(map[pairID]int)
		pairs := labels[0]
		if split {
			pairs = labels[i]
		}
		path := filepath.Join(src.Dir, name)
		err := r.table(path, src.DirKey, []string{"post_id", "text", "criterion_id", "status"}, func(at place, row []string) error {
			id, text, criterion := row[0], row[1], row[2]
			if _, ok := byID[criterion]; !ok {
				return &Error{File: at.file, Line: at.line, Field: "criterion_id",
					Found:  fmt.Sprintf("%q, which is not in %s", criterion, src.Criteria),
					Want:   "one of " + strings.Join(sortedKeys(byID), ", "),
					Remedy: "correct the id or add the criterion to that file"}
			}
			status, err := r.status(row[3], at)
			if err != nil {
				return err
			}
			if err := addPost(posts, id, text, at); err != nil {
				return err
			}
			if first := posts[id].at; split && first.file != at.file {
				return &Error{File: at.file, Line: at.line, Field: "post_id",
					Found:  fmt.Sprintf("%q, which is in %s:%d too", id, first.file, first.line),
					Want:   "every post in one split: the model would be tested on what it has learnt",
					Remedy: "move all rows of the post into one file"}
			}
			key := pairID{id, criterion}
			pairs[key] = max(pairs[key], status)
			return nil
		}, "post_id", "text", "criterion_id")
		if err != nil {
			return nil, err
		}
	}

	d := &Dataset{}
	seen := make(map[string]bool)
	lists := make([][]Example, len(names))
	for i := range names {
		for key, label := range labels[i] {
			seen[key.criterion] = true
			lists[i] = append(lists[i], Example{PostID: key.post, CriterionID: key.criterion,
				Post: posts[key.post].text, Criterion: byID[key.criterion].Text, Label: label})
		}
		sortExamples(lists[i])
		d.Examples = append(d.Examples, lists[i]...)
	}
	sortExamples(d.Examples)
	for _, c := range criteria {
		if seen[c.ID] {
			d.Criteria = append(d.Criteria, c)
		} else {
			d.Unused = append(d.Unused, c.ID)
		}
	}
	if len(d.Examples) == 0 {
		return nil, &Error{File: filepath.Join(src.Dir, names[0]), Found: "no rows", Want: "pairs", Remedy: "set " + src.DirKey + " to the folder of the data"}
	}
	if split {
		given := &Splits{}
		for i, name := range names {
			switch name {
			case trainFile:
				given.Train = lists[i]
			case valFile, validationFile:
				given.Val = lists[i]
			case testFile:
				given.Test = lists[i]
			}
		}
		if err := checkClasses(given, src.Dir); err != nil {
			return nil, err
		}
		d.Given = given
	}
	return d, nil
}

// bringsSplit tells whether the files are train.csv, val.csv (or validation.csv)
// and test.csv. A folder with some of them, or with others beside them, is refused: reading it
// as plain pairs would mix the splits.
func bringsSplit(src Source, names []string) (bool, error) {
	want := []string{testFile, trainFile, valFile, validationFile}
	if slices.Equal(names, want[:3]) || slices.Equal(names, []string{testFile, trainFile, validationFile}) {
		return true, nil
	}
	if len(names) == 1 {
		return false, nil
	}
	if slices.ContainsFunc(names, func(n string) bool { return slices.Contains(want, n) }) {
		return false, &Error{File: src.Dir, Field: src.DirKey, Found: strings.Join(names, ", "),
			Want:   "train.csv, val.csv and test.csv and no other CSV file, or files of other names",
			Remedy: "add what is missing, and move away what does not belong there"}
	}
	return false, nil
}

// status reads a status. pandas writes 1.0 for a 1 in a column that lacks a value
// somewhere, and True for a boolean: they are taken, and noted once for a file.
func (r *reader) status(s string, at place) (int, error) {
	status, plain, err := parseStatus(s, at)
	if err == nil && !plain && !r.spelt[at.file] {
		r.spelt[at.file] = true
		r.note("%s:%d: status %s is read as %d, and others like it", at.file, at.line, excerpt(s), status)
	}
	return status, err
}

// note keeps a remark about the data that is no error.
func (r *reader) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// parseStatus reads a status; plain says whether it is spelt 0 or 1.
func parseStatus(s string, at place) (status int, plain bool, err error) {
	switch s {
	case "0", "1":
		return int(s[0] - '0'), true, nil
	case "0.0", "False", "false", "FALSE":
		return 0, false, nil
	case "1.0", "True", "true", "TRUE":
		return 1, false, nil
	}
	return 0, false, &Error{File: at.file, Line: at.line, Field: "status", Found: excerpt(s), Want: "0 or 1", Remedy: "correct the row"}
}

// table reads a CSV file with a header and calls row with the values of
// columns for each record. Values are trimmed, but the text keeps its inner
// and outer space. The columns in filled must not be blank.
func (r *reader) table(path, key string, columns []string, row func(place, []string) error, filled ...string) error {
	f, done, err := r.open(path, key)
	if err != nil {
		return err
	}
	return errors.Join(readTable(r.ctx, f, path, columns, row, filled...), done())
}

func readTable(ctx context.Context, f io.Reader, path string, columns []string, row func(place, []string) error, filled ...string) error {
	b := bufio.NewReader(f)
	start, _ := b.Peek(3) // a short file shows itself below
	switch {
	case bytes.HasPrefix(start, []byte("\ufeff")):
		b.Discard(3)
	case bytes.HasPrefix(start, []byte{0xff, 0xfe}), bytes.HasPrefix(start, []byte{0xfe, 0xff}):
		return &Error{File: path, Line: 1, Found: "UTF-16", Want: "UTF-8", Remedy: "save the file as UTF-8"}
	}
	c := csv.NewReader(b)
	c.ReuseRecord = true
	header, err := c.Read()
	if errors.Is(err, io.EOF) {
		return &Error{File: path, Found: "an empty file", Want: "the columns " + strings.Join(columns, ", ")}
	}
	if err != nil {
		return csvError(path, err)
	}
	index, err := findColumns(path, header, columns)
	if err != nil {
		return err
	}

	values := make([]string, len(columns))
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvError(path, err)
		}
		for i, column := range columns {
			at := place{file: path}
			at.line, _ = c.FieldPos(index[i])
			v := record[index[i]]
			if !utf8.ValidString(v) {
				at.line += lineOfInvalidUTF8([]byte(v)) - 1
				return &Error{File: path, Line: at.line, Field: column, Found: "bytes that are not UTF-8", Want: "UTF-8", Remedy: "save the file as UTF-8"}
			}
			if Blank(v) && slices.Contains(filled, column) {
				return &Error{File: path, Line: at.line, Field: column, Found: "a blank value", Want: "some text", Remedy: "fill it in or remove the row"}
			}
			if column != "text" {
				v = strings.TrimSpace(v)
			}
			values[i] = strings.Clone(v) // the record is one string: keep no more of it than is used
		}
		at := place{file: path}
		at.line, _ = c.FieldPos(0)
		if err := row(at, values); err != nil {
			return err
		}
	}
}

// findColumns returns where columns stand in the header.
func findColumns(path string, header, columns []string) ([]int, error) {
	index := make([]int, len(columns))
	for i, column := range columns {
		index[i] = -1
		for j, name := range header {
			if strings.TrimSpace(name) != column {
				continue
			}
			if index[i] >= 0 {
				return nil, &Error{File: path, Line: 1, Field: column, Found: "two columns of this name", Want: "one", Remedy: "rename or remove one"}
			}
			index[i] = j
		}
		if index[i] < 0 {
			return nil, &Error{File: path, Line: 1, Field: column, Found: "the columns " + excerptHeader(header),
				Want: "the columns " + strings.Join(columns, ", "), Remedy: "the first line must name them, separated by commas"}
		}
	}
	return index, nil
}

func excerptHeader(header []string) string {
	names := make([]string, 0, len(header))
	for _, h := range header[:min(len(header), 12)] {
		names = append(names, excerpt(strings.TrimSpace(h)))
	}
	return strings.Join(names, ", ")
}

func csvError(path string, err error) error {
	e := &Error{File: path, Found: "no valid CSV", Want: `fields separated by commas, quoted with "`, Err: err}
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		e.Line, e.Err = p.StartLine, p.Err
		switch {
		case errors.Is(p.Err, csv.ErrFieldCount):
			e.Found, e.Want = "a row with another number of fields than the first line", "one field for each column"
			e.Remedy = "quote fields that contain commas"
		case errors.Is(p.Err, csv.ErrQuote), errors.Is(p.Err, csv.ErrBareQuote):
			e.Remedy = `quote the whole field and write " inside it as ""`
		}
	}
	return e
}
