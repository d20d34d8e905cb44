package engine

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// settled returns the flat parameters, all up to date.
func settled(e *Engine) []float32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.backend.fetch(); err != nil {
		panic(err) // the host has nothing that can fail
	}
	return e.params.Float32()
}

// hostOf and deviceOf return the backend of an engine.
func hostOf(e *Engine) *host     { return e.backend.(*host) }
func deviceOf(e *Engine) *device { return e.backend.(*device) }

// moments returns the flat moments of an engine with the fused optimizer.
func moments(e *Engine) (m, v []float32) {
	o := hostOf(e).trainer.optimizer.(*fused)
	return o.m.Float32(), o.v.Float32()
}

// TestLazyRows: putting the updates of embedding rows off gives the same bits,
// in every loss, norm, evaluation, parameter and moment, whatever else happens
// in between.
func TestLazyRows(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		name   string
		change func(*Training)
	}{
		{"decay", func(*Training) {}},
		{"no decay", func(s *Training) { s.WeightDecay = 0 }},
		{"decay of all", func(s *Training) { s.DecayAll = true }},
		{"no clipping", func(s *Training) { s.MaxGradNorm = 0 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec := trainingSpec(t, adamWFused)
			tt.change(spec.Training)
			lazy, eager := openEngine(t, spec, true), openEngine(t, spec, true)
			hostOf(eager).trainer.words.lazy = nil
			dir := t.TempDir()
			for step := range 24 {
				// One sequence at a time, so that rows come and go.
				b := randomBatch(uint64(step%7), 1, 8)
				for micro := range 1 + step%2 {
					want, err := eager.Accumulate(ctx, b, step, micro)
					if err != nil {
						t.Fatal(err)
					}
					got, err := lazy.Accumulate(ctx, b, step, micro)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Fatalf("step %d (-eager +lazy):\n%s", step, diff)
					}
				}
				rate := 1e-3 * float64(step+1)
				want, err := eager.Update(ctx, rate)
				if err != nil {
					t.Fatal(err)
				}
				got, err := lazy.Update(ctx, rate)
				if err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Fatalf("step %d: norm is %v, eagerly %v", step, got, want)
				}
				other := randomBatch(uint64(100+step), 2, 8)
				evaluated, err := eager.Evaluate(ctx, other)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := lazy.Evaluate(ctx, other); err != nil || !cmp.Equal(evaluated, got) {
					t.Fatalf("step %d: evaluation (-eager +lazy), error %v:\n%s", step, err, cmp.Diff(evaluated, got))
				}
				switch step {
				case 9: // saving brings everything up to date
					if err := lazy.SaveState(ctx, dir); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(eager.params.Float32(), lazy.params.Float32()) {
						t.Fatal("parameters differ when the state is saved")
					}
				case 12: // going back
					for _, e := range []*Engine{lazy, eager} {
						if err := e.LoadState(ctx, dir); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if slices.Equal(eager.params.Float32(), lazy.params.Float32()) {
				t.Error("no update was put off")
			}
			if !slices.Equal(eager.params.Float32(), settled(lazy)) {
				t.Error("parameters differ at the end")
			}
			m, v := moments(eager)
			gotM, gotV := moments(lazy)
			if !slices.Equal(m, gotM) || !slices.Equal(v, gotV) {
				t.Error("moments differ at the end")
			}
		})
	}
}
