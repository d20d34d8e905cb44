// Attention(x, positions, tokens, index[, mask]; heads, scale, keep) → context
// AttentionProbs(the same) → context, probs
// AttentionGrad(dcontext, x, positions, probs, tokens, index[, mask]; …) → dx, dpositions
//
// Disentangled attention: with the relative position r = i - j of a query i and
// a key j, and the row index[r + L-1] of positions that stands for it,
//
//   scores[i, j] = scale·(q_i·k_j + q_i·pk[r] + k_j·pq[r])
//   probs = softmax(scores) over the keys with a token,  context = dropout(probs)·v
//
// A row of x [B·L, 3·D] has q, k and v, a row of positions [R, 2·D] pq and pk,
// each of D = heads·d elements, as one product with their weights yields them;
// context is [B·L, D]; tokens [B·L, 1], 1 for a token and 0 for padding; index
// int64 [2L-1], rising; mask bool and probs [heads, B, L, L]. What probs has in
// rows and columns of padding at the end of a sequence is left undefined, and the
// context of such rows is 0: nothing reads it.
//
// One task is one head: its matrices stay in the core's cache, nothing is
// transposed or copied in memory, and each used relative position is multiplied
// once, not once for each pair of positions that falls into its bucket.

#include "blas.h"
#include "ops.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

// Where each relative position finds its row; rows of positions from … to-1
// follow one another.
typedef struct {
  int32_t *index;
  size_t from, to;
} position_map;

enum { TILE = 8 }; // keys whose columns are turned into rows together

#ifdef __x86_64__
#include <immintrin.h>

#define WIDTH 8
#define TARGET __attribute__((target("avx2")))
#define NAME(f) f##_avx2

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

#include "op_attention_loops.h"
#undef WIDTH
#undef TARGET
#undef NAME
#endif

#define WIDTH 4
#define TARGET
#define NAME(f) f##_base
#include "op_attention_loops.h"

#ifdef __x86_64__
#define CHOOSE(f, args) (__builtin_cpu_supports("avx2") ? f##_avx2 args : f##_base args)
#else
#define CHOOSE(f, args) f##_base args
#endif

// --- scratch memory of a thread, kept until the thread ends ---------------------------

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static void make_scratch_key(void) { pthread_key_create(&scratch_key, free); }

typedef struct {
  size_t size;
  float data[];
} scratch_block;

static float *scratch(size_t n) {
  pthread_once(&scratch_once, make_scratch_key);
  scratch_block *have = pthread_getspecific(scratch_key);
  if (have && have->size >= n) return have->data;
  free(have);
  have = malloc(sizeof *have + n * sizeof(float));
  if (have) have->size = n;
  pthread_setspecific(scratch_key, have);
  return have ? have->data : NULL;
}

// --- arguments ------------------------------------------------------------------------

typedef struct {
  const float *x, *positions, *tokens, *dcontext, *saved;
  const uint8_t *mask;
  float *context, *probs;
  float *dx, *dpositions; // dpositions: [groups, R, 2·D]
  size_t batch, l, d, heads, size, r, ld, ldr, groups;
  float scale, keep;
  position_map up, down; // rows in rising and falling order of the relative position
  size_t *filled;        // per sequence, up to and including its last token
  int failed;
  blas_product *scores, *by_position, *apply, *slope_v, *slope_p, *slope_q, *slope_rows, *slope_positions;
} attention_args;

static size_t padded(size_t n) { return (n + LANES - 1) / LANES * LANES; }

static OrtStatus *read_attributes(const void *info, ops_attributes *a) {
  if (!blas_loaded()) return ops_fail("criteria.Attention: no BLAS is loaded");
  TRY(ops_int_attribute(info, "heads", &a->heads));
  TRY(ops_float_attribute(info, "scale", &a->scale));
  return ops_float_attribute(info, "keep", &a->keep);
}

