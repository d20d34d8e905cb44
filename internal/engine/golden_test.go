package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/golden/tensors"
	"github.com/criteria-go/criteria/internal/weights"
)

func tinyDir(t testing.TB) string { return filepath.Join(golden.Dir(t), "model", "tiny-deberta") }

// openEngine opens an engine for training and turns dropout off unless asked.
func openEngine(t testing.TB, spec Spec, dropout bool) *Engine {
	t.Helper()
	e, err := Open(context.Background(), spec, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if !dropout {
		e.model.Config.HiddenDropout, e.model.Config.AttentionDropout, e.model.Head.Dropout = 0, 0, 0
	}
	return e
}

func setParam(t testing.TB, e *Engine, name string, x []float32) {
	t.Helper()
	i, ok := e.layout.index[name]
	if !ok || len(x) != e.layout.params[i].Size() {
		t.Fatalf("no parameter %s of %d elements", name, len(x))
	}
	copy(e.layout.slice(e.params.Float32(), i), x)
}

// TestGoldenTrajectory follows torch over 30 optimizer steps: loss, gradient
// norm and the parameters at the end, with standard operators alone and with
// the fused ones.
func TestGoldenTrajectory(t *testing.T) {
	folder := filepath.Join(golden.Dir(t), "model", "train")
	data := tensors.Open(t, filepath.Join(folder, "data.safetensors"))
	head := deberta.Head{Pooling: data.Metadata("pooling"), Activation: data.Metadata("activation")}
	for k := range int(data.Number("num_layers")) {
		head.HiddenDims = append(head.HiddenDims, data.Shape(fmt.Sprintf("head.%d.weight", k))[0])
	}
	var batches []Batch
	class := data.Floats("class_weights")
	for i := 0; ; i++ {
		prefix := fmt.Sprintf("mb%02d.", i)
		if !data.Has(prefix + "input_ids") {
			break
		}
		shape := data.Shape(prefix + "input_ids")
		b := Batch{Rows: shape[0], Length: shape[1], InputIDs: data.Ints(prefix + "input_ids"),
			AttentionMask: data.Ints(prefix + "attention_mask"), Labels: data.Ints(prefix + "labels")}
		for _, y := range b.Labels {
			b.SampleWeights = append(b.SampleWeights, class[y])
		}
		batches = append(batches, b)
	}

	for _, path := range golden.Glob(t, "model/train/run_*.safetensors") {
		for _, name := range []string{adamW, adamWFused} {
			t.Run(strings.TrimSuffix(filepath.Base(path), ".safetensors")+"/"+name, func(t *testing.T) {
				run := tensors.Open(t, path)
				clip, err := strconv.ParseFloat(run.Metadata("clip"), 64)
				if err != nil {
					clip = 0 // "None"
				}
				accumulation := int(run.Number("accum"))
				e := openEngine(t, Spec{Dir: tinyDir(t), Head: head, Threads: 2, Training: &Training{
					Optimizer: name, WeightDecay: run.Number("weight_decay"), DecayAll: run.Metadata("decay") == "all",
					MaxGradNorm: clip, Accumulation: accumulation,
				}}, false)
				if name == adamW {
					hostOf(e).kernels = nil
				}
				for _, p := range e.layout.params {
					if p.IsHead() {
						setParam(t, e, p.Name, data.For(t).Floats(p.Name))
					}
				}
				compareTrajectory(t, e, run, batches, accumulation)
			})
		}
	}
}

func compareTrajectory(t *testing.T, e *Engine, run tensors.File, batches []Batch, accumulation int) {
	ctx := context.Background()
	rates, losses, norms := run.Floats("lr"), run.Floats("loss"), run.Floats("grad_norm")
	micro := 0
	for step, rate := range rates {
		var loss float64
		for k := range accumulation {
			r, err := e.Accumulate(ctx, batches[micro%len(batches)], step, k)
			if err != nil {
				t.Fatal(err)
			}
			loss += r.Loss / float64(accumulation)
			micro++
		}
		norm, err := e.Update(ctx, float64(rate))
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-float64(losses[step])) > 1e-4 {
			t.Fatalf("step %d: loss is %v, want %v", step, loss, losses[step])
		}
		if want := float64(norms[step]); math.Abs(norm-want) > 1e-3*want {
			t.Errorf("step %d: gradient norm is %v, want %v", step, norm, want)
		}
	}
	for i, p := range e.layout.params {
		want := run.Floats("final." + strings.TrimPrefix(p.Name, "deberta."))
		got := e.layout.slice(settled(e), i)
		worst := 0.0
		for j := range want {
			worst = max(worst, math.Abs(float64(got[j]-want[j])))
		}
		if !(worst <= 2e-4) {
			t.Errorf("%s differs by %.3g after %d steps, want at most 2e-4", p.Name, worst, len(rates))
		}
	}
	// What lies between the parameters must never be moved.
	flat := slices.Clone(settled(e))
	for i := range e.layout.params {
		clear(e.layout.slice(flat, i))
	}
	if i := slices.IndexFunc(flat, func(x float32) bool { return x != 0 }); i >= 0 {
		t.Errorf("element %d, which belongs to no parameter, is %v", i, flat[i])
	}
}

// TestGoldenSavedKeys compares the tensors of a saved model with the list that
// transformers recorded for its encoder: names, shapes and type.
func TestGoldenSavedKeys(t *testing.T) {
	raw, err := os.ReadFile(tinyDir(t) + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Params  int
		Keys    map[string][]int64
		Ignored []string // the pretraining heads, which the hub's files also hold
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	if err := e.SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	saved := tensors.Open(t, filepath.Join(dir, weightsFile))
	got, params := map[string][]int64{}, 0
	for _, name := range saved.Names() {
		info := saved.Info(name)
		if info.DType != weights.F32 {
			t.Errorf("%s has type %s, want F32", name, info.DType)
		}
		if strings.HasPrefix(name, "deberta.") {
			got[name] = info.Shape
			params += int(info.Elements())
		}
	}
	want := map[string][]int64{}
	for name, shape := range manifest.Keys {
		if !slices.Contains(manifest.Ignored, name) {
			want[name] = shape
		}
	}
	if len(want) == 0 {
		t.Fatal("the manifest lists no tensors")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tensors (-transformers +saved):\n%s", diff)
	}
	if params != manifest.Params {
		t.Errorf("%d parameters, want %d", params, manifest.Params)
	}
}
