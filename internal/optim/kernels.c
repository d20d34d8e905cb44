// The loops of kernels_loops.h, compiled for several vector widths, and the
// choice among them at run time.
//
// They use vector types instead of leaving it to the compiler: a plain loop
// with sqrtf stays scalar because sqrtf may set errno, and the option that says
// it may not is one that cgo refuses.

#include "kernels.h"

#include <math.h>
#include <string.h>

#define LOOPS "kernels_loops.h"
#include "widths.h"

void optim_adamw(float *p, float *m, float *v, const float *g, size_t n, const optim_adamw_scalars *s) {
  CHOOSE(adamw, (p, m, v, g, n, s));
}

void optim_adamw_deferred(float *p, float *m, float *v, size_t n, const optim_adamw_scalars *s, size_t updates) {
  CHOOSE(adamw_deferred, (p, m, v, n, s, updates));
}

double optim_sum_squares(const float *g, size_t n) { return CHOOSE(sum_squares, (g, n)); }

void optim_adamw8(float *p, const float *g, size_t n, uint8_t *mc, uint8_t *vc, float *ms, float *vs,
                  const optim_codebook *mb, const optim_codebook *vb, const optim_adamw_scalars *s, int nearest) {
  CHOOSE(adamw8, (p, g, n, mc, vc, ms, vs, mb, vb, s, nearest));
}
