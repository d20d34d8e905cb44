// Gemm(A, B[, C]; transA, transB) → op(A)·op(B) + C, over a BLAS found at run time.
// LinearGrad(dY, X, C, d) → dYᵀ·X + C, Σ dY + d
//
// A and B are matrices, C a row [N] or a matrix [M, N]. If the output is bound
// to the memory of C, the product is added there without a copy: gradients
// accumulate this way.
//
// LinearGrad has the gradients of the weight and the bias of a linear layer,
// from dY [M, N] and X [M, K]: the bias's is summed up from what the product is
// about to read. C [R, K] and d [R] are added to the first R ≤ N rows and
// elements of the results, which may be bound to their memory if R is N.
//
// ONNX Runtime's own products reach two thirds of the speed of a good BLAS. The
// BLAS is told to work on one thread; its products are cut into blocks which
// ONNX Runtime's threads share. Since a BLAS may add up in another order for
// another size of block, the cut depends on the shapes and on the machine's
// number of cores, never on the number of threads in use.

#include "blas.h"
#include "ops.h"

#include <string.h>

typedef struct {
  const float *a, *b, *c;
  float *y;
  size_t m, n, k, block_m, block_n, blocks_n;
  size_t c_rows; // the first rows of the product, which c is added to
  int trans_a, trans_b, c_is_row;
  blas_product *account;
} gemm_args;

// Chooses blocks along the longer side: as many for one core as for another, or
// cores wait for each other, and long ones, for the shorter side is packed anew
// for each of them. (On two cores 768 columns or rows reach the rate of the whole,
// 384 cost up to 10 % of it.) Where that makes slivers, because there are many
// cores, both sides are cut.
static size_t cut(gemm_args *w) {
  enum { LONGEST = 768, SHORTEST = 256, VECTOR = 16 };
  static const size_t sizes[][2] = {{256, 384}, {256, 256}, {192, 256}, {128, 192}};
  size_t longer = w->n >= w->m ? w->n : w->m, cores = blas_cores();
  size_t each = ops_tasks(longer, ops_tasks(longer, cores * LONGEST) * cores);
  each = ops_tasks(each, VECTOR) * VECTOR;
  w->block_m = w->n >= w->m ? w->m : each;
  w->block_n = w->n >= w->m ? each : w->n;
  for (size_t i = 0; each < SHORTEST && i < sizeof sizes / sizeof *sizes; i++) {
    w->block_m = sizes[i][0];
    w->block_n = sizes[i][1];
    if (ops_tasks(w->n, w->block_n) * ops_tasks(w->m, w->block_m) >= cores) break;
  }
  w->blocks_n = ops_tasks(w->n, w->block_n);
  return w->blocks_n * ops_tasks(w->m, w->block_m);
}

static void gemm_task(void *arg, size_t i) {
  const gemm_args *w = arg;
  size_t m0 = i / w->blocks_n * w->block_m, n0 = i % w->blocks_n * w->block_n;
  size_t m = ops_min(w->block_m, w->m - m0), n = ops_min(w->block_n, w->n - n0);
  size_t lda = w->trans_a ? w->m : w->k, ldb = w->trans_b ? w->k : w->n;
  const float *a = w->trans_a ? w->a + m0 : w->a + m0 * lda;
  const float *b = w->trans_b ? w->b + n0 * ldb : w->b + n0;
  float *y = w->y + m0 * w->n + n0;
  int adds = w->c && w->c_rows > m0;
  for (size_t r = 0; adds && w->c != w->y && r < m; r++) {
    if (m0 + r < w->c_rows)
      memcpy(y + r * w->n, w->c_is_row ? w->c + n0 : w->c + (m0 + r) * w->n + n0, n * sizeof *y);
    else
      memset(y + r * w->n, 0, n * sizeof *y);
  }
  blas_gemm(w->account, w->trans_a, w->trans_b, m, n, w->k, 1, a, lda, b, ldb, adds ? 1 : 0, y, w->n);
}

static OrtStatus *gemm_shapes(const ops_attributes *t, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)inputs;
  if (in[0].rank != 2 || in[1].rank != 2) return ops_fail("criteria.Gemm: A and B must be matrices");
  int64_t ka = in[0].dims[t->trans_a ? 0 : 1], kb = in[1].dims[t->trans_b ? 1 : 0];
  if (ka >= 0 && kb >= 0 && ka != kb) return ops_fail("criteria.Gemm: A and B do not fit");
  *out = (ops_shape){2, {in[0].dims[t->trans_a ? 1 : 0], in[1].dims[t->trans_b ? 0 : 1]}};
  return NULL;
}

static OrtStatus *gemm(const ops_attributes *t, void *context) {
  gemm_args w = {.trans_a = t->trans_a != 0, .trans_b = t->trans_b != 0};
  ops_shape in[2], c, out;
  TRY(ops_input(context, 0, (const void **)&w.a, &in[0]));
  TRY(ops_input(context, 1, (const void **)&w.b, &in[1]));
  TRY(ops_input(context, 2, (const void **)&w.c, &c));
  TRY(gemm_shapes(t, in, 2, &out));
  w.m = (size_t)out.dims[0];
  w.n = (size_t)out.dims[1];
  w.k = (size_t)in[0].dims[w.trans_a ? 0 : 1];
  if (w.c) {
    w.c_is_row = c.rank == 1 && c.dims[0] == out.dims[1];
    if (!w.c_is_row && !ops_same_shape(&c, &out)) return ops_fail("criteria.Gemm: C is neither [N] nor [M, N]");
    w.c_rows = w.m;
  }
  TRY(ops_output(context, 0, &out, &w.y));
  if (w.m == 0 || w.n == 0) return NULL;
  w.account = blas_kind(w.trans_a, w.trans_b, w.m, w.n, w.k, 1);
  return ops_parallel(context, gemm_task, cut(&w), &w);
}

