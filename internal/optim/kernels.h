// The inner loops of the optimizers. Each function works on one part of the
// vectors on the calling thread; Go cuts the vectors into parts.

#ifndef CRITERIA_OPTIM_KERNELS_H
#define CRITERIA_OPTIM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

// The scalars of one AdamW update, worked out in double precision by Go.
typedef struct {
  float decay; // 1 - lr·λ
  float beta2;
  float weight1;    // 1 - β₁
  float weight2;    // 1 - β₂
  float step;       // lr / (1 - β₁ᵗ)
  float correction; // 1 / √(1 - β₂ᵗ)
  float eps;
  float grad_scale;
} optim_adamw_scalars;

void optim_adamw(float *p, float *m, float *v, const float *g, size_t n, const optim_adamw_scalars *s);

// Updates one after the other with gradients of 0.
void optim_adamw_deferred(float *p, float *m, float *v, size_t n, const optim_adamw_scalars *s, size_t updates);

// Sum of squares: float32 within blocks of OPTIM_NORM_BLOCK elements, double
// between them.
#define OPTIM_NORM_BLOCK 4096
double optim_sum_squares(const float *g, size_t n);

// The 256 values of a code, and how a number in [-1, 1] finds its code. Numbers
// fall into 65536 cells: by table, the equal parts of [-1, 1], and a cell knows
// the code of its middle; to nearest, the numbers whose upper 16 bits agree (fine
// where the codes are fine), and a cell knows the code of its lower end, the
// right one being at most a few above.
#define OPTIM_BLOCK 256
typedef struct {
  float values[256];    // ascending
  float midpoints[256]; // halfway to the next value; the last one is +∞
  uint8_t cells[65536];
} optim_codebook;

// One AdamW update with the state in codes; blocks of OPTIM_BLOCK elements with
// one scale each, the last one may be shorter. nearest chooses the rounding.
void optim_adamw8(float *p, const float *g, size_t n, uint8_t *mc, uint8_t *vc, float *ms, float *vs,
                  const optim_codebook *mb, const optim_codebook *vb, const optim_adamw_scalars *s, int nearest);

#endif
