// The loops of kernels_loops.h, compiled for several vector widths, and the
// choice among them at run time.
//
// They use vector types instead of leaving it to the compiler: a plain loop
// with sqrtf stays scalar because sqrtf may set errno, and the option that says
// it may not is one that cgo refuses. Products and sums are not contracted into
// fused ones, so every width gives the same bits.

#include "kernels.h"

#include <math.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF // gcc: off because of -std=c11
#endif

#if defined(__x86_64__)
#include <immintrin.h>

#define WIDTH 8
#define TARGET __attribute__((target("avx2")))
#define SQRT(x) ((vec)_mm256_sqrt_ps((__m256)(x)))
#define NAME(f) f##_avx2
#include "kernels_loops.h"
#undef WIDTH
#undef TARGET
#undef SQRT
#undef NAME

#define SQRT(x) ((vec)_mm_sqrt_ps((__m128)(x)))
#elif defined(__aarch64__)
#include <arm_neon.h>
#define SQRT(x) ((vec)vsqrtq_f32((float32x4_t)(x)))
#else
#define SQRT(x) ((vec){sqrtf((x)[0]), sqrtf((x)[1]), sqrtf((x)[2]), sqrtf((x)[3])})
#endif

#define WIDTH 4
#define TARGET
#define NAME(f) f##_base
#include "kernels_loops.h"

#if defined(__x86_64__)
#define CHOOSE(f, args) (__builtin_cpu_supports("avx2") ? f##_avx2 args : f##_base args)
#else
#define CHOOSE(f, args) f##_base args
#endif

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
