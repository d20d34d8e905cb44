package ort_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/ort"
)

// Shapes of the base model with 4 × 128 tokens.
func BenchmarkOperators(b *testing.B) {
	r := acquire(b)
	shapes := map[string]map[string][]int{
		"GeluGrad":      {"": {512, 3072}},
		"DropoutMask":   {"": {512, 768}},
		"SoftmaxGrad":   {"": {12 * 4 * 128, 128}},
		"LayerNormGrad": {"dy": {512, 768}, "x": {512, 768}, "w": {768}, "b": {768}, "dx": {512, 768}, "dw": {768}, "db": {768}},
	}
	cases := map[string]operatorCase{}
	for _, c := range operatorCases() {
		op, _, _ := strings.Cut(c.name, " ")
		sizes, ok := shapes[op]
		if _, done := cases[op]; done || !ok {
			continue
		}
		shape := func(name string) []int {
			if s, ok := sizes[name]; ok {
				return s
			}
			return sizes[""]
		}
		for i := range c.inputs {
			c.inputs[i].shape = shape(c.inputs[i].name)
		}
		outputs := map[string][]int{}
		for name := range c.outputs {
			outputs[name] = shape(name)
		}
		c.outputs = outputs
		cases[op] = c
	}
	for _, op := range slices.Sorted(maps.Keys(cases)) {
		c := cases[op]
		for _, side := range []string{"fused", "composed"} {
			b.Run(op+"/"+side, func(b *testing.B) {
				m := model{inputs: c.inputs, floats: c.floats, int64s: c.int64s, nodes: slices.Concat(c.composed, c.fused)}
				prefix := map[string]string{"fused": "got_", "composed": "want_"}[side]
				for name, shape := range c.outputs {
					m.outputs = append(m.outputs, value{prefix + name, ort.Float32, shape})
				}
				runModel(b, r, m)
			})
		}
	}
}

// Products of the base model with 4 × 128 tokens: forward, gradient of the input
// and gradient of the weights.
func BenchmarkGemm(b *testing.B) {
	r := acquire(b)
	for _, s := range []struct {
		m, n, k int
		ta, tb  int64
	}{
		{512, 768, 768, 0, 1}, {512, 3072, 768, 0, 1}, {512, 768, 3072, 0, 1},
		{512, 768, 3072, 0, 0}, {512, 3072, 768, 0, 0},
		{768, 768, 512, 1, 0}, {3072, 768, 512, 1, 0}, {768, 3072, 512, 1, 0},
	} {
		x, y := value{"a", ort.Float32, []int{s.m, s.k}}, value{"b", ort.Float32, []int{s.k, s.n}}
		if s.ta == 1 {
			slices.Reverse(x.shape)
		}
		if s.tb == 1 {
			slices.Reverse(y.shape)
		}
		for _, domain := range []string{ort.Domain, ""} {
			name := map[string]string{ort.Domain: "blas", "": "onnxruntime"}[domain]
			b.Run(fmt.Sprintf("%dx%dx%d,%d%d/%s", s.m, s.n, s.k, s.ta, s.tb, name), func(b *testing.B) {
				runModel(b, r, model{
					inputs:  []value{x, y},
					outputs: []value{{"y", ort.Float32, []int{s.m, s.n}}},
					nodes:   []node{{op: "Gemm", domain: domain, in: []string{"a", "b"}, out: []string{"y"}, ints: map[string]int64{"transA": s.ta, "transB": s.tb}}},
				})
				b.ReportMetric(2*float64(s.m*s.n*s.k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}

func runModel(b *testing.B, r *ort.Runtime, m model) {
	s := session(b, r, m.encode(), ort.SessionOptions{})
	binding, tensors := bind(b, s)
	for _, v := range m.inputs {
		if v.dtype == ort.Float32 {
			for i := range tensors[v.name].Float32() {
				tensors[v.name].Float32()[i] = float32(i%101-50) / 50
			}
		}
	}
	for b.Loop() {
		if err := binding.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
