// A CUDA runtime without a GPU: host memory stands in for the device's, copies
// copy, and kernels do nothing. Functions that are not here get a body that
// does nothing and succeeds.
//
// What it plays is set by environment variables, read at every call:
//   FAKECUDA_MEMORY   bytes of device memory (default 150 GB)
//   FAKECUDA_DEVICES  number of devices (default 1)
//   FAKECUDA_DRIVER   CUDA version of the driver, as 13000 (default); 0: none
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { success = 0, invalid_value = 1, out_of_memory = 2, insufficient_driver = 35, no_device = 100, invalid_device = 101 };
enum { version = 13000 };

static long long setting(const char *name, long long missing) {
  const char *value = getenv(name);
  return value && *value ? atoll(value) : missing;
}

// --- devices --------------------------------------------------------------------

int cudaDriverGetVersion(int *v) {
  *v = (int)setting("FAKECUDA_DRIVER", version);
  return success;
}

int cudaRuntimeGetVersion(int *v) {
  *v = version;
  return success;
}

int cudaGetDeviceCount(int *n) {
  *n = (int)setting("FAKECUDA_DEVICES", 1);
  if (setting("FAKECUDA_DRIVER", version) < version) return insufficient_driver;
  return *n > 0 ? success : no_device;
}

int cudaSetDevice(int device) { return device < setting("FAKECUDA_DEVICES", 1) ? success : invalid_device; }

int cudaGetDevice(int *device) {
  *device = 0;
  return success;
}

// The device is a Hopper: compute capability 9.0, 132 multiprocessors.
enum { major = 9, minor = 0, multiprocessors = 132, shared_per_block = 232448 };

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
  case 16: *value = multiprocessors; break;
  case 75: *value = major; break;
  case 76: *value = minor; break;
  case 97: *value = shared_per_block; break;
  default: *value = 1;
  }
  return success;
}

static void put(char *record, size_t offset, int value) { memcpy(record + offset, &value, sizeof value); }
static void put_size(char *record, size_t offset, size_t value) { memcpy(record + offset, &value, sizeof value); }

static size_t total_memory(void) { return (size_t)setting("FAKECUDA_MEMORY", 150000000000LL); }

// struct cudaDeviceProp of CUDA 13: 1008 bytes, the fields at these offsets.
int cudaGetDeviceProperties(char *p, int device) {
  (void)device;
  memset(p, 0, 1008);
  strcpy(p, "no GPU, but a stand-in");
  put_size(p, 288, total_memory());
  put_size(p, 296, 49152);             // shared memory of a block
  put(p, 304, 65536);                  // registers of a block
  put(p, 308, 32);                     // threads of a warp
  put(p, 320, 1024);                   // threads of a block, and its dimensions
  put(p, 324, 1024), put(p, 328, 1024), put(p, 332, 64);
  put(p, 336, 2147483647), put(p, 340, 65535), put(p, 344, 65535);
  put(p, 360, major), put(p, 364, minor);
  put(p, 384, multiprocessors);
  put(p, 596, 62914560);               // L2 cache
  put(p, 604, 2048);                   // threads of a multiprocessor
  put_size(p, 624, 233472);            // shared memory of a multiprocessor
  put(p, 632, 65536);                  // registers of a multiprocessor
  put_size(p, 672, shared_per_block);  // that a block may opt in to
  put(p, 688, 32);                     // blocks of a multiprocessor
  return success;
}

// --- memory ---------------------------------------------------------------------

// Before every block lies how much was asked for, so that freeing it can be
// counted. Blocks begin with zeros, so that what kernels leave undone is 0.
enum { alignment = 512 };
typedef struct {
  void *start;
  size_t size;
} header;

static size_t used;

static int allocate(void **out, size_t size, int counted) {
  if (counted && __atomic_add_fetch(&used, size, __ATOMIC_RELAXED) > total_memory()) {
    __atomic_sub_fetch(&used, size, __ATOMIC_RELAXED);
    return out_of_memory;
  }
  char *start = calloc(1, size + 2 * alignment);
  if (!start) return out_of_memory;
  uintptr_t at = ((uintptr_t)start + alignment + sizeof(header)) / alignment * alignment;
  if (at < (uintptr_t)start + sizeof(header)) at += alignment;
  ((header *)at)[-1] = (header){start, counted ? size : 0};
  *out = (void *)at;
  return success;
}

static int release(void *p) {
  if (p) {
    header h = ((header *)p)[-1];
    __atomic_sub_fetch(&used, h.size, __ATOMIC_RELAXED);
    free(h.start);
  }
  return success;
}

