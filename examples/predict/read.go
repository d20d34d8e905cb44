package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/criteria-go/criteria"
)

// record is a pair to be judged.
type record struct {
	id   json.RawMessage // nil: it has none
	pair criteria.Pair
}

// source returns the next record, [io.EOF] after the last one, or what is wrong
// with it and in which line.
type source func() (record, error)

func open(format string, in io.Reader) (source, error) {
	in = withoutBOM(in)
	switch format {
	case "", "jsonl":
		return readJSONL(in), nil
	case "csv":
		return readCSV(in)
	}
	return nil, fmt.Errorf("-format %s: want jsonl or csv", format)
}

// withoutBOM skips the mark that some programs put before UTF-8.
func withoutBOM(in io.Reader) io.Reader {
	buffered := bufio.NewReader(in)
	if start, _ := buffered.Peek(3); bytes.Equal(start, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3) // they are there: Peek has seen them
	}
	return buffered
}

// maxLine bounds the memory that a line may take.
const maxLine = 16 << 20

func readJSONL(in io.Reader) source {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	n := 0
	return func() (record, error) {
		for lines.Scan() {
			n++
			line := bytes.TrimSpace(lines.Bytes())
			if len(line) == 0 {
				continue
			}
			r, err := parseLine(line)
			if err != nil {
				return record{}, fmt.Errorf("line %d: %w", n, err)
			}
			return r, nil
		}
		switch err := lines.Err(); {
		case errors.Is(err, bufio.ErrTooLong):
			return record{}, fmt.Errorf("line %d: has more than %d bytes", n+1, maxLine)
		case err != nil:
			return record{}, fmt.Errorf("after line %d: %w", n, err)
		}
		return record{}, io.EOF
	}
}

func parseLine(line []byte) (record, error) {
	if !utf8.Valid(line) {
		return record{}, errors.New("not UTF-8")
	}
	var fields struct {
		ID              json.RawMessage
		Post, Criterion string
	}
	if err := json.Unmarshal(line, &fields); err != nil {
		return record{}, err
	}
	return complete(record{slices.Clone(fields.ID), criteria.Pair{Post: fields.Post, Criterion: fields.Criterion}})
}

func complete(r record) (record, error) {
	if r.pair.Post == "" || r.pair.Criterion == "" {
		return record{}, errors.New("want post and criterion, both with text")
	}
	return r, nil
}

func readCSV(in io.Reader) (source, error) {
	reader := csv.NewReader(in)
	reader.ReuseRecord = true
	header, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	post, criterion, id := slices.Index(header, "post"), slices.Index(header, "criterion"), slices.Index(header, "id")
	if post < 0 || criterion < 0 {
		return nil, fmt.Errorf("line 1: found the columns %q, want post and criterion", header)
	}
	return func() (record, error) {
		fields, err := reader.Read()
		if err != nil {
			return record{}, err // which says in which line
		}
		line, _ := reader.FieldPos(0)
		r := record{pair: criteria.Pair{Post: fields[post], Criterion: fields[criterion]}}
		if id >= 0 {
			if r.id, err = json.Marshal(fields[id]); err != nil {
				return record{}, fmt.Errorf("line %d: %w", line, err)
			}
		}
		if !utf8.ValidString(r.pair.Post) || !utf8.ValidString(r.pair.Criterion) {
			return record{}, fmt.Errorf("line %d: not UTF-8", line)
		}
		if r, err = complete(r); err != nil {
			return record{}, fmt.Errorf("line %d: %w", line, err)
		}
		return r, nil
	}, nil
}
