package criteria

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/criteria-go/criteria/internal/ort"
)

// openError says which model could not be opened, unless it is not the model
// that is at fault.
func openError(dir string, err error) error {
	var runtime *RuntimeError
	var memory *OutOfMemoryError
	if errors.As(err, &runtime) || errors.As(err, &memory) {
		return err
	}
	return fmt.Errorf("criteria: open the model %s: %w", dir, err)
}

// describe asks a session what it runs on.
func describe(s Evaluator) SessionInfo {
	if d, ok := s.(Describer); ok {
		return d.Describe()
	}
	return SessionInfo{Device: "unknown"}
}

// Describe implements [Describer].
func (s ortSession) Describe() SessionInfo {
	device, gpu := s.Device(), true
	if device == "" {
		device, gpu = fmt.Sprintf("CPU, %d threads, %s", s.Runtime().Threads, products(s.Runtime().BLAS)), false
	}
	return SessionInfo{
		Device:     device,
		GPU:        gpu,
		Parameters: s.Parameters(),
		Versions:   map[string]string{"onnxruntime": s.Runtime().Version},
	}
}

// products says which library computes matrix products.
func products(blas string) string {
	if blas == "" {
		return "no BLAS (slower; install OpenBLAS, or set " + ort.EnvBLAS + " to it)"
	}
	return "BLAS " + filepath.Base(blas)
}
