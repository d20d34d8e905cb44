package criteria

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/criteria-go/criteria/internal/data"
)

// Pair is what the classifier judges: does the post show the criterion?
type Pair struct {
	Post      string // the text of the post
	Criterion string // the text of the criterion
}

// Example is a pair whose answer is known.
type Example struct {
	PostID, CriterionID string
	Pair
	Label int // 1 if the post shows the criterion, otherwise 0
}

// Dataset holds examples in three splits. All examples of a post are in one
// of them, or the scores would tell how well the model remembers posts.
type Dataset struct {
	Name             string // e.g. "redsm5"
	Source           string // folder or address they come from; may be ""
	Train, Val, Test []Example
	// Hashes maps the name of every file that was read to its SHA-256 in
	// hexadecimal. A run records them, so that it is known what it learned from.
	Hashes map[string]string
	// Notes are remarks for the log, e.g. that the files bring their own split.
	Notes []string
}

// ReadDataset reads and checks the files that c names and splits them by post.
// The split is a function of the files' content, the ratios and seed; the order
// of files and rows does not matter. Any fault is a [*DataError].
//
// The folder c.ReDSM5Dir holds either the published corpus, redsm5_posts.csv
// (post_id, text) and redsm5_annotations.csv (post_id, DSM5_symptom, status, …),
// or any number of CSV files of pairs (post_id, text, criterion_id, status).
// If those are called train.csv, val.csv (or validation.csv) and test.csv, the split
// is theirs and the ratios are ignored. A status is 0 or 1, or what pandas makes of
// them: 0.0, 1.0, False, True.
//
// c.DSM5CriteriaPath is a JSON file: an object {"id": "text", …}, a list of
// {"criterion_id", "text"}, or an object with a list "criteria" of {"id", "text"}.
// Criteria that no label speaks about are left out.
func ReadDataset(ctx context.Context, c DataConfig, seed uint64) (*Dataset, error) {
	read, err := data.Read(ctx, data.Source{
		Dir: c.ReDSM5Dir, Criteria: c.DSM5CriteriaPath, DirKey: "data.redsm5_dir", CriteriaKey: "data.dsm5_criteria_path",
	})
	if err != nil {
		return nil, dataError(err)
	}
	splits, err := read.Split(data.Ratios{Train: c.TrainRatio, Val: c.ValRatio, Test: c.TestRatio}, seed)
	if err != nil {
		return nil, dataError(err)
	}
	d := &Dataset{
		Name: filepath.Base(filepath.Clean(c.ReDSM5Dir)), Source: c.ReDSM5Dir, Hashes: read.Hashes,
		Train: examples(splits.Train), Val: examples(splits.Val), Test: examples(splits.Test), Notes: read.Notes,
	}
	if read.Given != nil {
		d.Notes = append(d.Notes, "the split is that of train.csv, val.csv and test.csv; the ratios are ignored")
	}
	if len(read.Unused) > 0 {
		d.Notes = append(d.Notes, "no label speaks about these criteria, they are left out: "+strings.Join(read.Unused, ", "))
	}
	return d, nil
}

func examples(from []data.Example) []Example {
	to := make([]Example, len(from))
	for i, e := range from {
		to[i] = Example{PostID: e.PostID, CriterionID: e.CriterionID, Pair: Pair{Post: e.Post, Criterion: e.Criterion}, Label: e.Label}
	}
	return to
}

func dataError(err error) error {
	var fault *data.Error
	if errors.As(err, &fault) {
		return &DataError{File: fault.File, Line: fault.Line, Field: fault.Field, Err: err}
	}
	return fmt.Errorf("criteria: data: %w", err)
}

// splits returns the splits with their names, in the order of work.
func (d *Dataset) splits() []namedSplit {
	return []namedSplit{{PhaseTrain, d.Train}, {PhaseVal, d.Val}, {PhaseTest, d.Test}}
}

type namedSplit struct {
	phase    Phase
	examples []Example
}

