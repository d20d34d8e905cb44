// Packed batches: the tokens of all rows lie end to end, those of row r from offsets[r] to
// offsets[r+1]-1; what comes after the last row fills up and is nobody's. A row may be empty.

#ifndef CRITERIA_ORT_PACKED_H
#define CRITERIA_ORT_PACKED_H

#include "ops.h"

typedef struct {
  const int64_t *offsets; // [rows+1]
  size_t rows, tokens;    // tokens: with those that fill up
  size_t longest;         // of the rows
} packed_rows;

// Reads an input of offsets into so many tokens.
OrtStatus *packed_offsets(void *context, size_t input, size_t tokens, packed_rows *p);

static inline size_t packed_begin(const packed_rows *p, size_t row) { return (size_t)p->offsets[row]; }
static inline size_t packed_length(const packed_rows *p, size_t row) {
  return (size_t)(p->offsets[row + 1] - p->offsets[row]);
}
static inline size_t packed_end(const packed_rows *p) { return (size_t)p->offsets[p->rows]; }

// Dropout that operators draw: of the input key (int64 [1]: what seed and step begin with)
// and the attribute site. Its element e of a row is decided as op_dropout_loops.h says.
OrtStatus *packed_draw_attributes(const void *info, ops_attributes *a);
OrtStatus *packed_key(void *context, size_t input, const ops_attributes *a, uint64_t *start);
uint64_t packed_row_start(uint64_t start, size_t row);
uint64_t packed_head_start(uint64_t start, size_t head); // of attention: from that of a row

// y ← what is kept of n elements of x from element e on, times scale, and 0 else; x itself if
// threshold is 0.
void packed_draw(const float *x, uint64_t start, size_t e, uint32_t threshold, float scale, float *y, size_t n);

#endif
