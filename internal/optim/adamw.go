package optim

/*
#cgo CFLAGS: -O2 -std=c11 -Wall -Wextra
#cgo linux LDFLAGS: -lm
#include "kernels.h"
*/
import "C"

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/criteria-go/criteria/internal/parallel"
)

// AdamW is the optimizer of Loshchilov and Hutter (Decoupled Weight Decay
// Regularization, ICLR 2019) in torch's arithmetic:
//
//	p ← p·(1 - lr·λ)
//	m ← m + (1-β₁)·(g-m)
//	v ← β₂·v + (1-β₂)·g²
//	p ← p - lr/(1-β₁ᵗ) · m / (√v/√(1-β₂ᵗ) + ε)
type AdamW struct {
	Beta1, Beta2, Eps float64
}

// DefaultAdamW returns the constants that torch and transformers use: 0.9,
// 0.999 and 1e-8.
func DefaultAdamW() AdamW { return AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8} }

// Update holds what changes from one step of an optimizer to the next.
type Update struct {
	Step        int     // t, counted from 1 for the first update
	LR          float64 // learning rate
	WeightDecay float64 // λ
	GradScale   float32 // factor on every gradient: clipping; 1 leaves them
	Threads     int     // threads to work on; their number does not change the result
}

// scalars works out the update's constants in double precision, as torch does.
func (o AdamW) scalars(u Update) C.optim_adamw_scalars {
	if u.Step < 1 {
		panic(fmt.Sprintf("optim: step %d; steps count from 1", u.Step))
	}
	t := float64(u.Step)
	return C.optim_adamw_scalars{
		decay:      C.float(1 - u.LR*u.WeightDecay),
		beta2:      C.float(o.Beta2),
		weight1:    C.float(1 - o.Beta1),
		weight2:    C.float(1 - o.Beta2),
		step:       C.float(u.LR / (1 - math.Pow(o.Beta1, t))),
		correction: C.float(1 / math.Sqrt(1-math.Pow(o.Beta2, t))),
		eps:        C.float(o.Eps),
		grad_scale: C.float(u.GradScale),
	}
}

// part is how many elements a thread takes at a time.
const part = 1 << 16

// Step updates the parameters p and the state m, v (first and second moment,
// zero at first) in place by the gradients g. All four have the same length.
func (o AdamW) Step(p, m, v, g []float32, u Update) {
	if len(m) != len(p) || len(v) != len(p) || len(g) != len(p) {
		panic(fmt.Sprintf("optim: %d parameters with %d and %d moments and %d gradients", len(p), len(m), len(v), len(g)))
	}
	step.Run((len(p)+part-1)/part, u.Threads, stepped{p, m, v, g, o.scalars(u)})
}

// stepped is what a step works on.
type stepped struct {
	p, m, v, g []float32
	scalars    C.optim_adamw_scalars
}

var step = parallel.New(func(s *stepped, i int) {
	from, to := i*part, min((i+1)*part, len(s.p))
	C.optim_adamw(floats(s.p[from:]), floats(s.m[from:]), floats(s.v[from:]), floats(s.g[from:]), C.size_t(to-from), &s.scalars)
})

func floats(s []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(s))) }