static OrtStatus *create(const void *info, ops_attributes *t) {
  if (!blas_loaded()) return ops_fail("criteria.Gemm: no BLAS is loaded");
  TRY(ops_int_attribute(info, "transA", &t->trans_a));
  return ops_int_attribute(info, "transB", &t->trans_b);
}

ops_operator ops_gemm = {
    .inputs = "ffF",
    .outputs = "f",
    .ints = {{"transA", offsetof(ops_attributes, trans_a)}, {"transB", offsetof(ops_attributes, trans_b)}},
    .create = create,
    .run = gemm,
    .shapes = gemm_shapes};

// --- LinearGrad(dY, X, C, d) → dYᵀ·X + C, Σ dY + d -------------------------------

typedef struct {
  gemm_args product;
  const float *d;
  float *sums;
  size_t d_size;
} linear_args;

// Adds n columns of the rows of x to sums. Four rows are added at a time: that
// is faster, and rounds the sum less often.
static void add_columns(const float *x, size_t rows, size_t ld, float *restrict sums, size_t n) {
  size_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const float *a = x + r * ld, *b = a + ld, *c = b + ld, *d = c + ld;
    for (size_t j = 0; j < n; j++) sums[j] += (a[j] + b[j]) + (c[j] + d[j]);
  }
  for (; r < rows; r++)
    for (size_t j = 0; j < n; j++) sums[j] += x[r * ld + j];
}

// The blocks that read the same columns of dY share in summing them up. A sum is
// whole before d is added to it: two equal micro-batches leave exactly twice what
// one of them leaves.
static void linear_grad_task(void *arg, size_t i) {
  enum { COLUMNS = 2048 }; // a sum for each fits into the fastest cache, and long runs of a row are read
  linear_args *w = arg;
  const gemm_args *p = &w->product;
  size_t m0 = i / p->blocks_n * p->block_m, end = ops_min(m0 + p->block_m, p->m);
  size_t share = ops_tasks(end - m0, p->blocks_n), from = m0 + i % p->blocks_n * share;
  end = ops_min(from + share, end);
  for (; from < end; from += COLUMNS) {
    size_t n = ops_min(COLUMNS, end - from);
    float sums[COLUMNS] = {0};
    add_columns(p->a + from, p->k, p->m, sums, n);
    for (size_t j = 0; j < n; j++) w->sums[from + j] = from + j < w->d_size ? w->d[from + j] + sums[j] : sums[j];
  }
  gemm_task(&w->product, i);
}

static OrtStatus *linear_grad_shapes(const ops_attributes *t, const ops_shape *in, size_t inputs, ops_shape *out) {
  (void)t, (void)inputs;
  if (in[0].rank != 2 || in[1].rank != 2) return ops_fail("criteria.LinearGrad: dY and X must be matrices");
  out[0] = (ops_shape){2, {in[0].dims[1], in[1].dims[1]}};
  out[1] = (ops_shape){1, {in[0].dims[1]}};
  return NULL;
}

static OrtStatus *linear_grad(const ops_attributes *t, void *context) {
  linear_args w = {.product = {.trans_a = 1}};
  gemm_args *p = &w.product;
  ops_shape in[4], out[2];
  const float **data[] = {&p->a, &p->b, &p->c, &w.d};
  for (size_t i = 0; i < 4; i++) TRY(ops_input(context, i, (const void **)data[i], &in[i]));
  TRY(linear_grad_shapes(t, in, 4, out));
  if (in[0].dims[0] != in[1].dims[0]) return ops_fail("criteria.LinearGrad: dY and X do not fit");
  if (in[2].rank != 2 || in[3].rank != 1 || in[2].dims[0] > in[0].dims[1] || in[2].dims[1] != in[1].dims[1] ||
      in[3].dims[0] > in[0].dims[1])
    return ops_fail("criteria.LinearGrad: C or d does not fit");
  p->m = (size_t)in[0].dims[1];
  p->n = (size_t)in[1].dims[1];
  p->k = (size_t)in[0].dims[0];
  p->c_rows = (size_t)in[2].dims[0];
  w.d_size = (size_t)in[3].dims[0];
  TRY(ops_output(context, 0, &out[0], &p->y));
  TRY(ops_output(context, 1, &out[1], &w.sums));
  if (p->m == 0 || p->n == 0) return NULL;
  p->account = blas_kind(1, 0, p->m, p->n, p->k, 1);
  return ops_parallel(context, linear_grad_task, cut(p), &w);
}

static OrtStatus *need_blas(const void *info, ops_attributes *t) {
  (void)info, (void)t;
  return blas_loaded() ? NULL : ops_fail("criteria.LinearGrad: no BLAS is loaded");
}

ops_operator ops_linear_grad = {
    .inputs = "ffff", .outputs = "ff", .create = need_blas, .run = linear_grad, .shapes = linear_grad_shapes};
