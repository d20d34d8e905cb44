package optim

// #include "kernels.h"
import "C"

import "math"

// normPart is how many gradients a thread takes at a time: a multiple of the
// blocks that are summed in float32.
const normPart = 64 * C.OPTIM_NORM_BLOCK

// GlobalNorm returns the L2 norm of all gradients. Squares are summed in
// float32 within blocks of 4096 and in float64 between them, always in the same
// order, so the number of threads does not change the result.
func GlobalNorm(g []float32, threads int) float64 {
	sums := make([]float64, (len(g)+normPart-1)/normPart)
	parallel(len(g), normPart, threads, func(i, from, to int) {
		sums[i] = float64(C.optim_sum_squares(floats(g[from:]), C.size_t(to-from)))
	})
	var total float64
	for _, s := range sums {
		total += s
	}
	return math.Sqrt(total)
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