func (s namedSplit) pairs() []Pair {
	pairs := make([]Pair, len(s.examples))
	for i, e := range s.examples {
		pairs[i] = e.Pair
	}
	return pairs
}

func (s namedSplit) labels() []int64 {
	labels := make([]int64, len(s.examples))
	for i, e := range s.examples {
		labels[i] = int64(e.Label)
	}
	return labels
}

// posts returns a number for the post of each example.
func (s namedSplit) posts() []int {
	numbers := make(map[string]int)
	posts := make([]int, len(s.examples))
	for i, e := range s.examples {
		n, ok := numbers[e.PostID]
		if !ok {
			n = len(numbers)
			numbers[e.PostID] = n
		}
		posts[i] = n
	}
	return posts
}

// counts returns the number of examples of each class.
func (s namedSplit) counts() [2]int {
	var n [2]int
	for _, e := range s.examples {
		n[e.Label]++
	}
	return n
}

// digest identifies the content of the split in few letters.
func (s namedSplit) digest() string {
	h := sha256.New()
	for _, e := range s.examples {
		for _, field := range []string{e.PostID, e.CriterionID, e.Post, e.Criterion} {
			fmt.Fprintf(h, "%d:%s", len(field), field)
		}
		fmt.Fprintf(h, "%d\n", e.Label)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// sharedTexts says that a text stands under several post ids in different splits,
// or returns "". The ids keep such posts apart, so that it is no error, but scores
// are better than on new posts.
func (d *Dataset) sharedTexts() string {
	type post struct {
		id    string
		phase Phase
	}
	first := make(map[string]post)
	shared := make(map[string]bool)
	example := ""
	for _, s := range d.splits() {
		for _, e := range s.examples {
			p, ok := first[e.Post]
			if !ok {
				first[e.Post] = post{e.PostID, s.phase}
				continue
			}
			if p.phase != s.phase && !shared[e.Post] {
				shared[e.Post] = true
				example = cmp.Or(example, fmt.Sprintf("%q in %s and %q in %s", p.id, p.phase, e.PostID, s.phase))
			}
		}
	}
	if len(shared) == 0 {
		return ""
	}
	return fmt.Sprintf("%d texts stand under several post ids in different splits, for instance %s: "+
		"the model is tested on what it has learnt; give them one id", len(shared), example)
}

// check finds what would make a training meaningless. Files are checked when
// they are read; this is for a Dataset that the program made itself.
func (d *Dataset) check() error {
	splitOf := make(map[string]Phase)
	textOf := make(map[string]string)
	for _, s := range d.splits() {
		for i, e := range s.examples {
			field := fmt.Sprintf("%s[%d]", s.phase, i)
			switch {
			case e.Label != 0 && e.Label != 1:
				return dataErrorf(field, "label %d of post %q, want 0 or 1", e.Label, e.PostID)
			case e.PostID == "" || e.CriterionID == "":
				return dataErrorf(field, "an example without PostID or CriterionID, want both: the splits are told apart by them")
			case data.Blank(e.Post) || data.Blank(e.Criterion):
				return dataErrorf(field, "blank text of post %q or criterion %q", e.PostID, e.CriterionID)
			}
			if other, ok := splitOf[e.PostID]; ok && other != s.phase {
				return dataErrorf(field, "post %q is in %s and in %s, want all its pairs in one split", e.PostID, other, s.phase)
			}
			if text, ok := textOf[e.PostID]; ok && text != e.Post {
				return dataErrorf(field, "post %q has two different texts", e.PostID)
			}
			splitOf[e.PostID], textOf[e.PostID] = s.phase, e.Post
		}
		if n := s.counts(); n[0] == 0 || n[1] == 0 {
			return dataErrorf(string(s.phase), "%d pairs of class 0 and %d of class 1, want some of both", n[0], n[1])
		}
	}
	return nil
}

func dataErrorf(field, format string, args ...any) error {
	return &DataError{Field: field, Err: fmt.Errorf(field+": "+format, args...)}
}
