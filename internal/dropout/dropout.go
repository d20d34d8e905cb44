// Package dropout makes the masks of dropout layers from a counter, so that a
// mask is a function of its key alone: the same after a restart, on any number
// of threads and on any machine.
package dropout

import (
	"encoding/binary"
	"fmt"

	"github.com/criteria-go/criteria/internal/parallel"
)

// Key names one mask: the run's seed, the optimizer step (or micro batch) that
// it is for, and the place in the model where it is applied.
type Key struct{ Seed, Step, Site uint64 }

// golden is the increment of SplitMix64 (2⁶⁴ divided by the golden ratio, odd).
const golden = 0x9e3779b97f4a7c15

// mix is the output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable
// Pseudorandom Number Generators, OOPSLA 2014; constants of its variant 13): a
// bijection in which every bit of the input changes every bit of the output
// with a probability near one half.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// start returns the state that the counter of the key's mask begins at. Each
// part goes through mix before the next is added, so that keys which differ in
// one small number have counters far from each other.
func (k Key) start() uint64 { return mix(uint64(k.State()) + k.Site*golden + 2) }

// resolution is the number of steps in which probabilities are distinguished:
// each element is decided by 16 random bits.
const resolution = 1 << 16

// threshold returns how many of the 65536 values of 16 bits drop an element.
func threshold(p float64) uint64 {
	if !(p >= 0 && p <= 1) {
		panic(fmt.Sprintf("dropout: probability %v is not in [0, 1]", p))
	}
	return uint64(p*resolution + 0.5)
}

// KeepProbability returns the exact probability with which a mask for dropout
// p keeps an element: 1-p rounded to a multiple of 1/65536. What is kept must
// be scaled by its inverse. It panics if p is not in [0, 1].
func KeepProbability(p float64) float64 {
	return float64(resolution-threshold(p)) / resolution
}

// FillMask writes elements offset, offset+1, … of the key's mask to dst: 1 for
// an element that is kept, 0, with probability p, for one that is dropped.
// Parts of a mask may be written in any order, and by several goroutines at
// once. It panics if p is not in [0, 1] or offset is negative.
//
// Element i is decided by bits 16·(i mod 4) … of mix(start + (i/4+1)·golden):
// it is kept if they are, as a number, not below the threshold.
func FillMask(dst []byte, key Key, offset int, p float64) {
	if offset < 0 {
		panic(fmt.Sprintf("dropout: offset %d", offset))
	}
	fillMask(dst, key.start(), offset, p)
}

// fillMask is FillMask for the state that the key's mask begins at.
func fillMask(dst []byte, start uint64, offset int, p float64) {
	thr := threshold(p)
	state := start + uint64(offset/4+1)*golden
	if skip := offset % 4; skip != 0 && len(dst) > 0 {
		var word [4]byte
		binary.LittleEndian.PutUint32(word[:], decide(state, thr))
		state += golden
		dst = dst[copy(dst, word[skip:]):]
	}
	for len(dst) >= 4 {
		binary.LittleEndian.PutUint32(dst, decide(state, thr))
		state += golden
		dst = dst[4:]
	}
	if len(dst) > 0 {
		var word [4]byte
		binary.LittleEndian.PutUint32(word[:], decide(state, thr))
		copy(dst, word[:])
	}
}

// decide makes four decisions, one per byte of its result, from one state. Two
// 16-bit values at a time stand in the lower halves of 32-bit lanes; adding
// 65536-threshold carries into bit 16 exactly if the value is not below the
// threshold.
func decide(state, threshold uint64) uint32 {
	const (
		lanes = 0x0000ffff_0000ffff
		ones  = 0x00000001_00000001
	)
	z := mix(state)
	add := (resolution - threshold) * ones
	even := (z&lanes + add) >> 16 & ones
	odd := (z>>16&lanes + add) >> 16 & ones
	v := even | odd<<8
	return uint32(v) | uint32(v>>16)
}

// chunk is how many elements a goroutine makes at a time: enough that taking one
// does not matter. It is a multiple of 4, so that no word is made twice.
const chunk = 1 << 16

// Fill writes the key's whole mask to dst, on the given number of threads. The
// result is that of FillMask at offset 0.
func Fill(dst []byte, key Key, p float64, threads int) {
	fill.Run((len(dst)+chunk-1)/chunk, threads, mask{dst, key, p})
}

// mask is one to be made.
type mask struct {
	dst []byte
	key Key
	p   float64
}

var fill = parallel.New(func(m *mask, part int) {
	from := part * chunk
	FillMask(m.dst[from:min(from+chunk, len(m.dst))], m.key, from, m.p)
})
