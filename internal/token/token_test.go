package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/memwatch"
	"github.com/google/go-cmp/cmp"
)

// TestEncodeAllEqualsEncodePair runs the golden texts, in order, through both.
func TestEncodeAllEqualsEncodePair(t *testing.T) {
	tok := openGolden(t)
	var pairs []Pair
	for _, c := range goldenCases(t) {
		pairs = append(pairs, Pair{c.Text, c.Pair}, Pair{c.Pair, c.Text})
	}
	for _, workers := range []int{0, 1, 3, 1000} {
		all, err := tok.EncodeAll(context.Background(), pairs, workers, 24, LongestFirst)
		if err != nil {
			t.Fatal(err)
		}
		if all.Len() != len(pairs) {
			t.Fatalf("%d workers: %d encodings of %d pairs", workers, all.Len(), len(pairs))
		}
		for i, p := range pairs {
			one, err := tok.EncodePair(p.First, p.Second, 24, LongestFirst, DoNotPad)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(one.IDs, all.At(i)) || one.Truncated != all.Truncated[i] {
				t.Fatalf("%d workers: pair %d: got %v (truncated %t), want %v (%t)", workers, i, all.At(i), all.Truncated[i], one.IDs, one.Truncated)
			}
		}
	}
}

func TestEncodeAllIsCompact(t *testing.T) {
	tok := openGolden(t)
	var pairs []Pair
	for i := range 200 {
		pairs = append(pairs, Pair{fmt.Sprintf("I have been tired for %d days and cannot sleep at night", i), "Fatigue or loss of energy"})
	}
	e, err := tok.EncodeAll(context.Background(), pairs, 2, 128, LongestFirst)
	if err != nil {
		t.Fatal(err)
	}
	bytes := 4*cap(e.IDs) + 8*cap(e.Offsets) + cap(e.Truncated)
	if per := float64(bytes) / float64(len(e.IDs)); per >= 10 {
		t.Errorf("%.1f bytes per token, want fewer than 10", per)
	}
}

func TestEncodeAllErrors(t *testing.T) {
	tok := openGolden(t)
	pairs := []Pair{{"a", "b"}, {"one two three four five six", "seven eight nine ten eleven twelve"}}
	_, err := tok.EncodeAll(context.Background(), pairs, 2, 8, OnlyFirst)
	var short *TruncationError
	if !errors.As(err, &short) || !strings.Contains(err.Error(), "pair 1") {
		t.Errorf("got error %v, want a TruncationError that names pair 1", err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := tok.EncodeAll(ctx, pairs, 2, 8, LongestFirst); !errors.Is(err, cause) {
		t.Errorf("cancelled: got error %v, want %v", err, cause)
	}
	if e, err := tok.EncodeAll(context.Background(), nil, 2, 8, LongestFirst); err != nil || e.Len() != 0 {
		t.Errorf("no pairs: got %v, %v", e, err)
	}
}

func TestTruncatedIsReported(t *testing.T) {
	tok := openGolden(t)
	for length, want := range map[int]bool{8: true, 128: false} {
		e, err := tok.EncodePair("one two three four five", "six seven", length, LongestFirst, PadMaxLength)
		if err != nil {
			t.Fatal(err)
		}
		if e.Truncated != want || len(e.IDs) != length {
			t.Errorf("max_length %d: got %d ids, truncated %t; want truncated %t", length, len(e.IDs), e.Truncated, want)
		}
	}
}

// TestNoInjection writes special tokens into texts in every way that could
// count: bare, glued to words, with the space mark, cut by NUL, full width.
func TestNoInjection(t *testing.T) {
	tok := openGolden(t)
	s := tok.Special()
	for _, token := range []string{"[PAD]", "[CLS]", "[SEP]", "[MASK]"} {
		for _, format := range []string{"%s", "a %s b", "a%sb", "▁%s▁", "%[1]s%[1]s", "\x00%s\x00", "  %s  ", "\n%s\n", "［SEP］ %s"} {
			text := fmt.Sprintf(format, token)
			ids := tok.ids(text)
			for _, id := range []int32{s.PAD, s.CLS, s.SEP, s.MASK} {
				if slices.Contains(ids, id) {
					t.Errorf("%q yields the special id %d: %v", text, id, ids)
				}
			}
		}
	}
	interpreting := openGolden(t, InterpretSpecialTokens())
	if got := interpreting.ids("a [SEP] b"); !slices.Contains(got, s.SEP) {
		t.Errorf("asked to interpret special tokens: got %v, want the id %d among them", got, s.SEP)
	}
}

func FuzzNoInjection(f *testing.F) {
	tok := openGolden(f)
	s := tok.Special()
	for _, text := range []string{"a [SEP] b", "[MASK]", "［CLS］", "[\x00SEP]", "[SEP\u200b]", "\xff[SEP]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		memwatch.Start(t, len(text))
		ids := tok.ids(text)
		for _, id := range ids {
			if id == s.PAD || id == s.CLS || id == s.SEP || id == s.MASK || int(id) >= tok.VocabSize() {
				t.Fatalf("%q yields the id %d", text, id)
			}
		}
	})
}

func TestCloseWaitsAndIsFinal(t *testing.T) {
	tok := openGolden(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				e, err := tok.EncodePair("I cannot sleep", "sleep", 32, LongestFirst, DoNotPad)
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil || len(e.IDs) < 5 {
					t.Errorf("while open: got %v, %v", e, err)
					return
				}
			}
		})
	}
	if err := tok.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := tok.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := tok.EncodeAll(context.Background(), []Pair{{"a", "b"}}, 1, 8, LongestFirst); !errors.Is(err, ErrClosed) {
		t.Errorf("EncodeAll after Close: got error %v, want ErrClosed", err)
	}
}

