// Kernels of our own on an NVIDIA GPU: the images of package kernels, loaded by
// the driver, and the operators of domain "criteria" that launch them for the
// CUDA provider. The driver's library is found at run time, nothing is linked.

#ifndef CRITERIA_ORT_GPU_H
#define CRITERIA_ORT_GPU_H

#include "api.h"

// The kernels, in the order of kernelNames in gpu.go. Of each [3] there is one for
// float32, float16 and bfloat16.
enum {
  GPU_DROPOUT, // [3]
  GPU_SUM_SQUARES = GPU_DROPOUT + 3,
  GPU_ADAMW,                         // [3]: float32 is without a copy
  GPU_ADAMW8BIT = GPU_ADAMW + 3,     // [3]: the same
  GPU_ATTENTION = GPU_ADAMW8BIT + 3, // [3], like the next two
  GPU_ATTENTION_QUERIES = GPU_ATTENTION + 3,
  GPU_ATTENTION_KEYS = GPU_ATTENTION_QUERIES + 3,
  GPU_KERNELS = GPU_ATTENTION_KEYS + 3
};

typedef struct gpu_kernel {
  void *module, *function;
  unsigned threads, shared; // of a program of the grid: its size, its dynamic shared memory in bytes
  size_t block;             // elements that a program works on
  size_t arguments;         // beside the two that every kernel of Triton takes
} gpu_kernel;

// What a GPU has loaded.
typedef struct gpu_module gpu_module;

// Takes the functions from the driver's library. Returns NULL or a message.
const char *gpu_open(void);

// Calls concern the GPU that the calling thread has made current. Status is the
// driver's own, 0 for success.
gpu_module *gpu_new(void); // NULL: out of memory
int gpu_load(gpu_module *m, int kernel, const void *image, const char *entry, gpu_kernel launch);
const char *gpu_message(int status);

// Adds the domain with the operators that launch what was loaded to the options
// of a session to be made.
OrtStatus *gpu_register(gpu_module *m, void *session_options);

// Unloads everything, once no session uses it any more.
int gpu_free(gpu_module *m);

#endif
