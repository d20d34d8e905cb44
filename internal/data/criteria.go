package data

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// symptoms are the labels of the published corpus in DSM-5 order: the n-th is
// criterion A.n of a major depressive episode.
var symptoms = []string{
	"DEPRESSED_MOOD", "ANHEDONIA", "APPETITE_CHANGE", "SLEEP_ISSUES", "PSYCHOMOTOR", "FATIGUE",
	"WORTHLESSNESS", "COGNITIVE_ISSUES", "SUICIDAL_THOUGHTS",
}

// maxCriteria bounds a file of criteria, in bytes.
const maxCriteria = 16 << 20

// specialCase is a label of the published corpus that is no criterion.
const specialCase = "SPECIAL_CASE"

// ReadCriteria reads criteria from JSON in one of three forms:
//
//	{"MDD_1": "text", …}
//	[{"criterion_id": "MDD_1", "text": "…", "category": "…"}, …]
//	{"diagnosis": "…", "criteria": [{"id": "A.1", "text": "…"}, …]}
//
// Entries of the last two forms may use either name for the id, and may say
// with "symptom" which annotation label stands for them. name is the path to
// put into errors, which are of type *Error. The result is sorted by id.
func ReadCriteria(r io.Reader, name string) ([]Criterion, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxCriteria+1))
	if err == nil && len(text) > maxCriteria {
		err = fmt.Errorf("it has more than %d bytes", maxCriteria)
	}
	if err != nil {
		return nil, &Error{File: name, Found: "an unreadable file", Want: "JSON of the criteria", Err: err}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	p := &criteriaParser{file: name, text: text}
	entries, err := p.parse()
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, &Error{File: name, Found: "no criteria", Want: "at least one", Remedy: criteriaForms}
	}
	lines := make(map[string]int)
	bySymptom := make(map[string]string)
	var list []Criterion
	for _, e := range entries {
		if e.Symptom != "" {
			if other, ok := bySymptom[e.Symptom]; ok {
				return nil, &Error{File: name, Line: e.line, Field: "symptom", Found: fmt.Sprintf("%q for %q and for %q", e.Symptom, other, e.ID),
					Want: "every symptom for one criterion", Remedy: "correct one of the two"}
			}
			bySymptom[e.Symptom] = e.ID
		}
		if first, ok := lines[e.ID]; ok {
			return nil, &Error{File: name, Line: e.line, Field: e.idField, Found: fmt.Sprintf("%q a second time (first in line %d)", e.ID, first),
				Want: "every criterion once", Remedy: "remove or rename one of the two"}
		}
		lines[e.ID] = e.line
		list = append(list, e.Criterion)
	}
	slices.SortFunc(list, func(a, b Criterion) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

const criteriaForms = `write {"id": "text", …}, [{"criterion_id": …, "text": …}, …] or {"criteria": [{"id": …, "text": …}, …]}`

// criteriaParser walks through the JSON by hand, for the sake of line numbers.
type criteriaParser struct {
	file string
	text []byte
}

type criteriaEntry struct {
	Criterion
	line    int
	idField string
}

func (p *criteriaParser) parse() ([]criteriaEntry, error) {
	if !utf8.Valid(p.text) {
		return nil, &Error{File: p.file, Line: lineOfInvalidUTF8(p.text), Found: "bytes that are not UTF-8", Want: "UTF-8", Remedy: "save the file as UTF-8"}
	}
	d := json.NewDecoder(bytes.NewReader(p.text))
	first, err := d.Token()
	if err != nil {
		return nil, p.syntax(err)
	}
	var entries []criteriaEntry
	switch first {
	case json.Delim('['):
		entries, err = p.list(d, 0)
	case json.Delim('{'):
		entries, err = p.object(d)
	default:
		return nil, &Error{File: p.file, Line: p.line(d.InputOffset()), Found: "neither an object nor a list", Want: "criteria", Remedy: criteriaForms}
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, &Error{File: p.file, Line: p.line(d.InputOffset()), Found: "more after the end of the JSON value", Want: "one value", Remedy: criteriaForms}
	}
	return entries, nil
}

// object reads the two forms that are objects: if there is a key "criteria"
// with a list, the other keys are remarks, otherwise every key is an id.
func (p *criteriaParser) object(d *json.Decoder) ([]criteriaEntry, error) {
	var plain []criteriaEntry
	var listed []criteriaEntry
	var isListed bool
	var notText error
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, p.syntax(err)
		}
		key := token.(string) // the decoder accepts nothing else here
		line := p.line(d.InputOffset())
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, p.syntax(err)
		}
		if key == "criteria" && raw[0] == '[' {
			if isListed {
				return nil, &Error{File: p.file, Line: line, Field: key, Found: "a second list", Want: "one"}
			}
			isListed = true
			inner := json.NewDecoder(bytes.NewReader(raw))
			if _, err := inner.Token(); err != nil {
				return nil, p.syntax(err)
			}
			if listed, err = p.list(inner, d.InputOffset()-int64(len(raw))); err != nil {
				return nil, err
			}
			continue
		}
		var text string
		if err := json.Unmarshal(raw, &text); err != nil || raw[0] != '"' {
			notText = cmp.Or(notText, error(&Error{File: p.file, Line: line, Field: key, Found: excerptJSON(raw), Want: "the text of a criterion", Remedy: criteriaForms}))
			continue
		}
		plain = append(plain, criteriaEntry{Criterion{ID: key, Text: text}, line, "id"})
	}
	if _, err := d.Token(); err != nil {
		return nil, p.syntax(err)
	}
	if isListed {
		return listed, nil
	}
	if notText != nil {
		return nil, notText
	}
	for _, e := range plain {
		if err := p.check(e, e.ID); err != nil {
			return nil, err
		}
	}
	return plain, nil
}

