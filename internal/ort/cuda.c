#define _GNU_SOURCE
#include "cuda.h"

#include <dlfcn.h>

const char *cudax_preload(const char *path) { return dlopen(path, RTLD_LAZY | RTLD_GLOBAL) ? NULL : dlerror(); }

// The functions of the CUDA runtime that are called; their types have been the
// same since CUDA 10.
static struct {
  int (*cudaDriverGetVersion)(int *);
  int (*cudaRuntimeGetVersion)(int *);
  int (*cudaGetDeviceCount)(int *);
  int (*cudaSetDevice)(int);
  int (*cudaDeviceGetAttribute)(int *, int, int);
  int (*cudaMemGetInfo)(size_t *, size_t *);
  int (*cudaStreamCreateWithFlags)(void **, unsigned);
  int (*cudaStreamDestroy)(void *);
  int (*cudaStreamSynchronize)(void *);
  int (*cudaEventCreateWithFlags)(void **, unsigned);
  int (*cudaEventDestroy)(void *);
  int (*cudaEventRecord)(void *, void *);
  int (*cudaEventSynchronize)(void *);
  int (*cudaMalloc)(void **, size_t);
  int (*cudaMallocHost)(void **, size_t);
  int (*cudaFree)(void *);
  int (*cudaFreeHost)(void *);
  int (*cudaMemcpyAsync)(void *, const void *, size_t, int, void *);
  int (*cudaMemsetAsync)(void *, int, size_t, void *);
  const char *(*cudaGetErrorString)(int);
  int (*cudaGetLastError)(void);
} rt;

