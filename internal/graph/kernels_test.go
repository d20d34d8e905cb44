package graph

import (
	"testing"

	"github.com/criteria-go/criteria/internal/ort"
)

// available lists the fused kernels of the runtime, of which none may lack.
func available(t testing.TB, rt *ort.Runtime) Kernels {
	t.Helper()
	kernels := Kernels{}
	for _, name := range rt.Operators() {
		kernels[name] = true
	}
	for _, name := range []string{"DropoutMask", "Gemm", "GeluGrad", "LayerNormGrad", "LinearGrad", "Skew", "SoftmaxGrad", "Unskew"} {
		if !kernels[name] {
			t.Fatalf("the runtime has no kernel %s (have %v): run make deps for the BLAS that Gemm needs", name, rt.Operators())
		}
	}
	return kernels
}
