// PackedDropout(x, places, key; site, threshold, keep, mode) → y
// PackedPool(x, offsets; mode) → y
// PackedPoolGrad(dy, x, y, offsets; mode) → dx
//
// Dropout keeps x·keep or 0. With mode 0, places are the offsets of a packed batch x [T, D]:
// element (i, c) of a row, its i-th token's c-th, is number i·D + c of the row's dropout. With
// mode 1, they are numbers int64 [N] of the rows of a table x [N, D] that all rows of a batch
// share: row i is row places[i] of one packed row. It is its own gradient.
//
// Pooling reduces the rows of a packed batch x [T, D] to y [B, D]: mode 0 takes the first
// token, 1 the mean, 2 the maximum, whose gradient equal elements share. An empty row gives 0.

#include "packed.h"

#include <string.h>

#define LOOPS "op_packed_loops.h"
#include "widths.h"

// --- packed.h -----------------------------------------------------------------------------

OrtStatus *packed_offsets(void *context, size_t input, size_t tokens, packed_rows *p) {
  ops_shape s;
  TRY(ops_input(context, input, (const void **)&p->offsets, &s));
  if (s.rank != 1 || s.dims[0] < 1) return ops_fail("criteria: offsets must be a vector");
  p->rows = (size_t)s.dims[0] - 1;
  p->tokens = tokens;
  p->longest = 0;
  if (p->offsets[0] != 0 || p->offsets[p->rows] > (int64_t)tokens)
    return ops_fail("criteria: offsets must begin with 0 and end within the tokens");
  for (size_t r = 0; r < p->rows; r++) {
    if (p->offsets[r + 1] < p->offsets[r]) return ops_fail("criteria: offsets must not fall");
    if (packed_length(p, r) > p->longest) p->longest = packed_length(p, r);
  }
  return NULL;
}

OrtStatus *packed_draw_attributes(const void *info, ops_attributes *a) {
  TRY(ops_int_attribute(info, "site", &a->site));
  TRY(ops_int_attribute(info, "threshold", &a->threshold));
  if (a->threshold < 0 || a->threshold > 1 << 16) return ops_fail("criteria: threshold must be within 0 and 65536");
  return NULL;
}

OrtStatus *packed_key(void *context, size_t input, const ops_attributes *a, uint64_t *start) {
  const int64_t *key;
  ops_shape s;
  TRY(ops_input(context, input, (const void **)&key, &s));
  if (ops_elements(&s) != 1) return ops_fail("criteria: key must be one number");
  *start = splitmix((uint64_t)*key + (uint64_t)a->site * GOLDEN + 2);
  return NULL;
}

uint64_t packed_row_start(uint64_t start, size_t row) { return splitmix(start + row * GOLDEN + 3); }
uint64_t packed_head_start(uint64_t start, size_t head) { return splitmix(start + head * GOLDEN + 4); }

void packed_draw(const float *x, uint64_t start, size_t e, uint32_t threshold, float scale, float *y, size_t n) {
  if (threshold)
    CHOOSE(draw, (x, start, e, threshold, scale, y, n));
  else if (x != y)
    memcpy(y, x, n * sizeof *y);
}

// --- dropout ------------------------------------------------------------------------------

typedef struct {
  const float *x;
  float *y, keep;
  const int64_t *places; // of a table; NULL: x is a packed batch
  packed_rows rows;
  size_t n, d, each; // rows of x, and how many a task has
  uint32_t threshold;
  uint64_t start;
} dropout_args;

// Rows from … to-1 of x, which follow one another from place on.
static void drop(const dropout_args *w, uint64_t start, size_t place, size_t from, size_t to) {
  packed_draw(w->x + from * w->d, start, place * w->d, w->threshold, w->keep, w->y + from * w->d, (to - from) * w->d);
}

static void table_task(void *arg, size_t i) {
  const dropout_args *w = arg;
  uint64_t start = packed_row_start(w->start, 0);
  for (size_t r = i * w->each; r < ops_min((i + 1) * w->each, w->n); r++)
    drop(w, start, (size_t)w->places[r], r, r + 1);
}

static void dropout_task(void *arg, size_t i) {
  const dropout_args *w = arg;
  size_t from = i * w->each, to = ops_min(from + w->each, w->n);
  for (size_t row = 0; row < w->rows.rows && from < to; row++) {
    size_t begin = packed_begin(&w->rows, row), end = ops_min(begin + packed_length(&w->rows, row), to);
    if (end <= from) continue;
    drop(w, packed_row_start(w->start, row), from - begin, from, end);
    from = end;
  }
  memset(w->y + from * w->d, 0, (to - from) * w->d * sizeof *w->y); // nobody's
}

static OrtStatus *dropout(const ops_attributes *a, void *context) {
  dropout_args w = {.keep = a->keep, .threshold = (uint32_t)a->threshold};
  ops_shape s, places;
  TRY(ops_input(context, 0, (const void **)&w.x, &s));
  if (s.rank != 2) return ops_fail("criteria.PackedDropout: x must be a matrix");
  w.n = (size_t)s.dims[0];
  w.d = (size_t)s.dims[1];
  w.each = ops_tasks(OPS_GRAIN, w.d ? w.d : 1);
  if (a->mode) {
    TRY(ops_input(context, 1, (const void **)&w.places, &places));
    if (places.rank != 1 || places.dims[0] != s.dims[0]) return ops_fail("criteria.PackedDropout: x and places do not fit");
    for (size_t i = 0; i < w.n; i++)
      if (w.places[i] < 0) return ops_fail("criteria.PackedDropout: a place below 0");
  } else {
    TRY(packed_offsets(context, 1, w.n, &w.rows));
  }
  TRY(packed_key(context, 2, a, &w.start));
  TRY(ops_output(context, 0, &s, &w.y));
  size_t tasks = ops_tasks(w.n, w.each);
  return tasks ? ops_parallel(context, a->mode ? table_task : dropout_task, tasks, &w) : NULL;
}

