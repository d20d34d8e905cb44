#include "attention.h"
#include "packed.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 8 }; // keys whose columns are turned into rows together

#define LOOPS "op_attention_loops.h"
#include "widths.h"

// --- scratch memory of a thread, kept until the thread ends ---------------------------

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static void make_scratch_key(void) { pthread_key_create(&scratch_key, free); }

typedef struct {
  size_t size;
  float data[];
} scratch_block;

float *attention_scratch(size_t n) {
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

static size_t padded(size_t n) { return (n + LANES - 1) / LANES * LANES; }

OrtStatus *attention_attributes(const void *info, ops_attributes *a) {
  if (!blas_loaded()) return ops_fail("criteria.Attention: no BLAS is loaded");
  TRY(ops_int_attribute(info, "heads", &a->heads));
  TRY(ops_float_attribute(info, "scale", &a->scale));
  return ops_float_attribute(info, "keep", &a->keep);
}

// Finds the straight part around the relative position 0.
static void find_straight(position_map *m, size_t l) {
  m->from = m->to = l - 1;
  while (m->from > 0 && m->index[m->from] == m->index[m->from - 1] + 1) m->from--;
  while (m->to + 1 < 2 * l - 1 && m->index[m->to + 1] == m->index[m->to] + 1) m->to++;
  m->to++;
}

OrtStatus *attention_open(attention_args *w, const ops_attributes *a, const ops_shape *x, const ops_shape *positions,
                          const int64_t *table, size_t table_size, size_t batch) {
  if (x->rank != 2 || positions->rank != 2 || x->dims[1] % 3 || positions->dims[1] != x->dims[1] / 3 * 2)
    return ops_fail("criteria.Attention: x [.., 3·D] and positions [.., 2·D] do not fit");
  w->batch = batch;
  w->l = (table_size + 1) / 2;
  w->d = (size_t)x->dims[1] / 3;
  w->r = (size_t)positions->dims[0];
  w->heads = (size_t)a->heads;
  w->scale = a->scale;
  w->keep = a->keep;
  if (table_size % 2 == 0 || w->heads == 0 || w->d % w->heads || w->r == 0)
    return ops_fail("criteria.Attention: x, index and heads do not fit");
  w->size = w->d / w->heads;
  w->ld = padded(w->l);
  w->ldr = padded(w->r);

  size_t n = table_size;
  w->sequences = malloc(batch * sizeof *w->sequences + (2 * batch + 1) * sizeof *w->order + 2 * n * sizeof *w->up.index);
  if (!w->sequences) return ops_fail("criteria.Attention: out of memory");
  w->order = (size_t *)(w->sequences + batch);
  w->groups = w->order + batch;
  w->up.index = (int32_t *)(w->groups + batch + 1);
  w->down.index = w->up.index + n;
  for (size_t i = 0; i < batch; i++) w->order[i] = i;
  for (size_t i = 0; i < n; i++) {
    if (table[i] < 0 || table[i] >= (int64_t)w->r) return ops_fail("criteria.Attention: index out of range");
    if (i > 0 && table[i] != table[i - 1] && table[i] != table[i - 1] + 1)
      return ops_fail("criteria.Attention: index must rise by 0 or 1");
    w->up.index[i] = (int32_t)table[i];
    w->down.index[n - 1 - i] = (int32_t)(w->r - 1) - (int32_t)table[i];
  }
  find_straight(&w->up, w->l);
  find_straight(&w->down, w->l);
  return NULL;
}

OrtStatus *attention_finish(attention_args *w, OrtStatus *status) {
  free(w->sequences);
  if (!status && w->failed) return ops_fail("criteria.Attention: out of memory");
  return status;
}

// Copies the rows of one head of pq from … to-1 to their places in y; of pk those that
// are from … to-1 in falling order.
static void take_pq(const attention_args *w, size_t head, size_t from, size_t to, float *y) {
  for (size_t i = from; i < to; i++)
    memcpy(y + i * w->size, w->positions + i * 2 * w->d + head * w->size, w->size * sizeof *y);
}
static void take_pk(const attention_args *w, size_t head, size_t from, size_t to, float *y) {
  for (size_t i = from; i < to; i++)
    memcpy(y + i * w->size, w->positions + (w->r - 1 - i) * 2 * w->d + w->d + head * w->size, w->size * sizeof *y);
}

// Softmax without a token has something to attend to all the same: all keys.
static void key_bias(const attention_args *w, const attention_sequence *q, float *bias) {
  size_t wide = padded(q->n);
  for (size_t j = 0; j < wide; j++)
    bias[j] = j >= q->n ? -3e38f : !w->tokens || w->tokens[q->at + j] != 0 ? 0 : -1e30f;
}

// The dropout of query i of a head: the element of key j is i·DRAW_STRIDE + j.
#define DRAW_STRIDE ((size_t)1 << 16)

// --- forward ------------------------------------------------------------------------------

static size_t scratch_size(const attention_args *w) {
  return 2 * w->l * w->ld + 2 * w->l * w->ldr + 4 * w->r * w->size + TILE * w->ld + 4 * w->ld;
}

static void forward(attention_args *w, size_t head, const attention_sequence *q, float *memory) {
  size_t l = w->l, d = w->d, size = w->size, ld = w->ld, ldr = w->ldr, n = q->n, wide = padded(n);
  size_t ldx = 3 * d, used = q->to - q->from, falling = w->r - q->to;
  float *s = memory, *p = s + l * ld, *rows = p + l * ldr, *tile = rows + w->r * size, *bias = tile + TILE * ld;
  uint8_t *keep = (uint8_t *)(bias + ld);
  const float *query = w->x + q->at * ldx + head * size, *key = query + d, *value = key + d;
  float *context = w->context + q->at * d + head * size;

  blas_gemm(w->scores, 0, 1, n, n, size, w->scale, query, ldx, key, ldx, 0, s, ld);
  // From position to content first: its columns are turned into rows.
  take_pq(w, head, q->from, q->to, rows);
  blas_gemm(w->by_position, 0, 1, n, used, size, w->scale, key, ldx, rows + q->from * size, size, 0, p + q->from, ldr);
  for (size_t j0 = 0; j0 < n; j0 += TILE) {
    for (size_t j = j0; j < ops_min(j0 + TILE, n); j++)
      CHOOSE(expand, (tile + (j - j0) * ld, p + j * ldr, &w->up, 1, l - 1 - j, n));
    CHOOSE(add_columns, (s + j0, tile, ld, n)); // columns from n on are not used
  }
  take_pk(w, head, falling, falling + used, rows);
  blas_gemm(w->by_position, 0, 1, n, used, size, w->scale, query, ldx, rows + falling * size, size, 0, p + falling, ldr);

  key_bias(w, q, bias);
  memset(keep, 0, ld);
  size_t place = q->place + head * q->area;
  uint64_t start = packed_head_start(q->start, head);
  for (size_t i = 0; i < n; i++) {
    float *row = s + i * ld;
    CHOOSE(expand, (row, p + i * ldr, &w->down, 0, l - 1 - i, n));
    for (size_t j = n; j < wide; j++) row[j] = 0;
    CHOOSE(softmax, (row, bias, wide));
    if (w->probs) memcpy(w->probs + place + i * q->stride, row, n * sizeof *row);
    if (w->mask) {
      memcpy(keep, w->mask + place + i * q->stride, n);
      CHOOSE(drop, (row, keep, w->keep, row, wide));
    } else if (w->threshold) {
      CHOOSE(draw, (row, start, i * DRAW_STRIDE, w->threshold, w->keep, row, n));
    }
  }
  blas_gemm(w->apply, 0, 0, n, size, n, 1, s, ld, value, ldx, 0, context, d);
  for (size_t i = n; i < q->end - q->at; i++) memset(context + i * d, 0, size * sizeof *context);
}

static void forward_task(void *arg, size_t i) {
  attention_args *w = arg;
  float *memory = attention_scratch(scratch_size(w));
  if (!memory)
    __atomic_store_n(&w->failed, 1, __ATOMIC_RELAXED);
  else
    forward(w, i % w->heads, &w->sequences[w->order[i / w->heads]], memory);
}

OrtStatus *attention_forward(attention_args *w, void *context) {
  return ops_parallel(context, forward_task, w->heads * w->batch, w);
}

// --- backward -----------------------------------------------------------------------------

static void backward(attention_args *w, size_t head, const attention_sequence *q, int first, float *memory) {
  size_t l = w->l, d = w->d, size = w->size, ld = w->ld, ldr = w->ldr, n = q->n, wide = padded(n);
  size_t ldx = 3 * d, from = q->from, used = q->to - from, falling = w->r - q->to;
  float *ds = memory, *dropped = ds + l * ld, *dp = dropped + l * ld;
  float *up = dp + l * ldr, *down = up + w->r * size, *dup = down + w->r * size, *ddown = dup + w->r * size;
  float *tile = ddown + w->r * size, *row = tile + TILE * ld;
  uint8_t *keep = (uint8_t *)(row + ld);
  size_t at = q->at * ldx + head * size, place = q->place + head * q->area;
  const float *query = w->x + at, *key = query + d, *value = key + d, *dc = w->dcontext + q->at * d + head * size;
  float *dq = w->dx + at, *dk = dq + d, *dv = dk + d;
  uint64_t start = packed_head_start(q->start, head);

  blas_gemm(w->slope_p, 0, 1, n, n, size, 1, dc, d, value, ldx, 0, ds, ld);
  memset(row, 0, ld * sizeof *row);
  memset(keep, 0, ld);
  for (size_t i = 0; i < n; i++) {
    float *slope = ds + i * ld, *kept = dropped + i * ld;
    memcpy(row, w->saved + place + i * q->stride, n * sizeof *row);
    for (size_t j = n; j < wide; j++) slope[j] = 0;
    if (w->mask) {
      memcpy(keep, w->mask + place + i * q->stride, n);
      CHOOSE(drop, (row, keep, w->keep, kept, wide));
      CHOOSE(drop, (slope, keep, w->keep, slope, wide));
    } else if (w->threshold) {
      CHOOSE(draw, (row, start, i * DRAW_STRIDE, w->threshold, w->keep, kept, n));
      CHOOSE(draw, (slope, start, i * DRAW_STRIDE, w->threshold, w->keep, slope, n));
    } else {
      memcpy(kept, row, wide * sizeof *row);
    }
    CHOOSE(softmax_slope, (slope, row, w->scale, wide));
    memset(dp + i * ldr + falling, 0, used * sizeof *dp);
    CHOOSE(collapse, (dp + i * ldr, slope, &w->down, l - 1 - i, n));
  }
  blas_gemm(w->slope_v, 1, 0, n, size, n, 1, dropped, ld, dc, d, 0, dv, ldx);
  blas_gemm(w->slope_q, 0, 0, n, size, n, 1, ds, ld, key, ldx, 0, dq, ldx);
  blas_gemm(w->slope_v, 1, 0, n, size, n, 1, ds, ld, query, ldx, 0, dk, ldx);

  // From content to position.
  blas_gemm(w->slope_rows, 0, 0, n, size, used, 1, dp + falling, ldr, down + falling * size, size, 1, dq, ldx);
  blas_gemm(w->slope_positions, 1, 0, used, size, n, 1, dp + falling, ldr, query, ldx, first ? 0 : 1,
            ddown + falling * size, size);

  // From position to content: columns are turned into rows.
  for (size_t j0 = 0; j0 < n; j0 += TILE) {
    CHOOSE(take_columns, (tile, ds + j0, ld, n));
    for (size_t j = j0; j < ops_min(j0 + TILE, n); j++) {
      memset(dp + j * ldr + from, 0, used * sizeof *dp);
      CHOOSE(collapse, (dp + j * ldr, tile + (j - j0) * ld, &w->up, l - 1 - j, n));
    }
  }
  blas_gemm(w->slope_rows, 0, 0, n, size, used, 1, dp + from, ldr, up + from * size, size, 1, dk, ldx);
  blas_gemm(w->slope_positions, 1, 0, used, size, n, 1, dp + from, ldr, key, ldx, first ? 0 : 1, dup + from * size,
            size);

  for (size_t o = 0; o < 3; o++)
    for (size_t i = n; i < q->end - q->at; i++) memset(dq + o * d + i * ldx, 0, size * sizeof *dq);
}

// A task is one head for a group of sequences: it alone adds to its part of
// dpositions.
static void backward_task(void *arg, size_t task) {
  attention_args *w = arg;
  float *memory = attention_scratch(scratch_size(w));
  if (!memory) {
    __atomic_store_n(&w->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  size_t head = task / w->group_count, group = task % w->group_count, size = w->size, d = w->d;
  float *up = memory + 2 * w->l * w->ld + w->l * w->ldr, *down = up + w->r * size;
  float *dup = down + w->r * size, *ddown = dup + w->r * size;
  take_pq(w, head, 0, w->r, up);
  take_pk(w, head, 0, w->r, down);
  memset(dup, 0, 2 * w->r * size * sizeof *dup);
  for (size_t i = w->groups[group]; i < w->groups[group + 1]; i++)
    backward(w, head, &w->sequences[w->order[i]], i == w->groups[group], memory);
  float *dpq = w->dpositions + group * w->r * 2 * d + head * size, *dpk = dpq + d;
  for (size_t i = 0; i < w->r; i++) {
    memcpy(dpq + i * 2 * d, dup + i * size, size * sizeof *dup);
    memcpy(dpk + i * 2 * d, ddown + (w->r - 1 - i) * size, size * sizeof *dup);
  }
}

size_t attention_groups(const attention_args *w) { return ops_min(w->batch, ops_tasks(2 * blas_cores(), w->heads)); }

OrtStatus *attention_backward(attention_args *w, void *context, float *dpositions) {
  size_t area = w->r * 2 * w->d;
  float *partial = NULL;
  w->dpositions = dpositions;
  if (w->group_count > 1) {
    w->dpositions = partial = malloc(w->group_count * area * sizeof *partial);
    if (!partial) return ops_fail("criteria.AttentionGrad: out of memory");
  }
  OrtStatus *status = ops_parallel(context, backward_task, w->heads * w->group_count, w);
  if (partial) {
    memcpy(dpositions, partial, area * sizeof *dpositions);
    for (size_t g = 1; g < w->group_count; g++)
      for (size_t i = 0; i < area; i++) dpositions[i] += partial[g * area + i];
  }
  free(partial);
  return status;
}
