package optim

// #include "kernels.h"
import "C"

import (
	"math"
	"slices"
	"sync"

	"github.com/criteria-go/criteria/internal/parallel"
)

// NormBlock is how many squares are summed in float32.
const NormBlock = C.OPTIM_NORM_BLOCK

// normPart is how many gradients a thread takes at a time.
const normPart = 64 * NormBlock

// GlobalNorm returns the L2 norm of all gradients. Squares are summed in
// float32 within blocks of [NormBlock] and in float64 between them, always in
// the same order, so the number of threads does not change the result. Nor do
// the blocks that are known to hold nothing but 0: zero, which may be nil, says
// which ones, and they are not read.
func GlobalNorm(g []float32, zero func(block int) bool, threads int) float64 {
	sums := normSums.Get().(*[]float64)
	parts := (len(g) + normPart - 1) / normPart
	*sums = slices.Grow((*sums)[:0], parts)[:parts]
	norm.Run(parts, threads, normed{g, zero, *sums})
	var total float64
	for _, s := range *sums {
		total += s
	}
	normSums.Put(sums)
	return math.Sqrt(total)
}

// normed is what a norm is taken of.
type normed struct {
	g    []float32
	zero func(block int) bool
	sums []float64 // of the parts
}

var norm = parallel.New(func(n *normed, i int) {
	from, to := i*normPart, min((i+1)*normPart, len(n.g))
	n.sums[i] = 0
	if n.zero == nil {
		n.sums[i] = sumSquares(n.g[from:to])
		return
	}
	for ; from < to; from += NormBlock {
		if !n.zero(from / NormBlock) {
			n.sums[i] += sumSquares(n.g[from:min(from+NormBlock, to)])
		}
	}
})

// normSums keeps memory for the sums of one norm after the other.
var normSums = sync.Pool{New: func() any { return new([]float64) }}

func sumSquares(g []float32) float64 {
	return float64(C.optim_sum_squares(floats(g), C.size_t(len(g))))
}

// ClipScale returns the factor that torch.nn.utils.clip_grad_norm_ multiplies
// gradients of this global norm by: min(1, max/(norm + 1e-6)). A max that is
// not positive means no clipping. The factor of a norm that is not a number is
// not a number.
func ClipScale(norm, max float64) float32 {
	if max <= 0 {
		return 1
	}
	return float32(math.Min(1, max/(norm+1e-6)))
}
