package token

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unicode"

	"github.com/criteria-go/criteria/internal/golden"
)

// goldenJSON returns the tokenizer.json of the golden checkpoint as a tree.
func goldenJSON(t testing.TB) map[string]any {
	t.Helper()
	text, err := os.ReadFile(golden.Glob(t, "model/tokenizer/tokenizer.json")[0])
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// largeJSON makes a tokenizer.json of n pieces in the shape of DeBERTaV3's, with
// its charsmap: the pieces of the golden one, characters of all scripts, and
// random words, the rarer the longer. With byte fallback there are pieces for all
// bytes, too.
func largeJSON(t testing.TB, n int, byteFallback bool) []byte {
	t.Helper()
	tree := goldenJSON(t)
	model := tree["model"].(map[string]any)
	vocab := model["vocab"].([]any)
	seen := map[string]bool{}
	for _, entry := range vocab {
		seen[entry.([]any)[0].(string)] = true
	}
	r := rand.New(rand.NewPCG(1, uint64(n)))
	add := func(piece string) {
		if len(vocab) < n && piece != "" && !seen[piece] {
			seen[piece] = true
			score := -6 - math.Log(float64(len(vocab))) - r.Float64()
			vocab = append(vocab, []any{piece, float64(float32(score))})
		}
	}
	if byteFallback {
		for b := range 256 {
			add(fmt.Sprintf("<0x%02X>", b))
		}
	}
	for _, table := range []*unicode.RangeTable{unicode.Latin, unicode.Greek, unicode.Cyrillic, unicode.Hiragana,
		unicode.Katakana, unicode.Arabic, unicode.Hebrew, unicode.Devanagari, unicode.Thai, unicode.Mn} {
		for _, c := range table.R16 {
			for x := c.Lo; x <= c.Hi && x >= c.Lo; x += c.Stride {
				add(string(rune(x)))
			}
		}
	}
	for c := rune(0x4E00); c < 0x6E00; c += 2 {
		add(string(c))
	}
	for c := rune(0xAC00); c < 0xD7A0; c += 7 {
		add(string(c))
	}
	syllables := strings.Fields("th in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi " +
		"ri ro ic ne ea ra ce li ch ll be ma si om ur e a o i u s t d n y über é ß ñ д о не ся ко 的 一 是 ة ال क र हा 한 이 ー の")
	for len(vocab) < n {
		var piece strings.Builder
		if r.IntN(5) < 3 {
			piece.WriteString("▁")
		}
		for range 1 + r.IntN(5) {
			piece.WriteString(syllables[r.IntN(len(syllables))])
		}
		add(piece.String())
	}
	model["vocab"], model["byte_fallback"] = vocab, byteFallback
	for _, a := range tree["added_tokens"].([]any) {
		if a := a.(map[string]any); a["content"] == "[MASK]" {
			a["id"] = len(vocab)
		}
	}
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
