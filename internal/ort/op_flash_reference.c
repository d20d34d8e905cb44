// References of device operators, as in op_device_reference.c: disentangled attention
// as internal/kernels/attention.py computes it. flash_read serves the GPU, too.

#include "op_flash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "low.h"
#include "philox.h"

OrtStatus *flash_read(const ops_attributes *a, void *context, int gradient, flash_inputs *in) {
  const void **slots[] = {&in->dcontext,
                          &in->q,
                          &in->k,
                          &in->v,
                          &in->c2p,
                          &in->p2c,
                          &in->context,
                          (const void **)&in->lse,
                          (const void **)&in->tokens,
                          (const void **)&in->position};
  static const int forward[] = {1, 2, 3, 4, 5, 8, 9}, backward[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  size_t count = gradient ? 10 : 7;
  ops_shape shapes[10] = {0};
  *in = (flash_inputs){0};
  for (size_t i = 0; i < count; i++) {
    int slot = gradient ? backward[i] : forward[i];
    TRY(ops_input(context, i, slots[slot], &shapes[slot]));
  }
  TRY(ops_type(context, 0, &in->type));
  in->rows = shapes[1];
  in->tables = shapes[4];
  for (int i = 0; i < 7; i++)
    if (*slots[i] && !ops_same_shape(&shapes[i], i == 4 || i == 5 ? &in->tables : &in->rows))
      return ops_fail("criteria.FlashAttention: the inputs differ in shape");
  const int64_t *t = in->tables.dims;
  if (in->rows.rank != 2 || in->tables.rank != 4) return ops_fail("criteria.FlashAttention: q or c2p has another rank");
  in->heads = (size_t)t[0], in->batch = (size_t)t[1], in->n = (size_t)t[2];
  in->stats = (ops_shape){3, {t[0], t[1], t[2]}};
  if (t[3] != 2 * t[2] || in->rows.dims[0] != t[1] * t[2] || t[0] < 1 || in->rows.dims[1] % t[0] ||
      ops_elements(&shapes[8]) != in->batch * in->n || (gradient && !ops_same_shape(&shapes[7], &in->stats)))
    return ops_fail("criteria.FlashAttention: q, c2p, lse and tokens do not fit");
  in->size = (size_t)in->rows.dims[1] / in->heads;
  if (in->n % 4 || in->size % 8 || in->size > 64)
    return ops_fail("criteria.FlashAttention: want a length of a multiple of 4, and heads of 8, 16, … 64 elements");
  if (a->threshold > 0 && !in->position) return ops_fail("criteria.FlashAttention: dropout without a position");
  return NULL;
}

// --- numbers of both types ----------------------------------------------------------------

// A copy of numbers as float32, or zeros to be filled if there are none.
static float *floats(const void *x, size_t n, int type) {
  float *y = calloc(n, sizeof *y);
  const float *full = x;
  const uint16_t *half = x;
  for (size_t i = 0; y && x && i < n; i++) y[i] = type == OPS_FLOAT ? full[i] : from_float16(half[i]);
  return y;
}

static OrtStatus *put(void *context, size_t i, const ops_shape *shape, int type, const float *x) {
  float *out;
  TRY(ops_output(context, i, shape, &out));
  for (size_t j = 0, n = ops_elements(shape); j < n; j++)
    if (type == OPS_FLOAT)
      out[j] = x[j];
    else
      ((uint16_t *)out)[j] = float16(x[j]);
  return NULL;
}

// --- one row of the scores ----------------------------------------------------------------

typedef struct {
  const ops_attributes *a;
  const flash_inputs *in;
  size_t pair, from, end; // head and sequence; where q and k of the pair begin; positions up to the last token
} pair_of;

static pair_of take_pair(const ops_attributes *a, const flash_inputs *in, size_t pair) {
  size_t sequence = pair % in->batch, end = in->n;
  while (end > 0 && in->tokens[sequence * in->n + end - 1] == 0) end--;
  return (pair_of){a, in, pair, sequence * in->n * in->heads * in->size + pair / in->batch * in->size, end};
}

static size_t at_row(const pair_of *p, size_t i) { return p->from + i * p->in->heads * p->in->size; }
static size_t at_c2p(const pair_of *p, size_t i, size_t j) {
  return (p->pair * p->in->n + i) * 2 * p->in->n + j + p->in->n - 1 - i;
}

static float dot(const float *x, const float *y, size_t n) {
  float sum = 0;
  for (size_t i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

static void add(float *sum, float factor, const float *x, size_t n) {
  for (size_t i = 0; i < n; i++) sum[i] += factor * x[i];
}

// The scores of query i.
static void scores(const pair_of *p, size_t i, const float *q, const float *k, const float *c2p, const float *p2c,
                   float *s) {
  const float *tokens = p->in->tokens + p->pair % p->in->batch * p->in->n;
  for (size_t j = 0; j < p->end; j++) {
    float product = dot(q + at_row(p, i), k + at_row(p, j), p->in->size);
    s[j] = tokens[j] == 0 ? -1e30f : product * p->a->scale + c2p[at_c2p(p, i, j)] + p2c[at_c2p(p, j, i)];
  }
}

// What the probabilities of query i are multiplied by: 0 for those that dropout drops.
static void factors(const pair_of *p, size_t i, float *keep) {
  for (size_t j = 0; j < p->end; j += 4) {
    uint32_t words[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    if (p->a->threshold > 0) {
      uint64_t at = (uint64_t)*p->in->position;
      size_t element = (p->pair * p->in->n + i) * p->in->n + j;
      uint32_t counter[4] = {(uint32_t)(element / 4), (uint32_t)p->a->site, (uint32_t)at, (uint32_t)(at >> 32)};
      philox(counter, (uint64_t)p->a->seed);
      memcpy(words, counter, sizeof words);
    }
    for (size_t w = 0; w < 4; w++) keep[j + w] = words[w] >= (uint32_t)p->a->threshold ? p->a->keep : 0;
  }
}

// --- FlashAttention(q, k, v, c2p, p2c, tokens[, position]; ...) → context, lse ---------------

enum { ARRAYS = 16 };

static OrtStatus *release(float **arrays, OrtStatus *status) {
  for (size_t i = 0; i < ARRAYS; i++) free(arrays[i]);
  return status;
}

static int complete(float **arrays, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!arrays[i]) return 0;
  return 1;
}

static OrtStatus *known_type(const flash_inputs *in) {
  if (in->type == OPS_FLOAT || in->type == OPS_FLOAT16) return NULL;
  return ops_fail("criteria.FlashAttention: numbers must be float32 or float16 on the host");
}

static OrtStatus *flash_attention(const ops_attributes *a, void *context) {
  flash_inputs in;
  TRY(flash_read(a, context, 0, &in));
  TRY(known_type(&in));
  size_t rows = ops_elements(&in.rows), tables = ops_elements(&in.tables), stats = ops_elements(&in.stats);
  size_t size = in.size;
  float *x[ARRAYS] = {floats(in.q, rows, in.type),     floats(in.k, rows, in.type),     floats(in.v, rows, in.type),
                      floats(in.c2p, tables, in.type), floats(in.p2c, tables, in.type), floats(NULL, rows, 0),
                      floats(NULL, stats, 0),          floats(NULL, in.n, 0),           floats(NULL, in.n, 0)};
  if (!complete(x, 9)) return release(x, ops_fail("criteria.FlashAttention: out of memory"));
  float *q = x[0], *k = x[1], *v = x[2], *c2p = x[3], *p2c = x[4], *result = x[5], *lse = x[6], *s = x[7], *keep = x[8];
  for (size_t pair = 0; pair < in.heads * in.batch; pair++) {
    pair_of p = take_pair(a, &in, pair);
    for (size_t i = 0; i < p.end; i++) {
      scores(&p, i, q, k, c2p, p2c, s);
      factors(&p, i, keep);
      float largest = s[0], total = 0;
      for (size_t j = 1; j < p.end; j++) largest = fmaxf(largest, s[j]);
      for (size_t j = 0; j < p.end; j++) total += s[j] = expf(s[j] - largest);
      for (size_t j = 0; j < p.end; j++) add(result + at_row(&p, i), s[j] * keep[j] / total, v + at_row(&p, j), size);
      lse[pair * in.n + i] = largest + logf(total);
    }
  }
  OrtStatus *status = put(context, 0, &in.rows, in.type, result);
  if (!status) status = put(context, 1, &in.stats, OPS_FLOAT, lse);
  return release(x, status);
}

// --- FlashAttentionGrad(dcontext, q, k, v, c2p, p2c, context, lse, tokens[, position]; ...)
//     → dq, dk, dv, dc2p, dp2c, delta ----------------------------------------------------------

static OrtStatus *flash_attention_grad(const ops_attributes *a, void *context) {
  flash_inputs in;
  TRY(flash_read(a, context, 1, &in));
  TRY(known_type(&in));
  size_t rows = ops_elements(&in.rows), tables = ops_elements(&in.tables), stats = ops_elements(&in.stats);
  size_t size = in.size;
  float *x[ARRAYS] = {floats(in.dcontext, rows, in.type),
                      floats(in.q, rows, in.type),
                      floats(in.k, rows, in.type),
                      floats(in.v, rows, in.type),
                      floats(in.c2p, tables, in.type),
                      floats(in.p2c, tables, in.type),
                      floats(in.context, rows, in.type),
                      floats(NULL, rows, 0),
                      floats(NULL, rows, 0),
                      floats(NULL, rows, 0),
                      floats(NULL, tables, 0),
                      floats(NULL, tables, 0),
                      floats(NULL, stats, 0),
                      floats(NULL, in.n, 0),
                      floats(NULL, in.n, 0)};
  if (!complete(x, 15)) return release(x, ops_fail("criteria.FlashAttentionGrad: out of memory"));
  float *dy = x[0], *q = x[1], *k = x[2], *v = x[3], *c2p = x[4], *p2c = x[5], *y = x[6];
  float *dq = x[7], *dk = x[8], *dv = x[9], *dc2p = x[10], *dp2c = x[11], *delta = x[12], *s = x[13], *keep = x[14];
  for (size_t pair = 0; pair < in.heads * in.batch; pair++) {
    pair_of p = take_pair(a, &in, pair);
    for (size_t i = 0; i < p.end; i++) {
      size_t at = at_row(&p, i), row = pair * in.n + i;
      scores(&p, i, q, k, c2p, p2c, s);
      factors(&p, i, keep);
      delta[row] = dot(dy + at, y + at, size);
      for (size_t j = 0; j < p.end; j++) {
        size_t other = at_row(&p, j);
        float prob = expf(s[j] - in.lse[row]);
        add(dv + other, prob * keep[j], dy + at, size);
        float ds = prob * (keep[j] * dot(dy + at, v + other, size) - delta[row]);
        add(dq + at, a->scale * ds, k + other, size);
        add(dk + other, a->scale * ds, q + at, size);
        dc2p[at_c2p(&p, i, j)] = dp2c[at_c2p(&p, j, i)] = ds;
      }
    }
  }
  const float *outputs[] = {dq, dk, dv, dc2p, dp2c};
  OrtStatus *status = NULL;
  for (size_t i = 0; i < 5 && !status; i++)
    status = put(context, i, i < 3 ? &in.rows : &in.tables, in.type, outputs[i]);
  if (!status) status = put(context, 5, &in.stats, OPS_FLOAT, delta);
  return release(x, status);
}

// --- what ONNX Runtime asks ---------------------------------------------------------------

static OrtStatus *read_attributes(const void *info, ops_attributes *a) {
  TRY(ops_float_attribute(info, "scale", &a->scale));
  TRY(ops_float_attribute(info, "keep", &a->keep));
  TRY(ops_int_attribute(info, "seed", &a->seed));
  TRY(ops_int_attribute(info, "site", &a->site));
  return ops_int_attribute(info, "threshold", &a->threshold);
}

// The shape of lse and delta.
static ops_shape stats_of(const ops_shape *tables) {
  ops_shape s = *tables;
  if (s.rank > 0) s.rank--;
  return s;
}

static OrtStatus *flash_attention_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[0];
  out[1] = stats_of(&in[3]);
  return NULL;
}

static OrtStatus *flash_attention_grad_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs,
                                              ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = out[1] = out[2] = in[1];
  out[3] = out[4] = in[4];
  out[5] = stats_of(&in[4]);
  return NULL;
}

ops_operator ops_flash_attention = {.inputs = "aaaaafI",
                                    .outputs = "af",
                                    .create = read_attributes,
                                    .run = flash_attention,
                                    .shapes = flash_attention_shapes};
ops_operator ops_flash_attention_grad = {.inputs = "aaaaaaaffI",
                                         .outputs = "aaaaaf",
                                         .create = read_attributes,
                                         .run = flash_attention_grad,
                                         .shapes = flash_attention_grad_shapes};
