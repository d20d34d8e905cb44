package engine

import (
	"errors"
	"fmt"

	"github.com/criteria-go/criteria/internal/ort"
)

// Gradient returns the sum of the gradients of a parameter on a device since the
// last update, without the loss scale: for checks.
func (e *Engine) Gradient(name string) ([]float32, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, ok := e.layout.index[name]
	switch {
	case e.closed:
		return nil, errClosed
	case e.accelerator == nil || e.accelerator.gradients == nil:
		return nil, errors.New("engine: gradients are read from a device that trains")
	case !ok:
		return nil, fmt.Errorf("engine: no parameter %s", name)
	}
	a := e.accelerator
	s, err := a.state()
	if err != nil {
		return nil, err
	}
	there, err := e.layout.tensor(a.gradients, i)
	if err != nil {
		return nil, err
	}
	here, err := ort.NewTensor(ort.Float32, e.layout.params[i].Shape...)
	if err != nil {
		return nil, err
	}
	err = errors.Join(a.device.Copy(here, there), a.device.Wait())
	g := make([]float32, here.Len())
	for i, x := range here.Float32() {
		g[i] = x / s.scale
	}
	return g, errors.Join(err, here.Buffer().Free())
}

// DeviceMemory returns how many bytes of the device's memory are in use, by
// whomever; 0 for the host. What ONNX Runtime has taken it keeps, so this is the
// most that the engine has needed so far.
func (e *Engine) DeviceMemory() (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.accelerator == nil {
		return 0, errClosed
	}
	return e.accelerator.device.MemoryInUse()
}
