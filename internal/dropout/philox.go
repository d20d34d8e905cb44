package dropout

import "math"

// Philox is the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror,
// Shaw: Parallel Random Numbers: As Easy as 1, 2, 3; SC 2011): ten rounds that
// turn a counter into four words that look random, another function for every
// key. It is what a GPU decides by: 32-bit products are what it is fast at, as a
// CPU is at the 64-bit ones of [FillMask].
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	const (
		multiplier0, multiplier1 = 0xd2511f53, 0xcd9e8d57
		weyl0, weyl1             = 0x9e3779b9, 0xbb67ae85
	)
	c := counter
	for range 10 {
		p0, p1 := multiplier0*uint64(c[0]), multiplier1*uint64(c[2])
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ key[0], uint32(p1), uint32(p0>>32) ^ c[3] ^ key[1], uint32(p0)}
		key[0] += weyl0
		key[1] += weyl1
	}
	return c
}

// PhiloxThreshold returns how many of the 2³² values of a word drop an element.
func PhiloxThreshold(p float64) uint32 {
	return uint32(min(math.Round(p*(1<<32)), math.MaxUint32))
}

// FillPhilox writes the mask that a GPU's dropout of probability p draws for a
// key: 1 for an element that is kept, 0 for one that is dropped. Element i is
// kept if word i mod 4 of Philox with counter (i/4, Site, Step) and key Seed is
// not below the threshold; of Site the lower 32 bits count.
func FillPhilox(dst []byte, k Key, p float64) {
	threshold := PhiloxThreshold(p)
	for i := range (len(dst) + 3) / 4 {
		words := Philox([4]uint32{uint32(i), uint32(k.Site), uint32(k.Step), uint32(k.Step >> 32)},
			[2]uint32{uint32(k.Seed), uint32(k.Seed >> 32)})
		var mask [4]byte
		for j, w := range words {
			if w >= threshold {
				mask[j] = 1
			}
		}
		copy(dst[4*i:], mask[:])
	}
}
