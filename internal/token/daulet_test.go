//go:build daulet

package token

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"github.com/criteria-go/criteria/internal/golden"
)

// twins are the tokenizer in Go and that of the Rust library, of one tokenizer.json.
type twins struct {
	name     string
	inGo     encoder
	inRust   encoder
	fallback bool
	pieces   []string
}

func newTwins(t *testing.T, name string, text []byte, interpret bool) *twins {
	t.Helper()
	d, err := parseDefinition(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	w := &twins{name: name, fallback: d.byteFallback, pieces: d.vocab.pieces}
	if w.inGo, err = newGoEncoder(d, interpret); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if w.inRust, err = newRustEncoder(d, interpret); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(w.inRust.close)
	return w
}

// compare reports what is different for a text, if anything is.
func (w *twins) compare(text string) error {
	got, want := w.inGo.encode(nil, text), w.inRust.encode(nil, text)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: %+q: ids %v, of the Rust library %v", w.name, text, got, want)
	}
	if !utf8.ValidString(text) {
		return nil
	}
	ids, places := w.inGo.locate(text)
	wantIDs, wantPlaces := w.inRust.locate(text)
	if !slices.Equal(ids, wantIDs) || !slices.Equal(places, wantPlaces) {
		return fmt.Errorf("%s: %+q: ids %v at %v, of the Rust library %v at %v", w.name, text, ids, places, wantIDs, wantPlaces)
	}
	return nil
}

// edited returns the golden tokenizer.json with a change.
func edited(t *testing.T, change func(tree map[string]any)) []byte {
	t.Helper()
	tree := goldenJSON(t)
	change(tree)
	text, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// withAdded adds tokens to a tokenizer.json.
func withAdded(tree map[string]any) {
	added := tree["added_tokens"].([]any)
	for i, flags := range []string{"", "single_word", "lstrip", "rstrip", "lstrip rstrip", "normalized", "normalized lstrip", "special",
		"special lstrip rstrip", "normalized single_word"} {
		token := map[string]any{"id": 2000 + i, "content": []string{"<url>", "word", "@me", "#tag", "…", "ﬁ", "  x", "<post>", "👍", "is"}[i]}
		for _, flag := range []string{"single_word", "lstrip", "rstrip", "normalized", "special"} {
			token[flag] = strings.Contains(flags, flag)
		}
		added = append(added, token)
	}
	tree["added_tokens"] = added
}

func metaspaceWith(key string, value any) func(map[string]any) {
	return func(tree map[string]any) {
		steps := tree["pre_tokenizer"].(map[string]any)["pretokenizers"].([]any)
		steps[len(steps)-1].(map[string]any)[key] = value
	}
}

func prependStep(part, list string, step map[string]any) func(map[string]any) {
	return func(tree map[string]any) {
		p := tree[part].(map[string]any)
		p[list] = append([]any{step}, p[list].([]any)...)
	}
}

// allTwins returns a tokenizer of every kind. The three of the first kind count
// most: they are those of real checkpoints.
func allTwins(t *testing.T) (main, others []*twins) {
	plain := edited(t, func(map[string]any) {})
	main = []*twins{
		newTwins(t, "sample", plain, false),
		newTwins(t, "128,000 pieces", largeJSON(t, 128_000, false), false),
		newTwins(t, "250,000 pieces, byte fallback", largeJSON(t, 250_000, true), false),
	}
	v5, err := os.ReadFile(golden.Glob(t, "model/tokenizer/tokenizer_v5.json")[0])
	if err != nil {
		t.Fatal(err)
	}
	others = []*twins{
		newTwins(t, "interpreting", plain, true),
		newTwins(t, "transformers 5", v5, false),
		newTwins(t, "added tokens", edited(t, withAdded), false),
		newTwins(t, "added tokens, interpreting", edited(t, withAdded), true),
		newTwins(t, "first", edited(t, metaspaceWith("prepend_scheme", "first")), false),
		newTwins(t, "never", edited(t, metaspaceWith("prepend_scheme", "never")), false),
		newTwins(t, "whole", edited(t, metaspaceWith("split", false)), false),
		newTwins(t, "lowercase", edited(t, prependStep("normalizer", "normalizers", map[string]any{"type": "Lowercase"})), false),
		newTwins(t, "punctuation", edited(t, prependStep("pre_tokenizer", "pretokenizers",
			map[string]any{"type": "Punctuation", "behavior": "Isolated"})), false),
		newTwins(t, "only replacing", edited(t, func(tree map[string]any) {
			tree["normalizer"] = map[string]any{"type": "Replace", "pattern": map[string]any{"String": "is"}, "content": "wäre "}
		}), false),
	}
	return main, others
}

// TestDifferential compares the tokenizer in Go with the Rust library, on
// CRITERIA_TOKEN_TEXTS texts (10,000 if unset) for each kind of tokenizer that
// real checkpoints have, and a tenth of that for the others.
func TestDifferential(t *testing.T) {
	n := 10_000
	if s := os.Getenv("CRITERIA_TOKEN_TEXTS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	var sentences []string
	for _, c := range goldenCases(t) {
		if c.Text != "" {
			sentences = append(sentences, c.Text)
		}
	}
	main, others := allTwins(t)
	var compared atomic.Int64
	for i, w := range append(main, others...) {
		count := n
		if i >= len(main) {
			count = n / 10
		}
		texts := systematic(w, count)
		var wg sync.WaitGroup
		workers := runtime.GOMAXPROCS(0)
		for worker := range workers {
			wg.Go(func() {
				m := &textMaker{Rand: rand.New(rand.NewPCG(uint64(i), uint64(worker))), sentences: sentences, pieces: w.pieces, noNUL: w.fallback}
				for j := worker; j < max(count, len(texts)) && !t.Failed(); j += workers {
					var text string
					switch {
					case j < len(texts):
						text = texts[j]
					case j%16 == 0:
						text = m.broken()
					default:
						text = m.text()
					}
					if err := w.compare(text); err != nil {
						t.Error(err)
					}
					compared.Add(1)
				}
			})
		}
		wg.Wait()
	}
	t.Logf("%d texts compared", compared.Load())
}

// systematic returns texts that no chance shall decide on: pieces of the vocabulary
// and pairs of ASCII characters, all of them if n allows, every character of the
// basic plane, and texts of a megabyte.
func systematic(w *twins, n int) []string {
	var texts []string
	step := max(1, 2*len(w.pieces)/n)
	for i := 0; i < len(w.pieces); i += step {
		texts = append(texts, w.pieces[i])
	}
	for a := range 128 {
		var all strings.Builder
		for b := range 128 {
			pair := string(rune(a)) + string(rune(b))
			if w.fallback && strings.Contains(pair, "\x00") {
				continue // what stands in for it in Rust has bytes of its own
			}
			all.WriteString(pair)
			if n >= 100_000 {
				texts = append(texts, pair)
			}
		}
		texts = append(texts, all.String())
	}
	for block := rune(0x80); block < 0x30000; block += 64 {
		var spaced, joined strings.Builder
		for r := block; r < block+64; r++ {
			if utf8.ValidRune(r) {
				spaced.WriteString("a" + string(r) + " ")
				joined.WriteRune(r)
			}
		}
		texts = append(texts, spaced.String(), joined.String())
	}
	return append(texts, strings.Repeat("I cannot sleep. ", 1<<16), strings.Repeat("é", 1<<18), strings.Repeat("a", 1<<18), strings.Repeat(" ", 1<<18))
}
