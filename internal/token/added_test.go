package token

import (
	"encoding/json"
	"slices"
	"testing"
)

// withTokens opens the golden tokenizer with tokens added to it.
func withTokens(t *testing.T, tokens ...map[string]any) *Tokenizer {
	t.Helper()
	tree := goldenJSON(t)
	added := tree["added_tokens"].([]any)
	for _, token := range tokens {
		added = append(added, token)
	}
	tree["added_tokens"] = added
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := FromJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

// TestAddedTokens: tokens that a user has added have the ids that transformers
// gives them, behind [MASK], whose own no text may bring.
func TestAddedTokens(t *testing.T) {
	tok := withTokens(t,
		map[string]any{"id": 1001, "content": "<url>"},                   // by add_tokens
		map[string]any{"id": 1002, "content": "[POST]", "special": true}, // an additional special token
		map[string]any{"id": 7, "content": "<elsewhere>"})                // an id that is another's
	for text, want := range map[string]int32{"<url>": 1001, "[POST]": 1002, "<elsewhere>": 1003} {
		if ids := tok.ids("I sleep " + text + " badly"); !slices.Contains(ids, want) {
			t.Errorf("%s: ids %v, want %d among them", text, ids, want)
		}
	}
	if n := tok.VocabSize(); n != 1004 {
		t.Errorf("vocabulary of %d, want 1,004", n)
	}
	s := tok.Special()
	if s.MASK != 1000 {
		t.Errorf("[MASK] is %d, want 1,000", s.MASK)
	}
	ids := tok.ids("[MASK] <url>[SEP][CLS] [POST] [PAD] [UNK]")
	for _, id := range []int32{s.PAD, s.CLS, s.SEP, s.MASK} {
		if slices.Contains(ids, id) {
			t.Errorf("ids %v, with the special %d", ids, id)
		}
	}
	if !slices.Contains(ids, 1001) || !slices.Contains(ids, 1002) {
		t.Errorf("ids %v, want 1,001 and 1,002 among them", ids)
	}
}

// TestAddedTokensTakeBlanks: lstrip and rstrip take the white space beside a token.
func TestAddedTokensTakeBlanks(t *testing.T) {
	tok := withTokens(t, map[string]any{"id": 1001, "content": "<l>", "lstrip": true},
		map[string]any{"id": 1002, "content": "<r>", "rstrip": true},
		map[string]any{"id": 1003, "content": "word", "single_word": true})
	const text = "a \t <l>b<r> \n c"
	e, spans, err := tok.Locate(text, "", 512, LongestFirst)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[int32]string{1001: "<l>", 1002: "<r>"} {
		at := slices.Index(e.IDs, id)
		if at < 0 || text[spans[at].Start:spans[at].End] != want {
			t.Errorf("ids %v at %v, want %d at %q", e.IDs, spans, id, want)
		}
	}
	_, places := tok.encoder.locate(text)
	if !slices.Contains(places, [2]int{1, 7}) || !slices.Contains(places, [2]int{8, 14}) {
		t.Errorf("places %v, want white space to be part of the tokens", places)
	}
	if a, b := tok.ids("words"), tok.ids("a word."); slices.Contains(a, 1003) || !slices.Contains(b, 1003) {
		t.Errorf("single_word: ids of words %v, of a word. %v", a, b)
	}
}
