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

#include "attention.h"

// --- arguments ------------------------------------------------------------------------

// Reads what both operators have; first is the place of x among the inputs,
// second that of tokens.
static OrtStatus *read_inputs(attention_args *w, const ops_attributes *a, void *context, size_t first, size_t second,
                              ops_shape *rows, ops_shape *positions) {
  ops_shape tokens, index, mask;
  const int64_t *table;
  TRY(ops_input(context, first, (const void **)&w->x, rows));
  TRY(ops_input(context, first + 1, (const void **)&w->positions, positions));
  TRY(ops_input(context, second, (const void **)&w->tokens, &tokens));
  TRY(ops_input(context, second + 1, (const void **)&table, &index));
  TRY(ops_input(context, second + 2, (const void **)&w->mask, &mask));
  size_t l = (ops_elements(&index) + 1) / 2;
  if (rows->rank != 2 || l == 0 || (size_t)rows->dims[0] % l || ops_elements(&tokens) != (size_t)rows->dims[0])
    return ops_fail("criteria.Attention: x, tokens and index do not fit");
  TRY(attention_open(w, a, rows, positions, table, ops_elements(&index), (size_t)rows->dims[0] / l));
  if (w->mask && ops_elements(&mask) != w->heads * w->batch * l * l)
    return ops_fail("criteria.Attention: the mask does not fit");
  for (size_t b = 0; b < w->batch; b++) {
    size_t last = l;
    while (last > 1 && w->tokens[b * l + last - 1] == 0) last--;
    w->sequences[b] = (attention_sequence){.at = b * l, .n = last, .end = (b + 1) * l, .from = 0, .to = w->r,
                                           .place = b * l * l, .stride = l, .area = w->batch * l * l};
  }
  return NULL;
}

// --- forward ------------------------------------------------------------------------------

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
  return attention_forward(w, context);
}

static OrtStatus *attention(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return attention_finish(&w, run_forward(&w, a, context, 0));
}

static OrtStatus *attention_probs(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return attention_finish(&w, run_forward(&w, a, context, 1));
}

// --- backward -----------------------------------------------------------------------------

static OrtStatus *run_backward(attention_args *w, const ops_attributes *a, void *context) {
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
  w->group_count = attention_groups(w);
  size_t each = ops_tasks(w->batch, w->group_count);
  for (size_t g = 0; g <= w->group_count; g++) w->groups[g] = ops_min(g * each, w->batch);
  size_t n = w->l, count = w->heads * w->batch;
  w->slope_p = blas_kind(0, 1, n, n, w->size, count);
  w->slope_v = blas_kind(1, 0, n, w->size, n, 2 * count);
  w->slope_q = blas_kind(0, 0, n, w->size, n, count);
  w->slope_rows = blas_kind(0, 0, n, w->size, w->r, 2 * count);
  w->slope_positions = blas_kind(1, 0, w->r, w->size, n, 2 * count);
  return attention_backward(w, context, dpositions);
}

static OrtStatus *attention_grad(const ops_attributes *a, void *context) {
  attention_args w = {0};
  return attention_finish(&w, run_backward(&w, a, context));
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
                              .create = attention_attributes,
                              .run = attention,
                              .shapes = attention_shapes};
ops_operator ops_attention_probs = {.inputs = "fffiB",
                                    .outputs = "ff",
                                    .ints = {{"heads", offsetof(ops_attributes, heads)}},
                                    .create = attention_attributes,
                                    .run = attention_probs,
                                    .shapes = attention_probs_shapes};
ops_operator ops_attention_grad = {.inputs = "fffffiB",
                                   .outputs = "ff",
                                   .create = attention_attributes,
                                   .run = attention_grad,
                                   .shapes = attention_grad_shapes};
