// Operators that are bound by memory when composed of standard ones: gradients
// of GELU, softmax and layer normalization, and dropout by a mask.

#include "ops.h"

#include <stdlib.h>
#include <string.h>

#define LOOPS "op_loops.h"
#include "widths.h"

static OrtStatus *shape_of_first(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[0];
  return NULL;
}

// --- GeluGrad(dy, x) → dx -----------------------------------------------------------

typedef struct {
  const float *a, *b;
  const uint8_t *mask;
  float *y, scale;
  size_t n;
} flat_args;

static void gelu_grad_task(void *arg, size_t i) {
  const flat_args *w = arg;
  size_t from = i * OPS_GRAIN, n = ops_min(OPS_GRAIN, w->n - from);
  CHOOSE(gelu_grad, (w->a + from, w->b + from, w->y + from, n));
}

static OrtStatus *gelu_grad(const ops_attributes *attributes, void *context) {
  (void)attributes;
  flat_args w;
  ops_shape s, t;
  TRY(ops_input(context, 0, (const void **)&w.a, &s));
  TRY(ops_input(context, 1, (const void **)&w.b, &t));
  if (!ops_same_shape(&s, &t)) return ops_fail("criteria.GeluGrad: dy and x differ in shape");
  TRY(ops_output(context, 0, &s, &w.y));
  w.n = ops_elements(&s);
  return ops_parallel(context, gelu_grad_task, ops_tasks(w.n, OPS_GRAIN), &w);
}

ops_operator ops_gelu_grad = {
    .inputs = "ff", .outputs = "f", .in_place = 1, .run = gelu_grad, .shapes = shape_of_first};

// --- DropoutMask(x, mask; scale) → mask ? x·scale : 0 -----------------------------------

static void dropout_mask_task(void *arg, size_t i) {
  const flat_args *w = arg;
  size_t from = i * OPS_GRAIN, n = ops_min(OPS_GRAIN, w->n - from);
  CHOOSE(dropout_mask, (w->a + from, w->mask + from, w->scale, w->y + from, n));
}

static OrtStatus *dropout_mask(const ops_attributes *attributes, void *context) {
  flat_args w;
  ops_shape s, t;
  TRY(ops_input(context, 0, (const void **)&w.a, &s));
  TRY(ops_input(context, 1, (const void **)&w.mask, &t));
  if (!ops_same_shape(&s, &t)) return ops_fail("criteria.DropoutMask: x and mask differ in shape");
  TRY(ops_output(context, 0, &s, &w.y));
  w.scale = attributes->scale;
  w.n = ops_elements(&s);
  return ops_parallel(context, dropout_mask_task, ops_tasks(w.n, OPS_GRAIN), &w);
}

static OrtStatus *read_scale(const void *info, ops_attributes *a) {
  return ops_float_attribute(info, "scale", &a->scale);
}

ops_operator ops_dropout_mask = {.inputs = "fb",
                                 .outputs = "f",
                                 .in_place = 1,
                                 .create = read_scale,
                                 .run = dropout_mask,
                                 .shapes = shape_of_first};

// --- SoftmaxGrad(dy, y) → dx, along the last dimension --------------------------------------

typedef struct {
  const float *dy, *y;
  float *dx;
  size_t rows, d, rows_per_task;
} softmax_args;

static void softmax_grad_task(void *arg, size_t i) {
  const softmax_args *w = arg;
  size_t end = ops_min((i + 1) * w->rows_per_task, w->rows);
  for (size_t r = i * w->rows_per_task; r < end; r++)
    CHOOSE(softmax_grad, (w->dy + r * w->d, w->y + r * w->d, w->dx + r * w->d, w->d));
}

static OrtStatus *softmax_grad(const ops_attributes *attributes, void *context) {
  (void)attributes;
  softmax_args w;
  ops_shape s, t;
  TRY(ops_input(context, 0, (const void **)&w.dy, &s));
  TRY(ops_input(context, 1, (const void **)&w.y, &t));
  if (!ops_same_shape(&s, &t) || s.rank == 0) return ops_fail("criteria.SoftmaxGrad: dy and y do not fit");
  TRY(ops_output(context, 0, &s, &w.dx));
  size_t n = ops_elements(&s);
  if (n == 0) return NULL;
  w.d = (size_t)s.dims[s.rank - 1];
  w.rows = n / w.d;
  w.rows_per_task = ops_tasks(OPS_GRAIN, w.d);
  return ops_parallel(context, softmax_grad_task, ops_tasks(w.rows, w.rows_per_task), &w);
}

