// Dropout that draws what it keeps, for one vector width; after vector.h.
//
// Element e is decided by bits 16·(e mod 4) … of the output of SplitMix64 for the
// state start + (e/4+1)·golden: it is kept if they are, as a number, not below the
// threshold. It is the formula of internal/dropout.

#ifndef CRITERIA_ORT_SPLITMIX
#define CRITERIA_ORT_SPLITMIX
#define GOLDEN 0x9e3779b97f4a7c15u
#define MIX1 0xbf58476d1ce4e5b9u
#define MIX2 0x94d049bb133111ebu
static inline uint64_t splitmix(uint64_t z) {
  z = (z ^ z >> 30) * MIX1;
  z = (z ^ z >> 27) * MIX2;
  return z ^ z >> 31;
}
#endif

// y ← what is kept of n elements of x from element e on, times scale, and 0 else.
// x and y may be the same memory.
static TARGET void NAME(draw)(const float *x, uint64_t start, size_t e, uint32_t threshold, float scale, float *y,
                              size_t n) {
  typedef uint64_t words __attribute__((vector_size(4 * WIDTH)));
  typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));
  enum { WORDS = WIDTH / 2 };
  uint64_t state = start + e / 4 * GOLDEN;
  size_t i = 0;
  if (e % 4 && n > 0) {
    uint64_t z = splitmix(state += GOLDEN) >> 16 * (e % 4);
    for (size_t k = e % 4; k < 4 && i < n; k++, i++, z >>= 16) y[i] = (z & 0xffff) >= threshold ? x[i] * scale : 0.0f;
  }
  words ahead;
  for (int k = 0; k < WORDS; k++) ahead[k] = (uint64_t)(k + 1) * GOLDEN;
  for (; i + 2 * WIDTH <= n; i += 2 * WIDTH) {
    words z = state + ahead;
    z = (z ^ z >> 30) * MIX1;
    z = (z ^ z >> 27) * MIX2;
    z ^= z >> 31;
    halves half[2];
    memcpy(half, &z, sizeof half);
    for (int k = 0; k < 2; k++) {
      ivec keep = __builtin_convertvector(half[k], ivec) >= (int32_t)threshold;
      store(y + i + k * WIDTH, (vec)(keep & (ivec)(load(x + i + k * WIDTH) * scale)));
    }
    state += WORDS * GOLDEN;
  }
  while (i < n) {
    uint64_t z = splitmix(state += GOLDEN);
    for (int k = 0; k < 4 && i < n; k++, i++, z >>= 16) y[i] = (z & 0xffff) >= threshold ? x[i] * scale : 0.0f;
  }
}
