// The inner loops of attention, for one vector width (see vector.h). Rows are
// padded to a multiple of LANES where a length n is said to be one.

#include "vector.h"

#include "op_dropout_loops.h"

#if WIDTH == 8
// Transposes eight vectors of eight.
typedef float tile_row __attribute__((vector_size(4 * TILE)));
static inline TARGET void transpose(tile_row *rows) {
  __m256 a[TILE], b[TILE];
  for (int i = 0; i < TILE; i += 2) {
    a[i] = _mm256_unpacklo_ps((__m256)rows[i], (__m256)rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps((__m256)rows[i], (__m256)rows[i + 1]);
  }
  for (int i = 0; i < TILE; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], _MM_SHUFFLE(1, 0, 1, 0));
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], _MM_SHUFFLE(3, 2, 3, 2));
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], _MM_SHUFFLE(1, 0, 1, 0));
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], _MM_SHUFFLE(3, 2, 3, 2));
  }
  for (int i = 0; i < TILE / 2; i++) {
    rows[i] = (tile_row)_mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    rows[i + 4] = (tile_row)_mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}
#endif

// One row of scores → probabilities, in place: softmax of x + bias. n is a
// multiple of LANES; a bias far below all scores makes an exact 0.
static TARGET void NAME(softmax)(float *x, const float *bias, size_t n) {
  vec top[VECTORS];
  for (int k = 0; k < VECTORS; k++) top[k] = (vec){0} - 3.4e38f;
  for (size_t i = 0; i < n; i += LANES)
    for (int k = 0; k < VECTORS; k++) {
      size_t j = i + k * WIDTH;
      vec v = load(x + j) + load(bias + j);
      store(x + j, v);
      ivec more = v > top[k];
      top[k] = (vec)((more & (ivec)v) | (~more & (ivec)top[k]));
    }
  float lanes[LANES], max;
  memcpy(lanes, top, sizeof lanes);
  max = lanes[0];
  for (int k = 1; k < LANES; k++) max = lanes[k] > max ? lanes[k] : max;
  vec sums[VECTORS] = {0};
  for (size_t i = 0; i < n; i += LANES)
    for (int k = 0; k < VECTORS; k++) {
      size_t j = i + k * WIDTH;
      vec v = load(x + j) - max;
      ivec some = v > -87.0f; // exp_of never falls below e⁻⁸⁷
      v = (vec)(some & (ivec)exp_of(v));
      store(x + j, v);
      sums[k] += v;
    }
  float share = 1.0f / fold(sums);
  for (size_t i = 0; i < n; i += WIDTH) store(x + i, load(x + i) * share);
}

// y ← mask ? x·scale : 0. x and y may be the same memory.
static TARGET void NAME(drop)(const float *x, const uint8_t *mask, float scale, float *y, size_t n) {
  typedef uint8_t bytes __attribute__((vector_size(WIDTH)));
  for (size_t i = 0; i < n; i += WIDTH) {
    bytes b;
    memcpy(&b, mask + i, sizeof b);
    ivec keep = __builtin_convertvector(b, ivec) != 0;
    store(y + i, (vec)(keep & (ivec)(load(x + i) * scale)));
  }
}

// One row of the gradient of a softmax with probabilities p, times a factor:
// dx ← factor·p·(dx - Σ dx·p). n is a multiple of LANES.
static TARGET void NAME(softmax_slope)(float *dx, const float *p, float factor, size_t n) {
  vec sums[VECTORS] = {0};
  for (size_t i = 0; i < n; i += LANES)
    for (int k = 0; k < VECTORS; k++) sums[k] += load(dx + i + k * WIDTH) * load(p + i + k * WIDTH);
  float sum = fold(sums);
  for (size_t i = 0; i < n; i += WIDTH) store(dx + i, load(p + i) * factor * (load(dx + i) - sum));
}

