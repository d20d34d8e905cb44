// A CUDA driver without a GPU: modules are loaded if their architecture is the
// device's, launches are counted and do nothing. Functions that are not here get
// a body that does nothing and succeeds.
//
// What it plays is set by environment variables:
//   FAKECUDA_CAPABILITY  compute capability as 90 (default)
//   FAKECUDA_PTX         newest version of PTX that is compiled, as 90 (default)
//   FAKECUDA_LAUNCHES    file that gets a line for every launch: the kernel, the
//                        programs of its grid, their threads, their shared memory
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { success = 0, invalid_image = 200, no_binary = 209, unsupported_ptx = 222, not_found = 500 };

static int setting(const char *name, int missing) {
  const char *value = getenv(name);
  return value && *value ? atoi(value) : missing;
}

// An ELF file of machine code says its architecture in its flags: in the lowest
// byte, or from version 8 of the format on in the second one.
static int architecture(const unsigned char *elf) {
  uint32_t flags;
  memcpy(&flags, elf + 48, sizeof flags);
  return (elf[8] < 8 ? flags : flags >> 8) & 0xff;
}

int cuModuleLoadData(void **module, const void *image) {
  int capability = setting("FAKECUDA_CAPABILITY", 90), have, version, minor;
  if (memcmp(image, "\177ELF", 4) == 0) {
    have = architecture(image);
    if (have / 10 != capability / 10 || have > capability) return no_binary;
  } else {
    const char *line = strstr(image, ".version"), *target = strstr(image, ".target sm_");
    if (!line || !target || sscanf(line, ".version %d.%d", &version, &minor) != 2 ||
        sscanf(target, ".target sm_%d", &have) != 1)
      return invalid_image;
    if (10 * version + minor > setting("FAKECUDA_PTX", 90)) return unsupported_ptx;
    if (have > capability) return no_binary;
  }
  *module = calloc(1, 1);
  return success;
}

int cuModuleUnload(void *module) {
  free(module);
  return success;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  *function = strdup(name); // as long as the process lives
  return *function ? success : not_found;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **arguments, void **extra) {
  (void)gy, (void)gz, (void)by, (void)bz, (void)stream, (void)arguments, (void)extra;
  const char *path = getenv("FAKECUDA_LAUNCHES");
  FILE *file = path && *path ? fopen(path, "a") : NULL;
  if (!file) return success;
  fprintf(file, "%s %u %u %u\n", (const char *)function, gx, bx, shared);
  fclose(file);
  return success;
}

int cuGetErrorString(int status, const char **message) {
  switch (status) {
  case success: *message = "no error"; break;
  case invalid_image: *message = "device kernel image is invalid"; break;
  case no_binary: *message = "no kernel image is available for execution on the device"; break;
  case unsupported_ptx: *message = "the provided PTX was compiled with an unsupported toolchain."; break;
  case not_found: *message = "named symbol not found"; break;
  default: *message = "unknown error";
  }
  return success;
}
