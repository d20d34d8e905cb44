#include "ops.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ops_row rows[] = {
#define HOST_OPERATOR(id, name, needs) {#name, OPS_ON_HOST, OPS_NEEDS_##needs},
#define DEVICE_OPERATOR(id, name, needs) {#name, OPS_ON_DEVICE, OPS_NEEDS_##needs},
#include "ops.def.h"
};

// In the order of rows.
static ops_operator *const operators[] = {
#define HOST_OPERATOR(id, name, needs) &ops_##id,
#define DEVICE_OPERATOR(id, name, needs) &ops_##id,
#include "ops.def.h"
};
enum { OPERATORS = sizeof operators / sizeof *operators };

int ops_list(size_t i, ops_row *row) {
  if (i >= OPERATORS) return 0;
  *row = rows[i];
  return 1;
}

enum { ALL_INPUTS = 12 }; // no operator has more

// --- helpers --------------------------------------------------------------------

OrtStatus *ops_fail(const char *message) {
  enum { invalid_argument = 2 };
  return ORT(CreateStatus)(invalid_argument, message);
}

size_t ops_elements(const ops_shape *s) {
  size_t n = 1;
  for (size_t i = 0; i < s->rank; i++) n *= (size_t)s->dims[i];
  return n;
}

int ops_same_shape(const ops_shape *a, const ops_shape *b) {
  return a->rank == b->rank && memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0;
}

static OrtStatus *read_shape(const OrtTensorTypeAndShapeInfo *info, ops_shape *shape) {
  TRY(ORT(GetDimensionsCount)(info, &shape->rank));
  if (shape->rank > OPS_MAX_RANK) return ops_fail("criteria: more than 8 dimensions");
  return ORT(GetDimensions)(info, shape->dims, shape->rank);
}

// An input's value; NULL for one that is missing.
static OrtStatus *input_value(void *context, size_t i, const OrtValue **value) {
  *value = NULL;
  size_t count;
  TRY(ORT(KernelContext_GetInputCount)(context, &count));
  return i < count ? ORT(KernelContext_GetInput)(context, i, value) : NULL;
}

OrtStatus *ops_input(void *context, size_t i, const void **data, ops_shape *shape) {
  const OrtValue *value;
  *data = NULL;
  shape->rank = 0;
  TRY(input_value(context, i, &value));
  if (!value) return NULL;
  // ONNX Runtime has no function for reading alone.
  TRY(ORT(GetTensorMutableData)((OrtValue *)value, (void **)data));
  OrtTensorTypeAndShapeInfo *info;
  TRY(ORT(GetTensorTypeAndShape)(value, &info));
  OrtStatus *s = read_shape(info, shape);
  ORT(ReleaseTensorTypeAndShapeInfo)(info);
  return s;
}

OrtStatus *ops_output(void *context, size_t i, const ops_shape *shape, float **data) {
  OrtValue *value;
  TRY(ORT(KernelContext_GetOutput)(context, i, shape->dims, shape->rank, &value));
  return ORT(GetTensorMutableData)(value, (void **)data);
}

OrtStatus *ops_type(void *context, size_t i, int *type) {
  const OrtValue *value;
  OrtTensorTypeAndShapeInfo *info;
  TRY(ORT(KernelContext_GetInput)(context, i, &value));
  TRY(ORT(GetTensorTypeAndShape)(value, &info));
  OrtStatus *s = ORT(GetTensorElementType)(info, type);
  ORT(ReleaseTensorTypeAndShapeInfo)(info);
  return s;
}

OrtStatus *ops_parallel(void *context, void (*task)(void *, size_t), size_t count, void *arg) {
  if (count == 1) {
    task(arg, 0);
    return NULL;
  }
  enum { batches_by_count = 0 };
  return ORT(KernelContext_ParallelFor)(context, task, count, batches_by_count, arg);
}

OrtStatus *ops_float_attribute(const void *info, const char *name, float *value) {
  return ORT(KernelInfoGetAttribute_float)(info, name, value);
}

OrtStatus *ops_int_attribute(const void *info, const char *name, int64_t *value) {
  return ORT(KernelInfoGetAttribute_int64)(info, name, value);
}

// --- what ONNX Runtime asks an operator -------------------------------------------

typedef struct {
  const ops_operator *op;
  ops_attributes attributes;
} kernel;

static const ops_operator *of(const ops_custom_op *op) { return (const ops_operator *)op; }

