package token

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/memwatch"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
)

// spm builds a small model: the five fields that the converter reads.
func spm(kind uint64, unk uint64, pieces ...spmPiece) []byte {
	var m []byte
	for _, p := range pieces {
		var b []byte
		b = protowire.AppendTag(b, 1, protowire.BytesType)
		b = protowire.AppendString(b, p.text)
		b = protowire.AppendTag(b, 2, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, math.Float32bits(p.score))
		if p.kind != 0 {
			b = protowire.AppendTag(b, 3, protowire.VarintType)
			b = protowire.AppendVarint(b, p.kind)
		}
		m = protowire.AppendTag(m, 1, protowire.BytesType)
		m = protowire.AppendBytes(m, b)
	}
	var trainer []byte
	trainer = protowire.AppendTag(trainer, 3, protowire.VarintType)
	trainer = protowire.AppendVarint(trainer, kind)
	trainer = protowire.AppendTag(trainer, 40, protowire.VarintType)
	trainer = protowire.AppendVarint(trainer, unk)
	m = protowire.AppendTag(m, 2, protowire.BytesType)
	return protowire.AppendBytes(m, trainer)
}

var special = []spmPiece{{"[PAD]", 0, 3}, {"[CLS]", 0, 3}, {"[SEP]", 0, 3}, {"[UNK]", 0, 2}}

func TestConvertAddedTokens(t *testing.T) {
	text, err := ConvertSentencePiece(spm(1, 3, append(special[:4:4], spmPiece{"<x>", 0, 4}, spmPiece{"▁a", -1.5, 0}, spmPiece{"<ctl>", 0, 3})...), Config{})
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		AddedTokens []addedToken `json:"added_tokens"`
		Normalizer  struct {
			Normalizers []map[string]any `json:"normalizers"`
		} `json:"normalizer"`
		Model struct {
			Vocab [][2]any `json:"vocab"`
		} `json:"model"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	want := []addedToken{
		{ID: 0, Content: "[PAD]", Special: true}, {ID: 1, Content: "[CLS]", Special: true}, {ID: 2, Content: "[SEP]", Special: true},
		{ID: 3, Content: "[UNK]", Special: true, Normalized: true}, {ID: 4, Content: "<x>"}, {ID: 6, Content: "<ctl>", Special: true},
		{ID: 7, Content: "[MASK]", Special: true},
	}
	if diff := cmp.Diff(want, f.AddedTokens, cmp.AllowUnexported(addedToken{})); diff != "" {
		t.Errorf("added tokens (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([2]any{"▁a", -1.5}, f.Model.Vocab[5]); diff != "" {
		t.Errorf("piece 5 (-want +got):\n%s", diff)
	}
	if n := len(f.Normalizer.Normalizers); n != 2 {
		t.Errorf("%d normalizers without a charsmap, want Strip and Replace", n)
	}
}

func TestConvertErrors(t *testing.T) {
	for name, model := range map[string][]byte{
		"BPE":              spm(2, 3, special...),
		"unk out of range": spm(1, 9, special...),
		"unk negative":     spm(1, math.MaxUint64, special...),
		"no [SEP]":         spm(1, 0, special[3], special[0], special[1]),
		"no pieces":        nil,
		"score NaN":        spm(1, 3, append(special[:4:4], spmPiece{"a", float32(math.NaN()), 0})...),
		"not UTF-8":        spm(1, 3, append(special[:4:4], spmPiece{"\xff", 0, 0})...),
		"cut":              spm(1, 3, special...)[:20],
	} {
		t.Run(name, func(t *testing.T) {
			if text, err := ConvertSentencePiece(model, Config{}); err == nil {
				t.Errorf("accepted: %s", text)
			}
		})
	}
}

func FuzzConvertSentencePiece(f *testing.F) {
	model, err := os.ReadFile(filepath.Join(golden.Dir(f), "model", "tiny-deberta", spmFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(model[:2000])
	f.Add(spm(1, 3, special...))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, model []byte) {
		memwatch.Start(t, len(model))
		text, err := ConvertSentencePiece(model, Config{})
		if err != nil {
			return
		}
		_, err = parseDefinition(text)
		if err != nil && !strings.Contains(err.Error(), "precompiled_charsmap") {
			t.Fatalf("made a tokenizer.json that is none: %v", err)
		}
	})
}

func FuzzParseDefinition(f *testing.F) {
	text, err := ConvertSentencePiece(spm(1, 3, special...), Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"model": {"type": "Unigram", "vocab": [[]]}, "added_tokens": [{"id": 0}]}`))
	f.Add([]byte(`{"model": null}`))
	golden, err := os.ReadFile(filepath.Join(golden.Dir(f), "model", "tokenizer", "tokenizer_v5.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Fuzz(func(t *testing.T, text []byte) {
		memwatch.Start(t, len(text))
		d, err := parseDefinition(text)
		if err != nil {
			return
		}
		for _, interpret := range []bool{false, true} {
			e, err := newGoEncoder(d, interpret)
			if err != nil {
				return
			}
			for _, text := range []string{"", "a [SEP] \x00\u0301 b", "<x> \u1100\u1161\u11a8 \u200d ① ﬁ", "  x\t\ty  "} {
				checkEncoder(t, e, d.size, text)
			}
		}
	})
}