// Reads what both operators have; first is the place of x among the inputs,
// second that of tokens.
static OrtStatus *read_inputs(attention_args *w, const ops_attributes *a, void *context, size_t first, size_t second,
                              ops_shape *rows, ops_shape *positions) {
  ops_shape tokens, index, mask;
  const int64_t *table;
  TRY(ops_input(context, first, (const void **)&w->x, rows));
  TRY(ops_input(context, first + 1, (const void **)&w->positions, positions));
  if (rows->rank != 2 || positions->rank != 2 || rows->dims[1] % 3 ||
      positions->dims[1] != rows->dims[1] / 3 * 2)
    return ops_fail("criteria.Attention: x [.., 3·D] and positions [.., 2·D] do not fit");
  TRY(ops_input(context, second, (const void **)&w->tokens, &tokens));
  TRY(ops_input(context, second + 1, (const void **)&table, &index));
  TRY(ops_input(context, second + 2, (const void **)&w->mask, &mask));
  w->l = (ops_elements(&index) + 1) / 2;
  w->d = (size_t)rows->dims[1] / 3;
  w->r = (size_t)positions->dims[0];
  w->heads = (size_t)a->heads;
  w->scale = a->scale;
  w->keep = a->keep;
  if (w->l == 0 || (size_t)rows->dims[0] % w->l || w->heads == 0 || w->d % w->heads || w->r == 0 ||
      ops_elements(&tokens) != (size_t)rows->dims[0])
    return ops_fail("criteria.Attention: x, tokens, index and heads do not fit");
  w->batch = (size_t)rows->dims[0] / w->l;
  w->size = w->d / w->heads;
  w->ld = padded(w->l);
  w->ldr = padded(w->r);
  if (w->mask && ops_elements(&mask) != w->heads * w->batch * w->l * w->l)
    return ops_fail("criteria.Attention: the mask does not fit");

  size_t n = 2 * w->l - 1;
  w->up.index = malloc(2 * n * sizeof *w->up.index + w->batch * sizeof *w->filled);
  if (!w->up.index) return ops_fail("criteria.Attention: out of memory");
  w->filled = (size_t *)(w->up.index + 2 * n);
  w->down.index = w->up.index + n;
  for (size_t i = 0; i < n; i++) {
    if (table[i] < 0 || table[i] >= (int64_t)w->r) return ops_fail("criteria.Attention: index out of range");
    if (i > 0 && table[i] != table[i - 1] && table[i] != table[i - 1] + 1)
      return ops_fail("criteria.Attention: index must rise by 0 or 1");
    w->up.index[i] = (int32_t)table[i];
    w->down.index[n - 1 - i] = (int32_t)(w->r - 1) - (int32_t)table[i];
  }
  // The straight part around the relative position 0.
  for (size_t i = 0; i < 2; i++) {
    position_map *m = i ? &w->down : &w->up;
    m->from = m->to = w->l - 1;
    while (m->from > 0 && m->index[m->from] == m->index[m->from - 1] + 1) m->from--;
    while (m->to + 1 < n && m->index[m->to + 1] == m->index[m->to] + 1) m->to++;
    m->to++;
  }
  for (size_t b = 0; b < w->batch; b++) {
    size_t last = w->l;
    while (last > 1 && w->tokens[b * w->l + last - 1] == 0) last--;
    w->filled[b] = last;
  }
  return NULL;
}

// Copies the rows of one head of pq, or of pk in falling order.
static void take_pq(const attention_args *w, size_t head, float *y) {
  for (size_t i = 0; i < w->r; i++)
    memcpy(y + i * w->size, w->positions + i * 2 * w->d + head * w->size, w->size * sizeof *y);
}
static void take_pk(const attention_args *w, size_t head, float *y) {
  for (size_t i = 0; i < w->r; i++)
    memcpy(y + i * w->size, w->positions + (w->r - 1 - i) * 2 * w->d + w->d + head * w->size, w->size * sizeof *y);
}

// Softmax without a token has something to attend to all the same: all keys.
static void key_bias(const attention_args *w, size_t b, float *bias) {
  size_t n = w->filled[b], padded_n = padded(n);
  for (size_t j = 0; j < padded_n; j++)
    bias[j] = j >= n ? -3e38f : w->tokens[b * w->l + j] != 0 ? 0 : -1e30f;
}

// --- forward ------------------------------------------------------------------------------

