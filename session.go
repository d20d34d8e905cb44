package criteria

import (
	"errors"
	"fmt"
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
		device, gpu = fmt.Sprintf("CPU, %d threads", s.Runtime().Threads), false
	}
	return SessionInfo{
		Device:     device,
		GPU:        gpu,
		Parameters: s.Parameters(),
		Versions:   map[string]string{"onnxruntime": s.Runtime().Version},
	}
}
