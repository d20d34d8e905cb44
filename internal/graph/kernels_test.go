package graph

import "github.com/criteria-go/criteria/internal/ort"

// available lists the fused kernels of the runtime.
func available(rt *ort.Runtime) Kernels { return nil }
