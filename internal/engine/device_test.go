package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// onHost is a specification whose model runs on the host by way of what is
// written for a device.
func onHost(t testing.TB, low graph.Type, optimizer ...string) Spec {
	spec := trainingSpec(t, append(optimizer, adamWFused)[0])
	spec.Device = &DeviceSpec{Low: low, Host: true}
	return spec
}

// params returns the parameters, also those on a device.
func (e *Engine) current(t testing.TB) []float32 {
	t.Helper()
	if err := e.backend.fetch(); err != nil {
		t.Fatal(err)
	}
	return slices.Clone(e.params.Float32())
}

func distance(got, want []float32) float64 {
	var square, off float64
	for j := range want {
		square += float64(want[j]) * float64(want[j])
		off += float64(got[j]-want[j]) * float64(got[j]-want[j])
	}
	return math.Sqrt(off / square)
}

// TestDeviceArithmetic: what is computed for a device, run on the host, is what
// the CPU computes: losses, norms, parameters, over several updates of several
// micro-batches, with clipping, decay and padding.
func TestDeviceArithmetic(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		want := openEngine(t, trainingSpec(t, adamWFused), false)
		spec := onHost(t, graph.Float32)
		spec.Device.Standard = recompute // one of each is enough
		spec.Training.Recompute = recompute
		got := openEngine(t, spec, false)
		wantTrace, gotTrace := train(t, want, 0, 6), train(t, got, 0, 6)
		for i := range wantTrace {
			if math.Abs(gotTrace[i]-wantTrace[i]) > 2e-5*math.Abs(wantTrace[i]) {
				t.Errorf("recompute %t: number %d of the trace is %v, want %v", recompute, i, gotTrace[i], wantTrace[i])
			}
		}
		if off := distance(got.current(t), want.current(t)); off > 1e-5 {
			t.Errorf("recompute %t: parameters are off by %.2g of their norm", recompute, off)
		}
		r, err := got.Evaluate(context.Background(), randomBatch(9, 3, 20))
		if err != nil {
			t.Fatal(err)
		}
		w, err := want.Evaluate(context.Background(), randomBatch(9, 3, 20))
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Loss-w.Loss) > 1e-5 || len(r.Logits) != len(w.Logits) {
			t.Errorf("recompute %t: evaluation yields %v, want %v", recompute, r, w)
		}
	}
}

// TestDevice8bit: moments in 8 bits are on a device, after a few updates, what they
// are on the CPU: nearly all codes agree, the others lie beside theirs.
func TestDevice8bit(t *testing.T) {
	cpu := openEngine(t, trainingSpec(t, adamW8bit), false)
	device := openEngine(t, onHost(t, graph.Float32, adamW8bit), false)
	want, got := train(t, cpu, 0, 3), train(t, device, 0, 3)
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-4*math.Abs(want[i]) {
			t.Errorf("number %d of the trace is %v, want %v", i, got[i], want[i])
		}
	}
	if off := distance(device.current(t), cpu.current(t)); off > 1e-4 {
		t.Errorf("parameters are off by %.2g of their norm", off)
	}
	o, err := deviceOf(device).hostState()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if err := deviceOf(device).move(o.parts[0].here, o.parts[0].there, o.parts[0].bytes); err != nil {
		t.Fatal(err)
	}
	a, b := o.stateful.(*quantized), hostOf(cpu).trainer.optimizer.(*quantized)
	codes, off := 0, 0
	for i := range a.codes {
		for _, pair := range [][2][]uint8{{a.codes[i].M, b.codes[i].M}, {a.codes[i].V, b.codes[i].V}} {
			for j := range pair[0] {
				codes++
				if pair[0][j] != pair[1][j] {
					off++
				}
			}
		}
	}
	if codes == 0 || off > codes/100 {
		t.Errorf("%d of %d codes differ", off, codes)
	}
	// Without the kernel there is nothing that could compute it.
	spec := onHost(t, graph.Float32, adamW8bit)
	spec.Device.Standard = true
	if _, err := Open(context.Background(), spec, ""); err == nil || !strings.Contains(err.Error(), adamWFused) {
		t.Errorf("without kernels: error %v", err)
	}
}

