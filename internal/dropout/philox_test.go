package dropout

import (
	"math"
	"testing"
)

// The known answers of Random123, the generator's own library.
func TestPhilox(t *testing.T) {
	const all = math.MaxUint32
	for _, tt := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{want: [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{all, all, all, all}, [2]uint32{all, all}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(tt.counter, tt.key); got != tt.want {
			t.Errorf("counter %08x, key %08x: %08x, want %08x", tt.counter, tt.key, got, tt.want)
		}
	}
}

// Masks of a GPU drop with the probability that was asked for, within five
// standard deviations, and every part of the key matters.
func TestFillPhilox(t *testing.T) {
	const n = 1 << 18
	fill := func(k Key, p float64) []byte {
		mask := make([]byte, n)
		FillPhilox(mask, k, p)
		return mask
	}
	kept := func(mask, both []byte) (count float64) {
		for i, v := range mask {
			count += float64(v & both[i])
		}
		return count
	}
	within := func(what string, got, p float64) {
		t.Helper()
		if sd := math.Sqrt(n * p * (1 - p)); math.Abs(got-n*p) > 5*sd {
			t.Errorf("%s: %v of %d, want %.0f ± %.0f", what, got, n, n*p, sd)
		}
	}
	for _, p := range []float64{0.1, 0.5} {
		key := Key{Seed: 42, Step: 100, Site: 3}
		mask := fill(key, p)
		within("kept", kept(mask, mask), 1-p)
		for _, other := range []Key{{43, 100, 3}, {42 | 1<<40, 100, 3}, {42, 101, 3}, {42, 100 | 1<<40, 3}, {42, 100, 4}} {
			within("kept also under another key", kept(mask, fill(other, p)), (1-p)*(1-p))
		}
	}
}
