package dropout

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bits writes a mask as a string of 0 and 1.
func bits(mask []byte) string {
	var b strings.Builder
	for _, v := range mask {
		b.WriteByte('0' + v)
	}
	return b.String()
}

// The masks are part of what makes a run repeatable: they must not change from
// one version of the library to the next.
func TestMaskIsFixed(t *testing.T) {
	for _, tt := range []struct {
		key  Key
		p    float64
		want string
	}{
		{Key{42, 0, 0}, 0.1, "1011111110111011011100111111111111111111010111111111101111111111"},
		{Key{42, 7, 3}, 0.5, "1010111011011101101111101111101101101000011101001111010101110011"},
	} {
		mask := make([]byte, 64)
		FillMask(mask, tt.key, 0, tt.p)
		if diff := cmp.Diff(tt.want, bits(mask)); diff != "" {
			t.Errorf("%+v, p = %v (-want +got):\n%s", tt.key, tt.p, diff)
		}
	}
}

// The formula of FillMask's documentation, one element at a time.
func TestMaskIsTheFormula(t *testing.T) {
	key := Key{1, 2, 3}
	for _, p := range []float64{0, 0.1, 0.3, 0.5, 0.999, 1} {
		mask := make([]byte, 1001)
		FillMask(mask, key, 0, p)
		for i, got := range mask {
			z := mix(key.start() + (uint64(i/4)+1)*golden)
			var want byte
			if z>>(16*(i%4))&0xffff >= uint64(math.Round(p*65536)) {
				want = 1
			}
			if got != want {
				t.Fatalf("p = %v, element %d: got %d, want %d", p, i, got, want)
			}
		}
	}
}

func TestAnyPartByItself(t *testing.T) {
	key := Key{9, 8, 7}
	whole := make([]byte, 300)
	FillMask(whole, key, 0, 0.25)
	for from := range 40 {
		for length := range 40 {
			part := make([]byte, length)
			FillMask(part, key, from, 0.25)
			if diff := cmp.Diff(whole[from:from+length], part); diff != "" {
				t.Fatalf("elements %d to %d (-want +got):\n%s", from, from+length, diff)
			}
		}
	}
}

func TestThreadsDoNotChangeTheMask(t *testing.T) {
	key := Key{5, 6, 7}
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 5*chunk + 3} {
		want := make([]byte, n)
		FillMask(want, key, 0, 0.1)
		for _, threads := range []int{0, 1, 2, 3, 16} {
			got := make([]byte, n)
			Fill(got, key, 0.1, threads)
			if string(want) != string(got) {
				t.Errorf("%d elements on %d threads differ from one thread", n, threads)
			}
		}
	}
}

func TestKeepProbability(t *testing.T) {
	for _, tt := range []struct{ p, want float64 }{
		{0, 1}, {0.1, (65536 - 6554) / 65536.}, {0.5, 0.5}, {1, 0},
	} {
		if got := KeepProbability(tt.p); got != tt.want {
			t.Errorf("p = %v: got %v, want %v", tt.p, got, tt.want)
		}
	}
	for _, p := range []float64{-0.1, 1.1, math.NaN(), math.Inf(1)} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			KeepProbability(p)
		})
	}
}

// Statistics over a million elements: each count lies within five standard
// deviations of what independent decisions would give. The keys are fixed, so
// the test either always passes or never.
func TestStatistics(t *testing.T) {
	const n = 1 << 20
	within := func(t *testing.T, what string, got, trials int, p float64) {
		t.Helper()
		mean, sd := float64(trials)*p, math.Sqrt(float64(trials)*p*(1-p))
		if math.Abs(float64(got)-mean) > 5*sd {
			t.Errorf("%s: %d of %d, want %.0f ± %.0f", what, got, trials, mean, sd)
		}
	}
	for _, p := range []float64{0.1, 0.25, 0.5} {
		keep := KeepProbability(p)
		a, b := make([]byte, n), make([]byte, n)
		FillMask(a, Key{42, 100, 3}, 0, p)
		kept := 0
		for _, v := range a {
			kept += int(v)
		}
		within(t, fmt.Sprintf("p = %v, kept", p), kept, n, keep)
		for _, lag := range []int{1, 2, 3, 4, 5, 8, 64, 768} {
			both := 0
			for i := range n - lag {
				both += int(a[i] & a[i+lag])
			}
			// Pairs overlap, so they are not independent of each other: the
			// variance is less than three times that of independent ones.
			mean := float64(n-lag) * keep * keep
			if sd := math.Sqrt(3 * mean * (1 - keep*keep)); math.Abs(float64(both)-mean) > 5*sd {
				t.Errorf("p = %v, elements %d apart: both kept %d times, want %.0f ± %.0f", p, lag, both, mean, sd)
			}
		}
		for _, other := range []Key{{42, 100, 4}, {42, 101, 3}, {43, 100, 3}, {42, 99, 3}, {100, 42, 3}, {42, 3, 100}} {
			FillMask(b, other, 0, p)
			both := 0
			for i := range a {
				both += int(a[i] & b[i])
			}
			within(t, fmt.Sprintf("p = %v, kept also under %+v", p, other), both, n, keep*keep)
		}
	}
}

// 21.6 million elements are the masks of one step of the base model with 4 × 128
// tokens.
func BenchmarkFill(b *testing.B) {
	mask := make([]byte, 21_600_000)
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprint("threads=", threads), func(b *testing.B) {
			b.SetBytes(int64(len(mask)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				Fill(mask, Key{1, uint64(i), 3}, 0.1, threads)
			}
		})
	}
}
