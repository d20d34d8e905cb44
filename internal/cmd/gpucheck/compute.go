package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/engine"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/weights"
)

// compute does one part of the work and prints what came of it, in lines of JSON.
func compute(ctx context.Context, part string, out io.Writer) error {
	var r request
	if err := json.Unmarshal([]byte(part), &r); err != nil {
		return err
	}
	answer := json.NewEncoder(out).Encode
	switch r.Do {
	case "about":
		return describe(r, answer)
	case "golden":
		return goldenCases(ctx, r, answer)
	case "curve":
		return curve(ctx, r, answer)
	case "kernels":
		return ownKernels(ctx, r, answer)
	case "speed":
		return speed(ctx, r, answer)
	case "operators":
		return operators(ctx, r, answer)
	}
	return fmt.Errorf("no part %q", r.Do)
}

// head is that of the models that are timed.
var head = deberta.Head{Pooling: "cls", HiddenDims: []int{hiddenWidth}, Activation: "relu"}

const hiddenWidth = 256

// open opens a model for training.
func (r request) open(ctx context.Context, dir string, head deberta.Head, device engine.DeviceSpec) (*engine.Engine, error) {
	low, err := graph.LowPrecision(r.Low)
	if r.Low == "fp32" {
		low, err = graph.Float32, nil
	}
	if err != nil {
		return nil, err
	}
	device.Low, device.Pinned, device.Host, device.Standard, device.Flash = low, true, r.Device == "host", r.Standard, r.Flash
	return engine.Open(ctx, engine.Spec{
		Dir: dir, Head: head, Device: &device,
		Training: &engine.Training{Seed: 1, Optimizer: cmp.Or(r.Optimizer, "adamw_torch_fused"), WeightDecay: 0.01, MaxGradNorm: 1, Accumulation: 1, Recompute: r.Recompute},
	}, "")
}

type about struct{ Device, Runtime string }

func describe(r request, answer func(any) error) error {
	rt, err := ort.Acquire(ort.Options{CUDA: r.Device == "cuda"})
	if err != nil {
		return err
	}
	defer func() { _ = rt.Close() }()
	d := ort.HostDevice()
	if r.Device == "cuda" {
		if d, err = rt.OpenCUDA(ort.CUDAOptions{}); err != nil {
			return err
		}
	}
	if err := answer(about{d.String(), rt.Info().Version}); err != nil {
		return err
	}
	return d.Close()
}

// deviation is how far the gradients of a golden case are off, in parts of their
// norm: all together, and the parameter that is furthest off.
type deviation struct {
	Case      string
	Pooling   string
	All       number
	Worst     number
	Parameter string
}

// goldenCases compares gradients with those that transformers computed on a CPU.
func goldenCases(ctx context.Context, r request, answer func(any) error) error {
	cases, err := filepath.Glob(filepath.Join(r.Dir, "forward", "case??.safetensors"))
	if err != nil || len(cases) == 0 {
		return fmt.Errorf("no golden cases in %s: %v", r.Dir, err)
	}
	for _, path := range cases {
		d, err := r.compare(ctx, path)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
		if err := answer(d); err != nil {
			return err
		}
	}
	return nil
}

