// References of device operators: what the kernels that gpu.c launches compute, on the
// host, with the same results, bit for bit but for the order of sums. Tests run what is
// written for a GPU on them; no model of the CPU has these operators, so they are as
// plain as can be.

#include <math.h>
#include <string.h>

#include "low.h"
#include "ops.h"
#include "philox.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

static OrtStatus *shape_of_first(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[0];
  return NULL;
}

// --- PhiloxDropout(x, position; seed, site, threshold, scale) → y -------------------------

static OrtStatus *philox_dropout(const ops_attributes *a, void *context) {
  const float *x;
  const int64_t *position;
  float *y;
  ops_shape shape, single;
  int type;
  TRY(ops_type(context, 0, &type));
  if (type != OPS_FLOAT) return ops_fail("criteria.PhiloxDropout: x must be float32 on the host");
  TRY(ops_input(context, 0, (const void **)&x, &shape));
  TRY(ops_input(context, 1, (const void **)&position, &single));
  TRY(ops_output(context, 0, &shape, &y));
  uint64_t at = (uint64_t)*position;
  size_t n = ops_elements(&shape);
  for (size_t i = 0; i < n; i += 4) {
    uint32_t words[4] = {(uint32_t)(i / 4), (uint32_t)a->site, (uint32_t)at, (uint32_t)(at >> 32)};
    philox(words, (uint64_t)a->seed);
    for (size_t j = 0; j < 4 && i + j < n; j++) y[i + j] = words[j] >= (uint32_t)a->threshold ? x[i + j] * a->scale : 0;
  }
  return NULL;
}

static OrtStatus *read_dropout(const void *info, ops_attributes *a) {
  TRY(ops_int_attribute(info, "seed", &a->seed));
  TRY(ops_int_attribute(info, "site", &a->site));
  TRY(ops_int_attribute(info, "threshold", &a->threshold));
  return ops_float_attribute(info, "scale", &a->scale);
}

ops_operator ops_philox_dropout = {.inputs = "ai",
                                   .outputs = "a",
                                   .in_place = 1,
                                   .create = read_dropout,
                                   .run = philox_dropout,
                                   .shapes = shape_of_first};

// --- SumSquares(x; span) → one sum for every span elements ----------------------------------

static OrtStatus *sum_squares(const ops_attributes *a, void *context) {
  const float *x;
  float *sums;
  ops_shape shape;
  TRY(ops_input(context, 0, (const void **)&x, &shape));
  size_t n = ops_elements(&shape), span = (size_t)a->span;
  ops_shape spans = {1, {(int64_t)ops_tasks(n, span)}};
  TRY(ops_output(context, 0, &spans, &sums));
  for (size_t from = 0; from < n; from += span) {
    double sum = 0;
    for (size_t i = from; i < n && i < from + span; i++) sum += (double)x[i] * x[i];
    sums[from / span] = (float)sum;
  }
  return NULL;
}

static OrtStatus *read_span(const void *info, ops_attributes *a) {
  TRY(ops_int_attribute(info, "span", &a->span));
  return a->span > 0 ? NULL : ops_fail("criteria.SumSquares: span must be positive");
}

static OrtStatus *span_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)inputs;
  if (a->span <= 0) return ops_fail("criteria.SumSquares: span must be positive");
  out[0] = (ops_shape){1, {(int64_t)ops_tasks(ops_elements(&in[0]), (size_t)a->span)}};
  return NULL;
}

ops_operator ops_sum_squares = {.inputs = "f",
                                .outputs = "f",
                                .ints = {{"span", offsetof(ops_attributes, span)}},
                                .create = read_span,
                                .run = sum_squares,
                                .shapes = span_shapes};

// --- copies of parameters in low precision ----------------------------------------------------

OrtStatus *ops_open_copy(void *context, size_t input, size_t output, size_t elements, ops_copy *c) {
  ops_shape shape;
  float *data;
  *c = (ops_copy){.first = elements};
  TRY(ops_input(context, input, &c->old, &shape));
  if (!c->old) return NULL;
  TRY(ops_type(context, input, &c->type));
  if (c->type != OPS_FLOAT16 && c->type != OPS_BFLOAT16)
    return ops_fail("criteria: a copy must be float16 or bfloat16");
  if (ops_elements(&shape) > elements) return ops_fail("criteria: a copy is larger than what it is of");
  TRY(ops_output(context, output, &shape, &data));
  c->data = (uint16_t *)data;
  c->first = elements - ops_elements(&shape);
  return NULL;
}

static void copy_element(const ops_copy *c, size_t i, float x) {
  if (i >= c->first) c->data[i - c->first] = c->type == OPS_FLOAT16 ? float16(x) : bfloat16(x);
}

// --- AdamW(p, g, m, v, scalars [9][, copy]) → p, m, v[, copy] ---------------------------------

static void step(float *p, float *m, float *v, float g, const float *s) {
  g *= s[7];
  *m += s[2] * (g - *m);
  *v = *v * s[1] + s[3] * g * g;
  *p = *p * s[0] - s[4] * *m / (sqrtf(*v) * s[5] + s[6]);
}

