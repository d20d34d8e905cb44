package token

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func openTiny(t testing.TB) *Tokenizer {
	t.Helper()
	tokenizer, err := Open("../../testdata/sample/tiny-deberta")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tokenizer.Close(); err != nil {
			t.Error(err)
		}
	})
	return tokenizer
}

func TestLocate(t *testing.T) {
	tokenizer := openTiny(t)
	for name, tc := range map[string]struct{ first, second string }{
		"plain":             {"I cannot sleep lately.", "Insomnia or hypersomnia."},
		"spaces":            {"  I\tcannot   sleep \n", " Insomnia "},
		"many bytes":        {"Ich fühle mich müde — 日本 🙂 ok", "Müdigkeit"},
		"NUL":               {"a\x00b sleep\x00\x00 now", "c"},
		"composed later":    {"cafe\u0301 ﬁne ①", "e\u0301"},
		"empty":             {"", ""},
		"no space at all":   {strings.Repeat("sleepy", 5), "x"},
		"special in a text": {"[SEP] sleep", "[CLS]"},
	} {
		t.Run(name, func(t *testing.T) {
			e, spans, err := tokenizer.Locate(tc.first, tc.second, 512, LongestFirst)
			if err != nil {
				t.Fatal(err)
			}
			plain, err := tokenizer.EncodePair(tc.first, tc.second, 512, LongestFirst, DoNotPad)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(plain, e); diff != "" || len(spans) != len(e.IDs) {
				t.Fatalf("%d spans, encoding (-EncodePair +Locate):\n%s", len(spans), diff)
			}
			texts := []string{tc.first, tc.second}
			var covered [2]string
			for i, s := range spans {
				if s.Part < 0 {
					continue
				}
				if s.Part != int(e.TypeIDs[i]) {
					t.Errorf("token %d is of text %d, its type of %d", i, s.Part, e.TypeIDs[i])
				}
				text := texts[s.Part]
				if s.Start < 0 || s.End < s.Start || s.End > len(text) || !utf8.ValidString(text[s.Start:s.End]) {
					t.Fatalf("token %d: span %+v does not fit %q", i, s, text)
				}
				covered[s.Part] += text[s.Start:s.End]
			}
			// Together the spans are the text without its spaces. (Parts of one
			// character share its span.)
			for part, text := range texts {
				if name == "many bytes" || name == "composed later" {
					continue
				}
				if want := strings.Join(strings.Fields(text), ""); covered[part] != want {
					t.Errorf("text %d: spans cover %q; want %q", part, covered[part], want)
				}
			}
		})
	}
}

func TestLocateTruncates(t *testing.T) {
	tokenizer := openTiny(t)
	e, spans, err := tokenizer.Locate(strings.Repeat("sleep ", 50), "Insomnia or hypersomnia.", 16, LongestFirst)
	if err != nil || len(e.IDs) != 16 || len(spans) != 16 || !e.Truncated {
		t.Fatalf("%d ids, %d spans, truncated %v, %v; want 16", len(e.IDs), len(spans), e.Truncated, err)
	}
	if first, last := spans[0], spans[15]; first.Part != -1 || last.Part != -1 || spans[14].Part != 1 {
		t.Errorf("spans %+v", spans)
	}
	if _, _, err := tokenizer.Locate("a", "\xff", 16, LongestFirst); err == nil {
		t.Error("a text that is not UTF-8: no error")
	}
	if err := tokenizer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tokenizer.Locate("a", "b", 16, LongestFirst); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
}
