package token

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func goldenCharsmap(t testing.TB) []byte {
	t.Helper()
	for _, n := range goldenJSON(t)["normalizer"].(map[string]any)["normalizers"].([]any) {
		if text, ok := n.(map[string]any)["precompiled_charsmap"].(string); ok {
			data, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	t.Fatal("no charsmap")
	return nil
}

// TestDamagedCharsmap: each of these ended the program in the Rust library.
func TestDamagedCharsmap(t *testing.T) {
	good := goldenCharsmap(t)
	size := func(n uint32, rest []byte) []byte { return append(binary.LittleEndian.AppendUint32(nil, n), rest...) }
	trie := binary.LittleEndian.Uint32(good)
	far := slices.Clone(good)
	binary.LittleEndian.PutUint32(far[4:], 1<<31-1)
	for name, data := range map[string][]byte{
		"empty":             {},
		"short":             good[:3],
		"no trie":           size(0, nil),
		"size alone":        good[:4],
		"cut in the trie":   good[:5000],
		"cut before a rule": good[:4+trie],
		"size too large":    size(1<<31, good[4:]),
		"size of no unit":   size(7, good[4:]),
		"random":            []byte(strings.Repeat("random bytes of no meaning ", 50)),
		"not UTF-8":         append(slices.Clone(good), 0xff),
		"leads far away":    far,
	} {
		t.Run(name, func(t *testing.T) {
			m, err := parseCharsmap(data)
			if err == nil {
				m.lookup([]byte("ﬁ"))
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), "precompiled_charsmap") {
				t.Errorf("error %q does not name precompiled_charsmap", err)
			}
			tree := goldenJSON(t)
			tree["normalizer"] = map[string]any{"type": "Precompiled", "precompiled_charsmap": base64.StdEncoding.EncodeToString(data)}
			text, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := FromJSON(text); err == nil || !strings.Contains(err.Error(), "tokenizer.json: normalizer") {
				t.Errorf("tokenizer.json: error %v, want one of its normalizer", err)
			}
		})
	}
	if m, err := parseCharsmap(good); err != nil {
		t.Errorf("that of DeBERTaV3: %v", err)
	} else if by, ok := m.lookup([]byte("ﬁ")); !ok || by != "fi" {
		t.Errorf("ﬁ becomes %q, %t", by, ok)
	}
}

// TestRefusedSteps: what DeBERTa does not have is not guessed at.
func TestRefusedSteps(t *testing.T) {
	type refused struct {
		part  string
		value string
		want  string
	}
	cases := map[string]refused{
		"slow regular expression": {"normalizer", `{"type": "Replace", "pattern": {"Regex": "(a|a)*(a+)+$"}, "content": ""}`, "(a|a)*(a+)+$"},
		"other normalizer":        {"normalizer", `{"type": "BertNormalizer"}`, `"BertNormalizer"`},
		"nested deeply": {"normalizer", strings.Repeat(`{"type": "Sequence", "normalizers": [`, 70) + strings.Repeat("]}", 70),
			"64 steps"},
		"no pre-tokenizer":     {"pre_tokenizer", `null`, "Metaspace"},
		"other pre-tokenizer":  {"pre_tokenizer", `{"type": "Split", "pattern": {"Regex": "x"}}`, "Split"},
		"two marks":            {"pre_tokenizer", `{"type": "Metaspace", "replacement": "▁▁", "prepend_scheme": "always"}`, "one character"},
		"other prepend_scheme": {"pre_tokenizer", `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"}`, `"last"`},
		"other vocabulary":     {"model", `{"type": "Unigram", "unk_id": 0, "vocab": {"a": 1}}`, "[piece, score]"},
		"no score":             {"model", `{"type": "Unigram", "unk_id": 0, "vocab": [["a", -1], ["b"]]}`, "piece 1"},
		"no unk_id":            {"model", `{"type": "Unigram", "vocab": [["[PAD]", 0], ["a", -1]]}`, "unk_id"},
	}
	if Implementation == "Go" { // the Rust library has words and limits of its own for these
		cases["unk_id too large"] = refused{"model", `{"type": "Unigram", "unk_id": 2, "vocab": [["a", -1]]}`, "unk_id 2"}
		cases["long piece"] = refused{
			"model", `{"type": "Unigram", "unk_id": 0, "vocab": [["` + strings.Repeat("a", 2000) + `", -1]]}`, "2000 bytes"}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tree := goldenJSON(t)
			tree[c.part] = json.RawMessage(c.value)
			text, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := FromJSON(text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that names %s", err, c.want)
			}
		})
	}
}
