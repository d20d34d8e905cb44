package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzRead: every record has two texts, and an ID that is JSON, if any; then
// comes the end or an error.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"{\"post\": \"a\", \"criterion\": \"b\", \"id\": {\"x\": [1]}}\n\n{}", "\ufeff{\"Post\":\"a\",\"CRITERION\":\"b\"}", "\xff\n", "null",
		"post,criterion,id\na,b,\"\"\"\"\n", "criterion,post\n\"a\nb\",c\r\n", "post\n", "post,criterion\na,\"b", "post,post,criterion\na,b,c\n",
	} {
		f.Add("jsonl", text)
		f.Add("csv", text)
	}
	f.Fuzz(func(t *testing.T, format, text string) {
		memwatch.Start(t, len(format)+len(text))
		source, err := open(format, strings.NewReader(text))
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			r, err := source()
			if err != nil {
				if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "line ") {
					t.Errorf("error %v does not name a line", err)
				}
				return
			}
			if r.pair.Post == "" || r.pair.Criterion == "" || !utf8.ValidString(r.pair.Post+r.pair.Criterion) || r.id != nil && !json.Valid(r.id) {
				t.Fatalf("record %d: %+v", n, r)
			}
			if n > len(text) {
				t.Fatal("more records than bytes")
			}
		}
	})
}
