package engine

import "context"

// A backend computes a model. Its caller makes one call at a time and none after
// close, and sees to it that only an engine that trains is trained.
//
// It may keep the parameters in memory of its own: those of the core are what it
// begins with, and what fetch brings up to date.
type backend interface {
	// evaluate runs forward without dropout.
	evaluate(ctx context.Context, b Batch) (Result, error)
	// explain also runs backward to the word embeddings; see [Engine.Explain].
	explain(ctx context.Context, b Batch) (Result, []float32, error)

	// accumulate runs forward and backward with the dropout of micro-batch micro of
	// update step, and adds its gradients to those of the before micro-batches since
	// the last update. After an error these are forgotten.
	accumulate(ctx context.Context, b Batch, step, micro, before int) (pending[Result], error)
	// update takes one step of the optimizer with gradients averaged over so many
	// micro-batches and forgets them. It yields their norm before clipping.
	update(ctx context.Context, learningRate float64, micro int) (pending[float64], error)
	// gradient copies the sum of the gradients of parameter i since the last update.
	gradient(i int) ([]float32, error)

	// fetch brings the parameters of the core up to date.
	fetch() error
	// save writes the state of the optimizer to a file; restore reads it and takes the
	// parameters of the core over.
	save(path string) error
	restore(path string) error

	name() string                // of the device, for people; "" for the host
	memoryInUse() (int, error)   // bytes of the device's memory; 0 for the host
	largest() (rows, length int) // of the batches met, rounded up
	close() error
}

// pending is a result that is there, or still on its way from a device.
type pending[T any] struct {
	result  T
	arrives func() (T, error) // waits for it; nil: it is there
}

// wait returns the result once it has arrived. The device continues with what it was
// given after it.
func (p pending[T]) wait() (T, error) {
	if p.arrives == nil {
		return p.result, nil
	}
	return p.arrives()
}
