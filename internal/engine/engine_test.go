package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/weights"
)

var tinyHead = deberta.Head{Pooling: "cls", HiddenDims: []int{16}, Activation: "relu", Dropout: 0.1}

// randomBatch returns rows of different lengths, labelled by whether their
// first token is odd: something that can be learned.
func randomBatch(seed uint64, rows, length int) Batch {
	random := rand.New(rand.NewPCG(seed, 7))
	b := Batch{Rows: rows, Length: length, InputIDs: make([]int64, rows*length), AttentionMask: make([]int64, rows*length)}
	for r := range rows {
		n := length
		if r > 0 {
			n = 2 + random.IntN(length-1)
		}
		for j := range n {
			b.InputIDs[r*length+j] = 4 + random.Int64N(900)
			b.AttentionMask[r*length+j] = 1
		}
		b.Labels = append(b.Labels, b.InputIDs[r*length]%2)
		b.SampleWeights = append(b.SampleWeights, 0.5+random.Float32())
	}
	return b
}

func train(t testing.TB, e *Engine, from, to int) []float64 {
	t.Helper()
	var trace []float64
	for step := from; step < to; step++ {
		for micro := range e.training.Accumulation {
			r, err := e.Accumulate(context.Background(), randomBatch(uint64(100*step+micro), 3, 20+step%3*13), step, micro)
			if err != nil {
				t.Fatal(err)
			}
			trace = append(trace, r.Loss)
		}
		norm, err := e.Update(context.Background(), 1e-3)
		if err != nil {
			t.Fatal(err)
		}
		trace = append(trace, norm)
	}
	return trace
}

func trainingSpec(t testing.TB, optimizer string) Spec {
	return Spec{Dir: tinyDir(t), Head: tinyHead, Threads: 1,
		Training: &Training{Seed: 5, Optimizer: optimizer, WeightDecay: 0.01, MaxGradNorm: 1, Accumulation: 2}}
}

// TestThreads: with dropout, and with every optimizer, the same bits come out
// on any number of threads.
func TestThreads(t *testing.T) {
	for _, name := range optimizerNames {
		t.Run(name, func(t *testing.T) {
			var wantTrace []float64
			var wantParams []float32
			for _, threads := range []int{1, 2, 3} {
				spec := trainingSpec(t, name)
				spec.Threads = threads
				e := openEngine(t, spec, true)
				trace := train(t, e, 0, 6)
				if threads == 1 {
					wantTrace, wantParams = trace, slices.Clone(settled(e))
					continue
				}
				if diff := cmp.Diff(wantTrace, trace); diff != "" {
					t.Errorf("losses and norms with 1 and %d threads (-1 +%d):\n%s", threads, threads, diff)
				}
				if !slices.Equal(wantParams, settled(e)) {
					t.Errorf("parameters differ between 1 and %d threads", threads)
				}
			}
		})
	}
}

