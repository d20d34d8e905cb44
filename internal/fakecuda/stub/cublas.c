// cuBLAS and cuBLASLt that multiply nothing.
#include <stdlib.h>

int cublasCreate_v2(void **handle) { return (*handle = calloc(1, 64)) ? 0 : 3; }
int cublasDestroy_v2(void *handle) {
  free(handle);
  return 0;
}
int cublasGetMathMode(void *handle, int *mode) {
  (void)handle;
  *mode = 0;
  return 0;
}
int cublasLtCreate(void **handle) { return cublasCreate_v2(handle); }
int cublasLtDestroy(void *handle) { return cublasDestroy_v2(handle); }
const char *cublasGetStatusName(int status) { return status ? "failed" : "CUBLAS_STATUS_SUCCESS"; }
const char *cublasGetStatusString(int status) { return status ? "failed" : "success"; }
const char *cublasLtGetStatusName(int status) { return cublasGetStatusName(status); }
const char *cublasLtGetStatusString(int status) { return cublasGetStatusString(status); }
