// PackedFirstAttention(q, k, v, pq, pk, offsets, index, key; heads, scale, keep, site, threshold) → context, probs
// PackedFirstAttentionGrad(dcontext, q, k, v, pq, pk, probs, offsets, index, key; …) → dq, dk, dv, dpq, dpk
//
// Attention (see op_attention.c) of a packed batch (packed.h) for the first token of every row
// alone: q and context are [B, D], k and v [T, D], pq and pk [R, D], probs [H, T]. The relative
// position of key j is always -j:
//
//   scores[j] = scale·(k_j·(q + pq[-j]) + q·pk[-j])

#include "attention.h"
#include "packed.h"

#include <math.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

typedef struct {
  const float *q, *k, *v, *pq, *pk, *dcontext, *saved;
  float *context, *probs, *dq, *dk, *dv, *dpq, *dpk;
  packed_rows rows;
  const int64_t *index; // of the relative position 0; the one of -j is j before it
  size_t d, heads, size, r;
  float scale, keep;
  uint32_t threshold;
  uint64_t start;
  int failed;
} first_args;

static float dot(const float *a, const float *b, size_t n) {
  float sums[8] = {0};
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int k = 0; k < 8; k++) sums[k] += a[i + k] * b[i + k];
  for (; i < n; i++) sums[0] += a[i] * b[i];
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

// y += factor·x
static void add(float *restrict y, float factor, const float *restrict x, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] += factor * x[i];
}

// Scratch memory of a task: probabilities after dropout, their gradient, and a query.
static float *memory(first_args *w) {
  float *m = attention_scratch(2 * w->rows.longest + w->size);
  if (!m) __atomic_store_n(&w->failed, 1, __ATOMIC_RELAXED);
  return m;
}

static size_t position(const first_args *w, size_t j) { return (size_t)*(w->index - j); }

static void forward_row(const first_args *w, size_t head, size_t row, float *p) {
  size_t n = packed_length(&w->rows, row), at = packed_begin(&w->rows, row), d = w->d, size = w->size, column = head * size;
  const float *q = w->q + row * d + column;
  float *context = w->context + row * d + column, top = -INFINITY, sum = 0;
  memset(context, 0, size * sizeof *context);
  if (n == 0) return;
  for (size_t j = 0; j < n; j++) {
    const float *k = w->k + (at + j) * d + column;
    size_t place = position(w, j) * d + column;
    p[j] = w->scale * (dot(k, q, size) + dot(k, w->pq + place, size) + dot(q, w->pk + place, size));
    if (p[j] > top) top = p[j];
  }
  for (size_t j = 0; j < n; j++) sum += p[j] = expf(p[j] - top);
  for (size_t j = 0; j < n; j++) p[j] /= sum;
  memcpy(w->probs + head * w->rows.tokens + at, p, n * sizeof *p);
  packed_draw(p, packed_head_start(packed_row_start(w->start, row), head), 0, w->threshold, w->keep, p, n);
  for (size_t j = 0; j < n; j++) add(context, p[j], w->v + (at + j) * d + column, size);
}

static void forward_task(void *arg, size_t head) {
  first_args *w = arg;
  float *m = memory(w);
  if (!m) return;
  size_t end = packed_end(&w->rows);
  memset(w->probs + head * w->rows.tokens + end, 0, (w->rows.tokens - end) * sizeof *w->probs);
  for (size_t row = 0; row < w->rows.rows; row++) forward_row(w, head, row, m);
}

static void backward_row(const first_args *w, size_t head, size_t row, float *memory) {
  size_t n = packed_length(&w->rows, row), at = packed_begin(&w->rows, row), d = w->d, size = w->size, column = head * size;
  float *p = memory, *ds = p + w->rows.longest, *both = ds + w->rows.longest;
  const float *q = w->q + row * d + column, *dc = w->dcontext + row * d + column;
  const float *saved = w->saved + head * w->rows.tokens + at;
  float *dq = w->dq + row * d + column, sum = 0;
  uint64_t start = packed_head_start(packed_row_start(w->start, row), head);
  memset(dq, 0, size * sizeof *dq);
  for (size_t j = 0; j < n; j++) ds[j] = dot(dc, w->v + (at + j) * d + column, size);
  packed_draw(saved, start, 0, w->threshold, w->keep, p, n);
  packed_draw(ds, start, 0, w->threshold, w->keep, ds, n);
  for (size_t j = 0; j < n; j++) sum += ds[j] * saved[j];
  for (size_t j = 0; j < n; j++) {
    size_t place = position(w, j) * d + column, token = (at + j) * d + column;
    float slope = w->scale * saved[j] * (ds[j] - sum);
    const float *k = w->k + token;
    float *dk = w->dk + token, *dv = w->dv + token;
    for (size_t i = 0; i < size; i++) {
      both[i] = q[i] + w->pq[place + i];
      dk[i] = slope * both[i];
      dv[i] = p[j] * dc[i];
    }
    add(dq, slope, k, size);
    add(dq, slope, w->pk + place, size);
    add(w->dpq + place, slope, k, size);
    add(w->dpk + place, slope, q, size);
  }
}