// TestDeviceResume: a state goes from a device to the CPU and back.
func TestDeviceResume(t *testing.T) {
	for _, optimizer := range []string{adamWFused, adamW8bit} {
		t.Run(optimizer, func(t *testing.T) { testDeviceResume(t, optimizer) })
	}
}

func testDeviceResume(t *testing.T, optimizer string) {
	dir := t.TempDir()
	first := openEngine(t, onHost(t, graph.Float32, optimizer), false)
	train(t, first, 0, 3)
	if err := first.SaveState(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	want := train(t, first, 3, 6)
	for name, spec := range map[string]Spec{"device": onHost(t, graph.Float32, optimizer), "cpu": trainingSpec(t, optimizer)} {
		e := openEngine(t, spec, false)
		train(t, e, 7, 8) // to be forgotten
		if err := e.LoadState(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
		for i, got := range train(t, e, 3, 6) {
			if math.Abs(got-want[i]) > 2e-5*math.Abs(want[i]) {
				t.Errorf("%s: number %d after resuming is %v, want %v", name, i, got, want[i])
			}
		}
	}
}

// compareRounded checks that the trace of a training in float16 is near the one in
// float32, and not the same.
func compareRounded(t *testing.T, want, got []float64) {
	t.Helper()
	rounded := false
	for i := range want {
		if math.Abs(got[i]-want[i]) > 0.02*math.Abs(want[i]) {
			t.Errorf("number %d of the trace is %v, want %v", i, got[i], want[i])
		}
		rounded = rounded || got[i] != want[i]
	}
	if !rounded {
		t.Error("nothing was rounded")
	}
}

// TestLossScaling: training in float16 follows that in float32; an update that
// overflows is skipped and halves the scale; enough good ones double it.
func TestLossScaling(t *testing.T) {
	t.Run("kernels", func(t *testing.T) { testLossScaling(t, false) })
	t.Run("standard operators", func(t *testing.T) { testLossScaling(t, true) })
}

func testLossScaling(t *testing.T, standard bool) {
	spec := onHost(t, graph.Float16)
	spec.Device.Standard = standard
	full, half := openEngine(t, onHost(t, graph.Float32), false), openEngine(t, spec, false)
	compareRounded(t, train(t, full, 0, 6), train(t, half, 0, 6))

	a := deviceOf(half)
	set := func(scale, good float32) {
		t.Helper()
		if err := a.setState(deviceState{steps: 6, scale: scale, good: good}); err != nil {
			t.Fatal(err)
		}
	}
	step := func() float64 {
		t.Helper()
		if _, err := half.Accumulate(context.Background(), randomBatch(3, 3, 20), 6, 0); err != nil {
			t.Fatal(err)
		}
		norm, err := half.Update(context.Background(), 1e-3)
		if err != nil {
			t.Fatal(err)
		}
		return norm
	}
	state := func() deviceState {
		t.Helper()
		s, err := a.state()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := half.current(t)
	set(1<<40, 5)
	if norm := step(); norm != 0 {
		t.Errorf("the norm of a skipped update is %v, want 0", norm)
	}
	if got, want := state(), (deviceState{6, 1 << 39, 0}); got != want {
		t.Errorf("after a skipped update %+v, want %+v", got, want)
	}
	if !slices.Equal(half.current(t), before) {
		t.Error("a skipped update changed the parameters")
	}
	set(1024, growthInterval-1)
	if norm := step(); norm == 0 || norm-norm != 0 {
		t.Errorf("norm %v after an update that fits", norm)
	}
	if got, want := state(), (deviceState{7, 2048, 0}); got != want {
		t.Errorf("after %d good updates %+v, want %+v", growthInterval, got, want)
	}
	if slices.Equal(half.current(t), before) {
		t.Error("an update left the parameters as they were")
	}
	// A run that has diverged does not skip for ever.
	setParam(t, half, "head.0.bias", []float32{float32(math.NaN()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	if err := a.push(); err != nil {
		t.Fatal(err)
	}
	set(1.5, 0)
	if norm := step(); norm-norm == 0 {
		t.Errorf("the norm of a run that has diverged is %v", norm)
	}
}

// TestLowParameters: what products read is at all times the parameters, rounded to
// the nearest: of a model that was opened, after updates by every optimizer, after
// one that was skipped, and after a state was loaded.
func TestLowParameters(t *testing.T) {
	for _, low := range []graph.Type{graph.Float16, graph.BFloat16} {
		for _, optimizer := range []string{adamWFused, adamW8bit, "standard operators"} {
			t.Run(fmt.Sprintf("%v/%s", low, optimizer), func(t *testing.T) { testLowParameters(t, low, optimizer) })
		}
	}
}

func testLowParameters(t *testing.T, low graph.Type, optimizer string) {
	spec := onHost(t, low)
	if optimizer == adamW8bit {
		spec.Training.Optimizer = adamW8bit
	}
	spec.Device.Standard = optimizer == "standard operators"
	spec.Training.DecayAll = spec.Device.Standard
	e := openEngine(t, spec, false)
	a, l := deviceOf(e), e.layout
	if have, want := len(a.low.Bytes()), 2*(l.size-l.copied); have != want || l.copied < l.params[0].Size() {
		t.Fatalf("%d bytes in low precision, want %d: all parameters but the word embeddings", have, want)
	}
	bits := func() []uint16 {
		out := make([]uint16, l.size-l.copied)
		for i := range out {
			out[i] = binary.LittleEndian.Uint16(a.low.Bytes()[2*i:])
		}
		return out
	}
	check := func(when string) []uint16 {
		t.Helper()
		got := bits()
		isNaN := func(x uint16) bool { return x&0x7fff > low.Bits(float32(math.Inf(1))) }
		for i, x := range e.current(t)[l.copied:] {
			if want := low.Bits(x); got[i] != want && !(isNaN(got[i]) && isNaN(want)) {
				t.Fatalf("%s: element %d of the copy of %g is %#04x, want %#04x", when, i, x, got[i], want)
			}
		}
		return got
	}
	random := rand.New(rand.NewPCG(1, 2))
	update := func(rate float64, gradient func() float32) {
		t.Helper()
		// A CPU does not compute products in bfloat16: gradients come from here.
		for _, at := range l.offsets {
			a.gradients.Float32()[at] = gradient()
		}
		e.accumulated = 1
		if _, err := e.Update(context.Background(), rate); err != nil {
			t.Fatal(err)
		}
	}
	normal := func() float32 { return float32(random.NormFloat64()) }

	opened := check("opened")
	update(1e-3, normal)
	if slices.Equal(check("after an update"), opened) {
		t.Error("an update has changed nothing")
	}
	for range 3 {
		update(1e-3, normal)
	}
	saved := check("after four updates")
	update(1e-3, func() float32 { return float32(math.Inf(1)) })
	if !slices.Equal(check("after an update that was skipped"), saved) {
		t.Error("an update that was skipped has changed the copy")
	}
	dir := t.TempDir()
	if err := e.SaveState(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	update(1e-1, normal)
	check("after one more")
	if err := e.LoadState(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(check("after loading"), saved) {
		t.Error("the copy is not that of the state that was loaded")
	}
	if low == graph.Float16 {
		train(t, e, 0, 2)
		check("after a training")
	}
	// Numbers whose rounding is special stay what they are at a rate of 0.
	special := []float32{1 + 0x1p-11, 1 + 0x3p-11, 1 + 0x1p-8, 1 + 0x3p-8, 2 - 0x1p-20, 65519.99, -65520, 0x1.ffep-15, 0x1p-25, 0x3p-25,
		-0x1.000002p-25, 0x1p-134, 0x3p-134, 0x1p-149, math.MaxFloat32, 0x1.fefffep127, float32(math.Copysign(0, -1)),
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0xff800001)}
	for i := range l.params {
		x := l.slice(e.params.Float32(), i)
		copy(x, special)
		copy(x[len(x)/2:], special)
	}
	if err := a.push(); err != nil {
		t.Fatal(err)
	}
	check("pushed")
	update(0, normal)
	check("after an update at a rate of 0")
}

// TestLowEvaluation: a model that is only evaluated has parameters in low precision,
// too.
func TestLowEvaluation(t *testing.T) {
	var losses []float64
	for _, low := range []graph.Type{graph.Float32, graph.Float16} {
		e, err := open(tinyConfig(t), nil, Spec{Head: tinyHead, Threads: 1, Device: &DeviceSpec{Low: low, Host: true}}, "", func(e *Engine) error {
			fillRandom(e)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		r, err := e.Evaluate(context.Background(), randomBatch(9, 3, 20))
		if err != nil {
			t.Fatal(err)
		}
		losses = append(losses, r.Loss)
	}
	if off := math.Abs(losses[0] - losses[1]); off == 0 || off > 1e-2*losses[0] {
		t.Errorf("losses %v, want two that differ by little", losses)
	}
}

// TestDeviceDropout: a device drops elements of its own accord, in every layer
// anew in every micro-batch, also when it computes layers twice. With an operator
// that is a function of the micro-batch's place in the training.
func TestDeviceDropout(t *testing.T) {
	places := [][2]int{{0, 0}, {0, 1}, {1, 0}, {1 << 20, 3}}
	for _, standard := range []bool{false, true} {
		var first []float64
		for _, recompute := range []bool{false, true} {
			spec := onHost(t, graph.Float32)
			spec.Device.Standard = standard
			spec.Training.Recompute = recompute
			e := openEngine(t, spec, true)
			draw := func() (losses []float64) {
				for _, at := range places {
					r, err := e.Accumulate(context.Background(), randomBatch(1, 3, 20), at[0], at[1])
					if err != nil {
						t.Fatal(err)
					}
					losses = append(losses, r.Loss)
				}
				return losses
			}
			losses := draw()
			if n := len(slices.Compact(slices.Sorted(slices.Values(losses)))); n != len(places) {
				t.Errorf("standard %t, recompute %t: %d runs have %d different losses: %v", standard, recompute, len(places), n, losses)
			}
			if first == nil {
				first = losses
			}
			if same := slices.Equal(losses, first) && slices.Equal(losses, draw()); same == standard {
				t.Errorf("standard %t, recompute %t: the losses are the same as before: %t", standard, recompute, same)
			}
		}
	}
}

// TestPhiloxDropout: the operator drops what package dropout says, wherever a
// mask ends.
func TestPhiloxDropout(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{BLAS: ort.NoBLAS})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	const p = 0.3
	for _, n := range []int{1, 4, 7, 1026} {
		key := dropout.Key{Seed: 1<<63 | 5, Step: uint64(dropoutPosition(1<<30, 2)), Site: 9}
		g := graph.New("dropout", nil)
		g.Output("y", g.PhiloxDropout(g.Fill(1, n), g.Input("position", graph.Int64, 1), p, key.Seed, int(key.Site)))
		session, err := rt.NewSession(g.Encode(), ort.SessionOptions{Device: ort.HostDevice()})
		if err != nil {
			t.Fatal(err)
		}
		binding, err := session.NewBinding()
		if err != nil {
			t.Fatal(err)
		}
		position, err := ort.NewTensor(ort.Int64, 1)
		if err != nil {
			t.Fatal(err)
		}
		y, err := ort.NewTensor(ort.Float32, n)
		if err != nil {
			t.Fatal(err)
		}
		position.Int64()[0] = int64(key.Step)
		if err := errors.Join(binding.BindInput("position", position), binding.BindOutput("y", y), binding.Run(context.Background())); err != nil {
			t.Fatal(err)
		}
		mask, want := make([]byte, n), make([]float32, n)
		dropout.FillPhilox(mask, key, p)
		for i, keep := range mask {
			want[i] = float32(keep) * float32(1/(1-p))
		}
		if !slices.Equal(y.Float32(), want) {
			t.Errorf("%d elements: %v, want %v", n, y.Float32(), want)
		}
		if err := errors.Join(session.Close(), position.Buffer().Free(), y.Buffer().Free()); err != nil {
			t.Error(err)
		}
	}
}

// TestKernelsOnGPU: under the stand-in, a training whose dropout is our own is
// captured, on every GPU that has kernels: after the third run ONNX Runtime asks
// for no launch any more. The grids are those of the tensors' sizes. A GPU without
// kernels does with standard operators, and says so.
func TestKernelsOnGPU(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	for _, gpu := range []struct {
		capability, ptx int
		want            string // of the device's description
		launches        bool
	}{
		{90, 90, "kernels sm_90a", true},
		{80, 90, "kernels sm_80", true},
		{89, 90, "kernels sm_89", true},
		{120, 90, "kernels sm_120a", true},
		{100, 90, "kernels compute_80", true},
		{100, 70, "no custom kernels: compute_80: loading dropout_float32: the provided PTX was compiled with an unsupported toolchain", false},
		{75, 90, "no custom kernels: none was compiled for this GPU", false},
	} {
		t.Setenv("FAKECUDA_CAPABILITY", strconv.Itoa(gpu.capability))
		t.Setenv("FAKECUDA_PTX", strconv.Itoa(gpu.ptx))
		for _, low := range []graph.Type{graph.Float32, graph.Float16, graph.BFloat16} {
			spec := trainingSpec(t, adamWFused)
			spec.Device = &DeviceSpec{Low: low, Capture: true}
			e := openEngine(t, spec, true)
			if !strings.Contains(e.Device(), gpu.want) {
				t.Fatalf("compute capability %d: the device is %q, want %q in it", gpu.capability, e.Device(), gpu.want)
			}
			const runs = 5
			byKernel := map[string]int{}
			adamw := "adamw"
			if low.IsLow() {
				adamw = "adamw_copying"
			}
			grids := map[string]map[int]bool{"dropout": {}, adamw: {}, "sum_squares": {}}
			for _, l := range fakecuda.Launches(t, func() {
				for step := range runs {
					if _, err := e.Accumulate(context.Background(), randomBatch(1, 4, 32), step, 0); err != nil {
						t.Fatal(err)
					}
					if _, err := e.Update(context.Background(), 1e-3); err != nil {
						t.Fatal(err)
					}
				}
			}) {
				byKernel[l.Kernel]++
				grids[l.Kernel][l.Programs] = true
			}
			if !gpu.launches {
				if len(byKernel) != 0 {
					t.Errorf("compute capability %d: launches %v, want none", gpu.capability, byKernel)
				}
				continue
			}
			// Two parts of the flat vectors; every dropout forward and backward.
			const captured = 3
			sites := deviceOf(e).programs.entries[programKey{training, 4, 32}].program.graph.Census()[graph.PhiloxDropout]
			want := map[string]int{"dropout": captured * sites, adamw: captured * 2, "sum_squares": captured * 2}
			if diff := cmp.Diff(want, byKernel); diff != "" || sites < 10 {
				t.Errorf("compute capability %d, %v, %d nodes of dropout: launches (-want +got):\n%s", gpu.capability, low, sites, diff)
			}
			c, l := e.model.Config, e.layout
			programs := func(block int, elements ...int) map[int]bool {
				grid := map[int]bool{}
				for _, n := range elements {
					grid[(n+block-1)/block] = true
				}
				return grid
			}
			wantGrids := map[string]map[int]bool{
				adamw:         programs(1024, l.decayed, l.size-l.decayed),
				"sum_squares": programs(1<<16, l.decayed, l.size-l.decayed),
				"dropout": programs(1024, 4*32*c.HiddenSize, 4*32*32*c.Heads, // hidden states, attention
					c.HiddenSize*l.params[l.index["deberta.encoder.rel_embeddings.weight"]].Shape[0], 4*c.HiddenSize), // positions, the pooled rows
			}
			if diff := cmp.Diff(wantGrids, grids); diff != "" {
				t.Errorf("compute capability %d, %v: sizes of grids (-want +got):\n%s", gpu.capability, low, diff)
			}
		}
	}
}

// TestTrainingOnGPU takes the whole way of a training under the stand-in: what
// it computes is nothing, but it allocates, binds, copies, captures and saves.
func TestTrainingOnGPU(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	for i, low := range []graph.Type{graph.Float32, graph.BFloat16, graph.Float16} {
		spec := trainingSpec(t, []string{adamWFused, adamW8bit, adamW}[i])
		spec.Head.Pooling = []string{"max", "mean", "cls"}[i]
		spec.Head.Activation = []string{"tanh", "gelu", "relu"}[i]
		spec.Device = &DeviceSpec{Low: low, Capture: true, Pinned: true}
		spec.Training.Recompute = low == graph.BFloat16
		e := openEngine(t, spec, true)
		train(t, e, 0, 5)
		if _, err := e.Evaluate(context.Background(), randomBatch(9, 3, 20)); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := e.SaveState(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
		saved := e.current(t)
		train(t, e, 5, 6)
		if err := e.LoadState(context.Background(), dir); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(e.current(t), saved) {
			t.Errorf("%v: what was saved is not what was loaded", low)
		}
	}
}

// TestWideOnGPU runs graphs with the shapes of the base model under the stand-in:
// what ONNX Runtime refuses only at run time depends on shapes.
func TestWideOnGPU(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	config := base
	config.Layers, config.VocabSize = 2, 2000
	config.HiddenDropout, config.AttentionDropout = 0.1, 0.1
	for i, low := range []graph.Type{graph.Float32, graph.BFloat16} {
		spec := trainingSpec(t, adamWFused)
		spec.Head.Pooling = []string{"cls", "mean"}[i]
		spec.Training.Recompute = i == 1
		spec.Device = &DeviceSpec{Low: low}
		e, err := open(config, nil, spec, "", func(*Engine) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Accumulate(context.Background(), randomBatch(1, 8, 512), 0, 0); err != nil {
			t.Error(err)
		}
		if _, err := e.Update(context.Background(), 1e-3); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestOutOfMemory: a batch for which the GPU has no memory is named, and the
// engine continues with a smaller one.
func TestOutOfMemory(t *testing.T) {
	if !fakecuda.Run(t, "FAKECUDA_MEMORY=60000000") {
		return
	}
	spec := trainingSpec(t, adamWFused)
	spec.Device = &DeviceSpec{Low: graph.Float32}
	e := openEngine(t, spec, true)
	accumulate := func(rows, length int) error {
		_, err := e.Accumulate(context.Background(), randomBatch(1, rows, length), 0, 0)
		return err
	}
	if err := accumulate(2, 20); err != nil {
		t.Fatal(err)
	}
	err := accumulate(64, 200)
	var memory *MemoryError
	var cause *ort.OutOfMemoryError
	if !errors.As(err, &memory) || !errors.As(err, &cause) {
		t.Fatalf("error %v, want a MemoryError", err)
	}
	if !memory.Training || memory.Rows != 64 || memory.Length != 200 || cause.Wanted == 0 {
		t.Errorf("got %+v, %+v", memory, cause)
	}
	if err := accumulate(2, 20); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
