package optim

// #include "kernels.h"
import "C"

import "fmt"

// Deferred records AdamW updates that are put off for parameters whose gradient
// is 0: most rows of an embedding table, in most steps. Making up for many at
// once reads and writes the parameters once instead of each time, and gives the
// same bits as if none had been put off.
type Deferred struct {
	updates []C.optim_adamw_scalars
}

// Add puts an update off.
func (d *Deferred) Add(o AdamW, u Update) { d.updates = append(d.updates, o.scalars(u)) }

// Len returns how many updates have been put off.
func (d *Deferred) Len() int { return len(d.updates) }

// Clear forgets all updates, once every parameter has got them.
func (d *Deferred) Clear() { d.updates = d.updates[:0] }

// Apply updates the parameters p and the state m, v by all updates but the
// first ones, which they have got already, as [AdamW.Step] would have with
// gradients of 0.
func (d *Deferred) Apply(p, m, v []float32, first int) {
	if len(m) != len(p) || len(v) != len(p) {
		panic(fmt.Sprintf("optim: %d parameters with %d and %d moments", len(p), len(m), len(v)))
	}
	if due := d.updates[first:]; len(due) > 0 && len(p) > 0 {
		C.optim_adamw_deferred(floats(p), floats(m), floats(v), C.size_t(len(p)), &due[0], C.size_t(len(due)))
	}
}
