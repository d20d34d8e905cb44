package engine

import "fmt"

// Gradient returns the sum of the gradients of a parameter since the last update,
// without the loss scale: for checks.
func (e *Engine) Gradient(name string) ([]float32, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.layout.index[name]
	switch {
	case e.closed:
		return nil, errClosed
	case !e.trains():
		return nil, errNotTraining
	case !ok:
		return nil, fmt.Errorf("engine: no parameter %s", name)
	}
	return e.backend.gradient(i)
}

// DeviceMemory returns how many bytes of the device's memory are in use, by
// whomever; 0 for the host. What ONNX Runtime has taken it keeps, so this is the
// most that the engine has needed so far.
func (e *Engine) DeviceMemory() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0, errClosed
	}
	return e.backend.memoryInUse()
}
