package engine

import (
	"context"
	"errors"
	"fmt"
)

// Accumulate runs forward and backward over a micro-batch with dropout and adds
// its gradients. step and micro number the update and the micro-batch within
// it: together with the seed they decide the dropout masks.
//
// After an error, and if ctx ends, nothing is accumulated: the engine is as it
// was after the last Update. The logits are overwritten by the next call.
func (e *Engine) Accumulate(ctx context.Context, b Batch, step, micro int) (Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, err := e.accumulate(ctx, b, step, micro)
	if err != nil {
		return Result{}, err
	}
	return p.wait()
}

// accumulate begins with an Accumulate. The caller holds the lock.
func (e *Engine) accumulate(ctx context.Context, b Batch, step, micro int) (pending[Result], error) {
	if err := e.checkAccumulate(b); err != nil {
		return pending[Result]{}, err
	}
	p, err := e.backend.accumulate(ctx, b, step, micro, e.accumulated)
	if err != nil {
		e.accumulated = 0
		return p, err
	}
	e.accumulated++
	return p, nil
}

func (e *Engine) checkAccumulate(b Batch) error {
	switch {
	case e.closed:
		return errClosed
	case !e.trains():
		return errNotTraining
	case b.Labels == nil:
		return errors.New("engine: a batch without labels cannot be trained on")
	}
	return nil
}

// Update averages the gradients over the micro-batches that were accumulated
// (the last window of an epoch may have fewer than the others), clips them to
// the global norm, takes one optimizer step at the given learning rate and
// forgets them. It returns the norm before clipping, which is not finite if the
// run has diverged: then the parameters are left as they are.
func (e *Engine) Update(ctx context.Context, learningRate float64) (gradNorm float64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p, err := e.update(ctx, learningRate)
	if err != nil {
		return 0, err
	}
	return p.wait()
}

// update begins with an Update. The caller holds the lock.
func (e *Engine) update(ctx context.Context, learningRate float64) (pending[float64], error) {
	if err := e.checkUpdate(ctx); err != nil {
		return pending[float64]{}, err
	}
	micro := e.accumulated
	e.accumulated = 0
	return e.backend.update(ctx, learningRate, micro)
}

func (e *Engine) checkUpdate(ctx context.Context) error {
	switch {
	case e.closed:
		return errClosed
	case !e.trains():
		return errNotTraining
	case e.accumulated == 0:
		return errors.New("engine: update without gradients")
	case ctx.Err() != nil:
		return fmt.Errorf("engine: update: %w", context.Cause(ctx))
	}
	return nil
}
