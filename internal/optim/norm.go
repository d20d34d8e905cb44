package optim

// #include "kernels.h"
import "C"

import "math"

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
	sums := make([]float64, (len(g)+normPart-1)/normPart)
	Parallel(len(g), normPart, threads, func(i, from, to int) {
		if zero == nil {
			sums[i] = sumSquares(g[from:to])
			return
		}
		for ; from < to; from += NormBlock {
			if !zero(from / NormBlock) {
				sums[i] += sumSquares(g[from:min(from+NormBlock, to)])
			}
		}
	})
	var total float64
	for _, s := range sums {
		total += s
	}
	return math.Sqrt(total)
}

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
