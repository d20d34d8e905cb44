// A CUDA runtime without a GPU: host memory stands in for the device's, copies
// copy, and kernels do nothing. Functions that are not here get a body that
// does nothing and succeeds.
//
// What it plays is set by environment variables, read at every call:
//   FAKECUDA_MEMORY   bytes of device memory (default 150 GB)
//   FAKECUDA_DEVICES  number of devices (default 1)
//   FAKECUDA_DRIVER   CUDA version of the driver, as 13000 (default); 0: none
//   FAKECUDA_LOG      file to which the calls on streams are written, in order
//   FAKECUDA_CAPABILITY  compute capability, as 90 (default)
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

// Unless it is told otherwise the device is a Hopper: compute capability 9.0, 132
// multiprocessors.
enum { multiprocessors = 132, shared_per_block = 232448 };
#define major ((int)setting("FAKECUDA_CAPABILITY", 90) / 10)
#define minor ((int)setting("FAKECUDA_CAPABILITY", 90) % 10)

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
typedef struct header {
  void *start;
  size_t size, counted;
  struct header *next;
} header;

static size_t used;
static header *blocks; // those of the device, and pinned ones of the host
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// The block that an address is in: NULL for memory that may be paged out.
static header *block_of(const void *p) {
  for (header *h = blocks; h; h = h->next)
    if ((char *)p >= (char *)(h + 1) && (char *)p < (char *)(h + 1) + h->size) return h;
  return NULL;
}

static int allocate(void **out, size_t size, int counted) {
  if (counted && __atomic_add_fetch(&used, size, __ATOMIC_RELAXED) > total_memory()) {
    __atomic_sub_fetch(&used, size, __ATOMIC_RELAXED);
    return out_of_memory;
  }
  char *start = calloc(1, size + 2 * alignment);
  if (!start) return out_of_memory;
  uintptr_t at = ((uintptr_t)start + alignment + sizeof(header)) / alignment * alignment;
  if (at < (uintptr_t)start + sizeof(header)) at += alignment;
  header *h = (header *)at - 1;
  pthread_mutex_lock(&lock);
  *h = (header){start, size, counted ? size : 0, blocks};
  blocks = h;
  pthread_mutex_unlock(&lock);
  *out = (void *)at;
  return success;
}

static void work_until(size_t place);
static size_t asked, done, room; // works since the start

static int release(void *p) {
  if (!p) return success;
  header *h = (header *)p - 1;
  pthread_mutex_lock(&lock);
  work_until(asked);
  for (header **at = &blocks; *at; at = &(*at)->next)
    if (*at == h) {
      *at = h->next;
      break;
    }
  pthread_mutex_unlock(&lock);
  __atomic_sub_fetch(&used, h->counted, __ATOMIC_RELAXED);
  free(h->start);
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

// --- streams: nothing is done before something waits for it ------------------------

// All streams are one, in the order of the calls. A device that is as late as CUDA
// allows shows what was overwritten too soon, or read before it was there.
typedef struct {
  void *to;
  const void *from; // NULL: clear
  size_t n;
  int value;
} work;

static work *queue;

static void note(const char *what, size_t n) {
  static char last[64];
  char line[64];
  const char *path = getenv("FAKECUDA_LOG");
  if (!path || !*path) return;
  snprintf(line, sizeof line, n ? "%s %zu\n" : "%s\n", what, n);
  FILE *f = fopen(path, "a");
  if (!f) return;
  if (strcmp(line, "launch\n") || strcmp(line, last)) fputs(line, f); // many launches are one
  strcpy(last, line);
  fclose(f);
}

static void work_until(size_t place) {
  for (; done < place; done++) {
    work *w = &queue[done];
    if (w->from) memmove(w->to, w->from, w->n);
    else memset(w->to, w->value, w->n);
  }
}

static int ask(work w, int later) {
  pthread_mutex_lock(&lock);
  if (asked == room) queue = realloc(queue, (room = 2 * room + 64) * sizeof(work));
  queue[asked++] = w;
  // CUDA itself waits for copies from and to memory that is not pinned.
  if (!later || !block_of(w.to) || w.from && !block_of(w.from)) work_until(asked);
  pthread_mutex_unlock(&lock);
  return success;
}

static int wait_until(size_t place) {
  pthread_mutex_lock(&lock);
  work_until(place);
  pthread_mutex_unlock(&lock);
  return success;
}

int cudaMemcpy(void *to, const void *from, size_t n, int kind) { return (void)kind, ask((work){to, from, n}, 0); }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) {
  (void)kind, (void)stream;
  header *target = block_of(to);
  note(target && target->counted ? "copy to device" : "copy to host", n);
  return ask((work){to, from, n}, 1);
}
int cudaMemset(void *to, int value, size_t n) { return ask((work){to, NULL, n, value}, 0); }
int cudaMemsetAsync(void *to, int value, size_t n, void *stream) {
  (void)stream;
  note("clear", n);
  return ask((work){to, NULL, n, value}, 1);
}

int cudaStreamSynchronize(void *stream) {
  (void)stream;
  note("wait for stream", 0);
  return wait_until(asked);
}
int cudaDeviceSynchronize(void) { return cudaStreamSynchronize(NULL); }
int cudaStreamQuery(void *stream) { return (void)stream, wait_until(asked); }

// An event holds its place among all works.
int cudaEventRecordWithFlags(void *event, void *stream, unsigned flags) {
  (void)stream, (void)flags;
  note("record", 0);
  *(size_t *)event = asked;
  return success;
}
int cudaEventRecord(void *event, void *stream) { return cudaEventRecordWithFlags(event, stream, 0); }
int cudaEventSynchronize(void *event) {
  note("wait for event", 0);
  return wait_until(*(size_t *)event);
}
int cudaEventQuery(void *event) { return wait_until(*(size_t *)event); }

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

int cudaLaunchKernel(void) {
  note("launch", 0);
  return success;
}
int __cudaLaunchKernel(void) { return cudaLaunchKernel(); }
int cudaLaunchKernelExC(void) { return cudaLaunchKernel(); }

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
