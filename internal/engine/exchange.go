package engine

import (
	"errors"

	"github.com/criteria-go/criteria/internal/ort"
)

// halves is in how many places of the host's memory an exchange may be under way:
// while the device still copies from and to one half, the host fills the other.
const halves = 2

// An exchange is how host and device talk: what the device is to compute from is
// copied there, and what it has computed is copied back, always from and to the
// same places of the device. On the host, halves take turns, so that the next
// exchange may begin before the results of this one are there.
type exchange struct {
	device  *ort.Device
	there   *ort.Buffer // on the device
	in, out ort.Tensor  // in it: what comes from the host, and what goes back
	here    [halves]half
	turn    int
}

// half has the same layout as the memory on the device.
type half struct {
	memory  *ort.Buffer
	in, out ort.Tensor
	arrived *ort.Event // after the copy to the host
	take    func()     // keeps what arrived before it is overwritten; nil: nothing is under way
}

// span is a range of bytes.
type span struct{ from, to int }

func (s span) of(b *ort.Buffer) (ort.Tensor, error) {
	return b.Tensor(ort.Uint8, s.from, s.to-s.from)
}

// newExchange makes the memory for an exchange of size bytes, of which the device
// is sent in and sends back out. Copies from and to memory of the host that is not
// pinned wait for all work before them.
func newExchange(d *ort.Device, pinned bool, size int, in, out span) (_ *exchange, err error) {
	x := &exchange{device: d}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	tensors := func(b *ort.Buffer, toIn, toOut *ort.Tensor) (err error) {
		if *toIn, err = in.of(b); err == nil {
			*toOut, err = out.of(b)
		}
		return err
	}
	if x.there, err = d.NewBuffer(size); err != nil {
		return nil, err
	}
	if err := tensors(x.there, &x.in, &x.out); err != nil {
		return nil, err
	}
	for i := range x.here {
		h := &x.here[i]
		if pinned {
			h.memory, err = d.NewStaging(size)
		} else {
			h.memory, err = ort.NewBuffer(size)
		}
		if err != nil {
			return nil, err
		}
		if h.arrived, err = d.NewEvent(); err != nil {
			return nil, err
		}
		if err := tensors(h.memory, &h.in, &h.out); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// close frees the memory; an exchange that was never made has none.
func (x *exchange) close() error {
	if x == nil {
		return nil
	}
	var errs []error
	for _, h := range x.here {
		if h.memory != nil {
			errs = append(errs, h.memory.Free()) // waits for copies under way
		}
		if h.arrived != nil {
			errs = append(errs, h.arrived.Close())
		}
	}
	if x.there != nil {
		errs = append(errs, x.there.Free())
	}
	return errors.Join(errs...)
}

// exchanged lets the device compute once: write fills a half with what is sent,
// compute is what the device does with it, read reads what came back.
func exchanged[T any](x *exchange, write func(half int), compute func() error, read func(half int) T) (pending[T], error) {
	i := x.turn
	h := &x.here[i]
	if h.take != nil {
		h.take() // results for which nobody has waited yet
	}
	x.turn = (i + 1) % halves
	write(i)
	for _, step := range []func() error{
		func() error { return x.device.Copy(x.in, h.in) },
		compute,
		func() error { return x.device.Copy(h.out, x.out) },
		h.arrived.Record,
	} {
		if err := step(); err != nil {
			return pending[T]{}, errors.Join(err, x.device.Wait()) // nothing of it stays under way
		}
	}
	var result T
	var err error
	var once bool
	arrive := func() {
		if once {
			return
		}
		once, h.take = true, nil
		if err = h.arrived.Wait(); err == nil {
			result = read(i)
		}
	}
	h.take = arrive
	return pending[T]{arrives: func() (T, error) {
		arrive()
		return result, err
	}}, nil
}
