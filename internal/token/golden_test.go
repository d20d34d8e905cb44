package token

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/google/go-cmp/cmp"
)

// goldenCase is one line of tokenizer/cases.jsonl: what transformers 4.57 does
// with a pair of texts.
type goldenCase struct {
	ID        int              `json:"id"`
	Category  string           `json:"cat"`
	Text      string           `json:"text"`
	Pair      string           `json:"pair"`
	AIDs      []int32          `json:"a_ids"`
	BIDs      []int32          `json:"b_ids"`
	Full      []int32          `json:"full"`
	FullBatch []int32          `json:"full_batch"`
	Encodings []goldenEncoding `json:"encodings"`
}

type goldenEncoding struct {
	MaxLength  int     `json:"max_length"`
	Truncation string  `json:"truncation"`
	Padding    string  `json:"padding"`
	IDs        []int32 `json:"input_ids"`
	Mask       []int32 `json:"attention_mask"`
	TypeIDs    []int32 `json:"token_type_ids"`
	Error      string  `json:"error"`
}

func goldenCases(t testing.TB) []goldenCase {
	t.Helper()
	f, err := os.Open(golden.Glob(t, "model/tokenizer/cases.jsonl")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []goldenCase
	lines := bufio.NewReader(f)
	for d := json.NewDecoder(lines); d.More(); {
		var c goldenCase
		if err := d.Decode(&c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if len(cases) == 0 {
		t.Fatal("no golden cases")
	}
	return cases
}

// openGolden opens the tokenizer of the golden checkpoint, by way of spm.model.
func openGolden(t testing.TB, opts ...Option) *Tokenizer {
	t.Helper()
	tok, err := Open(filepath.Join(golden.Dir(t), "model", "tiny-deberta"), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

func TestGoldenTokenizer(t *testing.T) {
	tok := openGolden(t, InterpretSpecialTokens())
	encodings := 0
	for _, c := range goldenCases(t) {
		t.Run(fmt.Sprintf("%d_%s", c.ID, c.Category), func(t *testing.T) {
			a, b := tok.ids(c.Text), tok.ids(c.Pair)
			if diff := cmp.Diff(c.AIDs, a); diff != "" {
				t.Errorf("ids of %q (-want +got):\n%s", c.Text, diff)
			}
			if diff := cmp.Diff(c.BIDs, b); diff != "" {
				t.Errorf("ids of %q (-want +got):\n%s", c.Pair, diff)
			}

			// transformers drops an empty second text from a call with one pair,
			// but not from a call with many. EncodePair does the latter.
			parts := [][]int32{a, b}
			want := c.Full
			if c.FullBatch != nil {
				parts, want = parts[:1], c.FullBatch
			}
			e, err := tok.EncodePair(c.Text, c.Pair, 0, DoNotTruncate, DoNotPad)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, e.IDs); diff != "" {
				t.Errorf("pair (-want +got):\n%s", diff)
			}

			for _, g := range c.Encodings {
				encodings++
				e, err := encodeGolden(tok, g, c, parts)
				name := fmt.Sprintf("max_length %d, truncation %s, padding %s", g.MaxLength, g.Truncation, g.Padding)
				if g.Error != "" {
					var short *TruncationError
					if !errors.As(err, &short) {
						t.Errorf("%s: error %v, want a TruncationError (%s)", name, err, g.Error)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				got := Encoding{IDs: e.IDs, AttentionMask: e.AttentionMask, TypeIDs: e.TypeIDs}
				if diff := cmp.Diff(Encoding{IDs: g.IDs, AttentionMask: g.Mask, TypeIDs: g.TypeIDs}, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
		})
	}
	t.Logf("%d encodings", encodings)
}

func encodeGolden(tok *Tokenizer, g goldenEncoding, c goldenCase, parts [][]int32) (Encoding, error) {
	truncation, err := ParseTruncation(g.Truncation)
	if err != nil {
		return Encoding{}, err
	}
	padding := DoNotPad
	if g.Padding != "none" {
		if padding, err = ParsePadding(g.Padding); err != nil {
			return Encoding{}, err
		}
	}
	if len(parts) == 1 {
		return tok.assemble(g.MaxLength, truncation, padding, parts...)
	}
	return tok.EncodePair(c.Text, c.Pair, g.MaxLength, truncation, padding)
}

// TestGoldenSentencePiece compares the conversion of spm.model with what
// transformers 4.57 makes of it.
func TestGoldenSentencePiece(t *testing.T) {
	text, err := os.ReadFile(golden.Glob(t, "model/tokenizer/tokenizer.json")[0])
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	tok := openGolden(t)
	if err := json.Unmarshal(tok.JSON(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tokenizer.json (-want +got):\n%s", diff)
	}
}

// TestGoldenSafeText encodes the golden texts without interpreting special
// tokens: those that name none have the same ids, the others lose only those
// tokens.
func TestGoldenSafeText(t *testing.T) {
	safe := openGolden(t)
	s := safe.Special()
	names := []string{"[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"}
	for _, c := range goldenCases(t) {
		for _, side := range []struct {
			text string
			ids  []int32
		}{{c.Text, c.AIDs}, {c.Pair, c.BIDs}} {
			got := safe.ids(side.text)
			for _, id := range []int32{s.PAD, s.CLS, s.SEP, s.MASK} {
				if slices.Contains(got, id) {
					t.Errorf("case %d: %q yields the special id %d: %v", c.ID, side.text, id, got)
				}
			}
			if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(side.text, n) }) {
				continue
			}
			if diff := cmp.Diff(side.ids, got); diff != "" {
				t.Errorf("case %d: ids of %q (-want +got):\n%s", c.ID, side.text, diff)
			}
		}
	}
}
