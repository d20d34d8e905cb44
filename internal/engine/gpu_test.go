//go:build gpu

package engine

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// These tests want a GPU (make gpu-check). Nothing of them runs in CI.

func onGPU(config deberta.Config, t testing.TB, low graph.Type, tf32 bool) *Engine {
	t.Helper()
	spec := trainingSpec(t, adamWFused)
	spec.Threads = 0
	spec.Device = &DeviceSpec{Low: low, Pinned: true, CUDA: ort.CUDAOptions{TF32: tf32}}
	return opened(t, config, spec)
}

func opened(t testing.TB, config deberta.Config, spec Spec) *Engine {
	t.Helper()
	e, err := open(config, nil, spec, "", func(e *Engine) error {
		fillRandom(e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// TestGPU compares thirty steps of a model with the base model's width, without
// dropout, with those of the CPU provider of the same library. Batches are cut so
// that both finish in a minute.
func TestGPU(t *testing.T) {
	config := base
	config.Layers, config.VocabSize = 3, 2000
	config.HiddenDropout, config.AttentionDropout = 0, 0
	for _, c := range []struct {
		low       graph.Type
		tolerance float64
	}{{graph.Float32, 1e-3}, {graph.BFloat16, 2e-2}, {graph.Float16, 2e-2}} {
		t.Run(c.low.String(), func(t *testing.T) {
			gpu := onGPU(config, t, c.low, false)
			spec := trainingSpec(t, adamWFused)
			spec.Device = &DeviceSpec{Low: graph.Float32, host: true}
			host := opened(t, config, spec)
			for _, e := range []*Engine{gpu, host} {
				e.model.Head.Dropout = 0
			}
			for step := range 30 {
				b := randomBatch(uint64(step), 4, 64)
				got, err := gpu.Accumulate(context.Background(), b, step, 0)
				if err != nil {
					t.Fatal(err)
				}
				want, err := host.Accumulate(context.Background(), b, step, 0)
				if err != nil {
					t.Fatal(err)
				}
				if step == 0 {
					for i, p := range gpu.layout.params {
						if off := distance(gradient(t, gpu, i), gradient(t, host, i)); !(off < c.tolerance) {
							t.Errorf("gradient of %s is off by %.2g of its norm", p.Name, off)
						}
					}
				}
				t.Logf("step %d: loss %.5f, on the CPU %.5f", step, got.Loss, want.Loss)
				if !(math.Abs(got.Loss-want.Loss) < 5*c.tolerance) {
					t.Errorf("step %d: loss %v, on the CPU %v", step, got.Loss, want.Loss)
				}
				for _, e := range []*Engine{gpu, host} {
					if _, err := e.Update(context.Background(), 1e-4); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// gradient returns that of one parameter, without the loss scale.
func gradient(t *testing.T, e *Engine, i int) []float32 {
	t.Helper()
	host, err := ort.NewBuffer(4 * e.layout.size)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Free()
	a := e.accelerator
	if err := a.pull(host, a.gradients); err != nil {
		t.Fatal(err)
	}
	s, err := a.state()
	if err != nil {
		t.Fatal(err)
	}
	var out []float32
	for _, x := range e.layout.slice(host.Float32(), i) {
		out = append(out, x/s.scale)
	}
	return out
}

// BenchmarkGPU times whole steps of the base model with dropout: forward,
// backward, clipping and AdamW.
func BenchmarkGPU(b *testing.B) {
	config := base
	config.HiddenDropout, config.AttentionDropout = 0.1, 0.1
	for _, rows := range []int{16, 64} {
		for _, length := range []int{256, 512} {
			b.Run(fmt.Sprintf("%dx%d", rows, length), func(b *testing.B) {
				e := onGPU(config, b, graph.BFloat16, true)
				batch := randomBatch(1, rows, length)
				step := func(i int) {
					if _, err := e.Accumulate(context.Background(), batch, i, 0); err != nil {
						b.Fatal(err)
					}
					if _, err := e.Update(context.Background(), 1e-5); err != nil {
						b.Fatal(err)
					}
				}
				for i := range 3 {
					step(i)
				}
				for b.Loop() {
					step(3)
				}
				b.ReportMetric(float64(rows*b.N)/b.Elapsed().Seconds(), "samples/s")
			})
		}
	}
}
