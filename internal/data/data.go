// Package data reads posts, annotations and criteria, checks them, splits them
// by post and plans batches.
//
// A folder of data comes in one of two layouts, told apart by the files in it:
//
//   - the published corpus: redsm5_posts.csv (post_id, text) and
//     redsm5_annotations.csv (post_id, DSM5_symptom, status and more);
//   - flat pairs: any *.csv with the columns post_id, text, criterion_id and
//     status. Files named train.csv, val.csv (or validation.csv) and test.csv bring
//     their own split.
//
// A status is 0 or 1, or what pandas makes of them: 0.0, 1.0, False, True.
//
// The criteria come from a JSON file in one of three forms, see [ReadCriteria].
// Whatever the order of files, rows and keys, the same content gives the same
// [Dataset], and the same seed the same [Splits].
package data

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Pair is what the classifier looks at: does this post show this criterion?
type Pair struct{ Post, Criterion string }

// Criterion is one diagnostic criterion.
type Criterion struct {
	ID string
	// Text is what the model reads.
	Text string
	// Symptom is the annotation label that stands for this criterion, or "".
	Symptom string
	// Category is a free remark of the file, or "".
	Category string
}

// Example is one labelled pair.
type Example struct {
	PostID, CriterionID string
	// Post and Criterion are the texts of the pair.
	Post, Criterion string
	// Label is the class: 1 if the post shows the criterion, otherwise 0.
	Label int
}

// Pair returns the two texts of the example.
func (e Example) Pair() Pair { return Pair{Post: e.Post, Criterion: e.Criterion} }

// Splits are the three parts of a dataset. No post is in two of them.
type Splits struct{ Train, Val, Test []Example }

// Dataset is the checked content of the files, in an order that depends on
// the content alone: by post id, then by criterion id.
type Dataset struct {
	// Criteria are those that take part, sorted by id.
	Criteria []Criterion
	// Unused are the ids of criteria in the file that no label speaks about.
	// They are left out, because nothing is known about their pairs.
	Unused []string
	// Examples are all pairs.
	Examples []Example
	// Given is the split that the files bring (train.csv, val.csv, test.csv),
	// nil if there is none.
	Given *Splits
	// Notes are remarks about the files that are no errors, for the log.
	Notes []string
	// Hashes maps the base name of every file read to the SHA-256 of its
	// content in lower-case hexadecimal.
	Hashes map[string]string
}

// Posts counts the posts of examples.
func Posts(examples []Example) int {
	seen := make(map[string]bool)
	for _, e := range examples {
		seen[e.PostID] = true
	}
	return len(seen)
}

// ClassCounts counts the examples of each class.
func ClassCounts(examples []Example) [2]int {
	var n [2]int
	for _, e := range examples {
		n[e.Label]++
	}
	return n
}

// ClassWeights returns the weight of each class in the loss, n/(2·n_c) for n
// examples of which n_c are of class c: both classes count the same, however
// rare one is ("balanced" weights; King and Zeng, 2001). counts is as from
// [ClassCounts]; a class without examples counts as one.
func ClassWeights(counts [2]int) [2]float32 {
	var w [2]float32
	for c, n := range counts {
		w[c] = float32(float64(counts[0]+counts[1]) / float64(2*max(1, n)))
	}
	return w
}

// sortExamples puts examples into the order of Dataset.
func sortExamples(examples []Example) {
	slices.SortFunc(examples, func(a, b Example) int {
		return cmp.Or(strings.Compare(a.PostID, b.PostID), strings.Compare(a.CriterionID, b.CriterionID))
	})
}

// Error is a fault in the data or in what was asked of it.
type Error struct {
	// File is the path of the file, "" if the fault is in no file.
	File string
	// Line is where the fault starts, counted from 1; 0 if it has no line.
	Line int
	// Field is the column, JSON key or configuration key at fault, or "".
	Field string
	// Found and Want say what there is and what there should be.
	Found, Want string
	// Remedy says what to do about it, or is "".
	Remedy string
	// Err is the cause, if another error is.
	Err error
}

// Error puts the place first, as compilers do: file:line: field: found …, want …
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			b.WriteString(":" + strconv.Itoa(e.Line))
		}
		b.WriteString(": ")
	}
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString("found " + e.Found)
	if e.Want != "" {
		b.WriteString(", want " + e.Want)
	}
	if e.Err != nil {
		b.WriteString(" (" + e.Err.Error() + ")")
	}
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
