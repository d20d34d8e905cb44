package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/ort"
)

// BenchmarkExported times exported models, in float32 and in eight bits: three
// layers of deberta-v3-base with random weights and a small vocabulary.
func BenchmarkExported(b *testing.B) {
	small := base
	small.Layers, small.VocabSize = 3, 1000
	m := deberta.Model{Config: small, Head: deberta.Head{Pooling: "cls", HiddenDims: []int{256}, Activation: "relu"}}
	source := func(p deberta.Param) ([]float32, error) {
		random := rand.New(rand.NewPCG(uint64(len(p.Name)), uint64(p.Size())))
		x := make([]float32, p.Size())
		for i := range x {
			x[i] = float32(random.NormFloat64() * small.InitializerRange)
		}
		return x, nil
	}
	for _, int8 := range []bool{false, true} {
		model := m.Inference(source, int8).Encode()
		for _, s := range []shape{{1, 64}, {8, 128}, {2, 512}} {
			b.Run(fmt.Sprintf("%s/%v", map[bool]string{false: "float32", true: "int8"}[int8], s), func(b *testing.B) {
				run := exported(b, model, s)
				run()
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(s.rows*b.N)/b.Elapsed().Seconds(), "pairs/s")
				b.ReportMetric(float64(len(model))/1e6, "MB")
			})
		}
	}
}

// exported returns a function that runs the model on a batch of that shape.
func exported(b *testing.B, model []byte, s shape) func() {
	b.Helper()
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = rt.Close() })
	session, err := rt.NewSession(model, ort.SessionOptions{Threads: 2})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = session.Close() })
	binding, err := session.NewBinding()
	if err != nil {
		b.Fatal(err)
	}
	tensor := func(dtype ort.DType, shape ...int) ort.Tensor {
		t, err := ort.NewTensor(dtype, shape...)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = t.Buffer().Free() })
		return t
	}
	for _, name := range []string{deberta.InputIDs, deberta.AttentionMask, deberta.TokenTypeIDs} {
		x := tensor(ort.Int64, s.rows, s.length)
		for i := range x.Int64() {
			x.Int64()[i] = 1
			if name == deberta.InputIDs {
				x.Int64()[i] = int64(4 + i%900)
			}
		}
		if err := binding.BindInput(name, x); err != nil {
			b.Fatal(err)
		}
	}
	if err := binding.BindOutput(deberta.Logits, tensor(ort.Float32, s.rows, deberta.Classes)); err != nil {
		b.Fatal(err)
	}
	return func() {
		if err := binding.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
