// What this package calls of ONNX Runtime beyond what onnxruntime_go offers.
//
// ONNX Runtime exports one function, OrtGetApiBase, which yields a table of
// function pointers (struct OrtApi). The table only ever grows at its end, so a
// function is named by its place for ever: api.def.h lists those that are called.

#ifndef CRITERIA_ORT_API_H
#define CRITERIA_ORT_API_H

#include <stddef.h>
#include <stdint.h>

// The version of the table that is asked for: that of ONNX Runtime 1.24.
#define ORTX_API_VERSION 24

// A null status means success. Everyone who gets another one releases it.
typedef struct OrtStatus OrtStatus;

// ONNX Runtime's handles and enumerations.
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtArenaCfg OrtArenaCfg;
typedef struct OrtCUDAProviderOptionsV2 OrtCUDAProviderOptionsV2;
typedef struct OrtCustomOp OrtCustomOp; // see ops.h
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtEnv OrtEnv;
typedef struct OrtEpAssignedNode OrtEpAssignedNode;
typedef struct OrtEpAssignedSubgraph OrtEpAssignedSubgraph;
typedef struct OrtIoBinding OrtIoBinding;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtThreadingOptions OrtThreadingOptions;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtValue OrtValue;
typedef int ONNXTensorElementDataType, OrtAllocatorType, OrtErrorCode, OrtLoggingLevel, OrtMemType, OrtOpAttrType;

// The table, once ortx_use has succeeded.
extern void **ortx_table;

// The place and the type of every function that is called.
#define ORT_FUNCTION(slot, returns, name, ...) \
  enum { ORT_SLOT_##name = slot };             \
  typedef returns ort_type_##name(__VA_ARGS__);
#include "api.def.h"

// ORT(name) is a function of the table, to be called. A call that does not fit its
// row in api.def.h does not compile (see CFLAGS in native.go).
#define ORT(name) ((ort_type_##name *)ortx_table[ORT_SLOT_##name])

// --- library -----------------------------------------------------------------

// Opens the library at path and reads its version; the table is fetched by
// ortx_use, so that a library too old to have it can still be named. Both
// return NULL or a message from a static or dlerror buffer.
const char *ortx_open(const char *path, void **handle, const char **version);
const char *ortx_use(void *handle);
void ortx_dlclose(void *handle);

// Writes the path of the file that handle was loaded from.
int ortx_path(void *handle, char *path, size_t size);

// Finds an ONNX Runtime that is already part of the process and has this
// version; writes its path. Returns 0 if there is none.
int ortx_find_loaded(const char *version, char *path, size_t size);

// --- environment and sessions ------------------------------------------------

void ortx_error(OrtStatus *status, int *code, const char **message);
void ortx_release_status(OrtStatus *status);

OrtStatus *ortx_create_env(int threads, int spin, OrtEnv **env);
void ortx_release_env(void *env);
int ortx_trim(void); // whether there was something to give back
OrtStatus *ortx_providers(char ***names, int *count);
void ortx_release_providers(char **names, int count);

OrtStatus *ortx_share_threads(void *session_options);
OrtStatus *ortx_deterministic(void *session_options, int on);

OrtStatus *ortx_count(void *session, int output, size_t *count);
OrtStatus *ortx_name(void *session, int output, size_t i, char **name);
void ortx_free_name(char *name);
// rank holds the capacity of dims on entry and the rank on return; a type that
// is no tensor has type 0.
OrtStatus *ortx_type(void *session, int output, size_t i, int *type, int64_t *dims, size_t *rank);

// device is the number of the CUDA device that data lies on, or -1 for the host.
OrtStatus *ortx_tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int type, int device,
                       OrtValue **value);
void ortx_release_value(void *value);
OrtStatus *ortx_bind(void *binding, int output, const char *name, void *value);
OrtStatus *ortx_run(void *session, void *run_options, void *binding);

#endif
