package ort

// #include "ops.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"github.com/shirou/gopsutil/v4/cpu"
)

// Domain is the operator domain of the fused kernels that this package adds to
// ONNX Runtime. Those of its CPU provider take and yield float32, and give the
// same bits on any number of threads:
//
//	GeluGrad(dy, x) → dx                    exact (erf) GELU
//	DropoutMask(x, mask bool; scale) → y    mask ? x·scale : 0
//	SoftmaxGrad(dy, y) → dx                 along the last dimension; y is softmax's output
//	LayerNormGrad(dy, x, w, mean, invStd) → dx, dw, db
//	                                        mean, invStd: as LayerNormalization yields them
//	Skew(x [.., L, 2L]) → y [.., L, L]      y[i, j] = x[i, j-i+L-1]
//	Unskew(dy [.., L, L]) → dx [.., L, 2L]  its gradient
//	Gemm(A, B[, C]; transA, transB) → Y     op(A)·op(B) + C; C is [N] or [M, N]; needs a BLAS.
//	                                        If Y is bound to C's memory, the product is added there.
//	LinearGrad(dY, X, C, d) → dW, db        dYᵀ·X + C and the sums of dY's columns + d; C and d are for
//	                                        the first rows and elements; needs a BLAS. Results bound to
//	                                        the memory of C and d, if these have all rows, are added there.
//	Attention(x, positions, tokens, index[, mask]; heads, scale, keep) → context
//	AttentionProbs(the same) → context, probs
//	AttentionGrad(dcontext, x, positions, probs, tokens, index[, mask]; …) → dx, dpositions
//	                                        disentangled attention; x has query, key and value,
//	                                        positions query and key side by side; needs a BLAS
//
// Those for packed batches, in which the tokens of all rows lie end to end: row r is tokens
// offsets[r] … offsets[r+1]-1 of T, offsets int64 [B+1]. key, int64 [1], is what a seed and a
// step make of dropout; see op_dropout_loops.h. All need a BLAS:
//
//	PackedAttention(x [T, 3·D], positions, offsets, index, key; heads, scale, keep, site, threshold) → context
//	PackedAttentionProbs(the same) → context, probs
//	PackedAttentionGrad(dcontext, x, positions, probs, offsets, index, key; …) → dx, dpositions
//	PackedFirstAttention(q [B, D], k, v [T, D], pq, pk [R, D], offsets, index, key; …) → context [B, D], probs [H, T]
//	PackedFirstAttentionGrad(dcontext, q, k, v, pq, pk, probs, offsets, index, key; …) → dq, dk, dv, dpq, dpk
//	                                        attention for the first token of every row
//	PackedDropout(x, places, key; site, threshold, keep, mode) → y
//	                                        places: offsets, or with mode 1 the numbers of the rows of a table
//	PackedPool(x [T, D], offsets; mode) → y [B, D]
//	                                        0 the first token, 1 the mean, 2 the maximum
//	PackedPoolGrad(dy, x, y, offsets; mode) → dx
//
// Those of a [Device]:
//
//	PhiloxDropout(x, position int64 [1]; seed, site, threshold, scale) → y
//	                                        x·scale where word i mod 4 of Philox4x32-10 with counter
//	                                        (i/4, site, position) and key seed is not below threshold,
//	                                        else 0; x may be float16 or bfloat16 on a GPU
//	SumSquares(x [n]; span) → [n/span]      a sum of squares for every span elements
//	AdamW(p, g, m, v, scalars [9][, copy]) → p, m, v[, copy]
//	                                        scalars: 1-lr·λ, β₂, 1-β₁, 1-β₂, lr/(1-β₁ᵗ), 1/√(1-β₂ᵗ), ε,
//	                                        the factor of g, and whether to take the step at all;
//	                                        copy, float16 or bfloat16: the last elements of the new p
//	AdamW8bit(p, g, state uint8, owners int32, tensors int64 [.., 8], values [2, 256], cells uint8 [2, 65536],
//	          scalars [.., 9][, copy]) → p, state[, copy]
//	                                        the same in place, with moments in 8 bits; see internal/kernels/kernels.py
//	FlashAttention(q, k, v [B·L, D], c2p, p2c [H, B, L, 2L], tokens [B·L, 1][, position int64 [1]];
//	               scale, keep, seed, site, threshold) → context [B·L, D], lse [H, B, L]
//	                                        disentangled attention; c2p and p2c are what Skew reads, scaled;
//	                                        probabilities are dropped as PhiloxDropout drops [H, B, L, L], unless
//	                                        threshold is 0; see internal/kernels/attention.py
//	FlashAttentionGrad(dcontext, q, k, v, c2p, p2c, context, lse, tokens[, position]; the same)
//	               → dq, dk, dv, dc2p, dp2c, delta [H, B, L]
//	                                        lse, tokens and delta are float32, all else of one type
const Domain = "criteria"