static void backward_task(void *arg, size_t head) {
  first_args *w = arg;
  float *m = memory(w);
  if (!m) return;
  size_t column = head * w->size, bytes = w->size * sizeof(float);
  for (size_t i = 0; i < w->r; i++) {
    memset(w->dpq + i * w->d + column, 0, bytes);
    memset(w->dpk + i * w->d + column, 0, bytes);
  }
  for (size_t i = packed_end(&w->rows); i < w->rows.tokens; i++) {
    memset(w->dk + i * w->d + column, 0, bytes);
    memset(w->dv + i * w->d + column, 0, bytes);
  }
  for (size_t row = 0; row < w->rows.rows; row++) backward_row(w, head, row, m);
}

// Reads what both operators have; first is the place of q among the inputs, second that of
// offsets. shapes become those of q, k, v, pq and pk.
static OrtStatus *read_inputs(first_args *w, const ops_attributes *a, void *context, size_t first, size_t second,
                              ops_shape *shapes) {
  const float **data[] = {&w->q, &w->k, &w->v, &w->pq, &w->pk};
  ops_shape index;
  const int64_t *table;
  for (size_t i = 0; i < 5; i++) {
    TRY(ops_input(context, first + i, (const void **)data[i], &shapes[i]));
    if (shapes[i].rank != 2 || shapes[i].dims[1] != shapes[0].dims[1])
      return ops_fail("criteria.PackedFirstAttention: q, k, v, pq and pk must be matrices of one width");
  }
  TRY(packed_offsets(context, second, (size_t)shapes[1].dims[0], &w->rows));
  TRY(ops_input(context, second + 1, (const void **)&table, &index));
  TRY(packed_key(context, second + 2, a, &w->start));
  w->heads = (size_t)a->heads;
  w->d = (size_t)shapes[0].dims[1];
  w->r = (size_t)shapes[3].dims[0];
  w->scale = a->scale;
  w->keep = a->keep;
  w->threshold = (uint32_t)a->threshold;
  if (w->heads == 0 || w->d % w->heads || (size_t)shapes[0].dims[0] != w->rows.rows ||
      !ops_same_shape(&shapes[1], &shapes[2]) || !ops_same_shape(&shapes[3], &shapes[4]) || ops_elements(&index) % 2 == 0)
    return ops_fail("criteria.PackedFirstAttention: the inputs do not fit");
  w->size = w->d / w->heads;
  w->index = table + ops_elements(&index) / 2;
  if ((ops_elements(&index) + 1) / 2 < w->rows.longest)
    return ops_fail("criteria.PackedFirstAttention: index is for shorter rows");
  for (size_t i = 0; i < ops_elements(&index); i++)
    if (table[i] < 0 || table[i] >= (int64_t)w->r) return ops_fail("criteria.PackedFirstAttention: index out of range");
  return NULL;
}

static OrtStatus *run(first_args *w, void *context, void (*task)(void *, size_t)) {
  TRY(ops_parallel(context, task, w->heads, w));
  return w->failed ? ops_fail("criteria.PackedFirstAttention: out of memory") : NULL;
}

static OrtStatus *first_attention(const ops_attributes *a, void *context) {
  first_args w = {0};
  ops_shape s[5];
  TRY(read_inputs(&w, a, context, 0, 5, s));
  ops_shape probs = {2, {a->heads, s[1].dims[0]}};
  TRY(ops_output(context, 0, &s[0], &w.context));
  TRY(ops_output(context, 1, &probs, &w.probs));
  return run(&w, context, forward_task);
}

static OrtStatus *first_attention_grad(const ops_attributes *a, void *context) {
  first_args w = {0};
  ops_shape s[5], t;
  TRY(read_inputs(&w, a, context, 1, 7, s));
  TRY(ops_input(context, 0, (const void **)&w.dcontext, &t));
  if (!ops_same_shape(&t, &s[0])) return ops_fail("criteria.PackedFirstAttentionGrad: dcontext and q do not fit");
  TRY(ops_input(context, 6, (const void **)&w.saved, &t));
  if (ops_elements(&t) != w.heads * w.rows.tokens) return ops_fail("criteria.PackedFirstAttentionGrad: probs does not fit");
  float **out[] = {&w.dq, &w.dk, &w.dv, &w.dpq, &w.dpk};
  for (size_t i = 0; i < 5; i++) TRY(ops_output(context, i, &s[i], out[i]));
  return run(&w, context, backward_task);
}

static OrtStatus *first_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)inputs;
  out[0] = in[0];
  out[1] = (ops_shape){2, {a->heads, in[1].dims[0]}};
  return NULL;
}

static OrtStatus *first_grad_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  for (size_t i = 0; i < 5; i++) out[i] = in[1 + i];
  return NULL;
}

static OrtStatus *read_attributes(const void *info, ops_attributes *a) {
  TRY(ops_int_attribute(info, "heads", &a->heads));
  TRY(ops_float_attribute(info, "scale", &a->scale));
  TRY(ops_float_attribute(info, "keep", &a->keep));
  return packed_draw_attributes(info, a);
}

ops_operator ops_packed_first_attention = {.inputs = "fffffiii",
                                           .outputs = "ff",
                                           .ints = {{"heads", offsetof(ops_attributes, heads)}},
                                           .create = read_attributes,
                                           .run = first_attention,
                                           .shapes = first_shapes};
ops_operator ops_packed_first_attention_grad = {.inputs = "fffffffiii",
                                                .outputs = "fffff",
                                                .create = read_attributes,
                                                .run = first_attention_grad,
                                                .shapes = first_grad_shapes};
