#define _GNU_SOURCE
#include "api.h"

#include <dlfcn.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdlib.h>
#include <string.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#else
#include <link.h>
#endif

void **ortx_table;

// struct OrtApiBase: the only thing that the library exports by name.
typedef struct {
  const void *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
} api_base;

static const api_base *base_of(void *handle) {
  const api_base *(*get)(void) = (const api_base *(*)(void))dlsym(handle, "OrtGetApiBase");
  return get ? get() : NULL;
}

const char *ortx_open(const char *path, void **handle, const char **version) {
  *handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
  if (!*handle) return dlerror();
  const api_base *base = base_of(*handle);
  if (!base) {
    dlclose(*handle);
    return "it has no symbol OrtGetApiBase: not ONNX Runtime";
  }
  *version = base->get_version();
  return NULL;
}

const char *ortx_use(void *handle) {
  const api_base *base = base_of(handle);
  void **table = base ? (void **)base->get_api(ORTX_API_VERSION) : NULL;
  if (!table) return "it does not offer the API of version 1.24";
  ortx_table = table;
  return NULL;
}

void ortx_dlclose(void *handle) { dlclose(handle); }

int ortx_path(void *handle, char *path, size_t size) {
  Dl_info info;
  void *symbol = dlsym(handle, "OrtGetApiBase");
  if (!symbol || !dladdr(symbol, &info) || !info.dli_fname || strlen(info.dli_fname) >= size) return 0;
  strcpy(path, info.dli_fname);
  return 1;
}

typedef struct {
  const char *version;
  char *path;
  size_t size;
} search;

// Is the loaded image of this name an ONNX Runtime of the version looked for?
static int matches(const char *name, search *s) {
  if (!name || !*name || strlen(name) >= s->size) return 0;
  void *handle = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
  if (!handle) return 0;
  const api_base *base = base_of(handle);
  int found = base && strcmp(base->get_version(), s->version) == 0;
  if (found) strcpy(s->path, name);
  dlclose(handle);
  return found;
}

#ifdef __APPLE__
int ortx_find_loaded(const char *version, char *path, size_t size) {
  search s = {version, path, size};
  for (uint32_t i = 0; i < _dyld_image_count(); i++)
    if (matches(_dyld_get_image_name(i), &s)) return 1;
  return 0;
}
#else
// The loader's lock is held during dl_iterate_phdr, so the names are copied
// first and looked into afterwards.
typedef struct {
  char **names;
  size_t count, capacity;
} image_list;

static int add_image(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  image_list *l = data;
  if (l->count == l->capacity) {
    size_t capacity = l->capacity ? 2 * l->capacity : 64;
    char **names = realloc(l->names, capacity * sizeof *names);
    if (!names) return 1;
    l->names = names;
    l->capacity = capacity;
  }
  char *name = strdup(info->dlpi_name);
  if (!name) return 1;
  l->names[l->count++] = name;
  return 0;
}

int ortx_find_loaded(const char *version, char *path, size_t size) {
  search s = {version, path, size};
  image_list l = {0};
  dl_iterate_phdr(add_image, &l);
  int found = 0;
  for (size_t i = 0; i < l.count; i++) {
    if (!found) found = matches(l.names[i], &s);
    free(l.names[i]);
  }
  free(l.names);
  return found;
}
#endif

void ortx_error(OrtStatus *status, int *code, const char **message) {
  *code = ORT(GetErrorCode)(status);
  *message = ORT(GetErrorMessage)(status);
}

void ortx_release_status(OrtStatus *status) { ORT(ReleaseStatus)(status); }

// The environment is a process-wide singleton inside ONNX Runtime: whoever
// creates it first decides on its thread pools, and a second creation (the one
// of onnxruntime_go) only counts a reference.
OrtStatus *ortx_create_env(int threads, int spin, OrtEnv **env) {
  OrtThreadingOptions *options = NULL;
  OrtStatus *s = ORT(CreateThreadingOptions)(&options);
  if (s) return s;
  if (!s) s = ORT(SetGlobalIntraOpNumThreads)(options, threads);
  if (!s) s = ORT(SetGlobalInterOpNumThreads)(options, 1);
  if (!s) s = ORT(SetGlobalSpinControl)(options, spin);
  enum { log_fatal_errors = 4 };
  if (!s) s = ORT(CreateEnvWithGlobalThreadPools)(log_fatal_errors, "criteria", options, env);
  ORT(ReleaseThreadingOptions)(options);
  return s;
}

