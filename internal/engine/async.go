package engine

import "context"

// AccumulateAsync and UpdateAsync are Accumulate and Update for a device, which
// computes while the caller goes on: what these would return comes from wait, to
// be called whenever the result is wanted, in any order, before Close. Calls take
// effect in their order, so an update may follow an accumulation, and the next
// step the update, before anything was waited for. At most two of each kind are
// under way: one more waits for the first. On the CPU all is done on return.
//
// The device knows by itself which updates to skip: one whose norm turns out not
// to be finite has left the parameters as they were.
func (e *Engine) AccumulateAsync(ctx context.Context, b Batch, step, micro int) (wait func() (Result, error), err error) {
	if e.accelerator == nil {
		return done(e.Accumulate(ctx, b, step, micro))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.checkAccumulate(b); err != nil {
		return nil, err
	}
	return later(e, func() (*pending[Result], error) { return e.accelerator.accumulate(ctx, b, step, micro) })
}

// UpdateAsync begins with an Update; see [Engine.AccumulateAsync].
func (e *Engine) UpdateAsync(ctx context.Context, learningRate float64) (wait func() (float64, error), err error) {
	if e.accelerator == nil {
		return done(e.Update(ctx, learningRate))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.checkUpdate(ctx); err != nil {
		return nil, err
	}
	return later(e, func() (*pending[float64], error) { return e.accelerator.update(ctx, learningRate) })
}

// done returns a result that is there already.
func done[T any](result T, err error) (func() (T, error), error) {
	if err != nil {
		return nil, err
	}
	return func() (T, error) { return result, nil }, nil
}

// waited waits at once.
func waited[T any](p *pending[T], err error) (T, error) {
	if err != nil {
		var none T
		return none, err
	}
	return p.wait()
}

// later returns a function that waits for what begin begins.
func later[T any](e *Engine, begin func() (*pending[T], error)) (func() (T, error), error) {
	p, err := begin()
	if err != nil {
		return nil, err
	}
	return func() (result T, err error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.closed { // and the memory that it was to arrive in freed
			return result, errClosed
		}
		return p.wait()
	}, nil
}
