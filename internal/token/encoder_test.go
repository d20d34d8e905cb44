package token

import (
	"runtime"
	"slices"
	"strings"
	"testing"
)

func goEncoderOf(t testing.TB, text []byte) (encoder, *definition) {
	t.Helper()
	d, err := parseDefinition(text)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newGoEncoder(d, false)
	if err != nil {
		t.Fatal(err)
	}
	return e, d
}

// TestEncodingAllocates nothing but what it returns.
func TestEncodingAllocates(t *testing.T) {
	e, _ := goEncoderOf(t, largeJSON(t, 10_000, true))
	text := strings.Repeat("I have been tired for ages — ﬁne, c\u0301① 👍 unknown\U0001f9ff ", 20)
	ids := e.encode(nil, text)
	// Under the race detector a pool forgets at random, hence the bound.
	if n := testing.AllocsPerRun(100, func() { ids = e.encode(ids[:0], text) }); n > float64(len(ids))/10 {
		t.Errorf("%v allocations for %d tokens, want none", n, len(ids))
	}
}

// TestSizeOfModel: a model of DeBERTaV3's size takes less than 40 MB.
func TestSizeOfModel(t *testing.T) {
	text := largeJSON(t, 128_000, false)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	tok, err := FromJSON(slices.Clone(text))
	if err != nil {
		t.Fatal(err)
	}
	used := heap() - before
	t.Logf("%.1f MB, of which tokenizer.json is %.1f", float64(used)/1e6, float64(len(text))/1e6)
	if used > 40e6 {
		t.Errorf("a tokenizer of 128,000 pieces takes %d bytes, want at most 40 MB", used)
	}
	if len(tok.ids("I cannot sleep")) == 0 {
		t.Error("no ids")
	}
}

// BenchmarkLoad opens a tokenizer of DeBERTaV3's size.
func BenchmarkLoad(b *testing.B) {
	text := largeJSON(b, 128_000, false)
	for b.Loop() {
		tok, err := FromJSON(text)
		if err != nil {
			b.Fatal(err)
		}
		if err := tok.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