ops_operator ops_softmax_grad = {
    .inputs = "ff", .outputs = "f", .in_place = 1, .run = softmax_grad, .shapes = shape_of_first};

// --- LayerNormGrad(dy, x, w, mean, invStd) → dx, dw, db ---------------------------------------
//
// dy, x [rows, d], w [d], mean and invStd one per row, as LayerNormalization
// yields them. Every task has its own sums for dw and db, which are added up in
// order at the end.

enum { NORM_ROWS = 32 }; // per task

typedef struct {
  const float *dy, *x, *weight, *mean, *inv_std;
  float *dx, *sums;
  size_t rows, d;
} norm_args;

static void layer_norm_task(void *arg, size_t i) {
  const norm_args *w = arg;
  float *dw = w->sums + 2 * w->d * i, *db = dw + w->d;
  memset(dw, 0, 2 * w->d * sizeof *dw);
  size_t end = ops_min((i + 1) * NORM_ROWS, w->rows);
  for (size_t r = i * NORM_ROWS; r < end; r++)
    CHOOSE(layer_norm_grad, (w->dy + r * w->d, w->x + r * w->d, w->weight, w->mean[r], w->inv_std[r], w->dx + r * w->d,
                             dw, db, w->d));
}

static OrtStatus *layer_norm_grad(const ops_attributes *attributes, void *context) {
  (void)attributes;
  norm_args w;
  ops_shape s, t, weight, mean, inv_std;
  TRY(ops_input(context, 0, (const void **)&w.dy, &s));
  TRY(ops_input(context, 1, (const void **)&w.x, &t));
  TRY(ops_input(context, 2, (const void **)&w.weight, &weight));
  TRY(ops_input(context, 3, (const void **)&w.mean, &mean));
  TRY(ops_input(context, 4, (const void **)&w.inv_std, &inv_std));
  if (!ops_same_shape(&s, &t) || s.rank == 0 || weight.rank != 1 || weight.dims[0] != s.dims[s.rank - 1])
    return ops_fail("criteria.LayerNormGrad: dy, x and w do not fit");
  w.d = (size_t)weight.dims[0];
  w.rows = w.d ? ops_elements(&s) / w.d : 0;
  if (ops_elements(&mean) != w.rows || ops_elements(&inv_std) != w.rows)
    return ops_fail("criteria.LayerNormGrad: mean and invStd must have one element per row");
  float *dw, *db;
  TRY(ops_output(context, 0, &s, &w.dx));
  TRY(ops_output(context, 1, &weight, &dw));
  TRY(ops_output(context, 2, &weight, &db));
  size_t tasks = ops_tasks(w.rows, NORM_ROWS);
  memset(dw, 0, w.d * sizeof *dw);
  memset(db, 0, w.d * sizeof *db);
  if (tasks == 0) return NULL;
  w.sums = malloc(tasks * 2 * w.d * sizeof *w.sums);
  if (!w.sums) return ops_fail("criteria.LayerNormGrad: out of memory");
  OrtStatus *status = ops_parallel(context, layer_norm_task, tasks, &w);
  for (size_t k = 0; k < tasks && !status; k++) {
    const float *part = w.sums + 2 * w.d * k;
    for (size_t i = 0; i < w.d; i++) dw[i] += part[i];
    for (size_t i = 0; i < w.d; i++) db[i] += part[w.d + i];
  }
  free(w.sums);
  return status;
}

static OrtStatus *layer_norm_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[0];
  out[1] = out[2] = in[2];
  return NULL;
}

ops_operator ops_layer_norm_grad = {
    .inputs = "fffff", .outputs = "fff", .run = layer_norm_grad, .shapes = layer_norm_shapes};