// TestSaveTo opens what was saved: it must be the same tokenizer.
func TestSaveTo(t *testing.T) {
	tok := openGolden(t)
	dir := t.TempDir()
	if err := tok.SaveTo(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if string(tok.JSON()) != string(again.JSON()) {
		t.Error("tokenizer.json changed on its way")
	}
	if tok.Special() != again.Special() || tok.VocabSize() != again.VocabSize() {
		t.Errorf("got %+v and %d ids, want %+v and %d", again.Special(), again.VocabSize(), tok.Special(), tok.VocabSize())
	}
	for _, c := range goldenCases(t) {
		if diff := cmp.Diff(tok.ids(c.Text), again.ids(c.Text)); diff != "" {
			t.Fatalf("ids of %q (-want +got):\n%s", c.Text, diff)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{jsonFile, configFile}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if err := tok.SaveTo(filepath.Join(dir, "missing")); err == nil {
		t.Error("saved into a folder that does not exist")
	}
}

func TestSpecialIDs(t *testing.T) {
	tok := openGolden(t)
	pieces := 1000
	want := SpecialIDs{PAD: 0, CLS: 1, SEP: 2, UNK: 3, MASK: int32(pieces)}
	if diff := cmp.Diff(want, tok.Special()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := tok.VocabSize(); got != pieces+1 {
		t.Errorf("vocabulary of %d, want %d", got, pieces+1)
	}
}

// TestConfigDecidesTheConversion looks at what two keys change.
func TestConfigDecidesTheConversion(t *testing.T) {
	model, err := os.ReadFile(filepath.Join(golden.Dir(t), "model", "tiny-deberta", spmFile))
	if err != nil {
		t.Fatal(err)
	}
	open := func(config string) *Tokenizer {
		dir := t.TempDir()
		for name, text := range map[string]string{spmFile: string(model), configFile: config} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		tok, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tok.Close() })
		return tok
	}
	plain, lower := open(`{"do_lower_case": false}`), open(`{"do_lower_case": true}`)
	if slices.Equal(plain.ids("FEEL"), plain.ids("feel")) || !slices.Equal(lower.ids("FEEL"), lower.ids("feel")) {
		t.Error("do_lower_case does not decide whether FEEL is feel")
	}
	punct := open(`{"split_by_punct": true}`)
	if !slices.Equal(punct.ids("can't"), append(append(punct.ids("can"), punct.ids("'")...), punct.ids("t")...)) {
		t.Error("split_by_punct does not split at the apostrophe")
	}
}

func TestOpenErrors(t *testing.T) {
	model, err := os.ReadFile(filepath.Join(golden.Dir(t), "model", "tiny-deberta", spmFile))
	if err != nil {
		t.Fatal(err)
	}
	good := openGolden(t).JSON()
	edit := func(f func(map[string]any)) string {
		var v map[string]any
		if err := json.Unmarshal(good, &v); err != nil {
			t.Fatal(err)
		}
		f(v)
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for name, c := range map[string]struct {
		files    map[string]string
		mentions []string
	}{
		"nothing there":   {nil, []string{jsonFile, spmFile}},
		"cut model":       {map[string]string{spmFile: string(model[:len(model)/2])}, []string{spmFile, "download"}},
		"empty model":     {map[string]string{spmFile: ""}, []string{spmFile, "without pieces"}},
		"no model at all": {map[string]string{spmFile: "<html>not found</html>"}, []string{spmFile}},
		"config no JSON":  {map[string]string{spmFile: string(model), configFile: "do_lower_case: true"}, []string{configFile, "do_lower_case"}},
		"config no bool":  {map[string]string{spmFile: string(model), configFile: `{"do_lower_case": "yes"}`}, []string{configFile, "do_lower_case"}},
		"no JSON":         {map[string]string{jsonFile: "x"}, []string{jsonFile}},
		"no model":        {map[string]string{jsonFile: "{}"}, []string{jsonFile, "model"}},
		"other model":     {map[string]string{jsonFile: edit(func(v map[string]any) { v["model"].(map[string]any)["type"] = "BPE" })}, []string{`"BPE"`, "Unigram"}},
		"no [SEP]": {map[string]string{jsonFile: edit(func(v map[string]any) { v["added_tokens"] = v["added_tokens"].([]any)[:2] })},
			[]string{"[SEP]"}},
		"refused by the library": {map[string]string{jsonFile: edit(func(v map[string]any) { v["normalizer"] = map[string]any{"type": "Unheard"} })},
			[]string{jsonFile, `"Unheard"`}},
		"id out of range": {map[string]string{jsonFile: edit(func(v map[string]any) { v["added_tokens"].([]any)[0].(map[string]any)["id"] = -4 })},
			[]string{"-4"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tok, err := Open(dir)
			if err == nil {
				tok.Close()
				t.Fatal("no error")
			}
			for _, m := range append(c.mentions, dir) {
				if !strings.Contains(err.Error(), m) {
					t.Errorf("error %q does not mention %q", err, m)
				}
			}
		})
	}
}

// BenchmarkEncode splits the golden texts one after another: tokens per
// second, to be compared with encode_batch of the Python tokenizers.
func BenchmarkEncode(b *testing.B) {
	tok := openGolden(b)
	var pairs []Pair
	tokens := 0
	for round := range 20 {
		for _, c := range goldenCases(b) {
			// The suffix keeps the texts distinct: EncodeAll splits each one once.
			pairs = append(pairs, Pair{fmt.Sprint(c.Text, " ", round), fmt.Sprint(c.Pair, " ", round)})
		}
	}
	for _, p := range pairs {
		tokens += len(tok.ids(p.First)) + len(tok.ids(p.Second))
	}
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.EncodeAll(context.Background(), pairs, workers, 512, LongestFirst); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