static OrtStatus *dropout_attributes(const void *info, ops_attributes *a) {
  TRY(packed_draw_attributes(info, a));
  TRY(ops_float_attribute(info, "keep", &a->keep));
  return ops_int_attribute(info, "mode", &a->mode);
}

static OrtStatus *as_first(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[0];
  return NULL;
}

ops_operator ops_packed_dropout = {.inputs = "fii",
                                   .outputs = "f",
                                   .in_place = 1,
                                   .create = dropout_attributes,
                                   .run = dropout,
                                   .shapes = as_first};

// --- pooling ------------------------------------------------------------------------------

enum { POOL_FIRST, POOL_MEAN, POOL_MAX };

typedef struct {
  const float *x, *y, *dy;
  float *out; // y, or dx
  packed_rows rows;
  size_t d;
  int64_t mode;
} pool_args;

static void pool_task(void *arg, size_t row) {
  const pool_args *w = arg;
  size_t n = packed_length(&w->rows, row), d = w->d;
  const float *x = w->x + packed_begin(&w->rows, row) * d;
  float *y = w->out + row * d;
  if (n == 0) {
    memset(y, 0, d * sizeof *y);
    return;
  }
  memcpy(y, x, d * sizeof *y);
  if (w->mode == POOL_FIRST) return;
  for (size_t i = 1; i < n; i++)
    for (size_t c = 0; c < d; c++) {
      float v = x[i * d + c];
      y[c] = w->mode == POOL_MEAN ? y[c] + v : v > y[c] ? v : y[c];
    }
  if (w->mode == POOL_MEAN)
    for (size_t c = 0; c < d; c++) y[c] /= (float)n;
}

static void pool_grad_task(void *arg, size_t row) {
  const pool_args *w = arg;
  size_t n = packed_length(&w->rows, row), at = packed_begin(&w->rows, row), d = w->d;
  const float *x = w->x + at * d, *y = w->y + row * d, *dy = w->dy + row * d;
  float *dx = w->out + at * d;
  for (size_t c = 0; c < d; c++) {
    if (w->mode != POOL_MAX) {
      for (size_t i = 0; i < n; i++) dx[i * d + c] = w->mode == POOL_MEAN ? dy[c] / (float)n : i == 0 ? dy[c] : 0;
      continue;
    }
    float equal = 0;
    for (size_t i = 0; i < n; i++) equal += x[i * d + c] == y[c];
    for (size_t i = 0; i < n; i++) dx[i * d + c] = x[i * d + c] == y[c] ? dy[c] / equal : 0;
  }
}

static OrtStatus *pool(const ops_attributes *a, void *context) {
  pool_args w = {.mode = a->mode};
  ops_shape s;
  TRY(ops_input(context, 0, (const void **)&w.x, &s));
  if (s.rank != 2) return ops_fail("criteria.PackedPool: x must be a matrix");
  TRY(packed_offsets(context, 1, (size_t)s.dims[0], &w.rows));
  w.d = (size_t)s.dims[1];
  ops_shape out = {2, {(int64_t)w.rows.rows, s.dims[1]}};
  TRY(ops_output(context, 0, &out, &w.out));
  return w.rows.rows ? ops_parallel(context, pool_task, w.rows.rows, &w) : NULL;
}

static OrtStatus *pool_grad(const ops_attributes *a, void *context) {
  pool_args w = {.mode = a->mode};
  ops_shape dy, x, y;
  TRY(ops_input(context, 0, (const void **)&w.dy, &dy));
  TRY(ops_input(context, 1, (const void **)&w.x, &x));
  TRY(ops_input(context, 2, (const void **)&w.y, &y));
  if (x.rank != 2 || y.rank != 2 || !ops_same_shape(&dy, &y) || x.dims[1] != y.dims[1])
    return ops_fail("criteria.PackedPoolGrad: dy, x and y do not fit");
  TRY(packed_offsets(context, 3, (size_t)x.dims[0], &w.rows));
  if ((size_t)y.dims[0] != w.rows.rows) return ops_fail("criteria.PackedPoolGrad: y and offsets do not fit");
  w.d = (size_t)x.dims[1];
  TRY(ops_output(context, 0, &x, &w.out));
  memset(w.out + packed_end(&w.rows) * w.d, 0, (w.rows.tokens - packed_end(&w.rows)) * w.d * sizeof *w.out);
  return w.rows.rows ? ops_parallel(context, pool_grad_task, w.rows.rows, &w) : NULL;
}

static OrtStatus *pool_attributes(const void *info, ops_attributes *a) { return ops_int_attribute(info, "mode", &a->mode); }

static OrtStatus *pool_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  if (in[0].rank != 2 || in[1].rank != 1) return ops_fail("criteria.PackedPool: x must be a matrix, offsets a vector");
  out[0] = (ops_shape){2, {in[1].dims[0] < 0 ? -1 : in[1].dims[0] - 1, in[0].dims[1]}};
  return NULL;
}

static OrtStatus *pool_grad_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[1];
  return NULL;
}

ops_operator ops_packed_pool = {.inputs = "fi",
                                .outputs = "f",
                                .create = pool_attributes,
                                .run = pool,
                                .shapes = pool_shapes};
ops_operator ops_packed_pool_grad = {.inputs = "fffi",
                                     .outputs = "f",
                                     .create = pool_attributes,
                                     .run = pool_grad,
                                     .shapes = pool_grad_shapes};