static void forward(attention_args *w, size_t head, size_t b, float *memory) {
  size_t l = w->l, d = w->d, size = w->size, ld = w->ld, ldr = w->ldr, n = w->filled[b], wide = padded(n);
  size_t ldx = 3 * d;
  float *s = memory, *p = s + l * ld, *rows = p + l * ldr, *tile = rows + w->r * size, *bias = tile + TILE * ld;
  uint8_t *keep = (uint8_t *)(bias + ld);
  size_t at = b * l * d + head * size;
  const float *q = w->x + b * l * ldx + head * size, *k = q + d, *v = k + d;

  blas_gemm(w->scores, 0, 1, n, n, size, w->scale, q, ldx, k, ldx, 0, s, ld);
  // From position to content first: its columns are turned into rows.
  take_pq(w, head, rows);
  blas_gemm(w->by_position, 0, 1, n, w->r, size, w->scale, k, ldx, rows, size, 0, p, ldr);
  for (size_t j0 = 0; j0 < n; j0 += TILE) {
    for (size_t j = j0; j < ops_min(j0 + TILE, n); j++)
      CHOOSE(expand, (tile + (j - j0) * ld, p + j * ldr, &w->up, 1, l - 1 - j, n));
    CHOOSE(add_columns, (s + j0, tile, ld, n)); // columns from n on are not used
  }
  take_pk(w, head, rows);
  blas_gemm(w->by_position, 0, 1, n, w->r, size, w->scale, q, ldx, rows, size, 0, p, ldr);

  key_bias(w, b, bias);
  memset(keep, 0, ld);
  size_t place = (head * w->batch + b) * l * l;
  for (size_t i = 0; i < n; i++) {
    float *row = s + i * ld;
    CHOOSE(expand, (row, p + i * ldr, &w->down, 0, l - 1 - i, n));
    for (size_t j = n; j < wide; j++) row[j] = 0;
    CHOOSE(softmax, (row, bias, wide));
    if (w->probs) memcpy(w->probs + place + i * l, row, n * sizeof *row);
    if (w->mask) {
      memcpy(keep, w->mask + place + i * l, n);
      CHOOSE(drop, (row, keep, w->keep, row, wide));
    }
  }
  blas_gemm(w->apply, 0, 0, n, size, n, 1, s, ld, v, ldx, 0, w->context + at, d);
  for (size_t i = n; i < l; i++) memset(w->context + at + i * d, 0, size * sizeof *w->context);
}

static size_t scratch_size(const attention_args *w) {
  return 2 * w->l * w->ld + 2 * w->l * w->ldr + 4 * w->r * w->size + TILE * w->ld + 4 * w->ld;
}

static void forward_task(void *arg, size_t i) {
  attention_args *w = arg;
  float *memory = scratch(scratch_size(w));
  if (!memory)
    __atomic_store_n(&w->failed, 1, __ATOMIC_RELAXED);
  else
    forward(w, i / w->batch, i % w->batch, memory);
}

static OrtStatus *finish(attention_args *w, OrtStatus *status) {
  free(w->up.index);
  if (!status && w->failed) return ops_fail("criteria.Attention: out of memory");
  return status;
}

static OrtStatus *run_forward(attention_args *w, const ops_attributes *a, void *context, int with_probs) {
  ops_shape rows, positions;
  TRY(read_inputs(w, a, context, 0, 2, &rows, &positions));
  ops_shape probs = {4, {a->heads, (int64_t)w->batch, (int64_t)w->l, (int64_t)w->l}};
  ops_shape out = {2, {rows.dims[0], (int64_t)w->d}};
  TRY(ops_output(context, 0, &out, &w->context));
  if (with_probs) TRY(ops_output(context, 1, &probs, &w->probs));
  size_t n = w->l, count = w->heads * w->batch;
  w->scores = blas_kind(0, 1, n, n, w->size, count);
  w->by_position = blas_kind(0, 1, n, w->r, w->size, 2 * count);
  w->apply = blas_kind(0, 0, n, w->size, n, count);
  return ops_parallel(context, forward_task, count, w);
}

static OrtStatus *attention(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return finish(&w, run_forward(&w, a, context, 0));
}

static OrtStatus *attention_probs(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return finish(&w, run_forward(&w, a, context, 1));
}

// --- backward -----------------------------------------------------------------------------

