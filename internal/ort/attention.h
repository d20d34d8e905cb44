// Disentangled attention of one head and one sequence, forward and backward: what the
// operators for padded batches (op_attention.c) and for packed ones (op_packed_attention.c)
// share. See op_attention.c for the formulas.

#ifndef CRITERIA_ORT_ATTENTION_H
#define CRITERIA_ORT_ATTENTION_H

#include "blas.h"
#include "ops.h"

// Where each relative position finds its row; rows of positions from … to-1
// follow one another.
typedef struct {
  int32_t *index;
  size_t from, to;
} position_map;

// A sequence of a batch.
typedef struct {
  size_t at, n;         // its first token, and how many it has
  size_t end;           // tokens at+n … end-1 are padding: what is computed for them is 0
  size_t from, to;      // the rows of positions that its distances need
  size_t place, stride; // of its probabilities of head 0, n rows of so many elements
  size_t area;          // from those of one head to those of the next
  uint64_t start;       // of its dropout, if that is drawn
} attention_sequence;

typedef struct {
  const float *x, *positions, *dcontext, *saved;
  const float *tokens; // [B·L], 0 for padding; NULL: every token of a sequence counts
  const uint8_t *mask; // what dropout keeps, where probabilities lie; NULL: it is drawn, or nothing is dropped
  float *context, *probs;
  float *dx, *dpositions; // dpositions: [groups, R, 2·D]
  size_t batch, l, d, heads, size, r, ld, ldr;
  float scale, keep;
  uint32_t threshold;    // of the dropout that is drawn; 0: none
  position_map up, down; // rows in rising and falling order of the relative position, 2·l-1 each
  attention_sequence *sequences;
  size_t *order;  // of the sequences
  size_t *groups; // group g is order[groups[g]] … order[groups[g+1]-1]
  size_t group_count;
  int failed;
  blas_product *scores, *by_position, *apply, *slope_v, *slope_p, *slope_q, *slope_rows, *slope_positions;
} attention_args;

// Reads the attributes of all forms.
OrtStatus *attention_attributes(const void *info, ops_attributes *a);

// Fills what follows from x [.., 3·D], positions [R, 2·D], the table of relative positions
// [2·l-1] and the number of sequences, which are to be filled. finish frees it.
OrtStatus *attention_open(attention_args *w, const ops_attributes *a, const ops_shape *x, const ops_shape *positions,
                          const int64_t *table, size_t table_size, size_t batch);
OrtStatus *attention_finish(attention_args *w, OrtStatus *status);

OrtStatus *attention_forward(attention_args *w, void *context);

// Writes dx and dpositions [R, 2·D]; the sequences must have been put into groups.
OrtStatus *attention_backward(attention_args *w, void *context, float *dpositions);

// As many groups as give every core of the machine two tasks: the order of sums must
// not depend on the threads in use.
size_t attention_groups(const attention_args *w);

// Scratch memory of a thread, kept until the thread ends; NULL if there is none.
float *attention_scratch(size_t n);

#endif
