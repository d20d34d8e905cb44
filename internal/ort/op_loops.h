// The inner loops of the operators, for one vector width (see vector.h).

#include "vector.h"

#define gelu_slope NAME(gelu_slope)

// The derivative of GELU, Φ(x) + x·φ(x), with the normal distribution Φ and its
// density φ. Both come from one exponential: with z = |x|/√2,
// Φ(-|x|) = ½·exp(-z²)·erfcx(z), and erfcx(z) = exp(z²)·erfc(z) = t·Q(t - ½) with
// t = 1/(1 + z/2). Q, of degree 8, was fitted for the smallest relative error on
// 0 ≤ z ≤ 10, which is 4e-8. (Around ½ it is evaluated with little cancellation.)
static inline TARGET vec gelu_slope(vec x) {
  const vec zero = {0};
  ivec negative = x < zero;
  vec size = (vec)((ivec)x & 0x7fffffff);
  vec e = exp_of(x * x * -0.5f);
  vec t = 1.0f / (1.0f + size * (0.5f * 0.70710678118f));
  vec u = t - 0.5f;
  vec q = zero + -0.0590690971f;
  q = q * u + 0.0482992195f;
  q = q * u + 0.0953297690f;
  q = q * u + -0.1029967116f;
  q = q * u + -0.1718686223f;
  q = q * u + 0.1457407475f;
  q = q * u + 0.5589392781f;
  q = q * u + 0.6871609688f;
  q = q * u + 0.5107913613f;
  vec tail = 0.5f * e * t * q; // Φ(-|x|)
  vec cdf = (vec)((negative & (ivec)tail) | (~negative & (ivec)(1.0f - tail)));
  return cdf + x * e * 0.39894228040f;
}

static TARGET void NAME(gelu_grad)(const float *dy, const float *x, float *dx, size_t n) {
  size_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) store(dx + i, load(dy + i) * gelu_slope(load(x + i)));
  if (i == n) return;
  float g[WIDTH] = {0}, v[WIDTH] = {0};
  memcpy(g, dy + i, (n - i) * sizeof(float));
  memcpy(v, x + i, (n - i) * sizeof(float));
  store(g, load(g) * gelu_slope(load(v)));
  memcpy(dx + i, g, (n - i) * sizeof(float));
}

// What is dropped becomes 0 whatever it was. x and y may be the same memory.
static TARGET void NAME(dropout_mask)(const float *x, const uint8_t *mask, float scale, float *y, size_t n) {
  typedef uint8_t bytes __attribute__((vector_size(WIDTH)));
  size_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) {
    bytes b;
    memcpy(&b, mask + i, sizeof b);
    ivec keep = __builtin_convertvector(b, ivec) != 0;
    store(y + i, (vec)(keep & (ivec)(load(x + i) * scale)));
  }
  for (; i < n; i++) y[i] = mask[i] ? x[i] * scale : 0.0f;
}

// One row: dx = y·(dy - Σ dy·y). dy and dx may be the same memory.
static TARGET void NAME(softmax_grad)(const float *dy, const float *y, float *dx, size_t n) {
  vec sums[VECTORS] = {0};
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int k = 0; k < VECTORS; k++) sums[k] += load(dy + i + k * WIDTH) * load(y + i + k * WIDTH);
  float g[LANES] = {0}, p[LANES] = {0};
  memcpy(g, dy + i, (n - i) * sizeof(float));
  memcpy(p, y + i, (n - i) * sizeof(float));
  for (int k = 0; k < VECTORS; k++) sums[k] += load(g + k * WIDTH) * load(p + k * WIDTH);
  float sum = fold(sums);
#pragma GCC ivdep
  for (i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - sum);
}

// One row of the gradient of a layer normalization, with u = dy·w and
// x̂ = (x - mean)/σ: dx = (u - mean(u) - x̂·mean(u·x̂))/σ; dw += dy·x̂; db += dy.
static TARGET void NAME(layer_norm_grad)(const float *dy, const float *x, const float *w, float mean, float inv_std,
                                         float *dx, float *dw, float *db, size_t d) {
  vec s1[VECTORS] = {0}, s2[VECTORS] = {0};
  size_t i = 0;
  for (; i + LANES <= d; i += LANES)
    for (int k = 0; k < VECTORS; k++) {
      size_t j = i + k * WIDTH;
      vec g = load(dy + j), normal = (load(x + j) - mean) * inv_std, u = g * load(w + j);
      s1[k] += u;
      s2[k] += u * normal;
      store(dw + j, load(dw + j) + g * normal);
      store(db + j, load(db + j) + g);
    }
  if (i < d) {
    float u[LANES] = {0}, v[LANES] = {0};
    for (size_t j = i; j < d; j++) {
      float normal = (x[j] - mean) * inv_std;
      u[j - i] = dy[j] * w[j];
      v[j - i] = u[j - i] * normal;
      dw[j] += dy[j] * normal;
      db[j] += dy[j];
    }
    for (int k = 0; k < VECTORS; k++) {
      s1[k] += load(u + k * WIDTH);
      s2[k] += load(v + k * WIDTH);
    }
  }
  float m1 = fold(s1) / (float)d, m2 = fold(s2) / (float)d;
#pragma GCC ivdep
  for (i = 0; i < d; i++) {
    float normal = (x[i] - mean) * inv_std;
    dx[i] = inv_std * (dy[i] * w[i] - m1 - normal * m2);
  }
}

#undef gelu_slope
#undef vec
#undef ivec
#undef load
#undef store
#undef fold
#undef exp_of
#undef VECTORS
