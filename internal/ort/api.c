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
  *code = ORTX_CALL(GetErrorCode, int, (OrtStatus *), (status));
  *message = ORTX_CALL(GetErrorMessage, const char *, (OrtStatus *), (status));
}

void ortx_release_status(OrtStatus *status) { ORTX_CALL(ReleaseStatus, void, (OrtStatus *), (status)); }

// The environment is a process-wide singleton inside ONNX Runtime: whoever
// creates it first decides on its thread pools, and a second creation (the one
// of onnxruntime_go) only counts a reference.
OrtStatus *ortx_create_env(int threads, int spin, void **env) {
  void *options = NULL;
  OrtStatus *s = ORTX_CALL(CreateThreadingOptions, OrtStatus *, (void **), (&options));
  if (s) return s;
  if (!s) s = ORTX_CALL(SetGlobalIntraOpNumThreads, OrtStatus *, (void *, int), (options, threads));
  if (!s) s = ORTX_CALL(SetGlobalInterOpNumThreads, OrtStatus *, (void *, int), (options, 1));
  if (!s) s = ORTX_CALL(SetGlobalSpinControl, OrtStatus *, (void *, int), (options, spin));
  enum { log_fatal_errors = 4 };
  if (!s)
    s = ORTX_CALL(CreateEnvWithGlobalThreadPools, OrtStatus *, (int, const char *, void *, void **),
                  (log_fatal_errors, "criteria", options, env));
  ORTX_CALL(ReleaseThreadingOptions, void, (void *), (options));
  return s;
}

void ortx_release_env(void *env) { ORTX_CALL(ReleaseEnv, void, (void *), (env)); }

int ortx_trim(void) {
#ifdef __GLIBC__
  return malloc_trim(0);
#else
  return 0;
#endif
}

OrtStatus *ortx_providers(char ***names, int *count) {
  return ORTX_CALL(GetAvailableProviders, OrtStatus *, (char ***, int *), (names, count));
}

void ortx_release_providers(char **names, int count) {
  OrtStatus *s = ORTX_CALL(ReleaseAvailableProviders, OrtStatus *, (char **, int), (names, count));
  if (s) ortx_release_status(s);
}

OrtStatus *ortx_share_threads(void *session_options) {
  return ORTX_CALL(DisablePerSessionThreads, OrtStatus *, (void *), (session_options));
}

OrtStatus *ortx_deterministic(void *session_options, int on) {
  return ORTX_CALL(SetDeterministicCompute, OrtStatus *, (void *, _Bool), (session_options, on != 0));
}

OrtStatus *ortx_count(void *session, int output, size_t *count) {
  return output ? ORTX_CALL(SessionGetOutputCount, OrtStatus *, (void *, size_t *), (session, count))
                : ORTX_CALL(SessionGetInputCount, OrtStatus *, (void *, size_t *), (session, count));
}

static OrtStatus *default_allocator(void **allocator) {
  return ORTX_CALL(GetAllocatorWithDefaultOptions, OrtStatus *, (void **), (allocator));
}

OrtStatus *ortx_name(void *session, int output, size_t i, char **name) {
  void *allocator;
  OrtStatus *s = default_allocator(&allocator);
  if (s) return s;
  return output ? ORTX_CALL(SessionGetOutputName, OrtStatus *, (void *, size_t, void *, char **),
                            (session, i, allocator, name))
                : ORTX_CALL(SessionGetInputName, OrtStatus *, (void *, size_t, void *, char **),
                            (session, i, allocator, name));
}

void ortx_free_name(char *name) {
  void *allocator;
  OrtStatus *s = default_allocator(&allocator);
  if (!s) s = ORTX_CALL(AllocatorFree, OrtStatus *, (void *, void *), (allocator, name));
  if (s) ortx_release_status(s);
}

OrtStatus *ortx_type(void *session, int output, size_t i, int *type, int64_t *dims, size_t *rank) {
  size_t capacity = *rank;
  void *info = NULL;
  OrtStatus *s = output ? ORTX_CALL(SessionGetOutputTypeInfo, OrtStatus *, (void *, size_t, void **), (session, i, &info))
                        : ORTX_CALL(SessionGetInputTypeInfo, OrtStatus *, (void *, size_t, void **), (session, i, &info));
  if (s) return s;
  const void *tensor = NULL; // belongs to info
  s = ORTX_CALL(CastTypeInfoToTensorInfo, OrtStatus *, (void *, const void **), (info, &tensor));
  *type = 0;
  *rank = 0;
  if (!s && tensor) {
    s = ORTX_CALL(GetTensorElementType, OrtStatus *, (const void *, int *), (tensor, type));
    if (!s) s = ORTX_CALL(GetDimensionsCount, OrtStatus *, (const void *, size_t *), (tensor, rank));
    if (!s && *rank <= capacity)
      s = ORTX_CALL(GetDimensions, OrtStatus *, (const void *, int64_t *, size_t), (tensor, dims, *rank));
  }
  ORTX_CALL(ReleaseTypeInfo, void, (void *), (info));
  return s;
}

OrtStatus *ortx_tensor(void *data, size_t bytes, const int64_t *dims, size_t rank, int type, int device, void **value) {
  enum { device_allocator = 0, default_memory = 0 };
  void *memory = NULL;
  OrtStatus *s = device < 0
                     ? ORTX_CALL(CreateCpuMemoryInfo, OrtStatus *, (int, int, void **),
                                 (device_allocator, default_memory, &memory))
                     : ORTX_CALL(CreateMemoryInfo, OrtStatus *, (const char *, int, int, int, void **),
                                 ("Cuda", device_allocator, device, default_memory, &memory));
  if (s) return s;
  s = ORTX_CALL(CreateTensorWithDataAsOrtValue, OrtStatus *,
                (const void *, void *, size_t, const int64_t *, size_t, int, void **),
                (memory, data, bytes, dims, rank, type, value));
  ORTX_CALL(ReleaseMemoryInfo, void, (void *), (memory));
  return s;
}

void ortx_release_value(void *value) { ORTX_CALL(ReleaseValue, void, (void *), (value)); }

OrtStatus *ortx_bind(void *binding, int output, const char *name, void *value) {
  return output ? ORTX_CALL(BindOutput, OrtStatus *, (void *, const char *, void *), (binding, name, value))
                : ORTX_CALL(BindInput, OrtStatus *, (void *, const char *, void *), (binding, name, value));
}

OrtStatus *ortx_run(void *session, void *run_options, void *binding) {
  return ORTX_CALL(RunWithBinding, OrtStatus *, (void *, const void *, const void *),
                   (session, run_options, binding));
}