static OrtStatus *adamw(const ops_attributes *a, void *context) {
  (void)a;
  const float *p, *g, *m, *v, *s;
  float *new_p, *new_m, *new_v;
  ops_shape shape, other[4];
  TRY(ops_input(context, 0, (const void **)&p, &shape));
  TRY(ops_input(context, 1, (const void **)&g, &other[0]));
  TRY(ops_input(context, 2, (const void **)&m, &other[1]));
  TRY(ops_input(context, 3, (const void **)&v, &other[2]));
  TRY(ops_input(context, 4, (const void **)&s, &other[3]));
  for (int i = 0; i < 3; i++)
    if (!ops_same_shape(&shape, &other[i])) return ops_fail("criteria.AdamW: the vectors differ in shape");
  TRY(ops_output(context, 0, &shape, &new_p));
  TRY(ops_output(context, 1, &shape, &new_m));
  TRY(ops_output(context, 2, &shape, &new_v));
  size_t n = ops_elements(&shape);
  ops_copy copy;
  TRY(ops_open_copy(context, 5, 3, n, &copy));
  for (size_t i = 0; i < n; i++) {
    new_p[i] = p[i], new_m[i] = m[i], new_v[i] = v[i];
    if (s[8] != 0) step(&new_p[i], &new_m[i], &new_v[i], g[i], s);
    copy_element(&copy, i, new_p[i]);
  }
  return NULL;
}

static OrtStatus *adamw_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a;
  out[0] = out[1] = out[2] = in[0];
  if (inputs > 5) out[3] = in[5];
  return NULL;
}

ops_operator ops_adamw = {.inputs = "fffffA", .outputs = "fffA", .run = adamw, .shapes = adamw_shapes};

// --- AdamW8bit(p, g, state, owners, tensors, values, cells, scalars[, copy]) → p, state[, copy] ---

static uint8_t quantise(float x, float largest, const uint8_t *cells) {
  if (!(largest > 0)) return 0;
  int cell = (int)((x / largest + 1.0f) * 32768.0f);
  return cells[cell < 0 ? 0 : cell > 65535 ? 65535 : cell];
}

static OrtStatus *adamw8bit(const ops_attributes *a, void *context) {
  (void)a;
  enum { block_size = 256 };
  const void *in[8];
  float *out[2];
  ops_shape shapes[8];
  for (size_t i = 0; i < 8; i++) TRY(ops_input(context, i, &in[i], &shapes[i]));
  TRY(ops_output(context, 0, &shapes[0], &out[0]));
  TRY(ops_output(context, 1, &shapes[2], &out[1]));
  ops_copy copy;
  TRY(ops_open_copy(context, 8, 2, ops_elements(&shapes[0]), &copy));
  if (out[0] != in[0] || out[1] != in[2] || copy.data != copy.old)
    return ops_fail("criteria.AdamW8bit: p, state and copy are not updated in place");
  const float *g = in[1], *values = in[5];
  uint8_t *codes = (uint8_t *)out[1];
  const int32_t *owners = in[3];
  const int64_t *tensors = in[4];
  const uint8_t *cells = in[6];
  for (int64_t b = 0; b < shapes[3].dims[0]; b++) {
    const int64_t *t = tensors + 8 * owners[b];
    const float *s = (const float *)in[7] + t[7];
    if (s[8] == 0) continue;
    int64_t k = b - t[0], from = k * block_size, n = t[2] - from < block_size ? t[2] - from : block_size;
    float *p = out[0] + t[1] + from, *floats1 = out[1] + t[3], *floats2 = out[1] + t[4];
    const float *grad = g + t[1] + from;
    size_t at = (size_t)(t[1] + from);
    if (t[5] < 0) {
      for (int64_t i = 0; i < n; i++) {
        step(&p[i], &floats1[from + i], &floats2[from + i], grad[i], s);
        copy_element(&copy, at + (size_t)i, p[i]);
      }
      continue;
    }
    uint8_t *codes1 = codes + t[5] + from, *codes2 = codes + t[6] + from;
    float m[block_size], v[block_size], largest1 = 0, largest2 = 0;
    for (int64_t i = 0; i < n; i++) {
      m[i] = values[codes1[i]] * floats1[k];
      v[i] = values[256 + codes2[i]] * floats2[k];
      step(&p[i], &m[i], &v[i], grad[i], s);
      copy_element(&copy, at + (size_t)i, p[i]);
      largest1 = fmaxf(largest1, fabsf(m[i]));
      largest2 = fmaxf(largest2, v[i]);
    }
    floats1[k] = largest1, floats2[k] = largest2;
    for (int64_t i = 0; i < n; i++) {
      codes1[i] = quantise(m[i], largest1, cells);
      codes2[i] = quantise(v[i], largest2, cells + 65536);
    }
  }
  return NULL;
}

static OrtStatus *adamw8bit_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a;
  out[0] = in[0];
  out[1] = in[2];
  if (inputs > 8) out[2] = in[8];
  return NULL;
}

ops_operator ops_adamw8bit = {.inputs = "ffujifufA", .outputs = "fuA", .run = adamw8bit, .shapes = adamw8bit_shapes};
