package engine

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/golden/tensors"
	"github.com/criteria-go/criteria/internal/graph"
)

// flashOnHost is onHost with the fused attention.
func flashOnHost(t testing.TB, low graph.Type) Spec {
	spec := onHost(t, low)
	spec.Device.Flash = true
	return spec
}

// TestFlashTraining: with the fused attention a training goes as with the composed
// one, which drops the same elements: losses, norms and parameters over several
// updates, with padding and dropout, and evaluations. Layers that are computed
// again change no bit.
func TestFlashTraining(t *testing.T) {
	for _, pooling := range []string{"cls", "mean"} {
		run := func(flash, recompute bool) (trace []float64, params, logits []float32) {
			spec := onHost(t, graph.Float32)
			spec.Head.Pooling = pooling
			spec.Device.Flash = flash
			spec.Training.Recompute = recompute
			e := openEngine(t, spec, true)
			trace = train(t, e, 0, 6)
			r, err := e.Evaluate(context.Background(), randomBatch(9, 3, 20))
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range []kind{training, evaluation} {
				census := deviceOf(e).programs.entries[programKey{k, roundRows(3), 32}].program.graph.Census()
				layers := e.model.Config.Layers
				if pooling == "cls" {
					layers-- // of the last one only a row is computed
				}
				if want := map[bool]int{true: layers}[flash]; census[graph.FlashAttention] != want || k == training && census[graph.FlashAttentionGrad] != want {
					t.Errorf("%s, flash %t: operators %v, want %d of attention", pooling, flash, census, want)
				}
			}
			return trace, e.current(t), r.Logits
		}
		wantTrace, wantParams, wantLogits := run(false, false)
		trace, params, logits := run(true, false)
		for i := range wantTrace {
			if math.Abs(trace[i]-wantTrace[i]) > 2e-5*math.Abs(wantTrace[i]) {
				t.Errorf("%s: number %d of the trace is %v, want %v", pooling, i, trace[i], wantTrace[i])
			}
		}
		if off := distance(params, wantParams); off > 1e-5 {
			t.Errorf("%s: parameters are off by %.2g of their norm", pooling, off)
		}
		if off := distance(logits, wantLogits); off > 1e-4 {
			t.Errorf("%s: logits of an evaluation are off by %.2g of their norm", pooling, off)
		}
		againTrace, again, _ := run(true, true)
		if diff := cmp.Diff(trace, againTrace); diff != "" || distance(again, params) != 0 {
			t.Errorf("%s: computing layers again changes the result (-kept +again):\n%s", pooling, diff)
		}
	}
}

// TestFlashHalf: so does training in float16.
func TestFlashHalf(t *testing.T) {
	full, half := openEngine(t, onHost(t, graph.Float32), false), openEngine(t, flashOnHost(t, graph.Float16), false)
	compareRounded(t, train(t, full, 0, 6), train(t, half, 0, 6))
}

// TestGoldenFlashGradients compares the gradients of the fused attention with those
// that transformers computed.
func TestGoldenFlashGradients(t *testing.T) {
	for _, path := range golden.Glob(t, "model/forward/case??.safetensors") {
		c := tensors.Open(t, path)
		head := deberta.Head{Pooling: c.Metadata("pooling"), Activation: c.Metadata("activation")}
		for k := range int(c.Number("num_layers")) {
			head.HiddenDims = append(head.HiddenDims, c.Shape(fmt.Sprintf("head.%d.weight", k))[0])
		}
		shape, class := c.Shape("input_ids"), c.Floats("class_weights")
		b := Batch{Rows: shape[0], Length: shape[1], InputIDs: c.Ints("input_ids"), AttentionMask: c.Ints("attention_mask"), Labels: c.Ints("labels")}
		for _, y := range b.Labels {
			b.SampleWeights = append(b.SampleWeights, class[y])
		}
		for low, tolerance := range map[graph.Type]float64{graph.Float32: 1e-4, graph.Float16: 1e-2} {
			if low == graph.Float16 && head.Pooling == "max" {
				continue // the maximum may fall on another token
			}
			spec := flashOnHost(t, low)
			spec.Head = head
			e := openEngine(t, spec, false)
			for _, p := range e.layout.params {
				if p.IsHead() {
					setParam(t, e, p.Name, c.Floats(p.Name))
				}
			}
			if err := deviceOf(e).push(); err != nil {
				t.Fatal(err)
			}
			if _, err := e.Accumulate(context.Background(), b, 0, 0); err != nil {
				t.Fatal(err)
			}
			for _, p := range e.layout.params {
				got, err := e.Gradient(p.Name)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]float32, p.Size())
				if p.Name == deberta.WordEmbeddings {
					rows, d := c.Floats("grad.word_embeddings.rows"), p.Shape[1]
					for i, id := range c.Ints("grad.word_embeddings.ids") {
						copy(want[int(id)*d:][:d], rows[i*d:][:d])
					}
				} else {
					want = c.Floats("grad." + strings.TrimPrefix(p.Name, "deberta."))
				}
				if off := distance(got, want); !(off <= tolerance) {
					t.Errorf("%s in %v: the gradient of %s is off by %.2g of its norm, want at most %g", filepath.Base(path), low, p.Name, off, tolerance)
				}
			}
		}
	}
}