func (r request) compare(ctx context.Context, path string) (d deviation, err error) {
	d.Case = strings.TrimSuffix(filepath.Base(path), ".safetensors")
	c, err := weights.Open(path)
	if err != nil {
		return d, err
	}
	defer c.Close()
	dir, err := os.MkdirTemp("", "gpucheck")
	if err != nil {
		return d, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	h, err := writeCase(dir, filepath.Join(r.Dir, "tiny-deberta"), c)
	if err != nil {
		return d, err
	}
	d.Pooling = h.Pooling
	e, err := r.open(ctx, dir, h, engine.DeviceSpec{})
	if err != nil {
		return d, err
	}
	defer func() { _ = e.Close() }()
	shape, _ := c.Info("input_ids")
	b := engine.Batch{Rows: int(shape.Shape[0]), Length: int(shape.Shape[1])}
	for name, to := range map[string]*[]int64{"input_ids": &b.InputIDs, "attention_mask": &b.AttentionMask, "labels": &b.Labels} {
		if *to, err = integers(c, name); err != nil {
			return d, err
		}
	}
	class, err := floats(c, "class_weights")
	if err != nil {
		return d, err
	}
	for _, y := range b.Labels {
		b.SampleWeights = append(b.SampleWeights, class[y])
	}
	if _, err := e.Accumulate(ctx, b, 0, 0); err != nil {
		return d, err
	}
	var square, off float64
	for _, p := range e.Model().Params() {
		got, err := e.Gradient(p.Name)
		if err != nil {
			return d, err
		}
		want, err := goldenGradient(c, p)
		if err != nil {
			return d, err
		}
		s, o := distance(got, want)
		square, off = square+s, off+o
		if worst := math.Sqrt(o / s); s > 0 && largest(float64(d.Worst), worst) != float64(d.Worst) {
			d.Worst, d.Parameter = number(worst), p.Name
		}
	}
	d.All = number(math.Sqrt(off / square))
	return d, nil
}

// distance returns the squares of the norms of want and of the difference.
func distance(got, want []float32) (square, off float64) {
	for i, x := range want {
		square += float64(x) * float64(x)
		off += float64(got[i]-x) * float64(got[i]-x)
	}
	return square, off
}

// goldenGradient reads the gradient of a parameter. Of the word embeddings' only
// the rows that were looked up are recorded.
func goldenGradient(c *weights.File, p deberta.Param) ([]float32, error) {
	if p.Name != deberta.WordEmbeddings {
		return floats(c, "grad."+strings.TrimPrefix(p.Name, "deberta."))
	}
	rows, err := floats(c, "grad.word_embeddings.rows")
	if err != nil {
		return nil, err
	}
	ids, err := integers(c, "grad.word_embeddings.ids")
	if err != nil {
		return nil, err
	}
	table, d := make([]float32, p.Size()), p.Shape[1]
	for i, id := range ids {
		copy(table[int(id)*d:][:d], rows[i*d:])
	}
	return table, nil
}

func floats(f *weights.File, name string) ([]float32, error) {
	t, ok := f.Info(name)
	if !ok {
		return nil, fmt.Errorf("no tensor %s", name)
	}
	x := make([]float32, t.Elements())
	return x, f.ReadFloat32(name, x)
}

func integers(f *weights.File, name string) ([]int64, error) {
	t, ok := f.Info(name)
	if !ok {
		return nil, fmt.Errorf("no tensor %s", name)
	}
	x := make([]int64, t.Elements())
	return x, f.ReadInt64(name, x)
}

// losses are those of a training, with the norms of its gradients.
type losses struct {
	Losses []number `json:"losses"`
	Norms  []number `json:"norms"`
}

// curve trains on the batches that were written for both sides.
func curve(ctx context.Context, r request, answer func(any) error) error {
	batches, err := readBatches(r.Dir)
	if err != nil {
		return err
	}
	e, err := r.open(ctx, r.Dir, head, engine.DeviceSpec{})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	l, err := follow(ctx, e, batches, r.Rate)
	if err != nil {
		return err
	}
	return answer(l)
}

// follow trains on batches, a step on each, and returns what the steps reported.
func follow(ctx context.Context, e *engine.Engine, batches []engine.Batch, rate float64) (l losses, err error) {
	for step, b := range batches {
		result, err := e.Accumulate(ctx, b, step, 0)
		if err != nil {
			return losses{}, err
		}
		norm, err := e.Update(ctx, rate)
		if err != nil {
			return losses{}, err
		}
		l.Losses, l.Norms = append(l.Losses, number(result.Loss)), append(l.Norms, number(norm))
	}
	return l, nil
}

// ownKernels trains the golden cases' checkpoint with dropout, which our kernels
// draw alike on every device.
func ownKernels(ctx context.Context, r request, answer func(any) error) error {
	e, err := r.open(ctx, filepath.Join(r.Dir, "tiny-deberta"), deberta.Head{Pooling: "cls", HiddenDims: []int{hiddenWidth}, Activation: "relu", Dropout: dropout}, engine.DeviceSpec{})
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	config := e.Model().Config
	if config.HiddenDropout == 0 || config.AttentionDropout == 0 {
		return fmt.Errorf("%s drops nothing", r.Dir)
	}
	batches := make([]engine.Batch, r.Steps)
	for step := range batches {
		batches[step] = randomBatch(uint64(step), shape{4, 32}, config.VocabSize)
	}
	l, err := follow(ctx, e, batches, r.Rate)
	if err != nil {
		return err
	}
	return answer(l)
}

// timing is what steps on batches of a shape cost.
type timing struct {
	Rows     int    `json:"rows"`
	Length   int    `json:"length"`
	Speed    number `json:"samples_per_s"`
	MemoryGB number `json:"memory_gb"`
	Error    string `json:"error,omitempty"`
}

const warmUp = 5 // steps, in which graphs are compiled and arenas grow

// speed times steps as a training takes them: the next one is begun before the
// results of this one are waited for.
func speed(ctx context.Context, r request, answer func(any) error) error {
	for _, s := range r.Shapes {
		t := timing{Rows: s[0], Length: s[1]}
		e, err := r.openTimed(ctx, engine.DeviceSpec{CUDA: ort.CUDAOptions{TF32: true}})
		if err != nil {
			return err
		}
		seconds, err := steps(ctx, e, shape{s[0], s[1]}, warmUp, r.Steps)
		if err == nil {
			t.Speed = number(float64(r.Steps*t.Rows) / seconds.Seconds())
			var used int
			used, err = e.DeviceMemory()
			t.MemoryGB = number(float64(used) / 1e9)
		}
		if err != nil {
			t.Error = oneLine(err)
		}
		if err := answer(t); err != nil {
			return err
		}
		if err := e.Close(); err != nil {
			return err
		}
	}
	return nil
}

// openTimed opens the model with dropout, as it is trained.
func (r request) openTimed(ctx context.Context, device engine.DeviceSpec) (*engine.Engine, error) {
	h := head
	h.Dropout = r.Dropout
	return r.open(ctx, filepath.Join(r.Dir, droppingDir), h, device)
}

func steps(ctx context.Context, e *engine.Engine, s shape, before, timed int) (time.Duration, error) {
	b := randomBatch(1, s, e.Model().Config.VocabSize)
	wait := func() error { return nil } // for the step before
	var started time.Time
	for step := range before + timed {
		if step == before {
			if err := wait(); err != nil {
				return 0, err
			}
			started, wait = time.Now(), func() error { return nil }
		}
		loss, err := e.AccumulateAsync(ctx, b, step, 0)
		if err != nil {
			return 0, err
		}
		norm, err := e.UpdateAsync(ctx, 1e-5)
		if err != nil {
			return 0, err
		}
		if err := wait(); err != nil {
			return 0, err
		}
		wait = func() error {
			_, err := loss()
			return cmp.Or(err, func() error { _, err := norm(); return err }())
		}
	}
	err := wait()
	return time.Since(started), err
}

// operator is what the nodes of one type took in a step.
type operator struct {
	Graph, Name string
	Runs        int
	MS          number
}

// operators sums up the profiles that ONNX Runtime writes when an engine is closed.
func operators(ctx context.Context, r request, answer func(any) error) error {
	prefix := filepath.Join(r.Dir, "profile")
	e, err := r.openTimed(ctx, engine.DeviceSpec{CUDA: ort.CUDAOptions{TF32: true}, Profile: prefix})
	if err != nil {
		return err
	}
	_, err = steps(ctx, e, shape{r.Shapes[0][0], r.Shapes[0][1]}, warmUp, r.Steps)
	if err := cmp.Or(err, e.Close()); err != nil {
		return err
	}
	for _, name := range []string{"batch", "optimizer"} {
		files, err := filepath.Glob(prefix + "-" + name + "*")
		if err != nil || len(files) != 1 {
			return fmt.Errorf("ONNX Runtime has written %d profiles of the graph %s, want 1", len(files), name)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			return err
		}
		found, err := sumProfile(text, r.Steps)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(files[0]), err)
		}
		for _, o := range found {
			o.Graph = name
			if err := answer(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// sumProfile returns what the last so many runs in a profile took, per run and
// operator, in milliseconds.
func sumProfile(text []byte, runs int) ([]operator, error) {
	var events []struct {
		Category string  `json:"cat"`
		Name     string  `json:"name"`
		Start    int64   `json:"ts"`  // µs
		Duration float64 `json:"dur"` // µs
		Args     struct {
			Op string `json:"op_name"`
		} `json:"args"`
	}
	if err := json.Unmarshal(text, &events); err != nil {
		return nil, err
	}
	var starts []int64
	for _, e := range events {
		if e.Category == "Session" && e.Name == "model_run" {
			starts = append(starts, e.Start)
		}
	}
	if len(starts) < runs {
		return nil, fmt.Errorf("%d runs, want at least %d", len(starts), runs)
	}
	slices.Sort(starts)
	first := starts[len(starts)-runs]
	sums := map[string]operator{}
	for _, e := range events {
		if e.Category == "Node" && e.Start >= first && strings.HasSuffix(e.Name, "_kernel_time") {
			o := sums[e.Args.Op]
			sums[e.Args.Op] = operator{Name: e.Args.Op, Runs: o.Runs + 1, MS: o.MS + number(e.Duration/1e3)}
		}
	}
	var all []operator
	for _, o := range sums {
		o.Runs /= runs
		o.MS /= number(runs)
		all = append(all, o)
	}
	slices.SortFunc(all, func(a, b operator) int { return cmp.Or(cmp.Compare(b.MS, a.MS), cmp.Compare(a.Name, b.Name)) })
	return all, nil
}

// writeCase writes the model of a golden case to dir, without dropout: the encoder
// of the tiny model and the head of the case.
func writeCase(dir, encoder string, c *weights.File) (deberta.Head, error) {
	h := deberta.Head{Pooling: c.Metadata()["pooling"], Activation: c.Metadata()["activation"]}
	encoderFile, err := weights.Open(filepath.Join(encoder, "model.safetensors"))
	if err != nil {
		return h, err
	}
	defer encoderFile.Close()
	var tensors []weights.Source
	for _, from := range []*weights.File{encoderFile, c} {
		for _, name := range from.Names() {
			if from == c && !strings.HasPrefix(name, "head.") || from == encoderFile && !strings.HasPrefix(name, "deberta.") {
				continue
			}
			s, err := from.Source(name)
			if err != nil {
				return h, err
			}
			tensors = append(tensors, s)
		}
	}
	for k := 0; ; k++ {
		t, ok := c.Info(fmt.Sprintf("head.%d.weight", k))
		if _, more := c.Info(fmt.Sprintf("head.%d.weight", k+1)); !ok || !more {
			break
		}
		h.HiddenDims = append(h.HiddenDims, int(t.Shape[0]))
	}
	raw, err := os.ReadFile(filepath.Join(encoder, "config.json"))
	if err != nil {
		return h, err
	}
	config := map[string]any{}
	if err := json.Unmarshal(raw, &config); err != nil {
		return h, err
	}
	maps.Copy(config, dropping(0))
	maps.Copy(config, trained(h))
	return h, writeModel(dir, config, tensors)
}