static void backward(attention_args *w, size_t head, size_t b, int first, float *memory) {
  size_t l = w->l, d = w->d, size = w->size, ld = w->ld, ldr = w->ldr, n = w->filled[b], wide = padded(n);
  size_t ldx = 3 * d;
  float *ds = memory, *dropped = ds + l * ld, *dp = dropped + l * ld;
  float *up = dp + l * ldr, *down = up + w->r * size, *dup = down + w->r * size, *ddown = dup + w->r * size;
  float *tile = ddown + w->r * size, *row = tile + TILE * ld;
  uint8_t *keep = (uint8_t *)(row + ld);
  size_t at = b * l * ldx + head * size, place = (head * w->batch + b) * l * l;
  const float *q = w->x + at, *k = q + d, *v = k + d, *dc = w->dcontext + b * l * d + head * size;
  float *dq = w->dx + at, *dk = dq + d, *dv = dk + d;

  blas_gemm(w->slope_p, 0, 1, n, n, size, 1, dc, d, v, ldx, 0, ds, ld);
  memset(row, 0, ld * sizeof *row);
  memset(keep, 0, ld);
  for (size_t i = 0; i < n; i++) {
    float *slope = ds + i * ld, *kept = dropped + i * ld;
    memcpy(row, w->saved + place + i * l, n * sizeof *row);
    for (size_t j = n; j < wide; j++) slope[j] = 0;
    if (w->mask) {
      memcpy(keep, w->mask + place + i * l, n);
      CHOOSE(drop, (row, keep, w->keep, kept, wide));
      CHOOSE(drop, (slope, keep, w->keep, slope, wide));
    } else {
      memcpy(kept, row, wide * sizeof *row);
    }
    CHOOSE(softmax_slope, (slope, row, w->scale, wide));
    memset(dp + i * ldr, 0, ldr * sizeof *dp);
    CHOOSE(collapse, (dp + i * ldr, slope, &w->down, l - 1 - i, n));
  }
  blas_gemm(w->slope_v, 1, 0, n, size, n, 1, dropped, ld, dc, d, 0, dv, ldx);
  blas_gemm(w->slope_q, 0, 0, n, size, n, 1, ds, ld, k, ldx, 0, dq, ldx);
  blas_gemm(w->slope_v, 1, 0, n, size, n, 1, ds, ld, q, ldx, 0, dk, ldx);

  // From content to position.
  blas_gemm(w->slope_rows, 0, 0, n, size, w->r, 1, dp, ldr, down, size, 1, dq, ldx);
  blas_gemm(w->slope_positions, 1, 0, w->r, size, n, 1, dp, ldr, q, ldx, first ? 0 : 1, ddown, size);

  // From position to content: columns are turned into rows.
  for (size_t j0 = 0; j0 < n; j0 += TILE) {
    CHOOSE(take_columns, (tile, ds + j0, ld, n));
    for (size_t j = j0; j < ops_min(j0 + TILE, n); j++) {
      memset(dp + j * ldr, 0, ldr * sizeof *dp);
      CHOOSE(collapse, (dp + j * ldr, tile + (j - j0) * ld, &w->up, l - 1 - j, n));
    }
  }
  blas_gemm(w->slope_rows, 0, 0, n, size, w->r, 1, dp, ldr, up, size, 1, dk, ldx);
  blas_gemm(w->slope_positions, 1, 0, w->r, size, n, 1, dp, ldr, k, ldx, first ? 0 : 1, dup, size);

  for (size_t o = 0; o < 3; o++)
    for (size_t i = n; i < l; i++) memset(dq + o * d + i * ldx, 0, size * sizeof *dq);
}

