// Custom kernels on an NVIDIA GPU: the images of package kernels, loaded by
// the driver, and the operators of domain "criteria" that launch them for the
// CUDA provider. The driver's library is found at run time, nothing is linked.

#ifndef CRITERIA_ORT_GPU_H
#define CRITERIA_ORT_GPU_H

#include "api.h"

enum {
#define GPU_KERNEL(id, name) GPU_##id,
#include "gpu_kernels.def.h"
  GPU_KERNELS
};

// The name of a kernel in package kernels, by its number.
const char *gpu_kernel_name(int kernel);

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
