package engine

import "context"

// AccumulateAsync and UpdateAsync are Accumulate and Update for a device, which
// computes while the caller continues: what these would return comes from wait, to
// be called whenever the result is wanted, in any order, before Close. Calls take
// effect in their order, so an update may follow an accumulation, and the next
// step the update, before anything was waited for. At most two of each kind are
// under way: one more waits for the first. On the CPU all is done on return.
//
// The device knows by itself which updates to skip: one whose norm turns out not
// to be finite has left the parameters as they were.
func (e *Engine) AccumulateAsync(ctx context.Context, b Batch, step, micro int) (wait func() (Result, error), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, err := e.accumulate(ctx, b, step, micro)
	return waitLater(e, p, err)
}

// UpdateAsync begins with an Update; see [Engine.AccumulateAsync].
func (e *Engine) UpdateAsync(ctx context.Context, learningRate float64) (wait func() (float64, error), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, err := e.update(ctx, learningRate)
	return waitLater(e, p, err)
}

// waitLater returns a function that waits for a result, taking turns with other calls.
func waitLater[T any](e *Engine, p pending[T], err error) (func() (T, error), error) {
	if err != nil {
		return nil, err
	}
	if p.arrives == nil {
		return p.wait, nil
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