// checkEncoder looks at what any encoder makes of a text: ids of the vocabulary, at
// places in the text, the same with places and without.
func checkEncoder(t *testing.T, e encoder, size int, text string) {
	t.Helper()
	ids := e.encode(nil, text)
	for _, id := range ids {
		if id < 0 || int(id) >= size {
			t.Fatalf("%q yields the id %d of %d", text, id, size)
		}
	}
	if !utf8.ValidString(text) {
		return
	}
	located, places := e.locate(text)
	if !slices.Equal(ids, located) || len(places) != len(ids) {
		t.Fatalf("%q: ids %v, with places %v and %d places", text, ids, located, len(places))
	}
	for _, p := range places {
		if p[0] < 0 || p[1] < p[0] || p[1] > len(text) {
			t.Fatalf("%q yields the place %v", text, p)
		}
	}
}

// TestCut holds the cases that the rules of the Rust library single out.
func TestCut(t *testing.T) {
	for _, c := range []struct {
		truncation Truncation
		max        int
		keep, want []int
		truncated  bool
		tooShort   bool
	}{
		{LongestFirst, 13, []int{5, 5}, []int{5, 5}, false, false},
		{LongestFirst, 13, []int{9, 3}, []int{7, 3}, true, false},
		{LongestFirst, 13, []int{3, 9}, []int{3, 7}, true, false},
		{LongestFirst, 13, []int{9, 9}, []int{5, 5}, true, false},
		{LongestFirst, 14, []int{9, 9}, []int{5, 6}, true, false}, // the odd one goes to the second on a tie
		{LongestFirst, 14, []int{12, 9}, []int{6, 5}, true, false},
		{LongestFirst, 13, []int{40, 20}, []int{5, 5}, true, false},
		{LongestFirst, 3, []int{4, 2}, []int{0, 0}, true, false},
		{LongestFirst, 6, []int{9}, []int{4}, true, false},
		{OnlyFirst, 13, []int{9, 3}, []int{7, 3}, true, false},
		{OnlyFirst, 13, []int{3, 10}, nil, false, true}, // must keep at least one token
		{OnlySecond, 13, []int{3, 9}, []int{3, 7}, true, false},
		{OnlySecond, 13, []int{10, 3}, nil, false, true},
		{OnlySecond, 4, []int{9}, nil, false, true},
		{DoNotTruncate, 3, []int{9, 9}, []int{9, 9}, false, false},
	} {
		keep := append([]int(nil), c.keep...)
		truncated, err := c.truncation.cut(keep, c.max)
		var short *TruncationError
		if c.tooShort != errors.As(err, &short) || !c.tooShort && err != nil {
			t.Errorf("%v %v to %d: error %v", c.truncation, c.keep, c.max, err)
			continue
		}
		if c.tooShort {
			if diff := cmp.Diff(c.keep, short.Lengths); diff != "" {
				t.Errorf("%v %v to %d: lengths in the error (-want +got):\n%s", c.truncation, c.keep, c.max, diff)
			}
			continue
		}
		if diff := cmp.Diff(c.want, keep); diff != "" || truncated != c.truncated {
			t.Errorf("%v %v to %d: truncated %t (-want +got):\n%s", c.truncation, c.keep, c.max, truncated, diff)
		}
	}
	if _, err := LongestFirst.cut([]int{1, 1}, 2); err == nil {
		t.Error("max_length 2 has no room for three special tokens, but no error")
	}
	if _, err := Truncation(9).cut([]int{9, 9}, 5); err == nil {
		t.Error("an unknown strategy, but no error")
	}
}

func TestParseStrategies(t *testing.T) {
	for s, want := range map[string]Truncation{"longest_first": LongestFirst, "true": LongestFirst, "only_first": OnlyFirst, "only_second": OnlySecond, "do_not_truncate": DoNotTruncate, "false": DoNotTruncate} {
		if got, err := ParseTruncation(s); err != nil || got != want {
			t.Errorf("truncation %q: got %v, %v; want %v", s, got, err, want)
		}
	}
	for s, want := range map[string]Padding{"max_length": PadMaxLength, "longest": PadLongest, "true": PadLongest, "do_not_pad": DoNotPad, "false": DoNotPad} {
		if got, err := ParsePadding(s); err != nil || got != want {
			t.Errorf("padding %q: got %v, %v; want %v", s, got, err, want)
		}
	}
	if _, err := ParseTruncation("longest"); err == nil {
		t.Error(`accepted the truncation "longest"`)
	}
	if _, err := ParsePadding("max"); err == nil {
		t.Error(`accepted the padding "max"`)
	}
}