// list reads the entries of a list whose bracket is read; base is where the
// decoder's text begins in the file.
func (p *criteriaParser) list(d *json.Decoder, base int64) ([]criteriaEntry, error) {
	var entries []criteriaEntry
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, p.syntaxAt(err, base)
		}
		line := p.line(base + d.InputOffset() - int64(len(raw)))
		var v struct {
			CriterionID *string `json:"criterion_id"`
			ID          *string `json:"id"`
			Text        *string `json:"text"`
			Category    string  `json:"category"`
			Symptom     string  `json:"symptom"`
		}
		if err := json.Unmarshal(raw, &v); err != nil || raw[0] != '{' {
			e := &Error{File: p.file, Line: line, Field: fmt.Sprintf("entry %d", len(entries)+1), Found: excerptJSON(raw),
				Want: `an object with "id" (or "criterion_id") and "text", all strings`, Remedy: criteriaForms}
			if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
				e.Field, e.Found, e.Want = wrong.Field, "a "+wrong.Value, "a string"
			}
			return nil, e
		}
		id, field := v.ID, "id"
		if id == nil {
			id, field = v.CriterionID, "criterion_id"
		}
		if id == nil {
			return nil, &Error{File: p.file, Line: line, Field: "id", Found: fmt.Sprintf("entry %d without it", len(entries)+1), Want: `"id" or "criterion_id"`, Remedy: "give the criterion an id"}
		}
		if v.Text == nil {
			return nil, &Error{File: p.file, Line: line, Field: "text", Found: fmt.Sprintf("%q without it", *id), Want: "the text of the criterion", Remedy: "add it"}
		}
		e := criteriaEntry{Criterion{ID: *id, Text: *v.Text, Category: v.Category, Symptom: v.Symptom}, line, field}
		if err := p.check(e, "text"); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if _, err := d.Token(); err != nil {
		return nil, p.syntaxAt(err, base)
	}
	return entries, nil
}

func (p *criteriaParser) check(e criteriaEntry, textField string) error {
	if Blank(e.ID) {
		return &Error{File: p.file, Line: e.line, Field: e.idField, Found: "a blank id", Want: "an id", Remedy: "give the criterion an id"}
	}
	if Blank(e.Text) {
		return &Error{File: p.file, Line: e.line, Field: textField, Found: fmt.Sprintf("a blank text for %q", e.ID), Want: "the text of the criterion", Remedy: "write it or remove the entry"}
	}
	return nil
}

func (p *criteriaParser) syntax(err error) error { return p.syntaxAt(err, 0) }

func (p *criteriaParser) syntaxAt(err error, base int64) error {
	e := &Error{File: p.file, Line: p.line(int64(len(p.text))), Found: "no valid JSON", Want: "the criteria as JSON", Remedy: criteriaForms, Err: err}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		e.Line = p.line(base + s.Offset)
	}
	return e
}

