package engine

import (
	"errors"
	"fmt"
	"math"

	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

const lossScaleKey = "loss_scale"

// save writes the optimizer's state as the CPU's would be.
func (d *device) save(path string) error {
	o, err := d.hostState()
	if err != nil {
		return err
	}
	defer o.close()
	for _, part := range o.parts {
		if err := d.move(part.here, part.there, part.bytes); err != nil {
			return err
		}
	}
	s, err := d.state()
	if err != nil {
		return err
	}
	return writeState(path, d.training.Optimizer, int(s.steps), o,
		map[string]string{lossScaleKey: fmt.Sprint(s.scale)})
}

// restore takes back what save, or the CPU, wrote, together with the parameters
// that the core has.
func (d *device) restore(path string) error {
	o, err := d.hostState()
	if err != nil {
		return err
	}
	defer o.close()
	updates, metadata, err := readState(path, d.training.Optimizer, o)
	if err != nil {
		return err
	}
	scale := float64(d.initialScale())
	if text, ok := metadata[lossScaleKey]; ok && d.spec.Low == graph.Float16 {
		if _, err := fmt.Sscan(text, &scale); err != nil || !(scale > 0) || math.IsInf(scale, 0) {
			return fmt.Errorf("engine: %s: metadata %s is %q, want a positive number", path, lossScaleKey, text)
		}
	}
	for _, part := range o.parts {
		if err := d.move(part.there, part.here, part.bytes); err != nil {
			return err
		}
	}
	return errors.Join(d.push(), d.setState(deviceState{steps: float64(updates), scale: float32(scale)}))
}

// hostState is room for the optimizer's state on the host, and which of it is
// where on the device.
type hostState struct {
	stateful
	close func() error
	parts []statePart
}

type statePart struct {
	here, there *ort.Buffer
	bytes       int
}

func (d *device) hostState() (_ hostState, err error) {
	base := flat{core: d.core}
	if d.quantized != nil {
		o, err := newQuantized(base)
		if err != nil {
			return hostState{}, err
		}
		_, size := placeQuantized(d.layout.params)
		return hostState{o, o.close, []statePart{{o.memory, d.quantized, size}}}, nil
	}
	o, size := &base, 4*d.layout.size
	if o.m, err = ort.NewBuffer(size); err != nil {
		return hostState{}, err
	}
	if o.v, err = ort.NewBuffer(size); err != nil {
		return hostState{}, errors.Join(err, o.close())
	}
	return hostState{o, o.close, []statePart{{o.m, d.moments[0], size}, {o.v, d.moments[1], size}}}, nil
}