// TestThreadsWide is TestThreads with the shapes of the base model, where
// products and sums are large enough to be divided among the threads. Without
// a BLAS, ONNX Runtime's own products cut their sums by the number of threads:
// then only runs with the same number agree.
func TestThreadsWide(t *testing.T) {
	config := base
	config.Layers, config.VocabSize = 2, 2000
	for _, c := range []struct {
		name     string
		portable bool
		threads  []int
	}{
		{"kernels", false, []int{1, 2, 3}},
		{"standard operators", true, []int{2, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want []float32
			for _, threads := range c.threads {
				spec := trainingSpec(t, adamWFused)
				spec.Threads = threads
				spec.Training.Accumulation = 1
				e, err := open(config, nil, spec, "", func(e *Engine) error {
					fillRandom(e)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if c.portable {
					hostOf(e).kernels = nil
				}
				for step := range 2 {
					if _, err := e.Accumulate(context.Background(), randomBatch(uint64(step), 4, 128), step, 0); err != nil {
						t.Fatal(err)
					}
					if _, err := e.Update(context.Background(), 1e-3); err != nil {
						t.Fatal(err)
					}
				}
				if want == nil {
					want = slices.Clone(settled(e))
				} else if !slices.Equal(want, settled(e)) {
					t.Errorf("parameters differ between %d and %d threads", c.threads[0], threads)
				}
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestResume: training on from a saved state is training without a break.
func TestResume(t *testing.T) {
	for _, name := range optimizerNames {
		t.Run(name, func(t *testing.T) {
			ctx, dir := context.Background(), t.TempDir()
			whole := openEngine(t, trainingSpec(t, name), true)
			train(t, whole, 0, 3)
			if err := whole.SaveState(ctx, dir); err != nil {
				t.Fatal(err)
			}
			want := train(t, whole, 3, 6)

			resumed := openEngine(t, trainingSpec(t, name), true)
			train(t, resumed, 0, 1) // anything: the state replaces it
			if err := resumed.LoadState(ctx, dir); err != nil {
				t.Fatal(err)
			}
			got := train(t, resumed, 3, 6)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("losses and norms (-whole +resumed):\n%s", diff)
			}
			if !slices.Equal(settled(whole), settled(resumed)) {
				t.Error("parameters differ after resuming")
			}
			other := trainingSpec(t, name)
			other.Training.Optimizer = optimizerNames[(slices.Index(optimizerNames, name)+1)%len(optimizerNames)]
			if err := openEngine(t, other, true).LoadState(ctx, dir); err == nil || !strings.Contains(err.Error(), "train.optimizer_type") {
				t.Errorf("state of another optimizer: got error %v, want one that names train.optimizer_type", err)
			}
		})
	}
}

// TestLearns: each optimizer brings the loss down on one batch.
func TestLearns(t *testing.T) {
	for _, name := range optimizerNames {
		spec := trainingSpec(t, name)
		spec.Training.Accumulation = 1
		e := openEngine(t, spec, false)
		b := randomBatch(1, 8, 24)
		var first, last float64
		for step := range 60 {
			r, err := e.Accumulate(context.Background(), b, step, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Update(context.Background(), 3e-3); err != nil {
				t.Fatal(err)
			}
			if last = r.Loss; step == 0 {
				first = r.Loss
			}
		}
		if !(last < first/4) {
			t.Errorf("%s: loss went from %.3f to %.3f in 60 steps on one batch", name, first, last)
		}
	}
}

// TestShortWindow: an update averages over the micro-batches that it got, so a
// window of the same batch twice moves the parameters as the batch alone does.
func TestShortWindow(t *testing.T) {
	after := func(micros int) []float32 {
		e := openEngine(t, trainingSpec(t, adamWFused), false)
		for micro := range micros {
			if _, err := e.Accumulate(context.Background(), randomBatch(4, 3, 20), 0, micro); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := e.Update(context.Background(), 1e-3); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(settled(e))
	}
	if !slices.Equal(after(1), after(2)) {
		t.Error("one micro-batch of a window of two does not count as a whole update")
	}
}

// TestPadding: rows and columns of padding change nothing but the last bits,
// whether the caller or the engine adds them.
func TestPadding(t *testing.T) {
	for _, pooling := range []string{"cls", "mean", "max"} {
		spec := trainingSpec(t, adamWFused)
		spec.Head.Pooling = pooling
		e := openEngine(t, spec, false)
		b := randomBatch(3, 3, 30)
		want, err := e.Evaluate(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		padded := Batch{Rows: 5, Length: 70, InputIDs: make([]int64, 5*70), AttentionMask: make([]int64, 5*70),
			Labels: make([]int64, 5), SampleWeights: make([]float32, 5)}
		for r := range b.Rows {
			copy(padded.InputIDs[r*70:], b.InputIDs[r*30:(r+1)*30])
			copy(padded.AttentionMask[r*70:], b.AttentionMask[r*30:(r+1)*30])
		}
		padded.AttentionMask[3*70], padded.AttentionMask[4*70] = 1, 1
		copy(padded.Labels, b.Labels)
		copy(padded.SampleWeights, b.SampleWeights)
		got, err := e.Evaluate(context.Background(), padded)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got.Loss-want.Loss) > 1e-6 {
			t.Errorf("%s: loss %v, with padding %v", pooling, want.Loss, got.Loss)
		}
		for i, x := range want.Logits {
			if math.Abs(float64(got.Logits[i]-x)) > 1e-5 {
				t.Errorf("%s: logit %d is %v, with padding %v", pooling, i, x, got.Logits[i])
			}
		}
	}
}

// TestSaveModel: a saved model predicts what it predicted in memory, and a
// second training continues with its head.
func TestSaveModel(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	train(t, e, 0, 3)
	if err := e.SaveModel(ctx, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{configFile, weightsFile, trainingModel, evalModel, optimizerModel, "checkpoint/" + optimizerFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	b := randomBatch(9, 4, 33)
	b.Labels, b.SampleWeights = nil, nil
	want, err := e.Evaluate(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	loaded := openEngine(t, Spec{Dir: dir, Threads: 1}, true)
	if diff := cmp.Diff(e.Model(), loaded.Model()); diff != "" {
		t.Errorf("model (-saved +loaded):\n%s", diff)
	}
	got, err := loaded.Evaluate(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("predictions (-saved +loaded):\n%s", diff)
	}
	if _, err := loaded.Accumulate(ctx, randomBatch(1, 2, 8), 0, 0); !errors.Is(err, errNotTraining) {
		t.Errorf("training with an engine for inference: %v", err)
	}

	next := trainingSpec(t, adamWFused)
	next.Dir, next.Training.Seed = dir, 99
	again := openEngine(t, next, true)
	if !slices.Equal(settled(e), settled(again)) {
		t.Error("training on from a saved model does not start from its head")
	}
	next.Head.HiddenDims = []int{24}
	wider := openEngine(t, next, true)
	if n := wider.layout.params[wider.layout.index["head.0.weight"]].Shape[0]; n != 24 {
		t.Errorf("a head of another width has %d units, want the 24 asked for", n)
	}
}

// TestEvaluateConcurrently: goroutines take turns and get their own results.
func TestEvaluateConcurrently(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	if err := e.SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	c := openEngine(t, Spec{Dir: dir, Threads: 2}, true)
	want := make([]Result, 6)
	for i := range want {
		var err error
		if want[i], err = c.Evaluate(context.Background(), randomBatch(uint64(i), 1+i, 20)); err != nil {
			t.Fatal(err)
		}
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range want {
				got, err := c.Evaluate(context.Background(), randomBatch(uint64(i), 1+i, 20))
				if err != nil {
					t.Error(err)
				} else if diff := cmp.Diff(want[i], got); diff != "" {
					t.Errorf("batch %d (-alone +together):\n%s", i, diff)
				}
			}
		})
	}
	wait.Wait()
}

// TestFailures: what a user can get wrong gives an error that says what to do,
// and leaves the engine usable.
func TestFailures(t *testing.T) {
	ctx := context.Background()
	tiny := tinyDir(t)
	config, err := os.ReadFile(filepath.Join(tiny, configFile))
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(filepath.Join(tiny, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	folder := func(config, weights []byte) string {
		dir := t.TempDir()
		for name, data := range map[string][]byte{configFile: config, weightsFile: weights} {
			if data == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, c := range []struct {
		what, dir string
		edit      func(*Spec)
		want      string
	}{
		{"no folder", filepath.Join(tiny, "nowhere"), nil, "model.checkpoint"},
		{"no weights", folder(config, nil), nil, "model.safetensors"},
		{"truncated weights", folder(config, weights[:len(weights)/2]), nil, "model.safetensors"},
		{"another width", folder(bytes.ReplaceAll(config, []byte(`"hidden_size": 32`), []byte(`"hidden_size": 64`)), weights), nil, "has shape [1008 32]"},
		{"another depth", folder(bytes.ReplaceAll(config, []byte(`"num_hidden_layers": 3`), []byte(`"num_hidden_layers": 4`)), weights), nil, "layer.3"},
		{"a ConvLayer", folder(bytes.ReplaceAll(config, []byte(`"type_vocab_size": 0`), []byte(`"type_vocab_size": 0, "conv_kernel_size": 3`)), weights), nil, "conv_kernel_size"},
		{"no head", tiny, func(s *Spec) { s.Training = nil }, "best_model"},
		{"unknown optimizer", tiny, func(s *Spec) { s.Training.Optimizer = "sgd" }, "adamw_torch_fused"},
		{"no accumulation", tiny, func(s *Spec) { s.Training.Accumulation = 0 }, "at least 1"},
		{"bad head", tiny, func(s *Spec) { s.Head.Pooling = "sum" }, "cls, mean, max"},
	} {
		spec := trainingSpec(t, adamWFused)
		spec.Dir = c.dir
		if c.edit != nil {
			c.edit(&spec)
		}
		e, err := Open(ctx, spec, "")
		if err == nil {
			t.Errorf("%s: no error", c.what)
			_ = e.Close()
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %q does not mention %q", c.what, err, c.want)
		}
	}

	e := openEngine(t, trainingSpec(t, adamWFused), true)
	before := slices.Clone(settled(e))
	good := randomBatch(1, 2, 8)
	outside := randomBatch(1, 2, 8)
	outside.InputIDs = slices.Clone(outside.InputIDs)
	outside.InputIDs[9] = 1008
	if _, err := e.Accumulate(ctx, outside, 0, 0); err == nil || !strings.Contains(err.Error(), "row 1") {
		t.Errorf("id outside the vocabulary: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := e.Accumulate(ctx, good, 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Accumulate(cancelled, good, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := e.Update(ctx, 1e-3); err == nil {
		t.Error("an update after a failed micro-batch is not refused")
	}
	if !slices.Equal(before, settled(e)) {
		t.Error("parameters have changed without an update")
	}
	if i := slices.IndexFunc(e.layout.slice(hostOf(e).trainer.gradients.Float32(), 0), func(x float32) bool { return x != 0 }); i >= 0 {
		t.Errorf("element %d of the embedding gradient is not 0 after a failed micro-batch", i)
	}
	nan := randomBatch(1, 2, 8)
	nan.SampleWeights = []float32{float32(math.NaN()), 1}
	if _, err := e.Accumulate(ctx, nan, 0, 0); err != nil {
		t.Fatal(err)
	}
	if norm, err := e.Update(ctx, 1e-3); err != nil || !math.IsNaN(norm) {
		t.Errorf("diverged: norm %v, error %v", norm, err)
	}
	if !slices.Equal(before, settled(e)) {
		t.Error("a diverged update has changed the parameters")
	}
}

// TestSaveWhereNothingCanBe: saving where no folder can be is an error.
func TestSaveWhereNothingCanBe(t *testing.T) {
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.SaveModel(context.Background(), file); err == nil {
		t.Error("saving into a file is no error")
	}
	if err := e.SaveState(context.Background(), filepath.Join(file, "below")); err == nil {
		t.Error("saving below a file is no error")
	}
}

// TestSavedConfigKeepsKeys: what transformers wrote into config.json stays.
func TestSavedConfigKeepsKeys(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	if err := e.SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	read := func(path string) map[string]any {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	want, got := read(filepath.Join(tinyDir(t), configFile)), read(filepath.Join(dir, configFile))
	delete(got, headKey)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config.json (-read +saved):\n%s", diff)
	}
	file, err := weights.Open(filepath.Join(dir, weightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if file.Metadata()["format"] != "pt" {
		t.Error("PyTorch's loaders want the metadata format = pt")
	}
	if got, want := len(file.Names()), len(e.layout.params); got != want {
		t.Errorf("%d tensors saved, want %d", got, want)
	}
}

func ExampleOptimizers() {
	fmt.Println(strings.Join(Optimizers(), "\n"))
	// Output:
	// adamw
	// adamw_torch_fused
	// adamw_bnb_8bit
}
