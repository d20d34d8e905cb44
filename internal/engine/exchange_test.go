package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/ort"
)

// TestExchange: a device that sends back what it is sent, and the stand-in does it
// as late as it may, sends back the right thing whenever it is asked for.
func TestExchange(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		testExchange(t, ort.HostDevice(), pinned)
	}
	if !fakecuda.Run(t) {
		return
	}
	rt, err := ort.Acquire(ort.Options{CUDA: true})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	d, err := rt.OpenCUDA(ort.CUDAOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pinned := range []bool{false, true} {
		testExchange(t, d, pinned)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func testExchange(t *testing.T, d *ort.Device, pinned bool) {
	t.Helper()
	const size = 4096
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 2, 0}, {4}, {}} {
		x, err := newExchange(d, pinned, 2*size, span{0, size}, span{size, 2 * size})
		if err != nil {
			t.Fatal(err)
		}
		var all []pending[[]byte]
		value := func(i int) []byte { return slices.Repeat([]byte{byte(i + 1)}, size) }
		for i := range 5 {
			p, err := exchanged(x,
				func(half int) { copy(x.here[half].memory.Bytes(), value(i)) },
				func() error { return d.Copy(x.out, x.in) },
				func(half int) []byte { return slices.Clone(x.here[half].memory.Bytes()[size:]) })
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
			if len(order) == 5 && order[0] == 0 && i > 0 { // the way of a training
				if got, err := all[i-1].wait(); err != nil || !slices.Equal(got, value(i-1)) {
					t.Errorf("%v, pinned %t: number %d came back as %d…, %v", d, pinned, i-1, got[0], err)
				}
			}
		}
		for _, i := range order {
			if got, err := all[i].wait(); err != nil || !slices.Equal(got, value(i)) {
				t.Errorf("%v, pinned %t, order %v: number %d came back as %d…, %v", d, pinned, order, i, got[0], err)
			}
		}
		if err := x.close(); err != nil {
			t.Error(err)
		}
	}
}

// TestAsyncOrder: what a GPU is asked for, and when: the whole of a step goes there
// before the results of the step before are waited for, each of these alone.
func TestAsyncOrder(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	spec := trainingSpec(t, adamWFused)
	spec.Device = &DeviceSpec{Low: graph.Float32, Pinned: true}
	e := openEngine(t, spec, false)
	train(t, e, 0, 1)

	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("FAKECUDA_LOG", log)
	b := randomBatch(0, 3, 20)
	var waits []func() error
	for range 2 {
		loss, err := e.AccumulateAsync(t.Context(), b, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		norm, err := e.UpdateAsync(t.Context(), 1e-3)
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits,
			func() error { _, err := loss(); return err },
			func() error { _, err := norm(); return err })
	}
	for _, wait := range append(waits, waits...) { // to ask again costs nothing
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	// Of the copies, those of a batch of 4 × 32 tokens, with dropout's position, and
	// those of the optimizer's numbers count: ONNX Runtime makes some on the device, too.
	names := map[string]string{
		"copy to device 2112": "send batch", "copy to host 36": "bring loss",
		"copy to device 12": "send rate", "copy to host 12": "bring norm",
		"launch": "compute", "record": "record", "wait for event": "wait", "wait for stream": "wait for all",
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if name := names[strings.TrimSpace(line)]; name != "" && (len(got) == 0 || name != "compute" || got[len(got)-1] != name) {
			got = append(got, name)
		}
	}
	step := []string{
		"send batch", "compute", "bring loss", "record",
		"send rate", "compute", "bring norm", "record",
	}
	want := slices.Concat(step, step, []string{"wait", "wait", "wait", "wait"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s\nall calls:\n%s", diff, text)
	}
}

// TestAsyncArithmetic: results that are waited for late are those that are waited
// for at once.
func TestAsyncArithmetic(t *testing.T) {
	for name, spec := range map[string]Spec{"device": onHost(t, graph.Float32), "cpu": trainingSpec(t, adamWFused)} {
		want, e := train(t, openEngine(t, spec, false), 0, 6), openEngine(t, spec, false)
		var waits []func() (float64, error)
		for step := range 6 {
			for micro := range spec.Training.Accumulation {
				wait, err := e.AccumulateAsync(t.Context(), randomBatch(uint64(100*step+micro), 3, 20+step%3*13), step, micro)
				if err != nil {
					t.Fatal(err)
				}
				waits = append(waits, func() (float64, error) {
					r, err := wait()
					return r.Loss, err
				})
			}
			wait, err := e.UpdateAsync(t.Context(), 1e-3)
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, wait)
		}
		var got []float64
		for _, wait := range waits {
			x, err := wait()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, x)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-at once +late):\n%s", name, diff)
		}
	}
}