static const char *get_name(const ops_custom_op *op) { return of(op)->name; }
static const char *get_provider(const ops_custom_op *op) {
  return of(op)->kernels ? "CUDAExecutionProvider" : "CPUExecutionProvider";
}
static size_t input_count(const ops_custom_op *op) { return strlen(of(op)->inputs); }
static int optional(char letter) { return letter < 'a'; }
static int type_of(char letter) {
  switch (tolower(letter)) {
  case 'b':
    return OPS_BOOL;
  case 'i':
    return OPS_INT64;
  case 'j':
    return OPS_INT32;
  case 'u':
    return OPS_UINT8;
  case 'a':
    return OPS_ANY;
  }
  return OPS_FLOAT;
}
static int input_type(const ops_custom_op *op, size_t i) { return type_of(of(op)->inputs[i]); }
static int input_characteristic(const ops_custom_op *op, size_t i) { return optional(of(op)->inputs[i]); }
static size_t output_count(const ops_custom_op *op) { return strlen(of(op)->outputs); }
static int output_type(const ops_custom_op *op, size_t i) { return type_of(of(op)->outputs[i]); }
static int output_characteristic(const ops_custom_op *op, size_t i) { return optional(of(op)->outputs[i]); }
static int default_memory(const ops_custom_op *op, size_t i) {
  (void)op, (void)i;
  return 0;
}
static int one(const ops_custom_op *op) {
  (void)op;
  return 1;
}
static int every_version(const ops_custom_op *op) {
  (void)op;
  return INT_MAX;
}

static OrtStatus *create_kernel(const ops_custom_op *op, const void *api, const void *info, void **out) {
  (void)api;
  kernel *k = calloc(1, sizeof *k);
  if (!k) return ops_fail("criteria: out of memory");
  k->op = of(op);
  k->attributes.kernels = k->op->kernels;
  OrtStatus *s = k->op->create ? k->op->create(info, &k->attributes) : NULL;
  if (s) {
    free(k);
    return s;
  }
  *out = k;
  return NULL;
}

static void destroy_kernel(void *k) { free(k); }

static OrtStatus *compute(void *k, void *context) {
  const kernel *self = k;
  return self->op->run(&self->attributes, context);
}

// Attributes are not there yet when shapes are inferred; the ones that matter
// are read one by one.
static OrtStatus *inferred_int(void *context, const char *name, int64_t *value) {
  const OrtOpAttr *attribute = NULL;
  enum { read_int = 1 };
  size_t size;
  TRY(ORT(ShapeInferContext_GetAttribute)(context, name, &attribute));
  return ORT(ReadOpAttr)(attribute, read_int, value, sizeof *value, &size);
}

// The names of the open sizes of an operator's inputs. ONNX Runtime sees by them which
// sizes are equal.
typedef struct {
  const char *name[ALL_INPUTS * OPS_MAX_RANK]; // belong to the inputs
  size_t count;
} open_sizes;

// Numbers the open sizes of a shape: -2, -3, ….
static OrtStatus *read_names(const OrtTensorTypeAndShapeInfo *info, open_sizes *open, ops_shape *shape) {
  const char *names[OPS_MAX_RANK];
  TRY(ORT(GetSymbolicDimensions)(info, names, shape->rank));
  for (size_t i = 0; i < shape->rank; i++) {
    if (shape->dims[i] >= 0 || !names[i] || !*names[i]) continue;
    size_t k = 0;
    while (k < open->count && strcmp(open->name[k], names[i])) k++;
    if (k == open->count) open->name[open->count++] = names[i];
    shape->dims[i] = -2 - (int64_t)k;
  }
  return NULL;
}

// An open size that has no name gets one that nobody else has: without, it would count as
// the number -1.
static OrtStatus *write_shape(OrtTensorTypeAndShapeInfo *info, const open_sizes *open, const ops_shape *shape) {
  static int count;
  char unknown[OPS_MAX_RANK][32];
  const char *names[OPS_MAX_RANK];
  int64_t dims[OPS_MAX_RANK];
  for (size_t i = 0; i < shape->rank; i++) {
    names[i] = "";
    dims[i] = shape->dims[i] < 0 ? -1 : shape->dims[i];
    if (shape->dims[i] == -1) {
      snprintf(unknown[i], sizeof unknown[i], "criteria_%d", __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED));
      names[i] = unknown[i];
    } else if (shape->dims[i] < 0) {
      names[i] = open->name[-2 - shape->dims[i]];
    }
  }
  TRY(ORT(SetDimensions)(info, dims, shape->rank));
  return ORT(SetSymbolicDimensions)(info, names, shape->rank);
}