int cudaMalloc(void **p, size_t n) { return allocate(p, n, 1); }
int cudaMallocAsync(void **p, size_t n, void *stream) { return (void)stream, allocate(p, n, 1); }
int cudaMallocFromPoolAsync(void **p, size_t n, void *pool, void *stream) {
  return (void)pool, (void)stream, allocate(p, n, 1);
}
int cudaMallocHost(void **p, size_t n) { return allocate(p, n, 0); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return (void)flags, allocate(p, n, 0); }
int cudaFree(void *p) { return release(p); }
int cudaFreeAsync(void *p, void *stream) { return (void)stream, release(p); }
int cudaFreeHost(void *p) { return release(p); }

int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *total = total_memory();
  *free_bytes = *total - used;
  return success;
}

int cudaMemcpy(void *to, const void *from, size_t n, int kind) {
  (void)kind;
  memmove(to, from, n);
  return success;
}
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) {
  return (void)stream, cudaMemcpy(to, from, n, kind);
}
int cudaMemset(void *to, int value, size_t n) {
  memset(to, value, n);
  return success;
}
int cudaMemsetAsync(void *to, int value, size_t n, void *stream) { return (void)stream, cudaMemset(to, value, n); }

int cudaPointerGetAttributes(void *attributes, const void *p) {
  (void)p;
  enum { device_memory = 2 };
  memset(attributes, 0, 88);
  put(attributes, 0, device_memory);
  return success;
}

// --- handles --------------------------------------------------------------------

static int handle(void **h) { return allocate(h, 64, 0); }

int cudaStreamCreate(void **h) { return handle(h); }
int cudaStreamCreateWithFlags(void **h, unsigned flags) { return (void)flags, handle(h); }
int cudaStreamDestroy(void *h) { return release(h); }
int cudaStreamIsCapturing(void *stream, int *status) {
  (void)stream;
  *status = 0;
  return success;
}
int cudaEventCreate(void **h) { return handle(h); }
int cudaEventCreateWithFlags(void **h, unsigned flags) { return (void)flags, handle(h); }
int cudaEventDestroy(void *h) { return release(h); }
int cudaEventElapsedTime(float *ms, void *from, void *to) {
  (void)from, (void)to;
  *ms = 1;
  return success;
}
int cudaMemPoolCreate(void **h, const void *properties) { return (void)properties, handle(h); }
int cudaStreamEndCapture(void *stream, void **graph) { return (void)stream, handle(graph); }
int cudaGraphInstantiate(void **exec, void *graph, unsigned long long flags) {
  return (void)graph, (void)flags, handle(exec);
}

// --- kernels: known, never run ----------------------------------------------------

void **__cudaRegisterFatBinary(void *binary) {
  static void *none[8];
  (void)binary;
  return none;
}
int __cudaGetKernel(void **kernel, const void *f) { return (void)f, handle(kernel); }
int cudaLibraryLoadData(void **library) { return handle(library); }
int cudaLibraryGetKernel(void **kernel) { return handle(kernel); }

int cudaFuncGetAttributes(char *attributes, const void *f) {
  (void)f;
  memset(attributes, 0, 144);
  put(attributes, 24, 1024); // threads of a block
  put(attributes, 28, 64);   // registers
  put(attributes, 36, 90);   // architecture
  return success;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t shared, unsigned flags) {
  (void)f, (void)block, (void)shared, (void)flags;
  *n = 2;
  return success;
}

static int nothing(void) { return success; }
int cudaGetDriverEntryPointByVersion(const char *name, void **f, unsigned v, unsigned long long flags, int *status) {
  (void)name, (void)v, (void)flags;
  *(int (**)(void))f = nothing;
  if (status) *status = 0;
  return success;
}

// --- messages -------------------------------------------------------------------

const char *cudaGetErrorName(int code) {
  switch (code) {
  case success: return "cudaSuccess";
  case out_of_memory: return "cudaErrorMemoryAllocation";
  case insufficient_driver: return "cudaErrorInsufficientDriver";
  case no_device: return "cudaErrorNoDevice";
  }
  return "cudaErrorUnknown";
}

const char *cudaGetErrorString(int code) {
  switch (code) {
  case success: return "no error";
  case out_of_memory: return "out of memory";
  case insufficient_driver: return "CUDA driver version is insufficient for CUDA runtime version";
  case no_device: return "no CUDA-capable device is detected";
  case invalid_device: return "invalid device ordinal";
  }
  return "unknown error";
}