// TestFlashErrors: a model or a device for which there are no kernels of attention
// is refused, and what to take instead is named.
func TestFlashErrors(t *testing.T) {
	refused := func(err error, what string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "take sdpa") {
			t.Errorf("error %v, want one about %q that names sdpa", err, what)
		}
	}
	spec := flashOnHost(t, graph.Float32)
	spec.Device.Standard = true
	_, err := Open(context.Background(), spec, "")
	refused(err, "there are none on the host")
	for _, heads := range []int{3, 6} { // of 256 and 128 elements
		config := base
		config.Heads, config.Layers, config.VocabSize = heads, 1, 100
		_, err = open(config, nil, flashOnHost(t, graph.Float32), "", func(*Engine) error { return nil })
		refused(err, fmt.Sprintf("those of this model have %d", config.HiddenSize/heads))
	}
}

// TestFlashOnGPU: under the stand-in, the fused attention is launched on every kind
// of GPU with the right grids, and captured; its kernels are loaded only if they are
// asked for, and a GPU without any is refused.
func TestFlashOnGPU(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	open := func(low graph.Type, flash bool) (*Engine, error) {
		spec := trainingSpec(t, adamWFused)
		spec.Device = &DeviceSpec{Low: low, Capture: true, Flash: flash}
		return Open(context.Background(), spec, "")
	}
	for _, capability := range []int{80, 86, 89, 90, 100, 120} {
		t.Setenv("FAKECUDA_CAPABILITY", strconv.Itoa(capability))
		for low, rows := range map[graph.Type]int{graph.Float32: 32, graph.Float16: 64, graph.BFloat16: 64} {
			e, err := open(low, true)
			if err != nil {
				t.Fatal(err)
			}
			const batch, length, runs, captured = 4, 96, 5, 3
			launches, programs := map[string]int{}, map[int]bool{}
			for _, l := range fakecuda.Launches(t, func() {
				for step := range runs {
					if _, err := e.Accumulate(context.Background(), randomBatch(1, batch, length), step, 0); err != nil {
						t.Fatal(err)
					}
					if _, err := e.Evaluate(context.Background(), randomBatch(1, batch, length)); err != nil {
						t.Fatal(err)
					}
				}
			}) {
				if strings.HasPrefix(l.Kernel, "flash_attention") {
					launches[l.Kernel]++
					programs[l.Programs] = true
				}
			}
			layers := e.model.Config.Layers - 1 // of the last one only a row is computed
			want := map[string]int{"flash_attention": 2 * captured * layers, "flash_attention_queries": captured * layers, "flash_attention_keys": captured * layers}
			if diff := cmp.Diff(want, launches); diff != "" {
				t.Errorf("compute capability %d, %v: launches (-want +got):\n%s", capability, low, diff)
			}
			if diff := cmp.Diff(map[int]bool{batch * e.model.Config.Heads * ((length + rows - 1) / rows): true}, programs); diff != "" {
				t.Errorf("compute capability %d, %v: sizes of grids (-want +got):\n%s", capability, low, diff)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	e, err := open(graph.Float32, false)
	if err != nil {
		t.Fatal(err)
	}
	if deviceOf(e).kernels[graph.FlashAttention] {
		t.Error("attention is offered though nobody asked for its kernels")
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	t.Setenv("FAKECUDA_CAPABILITY", "75")
	if _, err := open(graph.Float32, true); err == nil || !strings.Contains(err.Error(), "take sdpa") {
		t.Errorf("error %v on a GPU without kernels, want one that names sdpa", err)
	}
}