// Every operator must infer its shapes: an output of unknown shape is given rank
// 0 by the next one that says "as my input", and the session is refused.
static OrtStatus *infer(const ops_custom_op *op, void *context) {
  const ops_operator *self = of(op);
  ops_attributes attributes = {0};
  for (size_t i = 0; i < 2 && self->ints[i].name; i++)
    TRY(inferred_int(context, self->ints[i].name, (int64_t *)((char *)&attributes + self->ints[i].offset)));
  enum { most_outputs = 6 };
  ops_shape in[ALL_INPUTS], out[most_outputs];
  open_sizes open = {.count = 0};
  size_t count;
  int any = OPS_ANY; // the type of the input that may have any; OPS_ANY: it is missing
  TRY(ORT(ShapeInferContext_GetInputCount)(context, &count));
  for (size_t i = 0; i < count && i < ALL_INPUTS; i++) {
    OrtTensorTypeAndShapeInfo *info; // belongs to the context
    TRY(ORT(ShapeInferContext_GetInputTypeShape)(context, i, &info));
    TRY(read_shape(info, &in[i]));
    TRY(read_names(info, &open, &in[i]));
    if (type_of(self->inputs[i]) == OPS_ANY)
      TRY(ORT(GetTensorElementType)(info, &any));
  }
  TRY(self->shapes(&attributes, in, count, out));
  for (size_t i = 0; self->outputs[i]; i++) {
    int type = type_of(self->outputs[i]);
    if (type == OPS_ANY) type = any;
    if (type == OPS_ANY) continue;
    OrtTensorTypeAndShapeInfo *info;
    TRY(ORT(CreateTensorTypeAndShapeInfo)(&info));
    OrtStatus *s = ORT(SetTensorElementType)(info, type);
    if (!s) s = write_shape(info, &open, &out[i]);
    if (!s)
      s = ORT(ShapeInferContext_SetOutputTypeShape)(context, i, info);
    ORT(ReleaseTensorTypeAndShapeInfo)(info);
    TRY(s);
  }
  return NULL;
}

static size_t first_in_place(int **inputs, int **outputs) {
  static int zero[1];
  *inputs = *outputs = zero;
  return 1;
}

static void release_nothing(int *inputs, int *outputs) { (void)inputs, (void)outputs; }

static void fill(ops_operator *op) {
  op->base = (ops_custom_op){
      .version = ORTX_API_VERSION,
      .name = get_name,
      .provider = get_provider,
      .input_type = input_type,
      .input_count = input_count,
      .output_type = output_type,
      .output_count = output_count,
      .destroy_kernel = destroy_kernel,
      .input_characteristic = input_characteristic,
      .output_characteristic = output_characteristic,
      .input_memory = default_memory,
      .variadic_input_arity = one,
      .variadic_input_homogeneous = one,
      .variadic_output_arity = one,
      .variadic_output_homogeneous = one,
      .create_kernel_v2 = create_kernel,
      .compute_v2 = compute,
      .infer = infer,
      .start_version = one,
      .end_version = every_version,
  };
  if (op->in_place) {
    op->base.may_inplace = first_in_place;
    op->base.release_may_inplace = release_nothing;
  }
}

OrtStatus *ops_domain(ops_operator *const *all, size_t count, OrtCustomOpDomain **domain) {
  TRY(ORT(CreateCustomOpDomain)("criteria", domain));
  for (size_t i = 0; i < count; i++) {
    fill(all[i]);
    TRY(ORT(CustomOpDomain_Add)(*domain, &all[i]->base));
  }
  return NULL;
}

// The domain must outlive every session; it is made once per loaded library and
// kept. Callers hold a lock.
OrtStatus *ops_register(void *session_options) {
  static OrtCustomOpDomain *domain;
  static void **made_with;
  if (!domain || made_with != ortx_table) {
    OrtCustomOpDomain *fresh;
    for (size_t i = 0; i < OPERATORS; i++) operators[i]->name = rows[i].name;
    TRY(ops_domain(operators, OPERATORS, &fresh));
    domain = fresh;
    made_with = ortx_table;
  }
  return ORT(AddCustomOpDomain)(session_options, domain);
}
