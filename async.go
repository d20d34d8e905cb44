package criteria

import "context"

// asyncSession is a [Session] on a device that computes by itself. Its methods
// begin what the ones without Async do and return at once; what these would
// return comes from wait. The trainer gives such a device its next step before it
// waits for the results of this one, so that it is never idle.
type asyncSession interface {
	AccumulateAsync(ctx context.Context, b Batch, step, micro int) (wait func() (BatchResult, error), err error)
	UpdateAsync(ctx context.Context, learningRate float64) (wait func() (gradNorm float64, err error), err error)
}

// synchronous makes a session of the other kind one whose results are there at
// once.
type synchronous struct{ Session }

func (s synchronous) AccumulateAsync(ctx context.Context, b Batch, step, micro int) (func() (BatchResult, error), error) {
	result, err := s.Accumulate(ctx, b, step, micro)
	return func() (BatchResult, error) { return result, nil }, err
}

func (s synchronous) UpdateAsync(ctx context.Context, learningRate float64) (func() (float64, error), error) {
	norm, err := s.Update(ctx, learningRate)
	return func() (float64, error) { return norm, nil }, err
}

// inFlight are the parts of steps that were begun and whose results are not yet
// part of the run's state, oldest first.
type inFlight struct {
	depth int // how many stay under way while the next one is begun
	parts []part
	err   error // of the first part that failed; those after it are not looked at
}

// part is an accumulation or an update.
type part struct {
	update bool
	settle func() error // waits for the result and makes it part of the state
}

// asynchronously returns the session as what begins parts of steps, and in what
// they are kept. The results of a device lag behind by one step, an accumulation
// and an update; all others are looked at as soon as they are there, before
// anything else is computed.
func asynchronously(s Session) (asyncSession, *inFlight) {
	if a, ok := s.(asyncSession); ok {
		return a, &inFlight{depth: 2}
	}
	return synchronous{s}, &inFlight{}
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
		f.parts = f.parts[1:]
		f.err = p.settle()
	}
	return f.err
}

// updating reports whether an update is under way: the weights are then not those
// of the run's state.
func (f *inFlight) updating() bool {
	for _, p := range f.parts {
		if p.update {
			return true
		}
	}
	return false
}
