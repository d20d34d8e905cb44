package optim

// #include "kernels.h"
import "C"

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"unsafe"

	"github.com/criteria-go/criteria/internal/parallel"
)

// blockSize is the number of neighbouring state values that share a scale.
const blockSize = C.OPTIM_BLOCK

// MinQuantized is the size from which bitsandbytes keeps a tensor's state in 8
// bits; smaller ones keep it in float32 ([AdamW]).
const MinQuantized = 4096

// Rounding says how a state value becomes one of the 256 codes.
type Rounding int

const (
	// RoundByTable is the rounding of bitsandbytes on a CPU, and the default. A
	// value, scaled to [-1, 1], is first cut to one of 65536 equal cells, and gets
	// the code nearest to the middle of its cell. Near zero the codes lie closer
	// together than the cells, so small values are rounded away from zero: a
	// second moment is never rounded to 0, the step it divides never blown up.
	RoundByTable Rounding = iota

	// RoundToNearest is the rounding of bitsandbytes on a GPU: the nearest code,
	// except that a first moment keeps its sign. A second moment that is less than
	// 1.6e-7 of the largest in its block becomes 0, and the next step of that
	// parameter can be many times too long: a known weakness where gradients
	// within 256 neighbours differ by more than three decades.
	RoundToNearest
)

// AdamW8bit is [AdamW] with state in 8 bits, as in bitsandbytes (Dettmers et
// al.: 8-bit Optimizers via Block-wise Quantization, ICLR 2022). Every step
// decodes the state, updates it and the parameters in float32, and encodes it
// again.
type AdamW8bit struct {
	adamw    AdamW
	rounding Rounding
	m, v     *C.optim_codebook // Go memory; C sees it during a call only
}

// NewAdamW8bit returns the optimizer. Its tables take 130 kB.
func NewAdamW8bit(adamw AdamW, rounding Rounding) *AdamW8bit {
	if rounding != RoundByTable && rounding != RoundToNearest {
		panic(fmt.Sprintf("optim: unknown rounding %d", rounding))
	}
	return &AdamW8bit{
		adamw:    adamw,
		rounding: rounding,
		m:        newCodebook(dynamicMap(true), rounding),
		v:        newCodebook(dynamicMap(false), rounding),
	}
}

// State8bit is the state of one tensor, all zero at first. Value i of the first
// moment is dynamicMap(true)[M[i]] · MScale[i/blockSize], of the second
// dynamicMap(false)[V[i]] · VScale[i/blockSize].
type State8bit struct {
	M, V           []uint8
	MScale, VScale []float32 // largest absolute value of each block
}

// NewState8bit returns the state of a tensor of n elements.
func NewState8bit(n int) State8bit {
	blocks := Blocks(n)
	return State8bit{make([]uint8, n), make([]uint8, n), make([]float32, blocks), make([]float32, blocks)}
}

// Blocks returns the number of blocks, and so of scales, of a tensor of n
// elements.
func Blocks(n int) int { return (n + blockSize - 1) / blockSize }

// Step updates the parameters of one tensor and their state in place. The
// gradients must be finite.
func (o *AdamW8bit) Step(p, g []float32, s State8bit, u Update) {
	if n, blocks := len(p), Blocks(len(p)); len(g) != n || len(s.M) != n || len(s.V) != n || len(s.MScale) != blocks || len(s.VScale) != blocks {
		panic(fmt.Sprintf("optim: %d parameters with %d gradients, %d and %d codes, %d and %d scales",
			len(p), len(g), len(s.M), len(s.V), len(s.MScale), len(s.VScale)))
	}
	args := stepped8bit{AdamW8bit: o, p: p, g: g, state: s, scalars: o.adamw.scalars(u)}
	if o.rounding == RoundToNearest {
		args.nearest = 1
	}
	step8bit.Run((len(p)+part-1)/part, u.Threads, args)
}

// stepped8bit is what a step works on.
type stepped8bit struct {
	*AdamW8bit
	p, g    []float32
	state   State8bit
	scalars C.optim_adamw_scalars
	nearest C.int
}

var step8bit = parallel.New(func(s *stepped8bit, i int) {
	from, to := i*part, min((i+1)*part, len(s.p))
	block := from / blockSize
	C.optim_adamw8(floats(s.p[from:]), floats(s.g[from:]), C.size_t(to-from),
		bytes(s.state.M[from:]), bytes(s.state.V[from:]), floats(s.state.MScale[block:]), floats(s.state.VScale[block:]),
		s.m, s.v, &s.scalars, s.nearest)
})

func bytes(s []uint8) *C.uint8_t { return (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(s))) }

// dynamicMap returns the values that the 256 codes stand for, ascending from
// about -1 (or 0 if not signed) to 1: for each of seven powers of ten the middles
// of equal intervals between 0.1 and 1 of it, twice as many for each next one
// (create_dynamic_map of bitsandbytes). It is computed in float32, as there.
func dynamicMap(signed bool) [256]float32 {
	var values []float32
	for i := range 7 {
		intervals := 1 << i
		if !signed {
			intervals *= 2
		}
		power := float32(math.Pow10(i - 6))
		for k := range intervals {
			mean := power * ((boundary(k, intervals) + boundary(k+1, intervals)) / 2)
			values = append(values, mean)
			if signed {
				values = append(values, -mean)
			}
		}
	}
	values = append(values, 0, 1)
	slices.Sort(values)
	return [256]float32(values)
}

// boundary returns the k-th of the points that cut [0.1, 1] into n intervals,
// counted from the nearer end in float32 steps and rounded once, as
// torch.linspace does.
func boundary(k, n int) float32 {
	const start float32 = 0.1
	step := float64((1 - start) / float32(n))
	if k < (n+1)/2 {
		return float32(float64(start) + step*float64(k))
	}
	return float32(1 - step*float64(n-k))
}

// Codebook returns what [RoundByTable] works with: the values of the codes, and for
// each of the 65536 equal parts of [-1, 1] the code that is nearest to its middle.
func Codebook(signed bool) (values [256]float32, cells [65536]uint8) {
	values = dynamicMap(signed)
	for i, code := range newCodebook(values, RoundByTable).cells {
		cells[i] = uint8(code)
	}
	return values, cells
}

func newCodebook(values [256]float32, rounding Rounding) *C.optim_codebook {
	b := new(C.optim_codebook)
	for i, v := range values {
		b.values[i] = C.float(v)
		b.midpoints[i] = C.float(math.Inf(1))
		if i+1 < len(values) {
			b.midpoints[i] = C.float((v + values[i+1]) / 2)
		}
	}
	for i := range b.cells {
		var x float32
		switch rounding {
		case RoundByTable:
			x = (float32(i)+0.5)/32768 - 1
		case RoundToNearest:
			bits := uint32(i) << 16
			if bits>>31 == 1 {
				bits |= 0xffff // below zero the lower end is the one with the larger bits
			}
			x = math.Float32frombits(bits)
		}
		b.cells[i] = C.uint8_t(nearestCode(values, x))
	}
	return b
}

// nearestCode returns the code of the value nearest to x, the lower one of two.
func nearestCode(values [256]float32, x float32) int {
	return sort.Search(len(values)-1, func(i int) bool { return (values[i]+values[i+1])/2 >= x })
}
