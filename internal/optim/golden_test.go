package optim

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/weights"
)

type goldenFile struct {
	*weights.File
	t    *testing.T
	meta map[string]string
}

func open(t *testing.T, path string) goldenFile {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return goldenFile{f, t, f.Metadata()}
}

func (f goldenFile) len(name string) int {
	f.t.Helper()
	info, ok := f.Info(name)
	if !ok {
		f.t.Fatalf("%s has no tensor %q", f.Path(), name)
	}
	n := 1
	for _, d := range info.Shape {
		n *= int(d)
	}
	return n
}

func (f goldenFile) float32s(name string) []float32 {
	f.t.Helper()
	out := make([]float32, f.len(name))
	if err := f.ReadFloat32(name, out); err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f goldenFile) bytes(name string, size int) []byte {
	f.t.Helper()
	out := make([]byte, f.len(name)*size)
	if err := f.ReadBytes(name, out); err != nil {
		f.t.Fatal(err)
	}
	return out
}

func (f goldenFile) number(key string) float64 {
	f.t.Helper()
	x, err := strconv.ParseFloat(f.meta[key], 64)
	if err != nil {
		f.t.Fatalf("%s: metadata %s: %v", f.Path(), key, err)
	}
	return x
}

func TestGoldenSchedule(t *testing.T) {
	for _, path := range golden.Glob(t, "model/train/run_*.safetensors") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".safetensors"), func(t *testing.T) {
			f := open(t, path)
			kind := ScheduleKind(f.meta["schedule"])
			total := int(f.number("total_steps"))
			warmup := WarmupSteps(f.number("warmup_ratio"), total)
			if want := int(f.number("warmup_steps")); warmup != want {
				t.Errorf("%d warmup steps, want %d", warmup, want)
			}
			s := Schedule{Kind: kind, Peak: f.number("lr"), Warmup: warmup, Total: total}
			raw := f.bytes("lr", 8)
			for step := range len(raw) / 8 {
				want := math.Float64frombits(binary.LittleEndian.Uint64(raw[8*step:]))
				if got := s.LR(step); math.Abs(got-want) > 1e-15*s.Peak {
					t.Errorf("step %d: got %v, want %v", step, got, want)
				}
			}
		})
	}
}

// bitsandbytes is followed up to rounding: a state value on the edge between
// two codes may fall to either side, and then the parameter differs a little.
func TestGoldenAdam8bit(t *testing.T) {
	for _, path := range golden.Glob(t, "model/train/adam8bit*.safetensors") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".safetensors"), func(t *testing.T) {
			f := open(t, path)
			rounding := RoundByTable
			if strings.Contains(filepath.Base(path), "nearest") {
				rounding = RoundToNearest
			}
			for _, m := range []struct {
				name   string
				signed bool
			}{{"qmap1", true}, {"qmap2", false}} {
				want, got := f.float32s(m.name), dynamicMap(m.signed)
				for i := range want {
					if got[i] != want[i] {
						t.Fatalf("%s[%d] = %v, want %v", m.name, i, got[i], want[i])
					}
				}
			}
			if got := int(f.number("blocksize")); got != blockSize {
				t.Fatalf("blocks of %d elements, want %d", got, blockSize)
			}
			o := NewAdamW8bit(AdamW{f.number("beta1"), f.number("beta2"), f.number("eps")}, rounding)
			lr := f.number("lr")
			p, grads := f.float32s("p0"), f.float32s("grads")
			n := len(p)
			s := NewState8bit(n)
			for step := 1; step <= len(grads)/n; step++ {
				o.Step(p, grads[(step-1)*n:step*n], s, Update{Step: step, LR: lr, WeightDecay: f.number("weight_decay"), GradScale: 1, Threads: 2})
				if _, ok := f.Info(fmt.Sprintf("s%d.p", step)); !ok {
					continue
				}
				tensor := func(name string) string { return fmt.Sprintf("s%d.%s", step, name) }
				compareFloats(t, tensor("p"), p, f.float32s(tensor("p")), lr)
				compareScales(t, tensor("absmax1"), s.MScale, f.float32s(tensor("absmax1")))
				compareScales(t, tensor("absmax2"), s.VScale, f.float32s(tensor("absmax2")))
				compareCodes(t, tensor("state1"), true, s.M, f.bytes(tensor("state1"), 1))
				compareCodes(t, tensor("state2"), false, s.V, f.bytes(tensor("state2"), 1))
			}
		})
	}
}

func compareFloats(t *testing.T, name string, got, want []float32, lr float64) {
	var worst, sum float64
	for i := range want {
		d := math.Abs(float64(got[i] - want[i]))
		worst, sum = max(worst, d), sum+d*d
	}
	rms := math.Sqrt(sum / float64(len(want)))
	t.Logf("%s: worst difference %.2g, rms %.2g", name, worst, rms)
	if worst > 0.2*lr || rms > 5e-3*lr {
		t.Errorf("%s: worst difference %g, rms %g, at a rate of %g", name, worst, rms, lr)
	}
}

func compareScales(t *testing.T, name string, got, want []float32) {
	for i := range want {
		if math.Abs(float64(got[i]-want[i])) > 1e-5*float64(want[i]) {
			t.Errorf("%s[%d] = %v, want %v", name, i, got[i], want[i])
		}
	}
}

// compareCodes allows, for one code in a hundred, the next one, or one whose
// value is at most two of the widest gaps between codes away: a state that fell
// to the other side earlier stays that much off.
func compareCodes(t *testing.T, name string, signed bool, got, want []byte) {
	const gap = 0.9 / 64 // between the values of the signed codes below 1
	values := dynamicMap(signed)
	different := 0
	for i := range want {
		if got[i] == want[i] {
			continue
		}
		different++
		next := got[i] == want[i]+1 || got[i] == want[i]-1
		if d := values[got[i]] - values[want[i]]; !next && math.Abs(float64(d)) > 2*gap {
			t.Errorf("%s[%d]: code %d (%v), want %d (%v)", name, i, got[i], values[got[i]], want[i], values[want[i]])
		}
	}
	t.Logf("%s: %d of %d codes differ", name, different, len(want))
	if different > len(want)/100 {
		t.Errorf("%s: %d of %d codes differ", name, different, len(want))
	}
}
