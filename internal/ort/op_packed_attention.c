// PackedAttention(x, positions, offsets, index, key; heads, scale, keep, site, threshold) → context
// PackedAttentionProbs(the same) → context, probs
// PackedAttentionGrad(dcontext, x, positions, probs, offsets, index, key; …) → dx, dpositions
//
// Attention (see op_attention.c) of a packed batch (packed.h): x is [T, 3·D], context [T, D];
// index int64 [2L-1] for a row of L tokens, the longest or longer. Every row is computed with
// the relative positions that its own length needs. probs has the rows' probabilities, n² for
// every head of a row of n tokens. Dropout is drawn, here and again in the gradient.

#include "attention.h"
#include "packed.h"

#include <stdlib.h>
#include <string.h>

static OrtStatus *read_attributes(const void *info, ops_attributes *a) {
  TRY(attention_attributes(info, a));
  return packed_draw_attributes(info, a);
}

// Sorts the sequences by length, the longest first: threads that share them out end at
// about the same time.
static void sort_by_length(attention_args *w) {
  for (size_t i = 1; i < w->batch; i++) {
    size_t one = w->order[i], j = i;
    for (; j > 0 && w->sequences[w->order[j - 1]].n < w->sequences[one].n; j--) w->order[j] = w->order[j - 1];
    w->order[j] = one;
  }
}

// Deals the sorted sequences out to groups, there and back.
static OrtStatus *deal(attention_args *w) {
  w->group_count = attention_groups(w);
  size_t *sorted = malloc((w->batch + 1) * sizeof *sorted), next = 0;
  if (!sorted) return ops_fail("criteria.PackedAttentionGrad: out of memory");
  memcpy(sorted, w->order, w->batch * sizeof *sorted);
  for (size_t g = 0; g < w->group_count; g++) {
    w->groups[g] = next;
    for (size_t k = 0; k < w->batch; k++) {
      size_t turn = k / w->group_count, place = k % w->group_count;
      if ((turn % 2 ? w->group_count - 1 - place : place) == g) w->order[next++] = sorted[k];
    }
  }
  w->groups[w->group_count] = next;
  free(sorted);
  return NULL;
}

// Reads what all forms have; first is the place of x among the inputs, second that of
// offsets. probs becomes the size of the probabilities.
static OrtStatus *read_inputs(attention_args *w, const ops_attributes *a, void *context, size_t first, size_t second,
                              ops_shape *x, ops_shape *positions, packed_rows *rows, int64_t *probs) {
  ops_shape index;
  const int64_t *table;
  uint64_t start;
  TRY(ops_input(context, first, (const void **)&w->x, x));
  TRY(ops_input(context, first + 1, (const void **)&w->positions, positions));
  TRY(packed_offsets(context, second, x->rank ? (size_t)x->dims[0] : 0, rows));
  TRY(ops_input(context, second + 1, (const void **)&table, &index));
  TRY(packed_key(context, second + 2, a, &start));
  TRY(attention_open(w, a, x, positions, table, ops_elements(&index), rows->rows));
  if (w->l < rows->longest) return ops_fail("criteria.PackedAttention: index is for shorter rows");
  w->threshold = (uint32_t)a->threshold;
  *probs = 0;
  w->batch = 0;
  for (size_t r = 0; r < rows->rows; r++) {
    size_t n = packed_length(rows, r), at = packed_begin(rows, r);
    if (n == 0) continue;
    w->sequences[w->batch++] = (attention_sequence){.at = at, .n = n, .end = at + n,
                                                    .from = (size_t)w->up.index[w->l - n],
                                                    .to = (size_t)w->up.index[w->l + n - 2] + 1,
                                                    .place = (size_t)*probs, .stride = n, .area = n * n,
                                                    .start = packed_row_start(start, r)};
    *probs += (int64_t)(w->heads * n * n);
  }
  sort_by_length(w);
  return NULL;
}

static OrtStatus *run_forward(attention_args *w, const ops_attributes *a, void *context, int with_probs) {
  ops_shape x, positions, probs = {1, {0}};
  packed_rows rows;
  TRY(read_inputs(w, a, context, 0, 2, &x, &positions, &rows, &probs.dims[0]));
  ops_shape out = {2, {x.dims[0], (int64_t)w->d}};
  TRY(ops_output(context, 0, &out, &w->context));
  if (with_probs) TRY(ops_output(context, 1, &probs, &w->probs));
  memset(w->context + packed_end(&rows) * w->d, 0, (rows.tokens - packed_end(&rows)) * w->d * sizeof *w->context);
  return w->batch ? attention_forward(w, context) : NULL;
}

static OrtStatus *packed_attention(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return attention_finish(&w, run_forward(&w, a, context, 0));
}

static OrtStatus *packed_attention_probs(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return attention_finish(&w, run_forward(&w, a, context, 1));
}

static OrtStatus *run_backward(attention_args *w, const ops_attributes *a, void *context) {
  ops_shape x, positions, s;
  packed_rows rows;
  int64_t probs;
  TRY(read_inputs(w, a, context, 1, 4, &x, &positions, &rows, &probs));
  TRY(ops_input(context, 0, (const void **)&w->dcontext, &s));
  if (s.rank != 2 || s.dims[0] != x.dims[0] || (size_t)s.dims[1] != w->d)
    return ops_fail("criteria.PackedAttentionGrad: dcontext and x do not fit");
  TRY(ops_input(context, 3, (const void **)&w->saved, &s));
  if (ops_elements(&s) != (size_t)probs) return ops_fail("criteria.PackedAttentionGrad: probs does not fit");
  float *dpositions;
  TRY(ops_output(context, 0, &x, &w->dx));
  TRY(ops_output(context, 1, &positions, &dpositions));
  memset(w->dx + packed_end(&rows) * 3 * w->d, 0, (rows.tokens - packed_end(&rows)) * 3 * w->d * sizeof *w->dx);
  if (w->batch == 0) {
    memset(dpositions, 0, ops_elements(&positions) * sizeof *dpositions);
    return NULL;
  }
  TRY(deal(w));
  return attention_backward(w, context, dpositions);
}

static OrtStatus *packed_attention_grad(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return attention_finish(&w, run_backward(&w, a, context));
}

static OrtStatus *attention_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  if (in[0].rank != 2) return ops_fail("criteria.PackedAttention: x must be a matrix");
  out[0] = (ops_shape){2, {in[0].dims[0], in[0].dims[1] < 0 ? -1 : in[0].dims[1] / 3}};
  out[1] = (ops_shape){1, {-1}};
  return NULL;
}

static OrtStatus *attention_grad_shapes(const ops_attributes *a, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)a, (void)inputs;
  out[0] = in[1];
  out[1] = in[2];
  return NULL;
}

ops_operator ops_packed_attention = {.inputs = "ffiii",
                                     .outputs = "f",
                                     .create = read_attributes,
                                     .run = packed_attention,
                                     .shapes = attention_shapes};
ops_operator ops_packed_attention_probs = {.inputs = "ffiii",
                                           .outputs = "ff",
                                           .create = read_attributes,
                                           .run = packed_attention_probs,
                                           .shapes = attention_shapes};
ops_operator ops_packed_attention_grad = {.inputs = "ffffiii",
                                          .outputs = "ff",
                                          .create = read_attributes,
                                          .run = packed_attention_grad,
                                          .shapes = attention_grad_shapes};
