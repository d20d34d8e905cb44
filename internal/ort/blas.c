#define _GNU_SOURCE
#include "blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void (*sgemm_function)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                               int lda, const float *b, int ldb, float beta, float *c, int ldc);

static sgemm_function sgemm;
static size_t machine_cores = 1;

// Calls f(n) if the library has it.
static void set_int(void *library, const char *f, int n) {
  void (*set)(int) = (void (*)(int))dlsym(library, f);
  if (set) set(n);
}

const char *blas_load(const char *path, int cores) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return dlerror();
  // The wheel scipy-openblas32 puts a prefix to every name.
  void *f = dlsym(library, "scipy_cblas_sgemm");
  if (!f) f = dlsym(library, "cblas_sgemm");
  if (!f) {
    dlclose(library);
    return "it has no symbol cblas_sgemm";
  }
  enum { mkl_sequential = 1 };
  set_int(library, "MKL_Set_Threading_Layer", mkl_sequential);
  set_int(library, "MKL_Set_Num_Threads", 1);
  set_int(library, "scipy_openblas_set_num_threads", 1);
  set_int(library, "openblas_set_num_threads", 1);
  set_int(library, "bli_thread_set_num_threads", 1);
  sgemm = (sgemm_function)f;
  machine_cores = cores > 0 ? (size_t)cores : 1;
  return NULL;
}

int blas_loaded(void) { return sgemm != NULL; }
size_t blas_cores(void) { return machine_cores; }

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void blas_gemm(blas_product *p, int trans_a, int trans_b, size_t m, size_t n, size_t k, float alpha, const float *a,
               size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc) {
  int64_t start = p ? now() : 0;
  sgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b ? TRANS : NO_TRANS, (int)m, (int)n, (int)k, alpha, a, (int)lda,
        b, (int)ldb, beta, c, (int)ldc);
  if (p) __atomic_fetch_add(&p->thread_ns, now() - start, __ATOMIC_RELAXED);
}

// --- accounts ---------------------------------------------------------------------

enum { KINDS = 512 };

static struct {
  pthread_mutex_t lock;
  int on;
  size_t used;
  blas_product kinds[KINDS];
} accounts = {.lock = PTHREAD_MUTEX_INITIALIZER};

void blas_count(int on) {
  pthread_mutex_lock(&accounts.lock);
  accounts.used = 0;
  __atomic_store_n(&accounts.on, on, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&accounts.lock);
}

blas_product *blas_kind(int trans_a, int trans_b, size_t m, size_t n, size_t k, size_t batch) {
  if (!__atomic_load_n(&accounts.on, __ATOMIC_RELAXED)) return NULL;
  blas_product want = {trans_a != 0, trans_b != 0, (int64_t)m, (int64_t)n, (int64_t)k, (int64_t)batch, 0, 0};
  blas_product *found = NULL;
  pthread_mutex_lock(&accounts.lock);
  for (size_t i = 0; i < accounts.used && !found; i++)
    if (memcmp(&accounts.kinds[i], &want, offsetof(blas_product, operators)) == 0) found = &accounts.kinds[i];
  if (!found && accounts.used < KINDS) {
    found = &accounts.kinds[accounts.used++];
    *found = want;
  }
  if (found) found->operators++;
  pthread_mutex_unlock(&accounts.lock);
  return found;
}

size_t blas_products(blas_product *out, size_t capacity) {
  pthread_mutex_lock(&accounts.lock);
  size_t n = accounts.used < capacity ? accounts.used : capacity;
  memcpy(out, accounts.kinds, n * sizeof *out);
  pthread_mutex_unlock(&accounts.lock);
  return n;
}