// y[j] += x[index[t+j]] for from ≤ j < to, or = with first. Up to seven elements
// behind the ones that are meant are read of x.
static inline TARGET void NAME(expand_far)(float *y, const float *x, const int32_t *index, int first, size_t from,
                                           size_t to) {
  size_t j = from;
#if WIDTH == 8
  // The index rises by at most 1: eight positions find their rows among eight.
  for (; j + WIDTH <= to; j += WIDTH) {
    ivec at;
    memcpy(&at, index + j, sizeof at);
    vec far = (vec)_mm256_permutevar8x32_ps((__m256)load(x + index[j]), (__m256i)(at - index[j]));
    store(y + j, first ? far : load(y + j) + far);
  }
#endif
  for (; j < to; j++) y[j] = first ? x[index[j]] : y[j] + x[index[j]];
}

// y[j] += x[index[t+j]] for j < n, or = with first: products with the used
// relative positions become products with the key at each position.
static inline TARGET void NAME(expand)(float *y, const float *x, const position_map *map, int first, size_t t,
                                       size_t n) {
  size_t a = map->from > t ? ops_min(map->from - t, n) : 0, b = map->to > t ? ops_min(map->to - t, n) : 0;
  if (b < a) b = a;
  const int32_t *index = map->index + t;
  NAME(expand_far)(y, x, index, first, 0, a);
  if (a < b) {
    const float *straight = x + index[a] - a;
    size_t j = a;
    for (; j + WIDTH <= b; j += WIDTH) store(y + j, first ? load(straight + j) : load(y + j) + load(straight + j));
    for (; j < b; j++) y[j] = first ? straight[j] : y[j] + straight[j];
  }
  NAME(expand_far)(y, x, index, first, b, n);
}

// x[index[t+j]] += y[j] for j < n, the transpose of expand.
static TARGET void NAME(collapse)(float *x, const float *y, const position_map *map, size_t t, size_t n) {
  size_t a = map->from > t ? ops_min(map->from - t, n) : 0, b = map->to > t ? ops_min(map->to - t, n) : 0;
  if (b < a) b = a;
  const int32_t *index = map->index + t;
  size_t j = 0;
  while (j < a) { // far positions share a bucket
    int32_t bucket = index[j];
    float sum = 0;
    do sum += y[j++];
    while (j < a && index[j] == bucket);
    x[bucket] += sum;
  }
  if (a < b) {
    float *straight = x + index[a] - a;
    for (; j + WIDTH <= b; j += WIDTH) store(straight + j, load(straight + j) + load(y + j));
    for (; j < b; j++) straight[j] += y[j];
  }
  while (j < n) {
    int32_t bucket = index[j];
    float sum = 0;
    do sum += y[j++];
    while (j < n && index[j] == bucket);
    x[bucket] += sum;
  }
}

// The rows of a tile [TILE, n] are added to the columns of x: x[i, j] += tile[j, i].
static TARGET void NAME(add_columns)(float *x, const float *tile, size_t ld, size_t n) {
  size_t i = 0;
#if WIDTH == 8
  for (; i + TILE <= n; i += TILE) {
    vec rows[TILE];
    for (int j = 0; j < TILE; j++) rows[j] = load(tile + j * ld + i);
    transpose(rows);
    for (int j = 0; j < TILE; j++) store(x + (i + j) * ld, load(x + (i + j) * ld) + rows[j]);
  }
#endif
  for (; i < n; i++)
    for (int j = 0; j < TILE; j++) x[i * ld + j] += tile[j * ld + i];
}

// The columns of x become the rows of a tile [TILE, n]: tile[j, i] = x[i, j].
static TARGET void NAME(take_columns)(float *tile, const float *x, size_t ld, size_t n) {
  size_t i = 0;
#if WIDTH == 8
  for (; i + TILE <= n; i += TILE) {
    vec rows[TILE];
    for (int j = 0; j < TILE; j++) rows[j] = load(x + (i + j) * ld);
    transpose(rows);
    for (int j = 0; j < TILE; j++) store(tile + j * ld + i, rows[j]);
  }
#endif
  for (; i < n; i++)
    for (int j = 0; j < TILE; j++) tile[j * ld + i] = x[i * ld + j];
}

#undef vec
#undef ivec
#undef load
#undef store
#undef fold
#undef exp_of
#undef VECTORS