const char *cudax_open(const char *name) {
  void *handle = dlopen(name, RTLD_LAZY | RTLD_GLOBAL);
  if (!handle) return dlerror();
#define TAKE(f)                                    \
  do {                                             \
    *(void **)&rt.f = dlsym(handle, #f);           \
    if (!rt.f) return "it lacks the function " #f; \
  } while (0)
  TAKE(cudaDriverGetVersion);
  TAKE(cudaRuntimeGetVersion);
  TAKE(cudaGetDeviceCount);
  TAKE(cudaSetDevice);
  TAKE(cudaDeviceGetAttribute);
  TAKE(cudaMemGetInfo);
  TAKE(cudaStreamCreateWithFlags);
  TAKE(cudaStreamDestroy);
  TAKE(cudaStreamSynchronize);
  TAKE(cudaEventCreateWithFlags);
  TAKE(cudaEventDestroy);
  TAKE(cudaEventRecord);
  TAKE(cudaEventSynchronize);
  TAKE(cudaMalloc);
  TAKE(cudaMallocHost);
  TAKE(cudaFree);
  TAKE(cudaFreeHost);
  TAKE(cudaMemcpyAsync);
  TAKE(cudaMemsetAsync);
  TAKE(cudaGetErrorString);
  TAKE(cudaGetLastError);
#undef TAKE
  return NULL;
}

// A failure that was reported here must not be found again by ONNX Runtime,
// which asks for the last error of the thread.
static int said(int status) {
  if (status) rt.cudaGetLastError();
  return status;
}

const char *cudax_message(int status) { return rt.cudaGetErrorString(status); }

int cudax_versions(int *driver, int *runtime) {
  int status = rt.cudaDriverGetVersion(driver);
  return said(status ? status : rt.cudaRuntimeGetVersion(runtime));
}

int cudax_count(int *devices) { return said(rt.cudaGetDeviceCount(devices)); }
int cudax_use(int device) { return said(rt.cudaSetDevice(device)); }

int cudax_capability(int device, int *major, int *minor) {
  enum { capability_major = 75, capability_minor = 76 };
  int status = rt.cudaDeviceGetAttribute(major, capability_major, device);
  return said(status ? status : rt.cudaDeviceGetAttribute(minor, capability_minor, device));
}

int cudax_memory(size_t *available, size_t *total) { return said(rt.cudaMemGetInfo(available, total)); }

int cudax_stream(void **stream) {
  enum { non_blocking = 1 };
  return said(rt.cudaStreamCreateWithFlags(stream, non_blocking));
}
int cudax_close_stream(void *stream) { return said(rt.cudaStreamDestroy(stream)); }
int cudax_wait(void *stream) { return said(rt.cudaStreamSynchronize(stream)); }

int cudax_event(void **event) {
  // Who waits sleeps: the device has the next step to work on, so that waking up
  // a little late costs nothing, and the core is of use to the tokenizer.
  enum { blocking_sync = 1, disable_timing = 2 };
  return said(rt.cudaEventCreateWithFlags(event, blocking_sync | disable_timing));
}
int cudax_close_event(void *event) { return said(rt.cudaEventDestroy(event)); }
int cudax_record(void *event, void *stream) { return said(rt.cudaEventRecord(event, stream)); }
int cudax_wait_event(void *event) { return said(rt.cudaEventSynchronize(event)); }

int cudax_allocate(size_t size, int pinned, void **address) {
  return said(pinned ? rt.cudaMallocHost(address, size) : rt.cudaMalloc(address, size));
}
int cudax_free(void *address, int pinned) { return said(pinned ? rt.cudaFreeHost(address) : rt.cudaFree(address)); }

int cudax_copy(void *to, const void *from, size_t size, void *stream) {
  enum { by_address = 4 }; // addresses tell host and device apart
  return said(rt.cudaMemcpyAsync(to, from, size, by_address, stream));
}
int cudax_clear(void *to, size_t size, void *stream) { return said(rt.cudaMemsetAsync(to, 0, size, stream)); }

OrtStatus *cudax_append(void *session_options, const char *const *keys, const char *const *values, size_t count,
                        void *stream) {
  OrtCUDAProviderOptionsV2 *options = NULL;
  OrtStatus *s = ORT(CreateCUDAProviderOptions)(&options);
  if (s) return s;
  s = ORT(UpdateCUDAProviderOptions)(options, keys, values, count);
  if (!s) s = ORT(UpdateCUDAProviderOptionsWithValue)(options, "user_compute_stream", stream);
  if (!s) s = ORT(SessionOptionsAppendExecutionProvider_CUDA_V2)(session_options, options);
  ORT(ReleaseCUDAProviderOptions)(options);
  return s;
}

OrtStatus *cudax_share_arena(void *env, int device, const char *const *keys, const char *const *values, size_t count) {
  enum { arena_allocator = 1, default_memory = 0, as_requested = 1 };
  static const char *const arena_keys[] = {"arena_extend_strategy"};
  // Fixed shapes never need more than what they ask for; the other strategy
  // doubles the arena each time.
  static const size_t arena_values[] = {as_requested};
  OrtMemoryInfo *memory = NULL;
  OrtArenaCfg *arena = NULL;
  OrtStatus *s = ORT(CreateMemoryInfo)("Cuda", arena_allocator, device, default_memory, &memory);
  if (s) return s;
  s = ORT(CreateArenaCfgV2)(arena_keys, arena_values, 1, &arena);
  if (!s) s = ORT(CreateAndRegisterAllocatorV2)(env, "CUDAExecutionProvider", memory, arena, keys, values, count);
  if (arena) ORT(ReleaseArenaCfg)(arena);
  ORT(ReleaseMemoryInfo)(memory);
  return s;
}

OrtStatus *cudax_run_option(void *run_options, const char *key, const char *value) {
  return ORT(AddRunConfigEntry)(run_options, key, value);
}

OrtStatus *cudax_keep_optimized(void *session_options, const char *path) {
  return ORT(SetOptimizedModelFilePath)(session_options, path);
}

extern void cudaxPlaced(uintptr_t user, char *provider, char *op); // in cuda.go

OrtStatus *cudax_placement(void *session, uintptr_t user) {
  const OrtEpAssignedSubgraph *const *graphs;
  size_t count;
  OrtStatus *s = ORT(Session_GetEpGraphAssignmentInfo)(session, &graphs, &count);
  for (size_t i = 0; !s && i < count; i++) {
    const char *provider;
    const OrtEpAssignedNode *const *nodes;
    size_t n = 0;
    s = ORT(EpAssignedSubgraph_GetEpName)(graphs[i], &provider);
    if (!s) s = ORT(EpAssignedSubgraph_GetNodes)(graphs[i], &nodes, &n);
    for (size_t j = 0; !s && j < n; j++) {
      const char *op;
      s = ORT(EpAssignedNode_GetOperatorType)(nodes[j], &op);
      if (!s) cudaxPlaced(user, (char *)provider, (char *)op);
    }
  }
  return s;
}
