// What this package calls of ONNX Runtime beyond what onnxruntime_go offers.
//
// ONNX Runtime exports one function, OrtGetApiBase, which yields a table of
// function pointers (struct OrtApi). The table only ever grows at its end, so a
// function is named by its place for ever. slots_test.go compares the places
// below with the header that onnxruntime_go carries.

#ifndef CRITERIA_ORT_API_H
#define CRITERIA_ORT_API_H

#include <stddef.h>
#include <stdint.h>

// The version of the table that is asked for: that of ONNX Runtime 1.24.
#define ORTX_API_VERSION 24

enum {
  ORTX_CreateStatus = 0,
  ORTX_GetErrorCode = 1,
  ORTX_GetErrorMessage = 2,
  ORTX_SetOptimizedModelFilePath = 11,
  ORTX_CreateCustomOpDomain = 26,
  ORTX_CustomOpDomain_Add = 27,
  ORTX_AddCustomOpDomain = 28,
  ORTX_SessionGetInputCount = 30,
  ORTX_SessionGetOutputCount = 31,
  ORTX_SessionGetInputTypeInfo = 33,
  ORTX_SessionGetOutputTypeInfo = 34,
  ORTX_SessionGetInputName = 36,
  ORTX_SessionGetOutputName = 37,
  ORTX_CreateTensorWithDataAsOrtValue = 49,
  ORTX_GetTensorMutableData = 51,
  ORTX_CastTypeInfoToTensorInfo = 55,
  ORTX_CreateTensorTypeAndShapeInfo = 57,
  ORTX_SetTensorElementType = 58,
  ORTX_SetDimensions = 59,
  ORTX_GetTensorElementType = 60,
  ORTX_GetDimensionsCount = 61,
  ORTX_GetDimensions = 62,
  ORTX_GetTensorTypeAndShape = 65,
  ORTX_CreateMemoryInfo = 68,
  ORTX_CreateCpuMemoryInfo = 69,
  ORTX_AllocatorFree = 76,
  ORTX_GetAllocatorWithDefaultOptions = 78,
  ORTX_KernelInfoGetAttribute_float = 85,
  ORTX_KernelInfoGetAttribute_int64 = 86,
  ORTX_KernelContext_GetInputCount = 88,
  ORTX_KernelContext_GetInput = 90,
  ORTX_KernelContext_GetOutput = 91,
  ORTX_ReleaseEnv = 92,
  ORTX_ReleaseStatus = 93,
  ORTX_ReleaseMemoryInfo = 94,
  ORTX_ReleaseValue = 96,
  ORTX_ReleaseTypeInfo = 98,
  ORTX_ReleaseTensorTypeAndShapeInfo = 99,
  ORTX_CreateEnvWithGlobalThreadPools = 119,
  ORTX_DisablePerSessionThreads = 120,
  ORTX_CreateThreadingOptions = 121,
  ORTX_ReleaseThreadingOptions = 122,
  ORTX_GetAvailableProviders = 125,
  ORTX_ReleaseAvailableProviders = 126,
  ORTX_RunWithBinding = 133,
  ORTX_BindInput = 136,
  ORTX_BindOutput = 137,
  ORTX_ReleaseCustomOpDomain = 101,
  ORTX_SetGlobalIntraOpNumThreads = 147,
  ORTX_SetGlobalInterOpNumThreads = 148,
  ORTX_SetGlobalSpinControl = 149,
  ORTX_AddRunConfigEntry = 165,
  ORTX_ReleaseArenaCfg = 157,
  ORTX_KernelContext_GetGPUComputeStream = 193,
  ORTX_SessionOptionsAppendExecutionProvider_CUDA_V2 = 204,
  ORTX_CreateCUDAProviderOptions = 205,
  ORTX_UpdateCUDAProviderOptions = 206,
  ORTX_ReleaseCUDAProviderOptions = 208,
  ORTX_CreateArenaCfgV2 = 164,
  ORTX_CreateAndRegisterAllocatorV2 = 259,
  ORTX_UpdateCUDAProviderOptionsWithValue = 263,
  ORTX_ShapeInferContext_GetInputCount = 267,
  ORTX_ShapeInferContext_GetInputTypeShape = 268,
  ORTX_ShapeInferContext_GetAttribute = 269,
  ORTX_ShapeInferContext_SetOutputTypeShape = 270,
  ORTX_ReadOpAttr = 272,
  ORTX_SetDeterministicCompute = 273,
  ORTX_KernelContext_ParallelFor = 274,
  ORTX_Session_GetEpGraphAssignmentInfo = 407,
  ORTX_EpAssignedSubgraph_GetEpName = 408,
  ORTX_EpAssignedSubgraph_GetNodes = 409,
  ORTX_EpAssignedNode_GetOperatorType = 412,
};

// A null status means success. Everyone who gets another one releases it.
typedef struct OrtStatus OrtStatus;

// The table, once ortx_load has succeeded.
extern void **ortx_table;

// ORTX_CALL calls a function of the table: its name, its return type, the types
// of its parameters in parentheses, then its arguments in parentheses.
#define ORTX_CALL(name, ret, params, args) (((ret(*) params)ortx_table[ORTX_##name]) args)

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

OrtStatus *ortx_create_env(int threads, int spin, void **env);
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
OrtStatus *ortx_tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int type, int device, void **value);
void ortx_release_value(void *value);
OrtStatus *ortx_bind(void *binding, int output, const char *name, void *value);
OrtStatus *ortx_run(void *session, void *run_options, void *binding);

#endif
