// What the operators of attention for devices read, on the host as on a GPU.

#ifndef CRITERIA_ORT_OP_FLASH_H
#define CRITERIA_ORT_OP_FLASH_H

#include "ops.h"

typedef struct {
  const void *dcontext, *q, *k, *v, *c2p, *p2c, *context; // of one type
  const float *lse, *tokens;
  const int64_t *position; // NULL: nothing is dropped
  int type;
  ops_shape rows, tables, stats; // of q, k, v and context; of c2p and p2c; of lse
  size_t batch, heads, n, size;  // sequences, heads, positions of a sequence, elements of a head
} flash_inputs;

// Reads and checks the inputs of the operator, or of its gradient.
OrtStatus *flash_read(const ops_attributes *a, void *context, int gradient, flash_inputs *in);

#endif
