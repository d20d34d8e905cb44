package engine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/ort"
)

// TestPlacement: a stock ONNX Runtime places every node of every graph on the
// GPU, copies nothing between it and the host, and admits all of them for
// capture as a CUDA graph.
func TestPlacement(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	rt, err := ort.Acquire(ort.Options{CUDA: true, BLAS: ort.NoBLAS})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	device, err := rt.OpenCUDA(ort.CUDAOptions{Attention: true})
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()

	kernels := graph.Kernels{}
	for _, name := range device.Operators() {
		kernels[name] = true
	}
	if len(kernels) != 6 {
		t.Errorf("%v has the operators %v", device, device.Operators())
	}

	tiny := tinyConfig(t)
	wide := base
	wide.HiddenDropout, wide.AttentionDropout = 0.1, 0.1
	for _, model := range []struct {
		name         string
		config       deberta.Config
		pooling      string
		rows, length int
	}{
		{"tiny cls", tiny, "cls", 4, 64},
		{"tiny mean", tiny, "mean", 2, 32},
		{"tiny max", tiny, "max", 2, 32},
		{"base", wide, "cls", 16, 512},
	} {
		m := deberta.Model{Config: model.config, Head: tinyHead}
		m.Head.Pooling = model.pooling
		for i, low := range []graph.Type{graph.Float32, graph.BFloat16, graph.Float16, graph.Float32, graph.BFloat16, graph.Float16, graph.Float32, graph.BFloat16, graph.Float16} {
			name := fmt.Sprintf("%s %v", model.name, low)
			options := deberta.DeviceOptions{Low: low, Seed: 1}
			if i < 6 {
				name += " with kernels"
				options.Kernels = kernels
			}
			if i < 3 {
				name += " and fused attention"
				options.Flash = true
			}
			checkPlacement(t, rt, device, name+" evaluation", m.DeviceEvaluation(model.rows, model.length, options).Graph)
			checkPlacement(t, rt, device, name+" training", m.DeviceTraining(model.rows, model.length, options).Graph)
			m.Recompute = true
			checkPlacement(t, rt, device, name+" training with checkpointing", m.DeviceTraining(model.rows, model.length, options).Graph)
			m.Recompute = false
		}
		l := newLayout(m.Params())
		for _, low := range []graph.Type{graph.Float32, graph.BFloat16, graph.Float16} {
			o := deviceOptimizer{decayed: l.decayed, size: l.size, low: low, copied: l.copied, weightDecay: 0.01, maxGradNorm: 1,
				scaled: low == graph.Float16, adamW: optim.DefaultAdamW()}
			checkPlacement(t, rt, device, fmt.Sprintf("%s %v optimizer", model.name, low), o.graph())
			o.kernels = kernels
			quantized := o
			quantized.quantized = quantizedFor(l, l.decayed)
			checkPlacement(t, rt, device, fmt.Sprintf("%s %v optimizer in 8 bits", model.name, low), quantized.graph())
			checkPlacement(t, rt, device, fmt.Sprintf("%s %v optimizer with kernels", model.name, low), o.graph())
			if low.IsLow() {
				checkPlacement(t, rt, device, fmt.Sprintf("%s %v copy", model.name, low), rounding(l.size-l.copied, low))
			}
		}
	}
}

func checkPlacement(t *testing.T, rt *ort.Runtime, device *ort.Device, name string, g *graph.Graph) {
	t.Helper()
	optimized := filepath.Join(t.TempDir(), "optimized.onnx")
	options := ort.SessionOptions{Device: device, Optimization: ort.OptimizeBasic, KeepOptimized: optimized, Capture: true}
	s, err := rt.NewSession(g.Encode(), options)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer s.Close()
	placed, err := s.Placement()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	nodes := map[string]int{}
	for provider, ops := range placed {
		for _, n := range ops {
			nodes[provider] += n
		}
	}
	if n := nodes["CUDAExecutionProvider"]; n == 0 || len(nodes) != 1 {
		t.Errorf("%s: nodes by provider: %v", name, nodes)
	}
	model, err := os.ReadFile(optimized)
	if err != nil {
		t.Fatal(err)
	}
	// Operators are plain text in the file, after their field and length.
	copies := 0
	for _, op := range []string{"MemcpyToHost", "MemcpyFromHost"} {
		copies += bytes.Count(model, append([]byte{4<<3 | 2, byte(len(op))}, op...))
	}
	if diff := cmp.Diff(0, copies); diff != "" {
		t.Errorf("%s: copies between host and device (-want +got):\n%s", name, diff)
	}
	t.Logf("%s: %d nodes", name, nodes["CUDAExecutionProvider"])
}

func tinyConfig(t *testing.T) deberta.Config {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(tinyDir(t), configFile))
	if err != nil {
		t.Fatal(err)
	}
	config, err := deberta.ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	config.HiddenDropout, config.AttentionDropout = 0.1, 0.1
	return config
}
