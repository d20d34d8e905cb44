// The operators of domain "criteria": what they share. Each op_*.c file implements
// a few of them for ONNX Runtime's CPU provider, gpu.c those of the CUDA provider;
// ops.c registers them all.

#ifndef CRITERIA_ORT_OPS_H
#define CRITERIA_ORT_OPS_H

#include "api.h"

// ONNX's element types.
enum {
  OPS_ANY = 0,
  OPS_FLOAT = 1,
  OPS_UINT8 = 2,
  OPS_INT32 = 6,
  OPS_INT64 = 7,
  OPS_BOOL = 9,
  OPS_FLOAT16 = 10,
  OPS_BFLOAT16 = 16
};

// TRY returns from the calling function if a step fails.
#define TRY(step)                     \
  do {                                \
    OrtStatus *try_status = (step);   \
    if (try_status) return try_status; \
  } while (0)

// The attributes that an operator may have; each uses the ones it declares.
typedef struct {
  int64_t trans_a, trans_b, heads;
  float scale, keep;
  int64_t seed, site, threshold, span, mode;
  const struct gpu_kernel *kernels; // of the operator's GPU; NULL on the host
} ops_attributes;

enum { OPS_MAX_RANK = 8 };

// A size that a graph leaves open is negative while shapes are inferred: -1 if nothing is
// known of it, any other number for sizes that are equal.
typedef struct {
  size_t rank;
  int64_t dims[OPS_MAX_RANK];
} ops_shape;

// struct OrtCustomOp as it is since version 1.17 of ONNX Runtime.
typedef struct OrtCustomOp {
  uint32_t version;
  void *(*create_kernel)(const struct OrtCustomOp *, const void *api, const void *info); // superseded
  const char *(*name)(const struct OrtCustomOp *);
  const char *(*provider)(const struct OrtCustomOp *);
  int (*input_type)(const struct OrtCustomOp *, size_t);
  size_t (*input_count)(const struct OrtCustomOp *);
  int (*output_type)(const struct OrtCustomOp *, size_t);
  size_t (*output_count)(const struct OrtCustomOp *);
  void (*compute)(void *, void *); // superseded
  void (*destroy_kernel)(void *);
  int (*input_characteristic)(const struct OrtCustomOp *, size_t);
  int (*output_characteristic)(const struct OrtCustomOp *, size_t);
  int (*input_memory)(const struct OrtCustomOp *, size_t);
  int (*variadic_input_arity)(const struct OrtCustomOp *);
  int (*variadic_input_homogeneous)(const struct OrtCustomOp *);
  int (*variadic_output_arity)(const struct OrtCustomOp *);
  int (*variadic_output_homogeneous)(const struct OrtCustomOp *);
  OrtStatus *(*create_kernel_v2)(const struct OrtCustomOp *, const void *api, const void *info, void **kernel);
  OrtStatus *(*compute_v2)(void *kernel, void *context);
  OrtStatus *(*infer)(const struct OrtCustomOp *, void *context);
  int (*start_version)(const struct OrtCustomOp *);
  int (*end_version)(const struct OrtCustomOp *);
  size_t (*may_inplace)(int **inputs, int **outputs);
  void (*release_may_inplace)(int *, int *);
  size_t (*alias_map)(int **inputs, int **outputs);
  void (*release_alias_map)(int *, int *);
} ops_custom_op;

// One of our operators.
typedef struct ops_operator {
  ops_custom_op base; // filled by ops.c; must be first
  const char *name;    // filled by ops.c from ops.def.h; or given
  const char *inputs;  // a letter per input: f float, b bool, i int64, j int32, u uint8, a any type, all
                       // of one; a capital may be missing
  const char *outputs; // likewise: a has the type of input a; A is there if input A is
  int in_place;        // the first output may take the first input's memory
  struct {
    const char *name;
    size_t offset; // in ops_attributes
  } ints[2];       // attributes that shapes depend on
  OrtStatus *(*create)(const void *info, ops_attributes *);
  OrtStatus *(*run)(const ops_attributes *, void *context);
  OrtStatus *(*shapes)(const ops_attributes *, const ops_shape *in, size_t inputs, ops_shape *out);
  const struct gpu_kernel *kernels; // for the CUDA provider, if not NULL
} ops_operator;

#define HOST_OPERATOR(id, name, needs) extern ops_operator ops_##id;
#define DEVICE_OPERATOR(id, name, needs) extern ops_operator ops_##id;
#include "ops.def.h"

// A row of ops.def.
typedef struct {
  const char *name;
  enum { OPS_ON_HOST, OPS_ON_DEVICE } place;
  enum { OPS_NEEDS_NOTHING, OPS_NEEDS_BLAS, OPS_NEEDS_ATTENTION } needs;
} ops_row;

// Writes row i and returns 1, or 0 if there are not so many.
int ops_list(size_t i, ops_row *row);

// Adds the domain with all operators, as the host computes them, to the options of a
// session to be made.
OrtStatus *ops_register(void *session_options);

// Makes a domain of the operators, which it completes. Both must outlive every
// session that uses the domain.
OrtStatus *ops_domain(ops_operator *const *operators, size_t count, OrtCustomOpDomain **domain);

// --- for the implementations --------------------------------------------------

OrtStatus *ops_fail(const char *message);
size_t ops_elements(const ops_shape *s);
int ops_same_shape(const ops_shape *a, const ops_shape *b);

// An input's data and shape; data is NULL for one that is missing.
OrtStatus *ops_input(void *context, size_t i, const void **data, ops_shape *shape);
OrtStatus *ops_output(void *context, size_t i, const ops_shape *shape, float **data);
OrtStatus *ops_type(void *context, size_t i, int *type); // of an input's elements

// Calls task(arg, 0 … count-1) on the session's threads. The cut into tasks must
// depend on shapes alone: then no result depends on the number of threads.
OrtStatus *ops_parallel(void *context, void (*task)(void *arg, size_t i), size_t count, void *arg);

// A copy in low precision of the last elements of a vector: an operator's input that
// its output replaces. Without one, data is NULL and first is behind the vector.
typedef struct {
  const void *old; // the input
  uint16_t *data;  // the output
  size_t first;    // element of the vector that the copy begins with
  int type;        // OPS_FLOAT16 or OPS_BFLOAT16
} ops_copy;

OrtStatus *ops_open_copy(void *context, size_t input, size_t output, size_t elements, ops_copy *c);

OrtStatus *ops_float_attribute(const void *info, const char *name, float *value);
OrtStatus *ops_int_attribute(const void *info, const char *name, int64_t *value);

// Elements that one task works on where the work per element is small: enough
// to be worth a switch of threads, few enough to stay in a core's cache.
enum { OPS_GRAIN = 16384 };

static inline size_t ops_tasks(size_t n, size_t grain) { return (n + grain - 1) / grain; }
static inline size_t ops_min(size_t a, size_t b) { return a < b ? a : b; }

#endif
