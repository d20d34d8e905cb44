// Matrix products by a BLAS found at run time, and what they cost.

#ifndef CRITERIA_ORT_BLAS_H
#define CRITERIA_ORT_BLAS_H

#include <stddef.h>
#include <stdint.h>

// Loads the library at path and finds cblas_sgemm in it; the library is set to
// work on the calling thread only. Returns NULL or a message. cores, the number
// of the machine's cores, decides how finely products are cut.
const char *blas_load(const char *path, int cores);
int blas_loaded(void);
size_t blas_cores(void);

// A kind of product and how long the threads have spent on it.
typedef struct {
  int64_t trans_a, trans_b, m, n, k;
  int64_t batch;     // products of this kind in one operator
  int64_t operators; // runs of operators
  int64_t thread_ns; // time of all threads together
} blas_product;

// Row-major c ← alpha·op(a)·op(b) + beta·c on the calling thread. The time is
// added to p unless it is NULL.
void blas_gemm(blas_product *p, int trans_a, int trans_b, size_t m, size_t n, size_t k, float alpha, const float *a,
               size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc);

// Counting products is off at first. blas_count begins anew or ends it;
// blas_kind returns the account of a kind of product for one more operator, or
// NULL if nothing is counted; blas_products copies the accounts.
void blas_count(int on);
blas_product *blas_kind(int trans_a, int trans_b, size_t m, size_t n, size_t k, size_t batch);
size_t blas_products(blas_product *out, size_t capacity);

#endif
