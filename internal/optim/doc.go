// Package optim updates parameters: AdamW with float32 or 8-bit state, the
// global norm of the gradients and its clipping, and learning-rate schedules.
//
// Everything works on flat slices, so that the whole model is one vector, and
// the update one pass over memory at about the speed of the memory. The inner
// loops are C; its results are the same bits on any number of threads and with
// any vector width.
package optim