// Operators returns the names of the operators of domain [Domain] that models
// may use, sorted. Those that need a BLAS are among them if one was found.
func (r *Runtime) Operators() []string {
	return operatorsOf(func(row C.ops_row) bool {
		return row.place == C.OPS_ON_HOST && (row.needs != C.OPS_NEEDS_BLAS || r.info.BLAS != "")
	})
}

// operatorsOf returns the names of some of the operators in ops.def.h, sorted.
func operatorsOf(some func(C.ops_row) bool) []string {
	var names []string
	var row C.ops_row
	for i := 0; C.ops_list(C.size_t(i), &row) != 0; i++ {
		if some(row) {
			names = append(names, C.GoString(row.name))
		}
	}
	slices.Sort(names)
	return names
}

// HasOperator reports whether models may use the operator of domain [Domain]
// with this name.
func (r *Runtime) HasOperator(name string) bool { return slices.Contains(r.Operators(), name) }

// addOperators lets the session to be made use the operators of where it will
// run, nil for the host.
func addOperators(options unsafe.Pointer, d *Device) error {
	if d != nil && !d.host {
		if d.kernels == nil {
			return nil
		}
		return d.kernels.register(options)
	}
	environment.Lock()
	defer environment.Unlock()
	return registerOperators(options)
}

// EnvBLAS names the environment variable that holds the path of the BLAS, or of
// a folder that contains it, or [NoBLAS].
const EnvBLAS = "CRITERIA_BLAS_LIB"

// NoBLAS in [Options].BLAS, or in the variable [EnvBLAS], leaves matrix products
// to ONNX Runtime.
const NoBLAS = "none"

// findBLAS returns the path of the BLAS, or the name by which the system's
// loader finds it. It is looked for as [FindLibrary] looks for ONNX Runtime;
// without an order only OpenBLAS is, but on macOS Accelerate first. Intel's MKL is used if it is named
// (libmkl_rt.so). The error is a [*RuntimeError].
func findBLAS(explicit string) (path string, tried []string, err error) {
	return find(searchSpec{
		what:     "a BLAS with cblas_sgemm",
		explicit: explicit,
		env:      EnvBLAS,
		prefixes: []string{"libscipy_openblas", "libopenblas"},
		remedy:   fmt.Sprintf(Fetch+", or set %s to the path of OpenBLAS or MKL, or to %q", EnvBLAS, NoBLAS),
		system:   accelerate(),
		loader: func(name string) (string, error) {
			if err := loadBLAS(name, machineCores()); err != nil {
				return "", err
			}
			return name, nil
		},
	})
}

// accelerate returns the BLAS that comes with macOS, whose products use units of
// Apple's processors that no other library reaches.
func accelerate() string {
	if runtime.GOOS != "darwin" {
		return ""
	}
	return "/System/Library/Frameworks/Accelerate.framework/Accelerate"
}

// openBLAS finds and loads the BLAS, once per process. It returns an empty path
// if there is none, which is an error only if one was asked for. The caller
// holds the environment's lock.
func openBLAS(explicit string) (path string, tried []string, err error) {
	ordered := explicit
	if ordered == "" {
		ordered = os.Getenv(EnvBLAS)
	}
	if ordered == NoBLAS {
		return "", []string{NoBLAS}, nil
	}
	if environment.blas != "" && ordered == "" {
		return environment.blas, environment.blasTried, nil
	}
	path, tried, err = findBLAS(explicit)
	if err != nil {
		if ordered == "" {
			return "", tried, nil
		}
		return "", tried, err
	}
	if environment.blas == path {
		return path, tried, nil
	}
	if environment.blas != "" {
		return "", tried, &RuntimeError{Library: path, Want: "the BLAS that this process already uses, " + environment.blas, Got: "another one", Tried: tried}
	}
	if err := loadBLAS(path, machineCores()); err != nil {
		if ordered == "" {
			return "", append(tried, err.Error()), nil
		}
		return "", tried, &RuntimeError{Library: path, Want: "a BLAS with cblas_sgemm", Got: "a file that cannot be used", Tried: tried,
			Remedy: "set " + EnvBLAS + " to OpenBLAS or MKL, or to \"" + NoBLAS + "\"", Err: err}
	}
	environment.blas, environment.blasTried = path, tried
	return path, tried, nil
}

// machineCores returns the number of physical cores of the machine, whatever
// part of it the process may use: blocks of matrix products are cut by it, and
// with them the bits of the result.
func machineCores() int {
	cores, err := cpu.Counts(false)
	if err != nil || cores < 1 {
		cores, err = cpu.Counts(true)
	}
	if err != nil || cores < 1 {
		return 1
	}
	return cores
}

// errClosed is returned by whatever was closed before.
var errClosed = errors.New("ort: already closed")
