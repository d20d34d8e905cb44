package criteria

import (
	"context"
	"slices"
)

// AsyncSession may be implemented by a [Session] on a device that computes by
// itself. A training then gives the device its next step before it waits for the
// results of this one, so that the device is never idle.
//
// The methods begin what those without Async do, in the order in which they are
// called, and return without waiting for the device; what these would return comes
// from wait. An error that is returned at once says that nothing was begun.
//
// wait is called once for everything that was begun, in the same order, on the
// goroutine that began it. At most two accumulations or updates have not been waited
// for when another one begins, and none when Evaluate, SaveModel, SaveState or Close
// is called. The batch of AccumulateAsync stays as it is until the update that
// follows it has been waited for; the logits of its result must stay as they are
// until the next wait.
type AsyncSession interface {
	Session
	// AccumulateAsync begins what [Session].Accumulate does.
	AccumulateAsync(ctx context.Context, b Batch, step, micro int) (wait func() (BatchResult, error), err error)
	// UpdateAsync begins what [Session].Update does.
	UpdateAsync(ctx context.Context, learningRate float64) (wait func() (gradNorm float64, err error), err error)
}

// pending is a result that is there, or that wait returns.
type pending[T any] struct {
	value T
	wait  func() (T, error) // nil: the value is there
}

func (p pending[T]) get() (T, error) {
	if p.wait != nil {
		return p.wait()
	}
	return p.value, nil
}

// flight begins parts of steps and holds those whose results are not yet part of the
// run's state, oldest first. The results of a device lag behind by one step, an
// accumulation and an update; all others are looked at as soon as they are there,
// before anything else is computed.
type flight struct {
	session Session
	async   AsyncSession // nil: the results are there at once
	depth   int          // how many parts stay under way while the next one is begun
	parts   []stepPart
}

// stepPart is an accumulation or an update.
type stepPart struct {
	*microBatch
	update bool
	result pending[BatchResult] // of an accumulation
	rate   float64              // of an update
	norm   pending[float64]     // of an update
}

func newFlight(s Session) flight {
	f := flight{session: s}
	if a, ok := s.(AsyncSession); ok {
		f.async, f.depth = a, 2
	}
	return f
}

// accumulate begins with a micro-batch, or returns why it cannot.
func (f *flight) accumulate(ctx context.Context, m *microBatch, step, micro int) (err error) {
	p := stepPart{microBatch: m}
	if f.async != nil {
		p.result.wait, err = f.async.AccumulateAsync(ctx, m.Batch, step, micro)
	} else {
		p.result.value, err = f.session.Accumulate(ctx, m.Batch, step, micro)
	}
	if err == nil {
		f.parts = append(f.parts, p)
	}
	return err
}

// update begins with the update that follows a micro-batch, or returns why it cannot.
func (f *flight) update(ctx context.Context, m *microBatch, rate float64) (err error) {
	p := stepPart{microBatch: m, update: true, rate: rate}
	if f.async != nil {
		p.norm.wait, err = f.async.UpdateAsync(ctx, rate)
	} else {
		p.norm.value, err = f.session.Update(ctx, rate)
	}
	if err == nil {
		f.parts = append(f.parts, p)
	}
	return err
}

// oldest takes the part that has been under way for longest.
func (f *flight) oldest() stepPart {
	p := f.parts[0]
	f.parts = slices.Delete(f.parts, 0, 1)
	return p
}

// updating reports whether an update is under way: the weights are then not those
// of the run's state.
func (f *flight) updating() bool {
	return slices.ContainsFunc(f.parts, func(p stepPart) bool { return p.update })
}
