// Vectors of floats in the width that the including file asks for (WIDTH,
// TARGET, NAME). Included once per width; therefore without include guard.
//
// Sums always run over LANES partial sums and are folded in one order, whatever
// the width, and products are not contracted into sums (-std=c11), so every
// width gives the same bits.

#define vec NAME(vec)
#define ivec NAME(ivec)
#define load NAME(load)
#define store NAME(store)
#define fold NAME(fold)
#define exp_of NAME(exp_of)

typedef float vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH)));

#ifndef LANES
#define LANES 32
#endif
#define VECTORS (LANES / WIDTH)

static inline TARGET vec load(const float *p) {
  vec x;
  memcpy(&x, p, sizeof x);
  return x;
}

static inline TARGET void store(float *p, vec x) { memcpy(p, &x, sizeof x); }

static inline TARGET float fold(const vec *sums) {
  vec v[VECTORS];
  memcpy(v, sums, sizeof v);
  for (int half = VECTORS / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) v[i] += v[i + half];
  float lanes[WIDTH];
  store(lanes, v[0]);
  for (int half = WIDTH / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}

// eˣ for x ≤ 0, to 1e-7 of the result; below -87 it stays at e⁻⁸⁷. With
// n = round(x/ln 2) and r = x - n·ln 2 it is 2ⁿ·eʳ, where eʳ is the Taylor
// polynomial of degree 7 on |r| ≤ ln(2)/2.
static inline TARGET vec exp_of(vec x) {
  const vec zero = {0};
  ivec low = x < zero - 87.0f;
  x = (vec)((low & (ivec)(zero - 87.0f)) | (~low & (ivec)x));
  // Adding 1.5·2²³ leaves no bits for a fraction: the sum is rounded to nearest.
  vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f; // ln 2 in two parts
  vec p = zero + 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  ivec exponent = (__builtin_convertvector(n, ivec) + 127) << 23;
  return p * (vec)exponent;
}