// line returns the line of the byte before offset.
func (p *criteriaParser) line(offset int64) int {
	offset = min(max(offset, 0), int64(len(p.text)))
	return 1 + bytes.Count(p.text[:offset], []byte("\n"))
}

// mddID matches the usual names of the nine criteria A.1–A.9: A.1, A1, MDD_1,
// MDD-A.1 and the like.
var mddID = regexp.MustCompile(`^(?i:mdd)?[ _.:-]*(?i:a)?[ _.:-]*([1-9])$`)

// labelMap says which criterion each annotation label stands for.
type labelMap map[string]Criterion

// matchLabels maps the labels that occur in file, given with the line of their
// first appearance, to criteria: by the symptom that a criterion names, by its
// id, or, for the nine labels of the corpus and nine criteria A.1–A.9, in
// DSM-5 order. It also returns the criteria that some label can speak about,
// and the ids of the others.
func matchLabels(criteria []Criterion, file string, labels map[string]int) (m labelMap, used []Criterion, unused []string, err error) {
	m = make(labelMap)
	numbered := make(map[int]Criterion)
	ambiguous := false
	for _, c := range criteria {
		if match := mddID.FindStringSubmatch(c.ID); match != nil {
			n := int(match[1][0] - '1')
			_, twice := numbered[n]
			ambiguous = ambiguous || twice
			numbered[n] = c
		}
	}
	if len(numbered) == len(symptoms) && !ambiguous {
		for i, label := range symptoms {
			if numbered[i].Symptom == "" {
				m[label] = numbered[i]
			}
		}
	}
	for _, c := range criteria {
		if slices.Contains(symptoms, c.ID) {
			m[c.ID] = c
		}
		if _, ok := labels[c.ID]; ok {
			m[c.ID] = c
		}
	}
	for _, c := range criteria {
		if c.Symptom != "" {
			m[c.Symptom] = c
		}
	}

	for _, label := range sortedKeys(labels) {
		if _, ok := m[label]; !ok {
			ids := make([]string, len(criteria))
			for i, c := range criteria {
				ids[i] = c.ID
			}
			return nil, nil, nil, &Error{File: file, Line: labels[label], Field: "DSM5_symptom",
				Found:  fmt.Sprintf("the label %q, which stands for no criterion (labels: %s; criteria: %s)", label, strings.Join(sortedKeys(labels), ", "), strings.Join(ids, ", ")),
				Want:   "a label that is a criterion's id or symptom",
				Remedy: `add "symptom": "` + label + `" to its entry in the criteria file (data.dsm5_criteria_path)`}
		}
	}
	speaks := make(map[string]bool)
	for _, c := range m {
		speaks[c.ID] = true
	}
	for _, c := range criteria {
		if speaks[c.ID] {
			used = append(used, c)
		} else {
			unused = append(unused, c.ID)
		}
	}
	return m, used, unused, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Blank reports whether a text has nothing to read: only spaces, and characters
// that show nothing (zero-width spaces and joiners, byte order marks, soft hyphens,
// marks of direction, blanks for missing letters).
func Blank(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return !unicode.In(r, unicode.White_Space, unicode.Cf, unicode.Cc, unicode.Variation_Selector, hangulFillers) && r != brailleBlank
	}) < 0
}

// hangulFillers stand where a syllable lacks a part. They and the empty Braille
// pattern are letters and symbols to Unicode, but show nothing.
var hangulFillers = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x115f, Hi: 0x1160, Stride: 1}, {Lo: 0x3164, Hi: 0x3164, Stride: 1}, {Lo: 0xffa0, Hi: 0xffa0, Stride: 1},
}}

const brailleBlank = '\u2800'

// excerpt quotes a value for an error, and shortens it.
func excerpt(s string) string { return fmt.Sprintf("%q", shorten(s)) }

// excerptJSON shows a value that is quoted already.
func excerptJSON(raw json.RawMessage) string {
	return shorten(strings.Join(strings.Fields(string(raw)), " "))
}

func shorten(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func lineOfInvalidUTF8(text []byte) int {
	line := 1
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			break
		}
		if r == '\n' {
			line++
		}
		text = text[n:]
	}
	return line
}
