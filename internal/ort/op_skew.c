// Skew and Unskew: from products with all relative positions to products with
// the key at each position, and back.
//
//   Skew(x [.., L, 2L]) → y [.., L, L],   y[.., i, j] = x[.., i, j - i + L-1]
//   Unskew(dy [.., L, L]) → dx [.., L, 2L], its transpose: what Skew does not
//   read gets gradient 0.

#include "ops.h"

#include <string.h>

typedef struct {
  const float *x;
  float *y;
  size_t l, rows, rows_per_task;
} skew_args;

static void skew_task(void *arg, size_t task) {
  const skew_args *w = arg;
  size_t l = w->l, end = ops_min((task + 1) * w->rows_per_task, w->rows);
  for (size_t r = task * w->rows_per_task; r < end; r++)
    memcpy(w->y + r * l, w->x + r * 2 * l + (l - 1 - r % l), l * sizeof *w->y);
}

static void unskew_task(void *arg, size_t task) {
  const skew_args *w = arg;
  size_t l = w->l, end = ops_min((task + 1) * w->rows_per_task, w->rows);
  for (size_t r = task * w->rows_per_task; r < end; r++) {
    float *row = w->y + r * 2 * l;
    size_t start = l - 1 - r % l;
    memset(row, 0, start * sizeof *row);
    memcpy(row + start, w->x + r * l, l * sizeof *row);
    memset(row + start + l, 0, (l - start) * sizeof *row);
  }
}

// widths: columns of input and output in units of L
static OrtStatus *check_shape(const ops_shape *in, int64_t in_width, int64_t out_width, ops_shape *out) {
  if (in->rank < 2) return ops_fail("criteria.Skew, Unskew: fewer than 2 dimensions");
  int64_t l = in->dims[in->rank - 2];
  if (l >= 0 && in->dims[in->rank - 1] != in_width * l)
    return ops_fail("criteria.Skew wants [.., L, 2L], Unskew [.., L, L]");
  *out = *in;
  out->dims[in->rank - 1] = l < 0 ? -1 : out_width * l;
  return NULL;
}

static OrtStatus *run(void *context, int64_t in_width, int64_t out_width, void (*task)(void *, size_t)) {
  skew_args w;
  ops_shape s, t;
  TRY(ops_input(context, 0, (const void **)&w.x, &s));
  TRY(check_shape(&s, in_width, out_width, &t));
  TRY(ops_output(context, 0, &t, &w.y));
  if (ops_elements(&s) == 0) return NULL;
  w.l = (size_t)s.dims[s.rank - 2];
  w.rows = ops_elements(&s) / (size_t)s.dims[s.rank - 1];
  w.rows_per_task = ops_tasks(OPS_GRAIN, w.l);
  return ops_parallel(context, task, ops_tasks(w.rows, w.rows_per_task), &w);
}

static OrtStatus *skew(const ops_attributes *a, void *context) {
  (void)a;
  return run(context, 2, 1, skew_task);
}

static OrtStatus *unskew(const ops_attributes *a, void *context) {
  (void)a;
  return run(context, 1, 2, unskew_task);
}

static OrtStatus *skew_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  return check_shape(in, 2, 1, out);
}

static OrtStatus *unskew_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  return check_shape(in, 1, 2, out);
}

ops_operator ops_skew = {.inputs = "f", .outputs = "f", .run = skew, .shapes = skew_shapes};
ops_operator ops_unskew = {.inputs = "f", .outputs = "f", .run = unskew, .shapes = unskew_shapes};
