// The loops, for one vector width (see widths.h); therefore without include guard.

#ifdef __aarch64__
#include <arm_neon.h>
#endif

#define vec NAME(vec)
#define load NAME(load)
#define store NAME(store)
#define update NAME(update)

typedef float vec __attribute__((vector_size(4 * WIDTH)));

#undef SQRT
#if WIDTH == 8
#define SQRT(x) ((vec)_mm256_sqrt_ps((__m256)(x)))
#elif defined(__x86_64__)
#define SQRT(x) ((vec)_mm_sqrt_ps((__m128)(x)))
#elif defined(__aarch64__)
#define SQRT(x) ((vec)vsqrtq_f32((float32x4_t)(x)))
#else
#define SQRT(x) ((vec){sqrtf((x)[0]), sqrtf((x)[1]), sqrtf((x)[2]), sqrtf((x)[3])})
#endif

static inline TARGET vec load(const float *p) {
  vec x;
  memcpy(&x, p, sizeof x);
  return x;
}

static inline TARGET void store(float *p, vec x) { memcpy(p, &x, sizeof x); }

// AdamW as torch.optim.AdamW computes it (decoupled decay, ε outside the root):
//   p ← p·(1-lr·λ);  m ← m + (1-β₁)(g-m);  v ← β₂v + (1-β₂)g²
//   p ← p - lr/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε)
static inline TARGET void update(float *p, float *m, float *v, const float *g, const optim_adamw_scalars *s) {
  vec grad = load(g) * s->grad_scale;
  vec first = load(m);
  first += s->weight1 * (grad - first);
  vec second = load(v) * s->beta2 + s->weight2 * grad * grad;
  store(m, first);
  store(v, second);
  store(p, load(p) * s->decay - s->step * first / (SQRT(second) * s->correction + s->eps));
}

static TARGET void NAME(adamw)(float *p, float *m, float *v, const float *g, size_t n, const optim_adamw_scalars *s) {
  size_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) update(p + i, m + i, v + i, g + i, s);
  if (i == n) return;
  size_t bytes = (n - i) * sizeof(float); // the rest goes through a full vector
  float P[WIDTH] = {0}, M[WIDTH] = {0}, V[WIDTH] = {0}, G[WIDTH] = {0};
  memcpy(P, p + i, bytes), memcpy(M, m + i, bytes), memcpy(V, v + i, bytes), memcpy(G, g + i, bytes);
  update(P, M, V, G, s);
  memcpy(p + i, P, bytes), memcpy(m + i, M, bytes), memcpy(v + i, V, bytes);
}

// Updates with gradients of 0, which leave moments of 0 as they are: then only
// the decay is left. Most rows of an embedding table are of this kind, for no
// text has them; so many vectors at a time hide the latency of the products.
static TARGET void NAME(adamw_deferred)(float *p, float *m, float *v, size_t n, const optim_adamw_scalars *s,
                                        size_t updates) {
  enum { AT_ONCE = 8, STRIDE = AT_ONCE * WIDTH };
  static const float zeros[STRIDE];
  for (size_t count; n > 0; n -= count, p += count, m += count, v += count) {
    count = n < STRIDE ? n : STRIDE;
    size_t bytes = count * sizeof(float);
    if (memcmp(m, zeros, bytes) == 0 && memcmp(v, zeros, bytes) == 0) {
      float P[STRIDE] = {0};
      memcpy(P, p, bytes);
      vec x[AT_ONCE];
      for (int k = 0; k < AT_ONCE; k++) x[k] = load(P + k * WIDTH);
      for (size_t u = 0; u < updates; u++)
        for (int k = 0; k < AT_ONCE; k++) x[k] *= s[u].decay;
      for (int k = 0; k < AT_ONCE; k++) store(P + k * WIDTH, x[k]);
      memcpy(p, P, bytes);
    } else {
      for (size_t u = 0; u < updates; u++) NAME(adamw)(p, m, v, zeros, count, &s[u]);
    }
  }
}

// Always LANES partial sums, whatever the width, so that the bits do not
// depend on it; several vectors of them hide the latency of the additions.
static TARGET double NAME(sum_squares)(const float *g, size_t n) {
  enum { LANES = 32, VECTORS = LANES / WIDTH };
  double total = 0;
  for (size_t from = 0; from < n; from += OPTIM_NORM_BLOCK) {
    size_t count = n - from < OPTIM_NORM_BLOCK ? n - from : OPTIM_NORM_BLOCK;
    const float *x = g + from;
    vec sums[VECTORS] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
      for (int k = 0; k < VECTORS; k++) {
        vec y = load(x + i + k * WIDTH);
        sums[k] += y * y;
      }
    float rest[LANES] = {0};
    memcpy(rest, x + i, (count - i) * sizeof(float));
    for (int k = 0; k < VECTORS; k++) {
      vec y = load(rest + k * WIDTH);
      sums[k] += y * y;
    }
    float lanes[LANES];
    memcpy(lanes, sums, sizeof lanes);
    for (int half = LANES / 2; half > 0; half /= 2)
      for (int k = 0; k < half; k++) lanes[k] += lanes[k + half];
    total += lanes[0];
  }
  return total;
}

#ifndef OPTIM_QUANTISE
#define OPTIM_QUANTISE
static inline uint8_t quantise(const optim_codebook *b, float x, int nearest) {
  if (!nearest) {
    int i = (int)((x + 1.0f) * 32768.0f);
    return b->cells[i < 0 ? 0 : i > 65535 ? 65535 : i];
  }
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  uint8_t code = b->cells[bits >> 16];
  while (x > b->midpoints[code]) code++;
  return code;
}
#endif

static TARGET void NAME(adamw8)(float *p, const float *g, size_t n, uint8_t *mc, uint8_t *vc, float *ms, float *vs,
                                const optim_codebook *mb, const optim_codebook *vb, const optim_adamw_scalars *s,
                                int nearest) {
  float m[OPTIM_BLOCK], v[OPTIM_BLOCK];
  for (size_t block = 0; block * OPTIM_BLOCK < n; block++) {
    size_t from = block * OPTIM_BLOCK;
    size_t count = n - from < OPTIM_BLOCK ? n - from : OPTIM_BLOCK;
    for (size_t i = 0; i < count; i++) {
      m[i] = mb->values[mc[from + i]] * ms[block];
      v[i] = vb->values[vc[from + i]] * vs[block];
    }
    // The parameters move by the new state as it is before it is rounded.
    NAME(adamw)(p + from, m, v, g + from, count, s);

    float m_max = 0, v_max = 0;
    for (size_t i = 0; i < count; i++) {
      float a = m[i] < 0 ? -m[i] : m[i];
      m_max = a > m_max ? a : m_max;
      v_max = v[i] > v_max ? v[i] : v_max;
    }
    ms[block] = m_max;
    vs[block] = v_max;
    for (size_t i = 0; i < count; i++) {
      uint8_t code = 0;
      if (m_max > 0) {
        code = quantise(mb, m[i] / m_max, nearest);
        if (nearest && (mb->values[code] < 0) != (m[i] < 0)) code = m[i] > 0 ? code + 1 : code - 1;
      }
      mc[from + i] = code;
      vc[from + i] = v_max > 0 ? quantise(vb, v[i] / v_max, nearest) : 0;
    }
  }
}

#undef vec
#undef load
#undef store
#undef update
