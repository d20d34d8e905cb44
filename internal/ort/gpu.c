#include "gpu.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>

#include "op_flash.h"
#include "ops.h"

// The functions of the driver that are called; their types are those of CUDA 4
// and later.
static struct {
  int (*cuModuleLoadData)(void **module, const void *image);
  int (*cuModuleUnload)(void *module);
  int (*cuModuleGetFunction)(void **function, void *module, const char *name);
  int (*cuLaunchKernel)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, void *stream, void **arguments,
                        void **extra);
  int (*cuGetErrorString)(int status, const char **message);
} driver;

const char *gpu_open(void) {
  void *handle = dlopen("libcuda.so.1", RTLD_LAZY);
  if (!handle) return dlerror();
#define TAKE(f)                                        \
  do {                                                 \
    *(void **)&driver.f = dlsym(handle, #f);           \
    if (!driver.f) return "it lacks the function " #f; \
  } while (0)
  TAKE(cuModuleLoadData);
  TAKE(cuModuleUnload);
  TAKE(cuModuleGetFunction);
  TAKE(cuLaunchKernel);
  TAKE(cuGetErrorString);
#undef TAKE
  return NULL;
}

const char *gpu_message(int status) {
  const char *message;
  return driver.cuGetErrorString(status, &message) ? "unknown error" : message;
}

// --- launches -------------------------------------------------------------------

// Launches enough programs for n elements on the stream that the provider works
// on. See ARGUMENTS.
static OrtStatus *launch(const gpu_kernel *k, void *context, size_t n, size_t count, void **arguments) {
  if (count != k->arguments) return ops_fail("criteria: a kernel takes another number of arguments");
  if (n == 0) return NULL;
  if (n > INT_MAX - k->block) return ops_fail("criteria: more elements than a kernel can count");
  void *stream;
  TRY(ORT(KernelContext_GetGPUComputeStream)(context, &stream));
  unsigned programs = (unsigned)((n + k->block - 1) / k->block);
  int status = driver.cuLaunchKernel(k->function, programs, 1, 1, k->threads, 1, 1, k->shared, stream, arguments, NULL);
  return status ? ops_fail(gpu_message(status)) : NULL;
}

// The number of a kernel's arguments, and their addresses, with those of two more
// that every kernel of Triton takes: memory that ours have no use for.
static void *scratch;
#define ARGUMENTS(...) sizeof((void *[]){__VA_ARGS__}) / sizeof(void *), ((void *[]){__VA_ARGS__, &scratch, &scratch})

static int aligned(const void *address) { return (uintptr_t)address % 16 == 0; }
static OrtStatus *misaligned(void) { return ops_fail("criteria: an address on the GPU is no multiple of 16"); }

// The kernel of three that is for a type; NULL for one that none is for.
static const gpu_kernel *of_type(const gpu_kernel *three, int type) {
  switch (type) {
  case OPS_FLOAT: return &three[0];
  case OPS_FLOAT16: return &three[1];
  case OPS_BFLOAT16: return &three[2];
  }
  return NULL;
}

// --- operators: see operators.go for what they compute ----------------------------

static OrtStatus *philox_dropout(const ops_attributes *a, void *context) {
  const void *x, *position;
  float *y;
  ops_shape shape, single;
  int type;
  TRY(ops_input(context, 0, &x, &shape));
  TRY(ops_type(context, 0, &type));
  TRY(ops_input(context, 1, &position, &single));
  TRY(ops_output(context, 0, &shape, &y));
  if (!aligned(x) || !aligned(y) || !aligned(position)) return misaligned();
  const gpu_kernel *k = of_type(&a->kernels[GPU_DROPOUT], type);
  if (!k) return ops_fail("criteria.PhiloxDropout: x must be float32, float16 or bfloat16");
  size_t count = ops_elements(&shape);
  uint64_t seed = (uint64_t)a->seed;
  uint32_t threshold = (uint32_t)a->threshold;
  int32_t site = (int32_t)a->site, n = (int32_t)count;
  float scale = a->scale;
  return launch(k, context, count, ARGUMENTS(&x, &y, &position, &seed, &site, &threshold, &scale, &n));
}

static OrtStatus *sum_squares(const ops_attributes *a, void *context) {
  const gpu_kernel *k = &a->kernels[GPU_SUM_SQUARES];
  const void *x;
  float *sums;
  ops_shape shape;
  TRY(ops_input(context, 0, &x, &shape));
  size_t count = ops_elements(&shape);
  if ((size_t)a->span != k->block || count % 16) return ops_fail("criteria.SumSquares: this span has no kernel");
  ops_shape spans = {1, {(int64_t)ops_tasks(count, k->block)}};
  TRY(ops_output(context, 0, &spans, &sums));
  if (!aligned(x) || !aligned(sums)) return misaligned();
  int32_t n = (int32_t)count;
  return launch(k, context, count, ARGUMENTS(&x, &sums, &n));
}

// ops_open_copy for a kernel, which moves several elements at once.
static OrtStatus *open_copy(void *context, size_t input, size_t output, size_t elements, ops_copy *c) {
  TRY(ops_open_copy(context, input, output, elements, c));
  if (!aligned(c->data)) return misaligned();
  if (elements > INT_MAX || c->first % 16) return ops_fail("criteria: a copy does not begin at a multiple of 16");
  return NULL;
}

static OrtStatus *adamw(const ops_attributes *a, void *context) {
  const void *in[5];
  float *out[3];
  ops_shape shape, other;
  TRY(ops_input(context, 0, &in[0], &shape));
  size_t count = ops_elements(&shape);
  if (count % 16) return ops_fail("criteria.AdamW: the number of elements is no multiple of 16");
  for (size_t i = 1; i < 4; i++) {
    TRY(ops_input(context, i, &in[i], &other));
    if (!ops_same_shape(&shape, &other)) return ops_fail("criteria.AdamW: the vectors differ in shape");
  }
  TRY(ops_input(context, 4, &in[4], &other));
  for (size_t i = 0; i < 3; i++) TRY(ops_output(context, i, &shape, &out[i]));
  for (size_t i = 0; i < 5; i++)
    if (!aligned(in[i]) || (i < 3 && !aligned(out[i]))) return misaligned();
  const gpu_kernel *kernels = &a->kernels[GPU_ADAMW];
  ops_copy copy;
  TRY(open_copy(context, 5, 3, count, &copy));
  int32_t n = (int32_t)count, first = (int32_t)copy.first;
  if (!copy.data)
    return launch(kernels, context, count,
                  ARGUMENTS(&in[0], &in[1], &in[2], &in[3], &in[4], &out[0], &out[1], &out[2], &n));
  return launch(of_type(kernels, copy.type), context, count,
                ARGUMENTS(&in[0], &in[1], &in[2], &in[3], &in[4], &out[0], &out[1], &out[2], &copy.data, &first, &n));
}

static OrtStatus *adamw8bit(const ops_attributes *a, void *context) {
  const void *in[8];
  float *out[2];
  ops_shape shapes[8];
  for (size_t i = 0; i < 8; i++) TRY(ops_input(context, i, &in[i], &shapes[i]));
  for (size_t i = 0; i < 8; i++)
    if (!aligned(in[i])) return misaligned();
  TRY(ops_output(context, 0, &shapes[0], &out[0]));
  TRY(ops_output(context, 1, &shapes[2], &out[1]));
  const gpu_kernel *kernels = &a->kernels[GPU_ADAMW8BIT];
  ops_copy copy;
  TRY(open_copy(context, 8, 2, ops_elements(&shapes[0]), &copy));
  if (out[0] != in[0] || out[1] != in[2] || copy.data != copy.old)
    return ops_fail("criteria.AdamW8bit: p, state and copy are not updated in place");
  size_t blocks = ops_elements(&shapes[3]);
  int32_t n = (int32_t)blocks, first = (int32_t)copy.first;
  if (!copy.data)
    return launch(kernels, context, blocks,
                  ARGUMENTS(&in[0], &in[1], &in[2], &in[2], &in[3], &in[4], &in[5], &in[6], &in[7], &n));
  return launch(
      of_type(kernels, copy.type), context, blocks,
      ARGUMENTS(&in[0], &in[1], &in[2], &in[2], &in[3], &in[4], &in[5], &in[6], &in[7], &copy.data, &first, &n));
}

// What all kernels of attention take after their tensors.
typedef struct {
  uint64_t seed;
  int32_t site, batch, heads, n, size;
  uint32_t threshold;
  float keep, scale;
  size_t pairs; // of heads and sequences
} flash_arguments;

static OrtStatus *flash_prepare(const ops_attributes *a, flash_inputs *in, flash_arguments *f) {
  if (!of_type(a->kernels, in->type))
    return ops_fail("criteria.FlashAttention: numbers must be float32, float16 or bfloat16");
  const void *all[] = {in->dcontext, in->q,       in->k,   in->v,      in->c2p,
                       in->p2c,      in->context, in->lse, in->tokens, in->position};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (!aligned(all[i])) return misaligned();
  // Without dropout it counts for nothing, but a compiler may read it early.
  if (!in->position) in->position = (const int64_t *)in->tokens;
  if (ops_elements(&in->tables) / 8 > UINT32_MAX)
    return ops_fail("criteria.FlashAttention: more scores than dropout can count");
  *f = (flash_arguments){
      .seed = (uint64_t)a->seed,
      .site = (int32_t)a->site,
      .batch = (int32_t)in->batch,
      .heads = (int32_t)in->heads,
      .n = (int32_t)in->n,
      .size = (int32_t)in->size,
      .threshold = (uint32_t)a->threshold,
      .keep = a->keep,
      .scale = a->scale,
      .pairs = in->heads * in->batch,
  };
  return NULL;
}

// A program works on a block of rows of one pair; the last one may be smaller.
static size_t flash_rows(const gpu_kernel *k, const flash_arguments *f) {
  return f->pairs * ops_tasks((size_t)f->n, k->block) * k->block;
}
#define FLASH(k, ...)                   \
  launch(k, context, flash_rows(k, &f), \
         ARGUMENTS(__VA_ARGS__, &f.seed, &f.site, &f.threshold, &f.keep, &f.scale, &f.batch, &f.heads, &f.n, &f.size))

static OrtStatus *flash_attention(const ops_attributes *a, void *context) {
  flash_inputs in;
  flash_arguments f;
  float *result, *lse;
  TRY(flash_read(a, context, 0, &in));
  TRY(flash_prepare(a, &in, &f));
  TRY(ops_output(context, 0, &in.rows, &result));
  TRY(ops_output(context, 1, &in.stats, &lse));
  if (!aligned(result) || !aligned(lse)) return misaligned();
  const gpu_kernel *k = of_type(&a->kernels[GPU_ATTENTION], in.type);
  return FLASH(k, &in.q, &in.k, &in.v, &in.c2p, &in.p2c, &in.tokens, &in.position, &result, &lse);
}

static OrtStatus *flash_attention_grad(const ops_attributes *a, void *context) {
  flash_inputs in;
  flash_arguments f;
  float *dq, *dk, *dv, *dc2p, *dp2c, *delta, **outputs[] = {&dq, &dk, &dv, &dc2p, &dp2c, &delta};
  TRY(flash_read(a, context, 1, &in));
  TRY(flash_prepare(a, &in, &f));
  for (size_t i = 0; i < 6; i++) {
    TRY(ops_output(context, i, i < 3 ? &in.rows : i < 5 ? &in.tables : &in.stats, outputs[i]));
    if (!aligned(*outputs[i])) return misaligned();
  }
  const gpu_kernel *queries = of_type(&a->kernels[GPU_ATTENTION_QUERIES], in.type);
  const gpu_kernel *keys = of_type(&a->kernels[GPU_ATTENTION_KEYS], in.type);
  TRY(FLASH(queries, &in.dcontext, &in.q, &in.k, &in.v, &in.c2p, &in.p2c, &in.context, &in.lse, &in.tokens,
            &in.position, &dq, &dc2p, &delta));
  return FLASH(keys, &in.dcontext, &in.q, &in.k, &in.v, &in.c2p, &in.p2c, &in.lse, &delta, &in.tokens, &in.position,
               &dk, &dv, &dp2c);
}

// --- modules --------------------------------------------------------------------

const char *gpu_kernel_name(int kernel) {
  static const char *const names[] = {
#define GPU_KERNEL(id, name) #name,
#include "gpu_kernels.def.h"
  };
  return names[kernel];
}

// The operators are those of the host, but for who computes them.
static const struct {
  const char *name;
  const ops_operator *host;
  OrtStatus *(*run)(const ops_attributes *, void *context);
} operators[] = {
#define DEVICE_OPERATOR(id, name, needs) {#name, &ops_##id, id},
#include "ops.def.h"
};
enum { OPERATORS = sizeof operators / sizeof *operators };

struct gpu_module {
  gpu_kernel kernels[GPU_KERNELS];
  ops_operator operators[OPERATORS];
  OrtCustomOpDomain *domain;
};

gpu_module *gpu_new(void) { return calloc(1, sizeof(gpu_module)); }

int gpu_load(gpu_module *m, int kernel, const void *image, const char *entry, gpu_kernel launch) {
  gpu_kernel *k = &m->kernels[kernel];
  *k = launch;
  k->module = k->function = NULL;
  int status = driver.cuModuleLoadData(&k->module, image);
  return status ? status : driver.cuModuleGetFunction(&k->function, k->module, entry);
}

OrtStatus *gpu_register(gpu_module *m, void *session_options) {
  if (!m->domain) {
    ops_operator *all[OPERATORS];
    for (size_t i = 0; i < OPERATORS; i++) {
      all[i] = &m->operators[i];
      *all[i] = *operators[i].host;
      all[i]->name = operators[i].name;
      all[i]->run = operators[i].run;
      all[i]->kernels = m->kernels;
    }
    TRY(ops_domain(all, OPERATORS, &m->domain));
  }
  return ORT(AddCustomOpDomain)(session_options, m->domain);
}

int gpu_free(gpu_module *m) {
  int status = 0;
  if (m->domain) ORT(ReleaseCustomOpDomain)(m->domain);
  for (size_t i = 0; i < GPU_KERNELS; i++) {
    if (!m->kernels[i].module) continue;
    int s = driver.cuModuleUnload(m->kernels[i].module);
    if (!status) status = s;
  }
  free(m);
  return status;
}