// A task is one head for a group of sequences: it alone adds to its part of
// dpositions.
static void backward_task(void *arg, size_t task) {
  attention_args *w = arg;
  float *memory = scratch(scratch_size(w));
  if (!memory) {
    __atomic_store_n(&w->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  size_t head = task / w->groups, group = task % w->groups, size = w->size, d = w->d;
  size_t each = ops_tasks(w->batch, w->groups), end = ops_min((group + 1) * each, w->batch);
  float *up = memory + 2 * w->l * w->ld + w->l * w->ldr, *down = up + w->r * size;
  float *dup = down + w->r * size, *ddown = dup + w->r * size;
  take_pq(w, head, up);
  take_pk(w, head, down);
  memset(dup, 0, 2 * w->r * size * sizeof *dup);
  for (size_t b = group * each; b < end; b++) backward(w, head, b, b == group * each, memory);
  float *dpq = w->dpositions + group * w->r * 2 * d + head * size, *dpk = dpq + d;
  for (size_t i = 0; i < w->r; i++) {
    memcpy(dpq + i * 2 * d, dup + i * size, size * sizeof *dup);
    memcpy(dpk + i * 2 * d, ddown + (w->r - 1 - i) * size, size * sizeof *dup);
  }
}

static OrtStatus *run_backward(attention_args *w, const ops_attributes *a, void *context, float **partial) {
  ops_shape rows, positions, s;
  TRY(read_inputs(w, a, context, 1, 4, &rows, &positions));
  TRY(ops_input(context, 0, (const void **)&w->dcontext, &s));
  if (s.rank != 2 || s.dims[0] != rows.dims[0] || (size_t)s.dims[1] != w->d)
    return ops_fail("criteria.AttentionGrad: dcontext and x do not fit");
  TRY(ops_input(context, 3, (const void **)&w->saved, &s));
  if (ops_elements(&s) != w->heads * w->batch * w->l * w->l)
    return ops_fail("criteria.AttentionGrad: probs does not fit");
  float *dpositions;
  TRY(ops_output(context, 0, &rows, &w->dx));
  TRY(ops_output(context, 1, &positions, &dpositions));
  // As many groups as give every core of the machine two tasks: the order of
  // sums must not depend on the threads in use.
  w->groups = ops_min(w->batch, ops_tasks(2 * blas_cores(), w->heads));
  size_t area = w->r * 2 * w->d;
  w->dpositions = dpositions;
  if (w->groups > 1) {
    *partial = malloc(w->groups * area * sizeof **partial);
    if (!*partial) return ops_fail("criteria.AttentionGrad: out of memory");
    w->dpositions = *partial;
  }
  size_t n = w->l, count = w->heads * w->batch;
  w->slope_p = blas_kind(0, 1, n, n, w->size, count);
  w->slope_v = blas_kind(1, 0, n, w->size, n, 2 * count);
  w->slope_q = blas_kind(0, 0, n, w->size, n, count);
  w->slope_rows = blas_kind(0, 0, n, w->size, w->r, 2 * count);
  w->slope_positions = blas_kind(1, 0, w->r, w->size, n, 2 * count);
  TRY(ops_parallel(context, backward_task, w->heads * w->groups, w));
  if (w->groups > 1) {
    memcpy(dpositions, w->dpositions, area * sizeof *dpositions);
    for (size_t g = 1; g < w->groups; g++)
      for (size_t i = 0; i < area; i++) dpositions[i] += w->dpositions[g * area + i];
  }
  return NULL;
}

static OrtStatus *attention_grad(const ops_attributes *a, void *context) {
  attention_args w = {0};
  float *partial = NULL;
  OrtStatus *status = finish(&w, run_backward(&w, a, context, &partial));
  free(partial);
  return status;
}

// --- shapes -------------------------------------------------------------------------------

static OrtStatus *attention_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  if (in[0].rank != 2) return ops_fail("criteria.Attention: x must be a matrix");
  out[0] = (ops_shape){2, {in[0].dims[0], in[0].dims[1] < 0 ? -1 : in[0].dims[1] / 3}};
  return NULL;
}

static OrtStatus *attention_probs_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  TRY(attention_shapes(a, in, inputs, out));
  int64_t n = in[3].rank == 1 && in[3].dims[0] > 0 ? (in[3].dims[0] + 1) / 2 : -1;
  int64_t b = n > 0 && in[0].dims[0] >= 0 ? in[0].dims[0] / n : -1;
  out[1] = (ops_shape){4, {a->heads, b, n, n}};
  return NULL;
}

static OrtStatus *attention_grad_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[1];
  out[1] = in[2];
  return NULL;
}

ops_operator ops_attention = {.inputs = "fffiB",
                              .outputs = "f",
                              .create = read_attributes,
                              .run = attention,
                              .shapes = attention_shapes};
ops_operator ops_attention_probs = {.inputs = "fffiB",
                                    .outputs = "ff",
                                    .ints = {{"heads", offsetof(ops_attributes, heads)}},
                                    .create = read_attributes,
                                    .run = attention_probs,
                                    .shapes = attention_probs_shapes};
ops_operator ops_attention_grad = {.inputs = "fffffiB",
                                   .outputs = "ff",
                                   .create = read_attributes,
                                   .run = attention_grad,
                                   .shapes = attention_grad_shapes};
