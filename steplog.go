package criteria

import (
	"context"
	"time"
)

// window sums up the micro-batches since a point was logged. It is a part of the
// state, so that a resumed run logs the points of one that was never interrupted.
type window struct {
	Loss   float64 `json:"loss"`   // sum over the micro-batches
	Micros int     `json:"micros"` // their number
}

func (w *window) add(loss float64) {
	w.Loss += loss
	w.Micros++
}

// pace is how fast the pairs of a window were trained on, as far as that was
// measured: an epoch's first micro-batch only starts the clock, so that neither
// validation nor an interruption counts.
type pace struct {
	pairs int
	time  time.Duration
	last  time.Time // when a micro-batch was done; zero before the first of an epoch
}

func (p *pace) add(pairs int, now time.Time) {
	if !p.last.IsZero() {
		p.pairs += pairs
		p.time += now.Sub(p.last)
	}
	p.last = now
}

// take returns the pairs per second and begins anew; ok is false if nothing was
// measured.
func (p *pace) take() (perSecond float64, ok bool) {
	if p.time > 0 {
		perSecond, ok = float64(p.pairs)/p.time.Seconds(), true
	}
	p.pairs, p.time = 0, 0
	return perSecond, ok
}

// stepPoint is what is logged of the updates since the one before, under the
// names that transformers' Trainer gives to it.
type stepPoint struct {
	step    int
	metrics map[string]float64
}

// logDue makes a point of the update that was done last, if it is time for one.
func (e *epoch) logDue() *stepPoint {
	s, every := &e.progress.state, e.cfg.MLflow.LogEvery
	if every == 0 || s.Step%every != 0 {
		return nil
	}
	point := &stepPoint{step: s.Step, metrics: map[string]float64{
		"loss": s.Window.Loss / float64(s.Window.Micros), "learning_rate": e.last.rate, "grad_norm": e.last.norm,
	}}
	s.Window = window{}
	return point
}

// logPoints logs the points that have come together. It is called before a resume
// point says that they were.
func (e *epoch) logPoints(ctx context.Context) error {
	points := e.points
	e.points = nil
	for _, p := range points {
		if err := e.record.step(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