void ortx_release_env(void *env) { ORT(ReleaseEnv)(env); }

int ortx_trim(void) {
#ifdef __GLIBC__
  return malloc_trim(0);
#else
  return 0;
#endif
}

OrtStatus *ortx_providers(char ***names, int *count) { return ORT(GetAvailableProviders)(names, count); }

void ortx_release_providers(char **names, int count) {
  OrtStatus *s = ORT(ReleaseAvailableProviders)(names, count);
  if (s) ortx_release_status(s);
}

OrtStatus *ortx_share_threads(void *session_options) { return ORT(DisablePerSessionThreads)(session_options); }

OrtStatus *ortx_deterministic(void *session_options, int on) {
  return ORT(SetDeterministicCompute)(session_options, on != 0);
}

OrtStatus *ortx_count(void *session, int output, size_t *count) {
  return output ? ORT(SessionGetOutputCount)(session, count) : ORT(SessionGetInputCount)(session, count);
}

static OrtStatus *default_allocator(OrtAllocator **allocator) { return ORT(GetAllocatorWithDefaultOptions)(allocator); }

OrtStatus *ortx_name(void *session, int output, size_t i, char **name) {
  OrtAllocator *allocator;
  OrtStatus *s = default_allocator(&allocator);
  if (s) return s;
  return output ? ORT(SessionGetOutputName)(session, i, allocator, name)
                : ORT(SessionGetInputName)(session, i, allocator, name);
}

void ortx_free_name(char *name) {
  OrtAllocator *allocator;
  OrtStatus *s = default_allocator(&allocator);
  if (!s) s = ORT(AllocatorFree)(allocator, name);
  if (s) ortx_release_status(s);
}

OrtStatus *ortx_type(void *session, int output, size_t i, int *type, int64_t *dims, size_t *rank) {
  size_t capacity = *rank;
  OrtTypeInfo *info = NULL;
  OrtStatus *s =
      output ? ORT(SessionGetOutputTypeInfo)(session, i, &info) : ORT(SessionGetInputTypeInfo)(session, i, &info);
  if (s) return s;
  const OrtTensorTypeAndShapeInfo *tensor = NULL; // belongs to info
  s = ORT(CastTypeInfoToTensorInfo)(info, &tensor);
  *type = 0;
  *rank = 0;
  if (!s && tensor) {
    s = ORT(GetTensorElementType)(tensor, type);
    if (!s) s = ORT(GetDimensionsCount)(tensor, rank);
    if (!s && *rank <= capacity) s = ORT(GetDimensions)(tensor, dims, *rank);
  }
  ORT(ReleaseTypeInfo)(info);
  return s;
}

OrtStatus *ortx_tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int type, int device,
                       OrtValue **value) {
  enum { device_allocator = 0, default_memory = 0 };
  OrtMemoryInfo *memory = NULL;
  OrtStatus *s = device < 0 ? ORT(CreateCpuMemoryInfo)(device_allocator, default_memory, &memory)
                            : ORT(CreateMemoryInfo)("Cuda", device_allocator, device, default_memory, &memory);
  if (s) return s;
  s = ORT(CreateTensorWithDataAsOrtValue)(memory, data, bytes, dims, rank, type, value);
  ORT(ReleaseMemoryInfo)(memory);
  return s;
}

void ortx_release_value(void *value) { ORT(ReleaseValue)(value); }

OrtStatus *ortx_bind(void *binding, int output, const char *name, void *value) {
  return output ? ORT(BindOutput)(binding, name, value) : ORT(BindInput)(binding, name, value);
}

OrtStatus *ortx_run(void *session, void *run_options, void *binding) {
  return ORT(RunWithBinding)(session, run_options, binding);
}
