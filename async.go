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

// later is a result that is there, or that wait returns.
type later[T any] struct {
	value T
	wait  func() (T, error) // nil: the value is there
}

func (l later[T]) get() (T, error) {
	if l.wait != nil {
		return l.wait()
	}
	return l.value, nil
}

// inFlight begins parts of steps and keeps those whose results are not yet part
// of the run's state, oldest first. The results of a device lag behind by one
// step, an accumulation and an update; all others are looked at as soon as they
// are there, before anything else is computed.
type inFlight struct {
	session Session
	async   AsyncSession // nil: the results are there at once
	depth   int          // how many parts stay under way while the next one is begun
	parts   []part
	settled func(part) error // makes the result of a part one of the state
	err     error            // of the first part that failed; those after it are not looked at
}

// part is an accumulation or an update.
type part struct {
	*microBatch
	update bool
	result later[BatchResult] // of an accumulation
	rate   float64            // of an update
	norm   later[float64]     // of an update
}

func newInFlight(s Session, settled func(part) error) *inFlight {
	f := &inFlight{session: s, settled: settled}
	if a, ok := s.(AsyncSession); ok {
		f.async, f.depth = a, 2
	}
	return f
}

// accumulate begins with a micro-batch. The error is that of this or of an older
// part.
func (f *inFlight) accumulate(ctx context.Context, m *microBatch, step, micro int) (began bool, err error) {
	p := part{microBatch: m}
	if f.async != nil {
		p.result.wait, err = f.async.AccumulateAsync(ctx, m.Batch, step, micro)
	} else {
		p.result.value, err = f.session.Accumulate(ctx, m.Batch, step, micro)
	}
	if err != nil {
		return false, err
	}
	return true, f.begun(p)
}

// update begins with the update that follows a micro-batch.
func (f *inFlight) update(ctx context.Context, m *microBatch, rate float64) (began bool, err error) {
	p := part{microBatch: m, update: true, rate: rate}
	if f.async != nil {
		p.norm.wait, err = f.async.UpdateAsync(ctx, rate)
	} else {
		p.norm.value, err = f.session.Update(ctx, rate)
	}
	if err != nil {
		return false, err
	}
	return true, f.begun(p)
}

// begun adds a part and settles older ones.
func (f *inFlight) begun(p part) error {
	f.parts = append(f.parts, p)
	return f.settle(f.depth)
}

// settle settles the oldest parts until only so many are under way.
func (f *inFlight) settle(left int) error {
	for f.err == nil && len(f.parts) > left {
		p := f.parts[0]
		f.parts = slices.Delete(f.parts, 0, 1)
		f.err = f.settled(p)
	}
	return f.err
}

// updating reports whether an update is under way: the weights are then not those
// of the run's state.
func (f *inFlight) updating() bool {
	return slices.ContainsFunc(f.parts, func(p part) bool { return p.update })
}
