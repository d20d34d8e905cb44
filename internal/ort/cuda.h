// The CUDA runtime, as far as this package calls it: memory, copies, one stream
// and events in it. It is found at run time, nothing is linked. All functions return
// CUDA's own status, 0 for success.

#ifndef CRITERIA_ORT_CUDA_H
#define CRITERIA_ORT_CUDA_H

#include "api.h"

// Loads a library for others to find by its name. Returns NULL or a message,
// which stays until the next call.
const char *cudax_preload(const char *path);

// Takes the functions from libcudart, once it is loaded; name is its file name.
const char *cudax_open(const char *name);

const char *cudax_message(int status);
int cudax_versions(int *driver, int *runtime);
int cudax_count(int *devices);
int cudax_use(int device);
int cudax_capability(int device, int *major, int *minor);
int cudax_memory(size_t *available, size_t *total);

int cudax_stream(void **stream);
int cudax_close_stream(void *stream);
int cudax_wait(void *stream);

int cudax_event(void **event);
int cudax_close_event(void *event);
int cudax_record(void *event, void *stream);
int cudax_wait_event(void *event);

int cudax_allocate(size_t size, int pinned, void **address);
int cudax_free(void *address, int pinned);
int cudax_copy(void *to, const void *from, size_t size, void *stream);
int cudax_clear(void *to, size_t size, void *stream);

// Adds the CUDA provider, with options as pairs, to the options of a session to
// be made; it works on the stream.
OrtStatus *cudax_append(void *session_options, const char *const *keys, const char *const *values, size_t count,
                        void *stream);

// Makes one arena of device memory that sessions share.
OrtStatus *cudax_share_arena(void *env, int device, const char *const *keys, const char *const *values, size_t count);

OrtStatus *cudax_run_option(void *run_options, const char *key, const char *value);
OrtStatus *cudax_keep_optimized(void *session_options, const char *path);

// Calls back with the provider and the operator of every node, in turn.
OrtStatus *cudax_placement(void *session, uintptr_t user);

#endif
