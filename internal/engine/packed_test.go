package engine

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/weights"
)

// mixedBatch has rows of 1 to longest tokens, of which the first has all.
func mixedBatch(seed uint64, rows, longest int) Batch {
	random := rand.New(rand.NewPCG(seed, 11))
	b := Batch{Rows: rows, Length: longest, InputIDs: make([]int64, rows*longest), AttentionMask: make([]int64, rows*longest)}
	for r := range rows {
		n := longest
		if r > 0 {
			n = 1 + random.IntN(longest)
		}
		for i := range n {
			b.InputIDs[r*longest+i] = 4 + random.Int64N(900)
			b.AttentionMask[r*longest+i] = 1
		}
		b.Labels = append(b.Labels, random.Int64N(2))
		b.SampleWeights = append(b.SampleWeights, 0.5+random.Float32())
	}
	return b
}

// unpacked makes an engine compute padded batches, with the same products.
func unpacked(e *Engine) { delete(hostOf(e).kernels, "PackedAttention") }

// TestPackedTrajectory: thirty updates with dropout on packed batches are those on padded
// ones, for mixes of lengths from 1 to 512.
func TestPackedTrajectory(t *testing.T) {
	const steps, micros, tolerance = 30, 2, 1e-6
	for _, pooling := range []string{"cls", "mean", "max"} {
		t.Run(pooling, func(t *testing.T) {
			run := func(packed bool) (trace []float64, params []float32, e *Engine) {
				spec := trainingSpec(t, adamWFused)
				spec.Head.Pooling, spec.Threads = pooling, 2
				e = openEngine(t, spec, true)
				if !packed {
					unpacked(e)
				}
				if hostOf(e).packs() != packed {
					t.Fatalf("batches are packed: %t, want %t", !packed, packed)
				}
				random := rand.New(rand.NewPCG(1, 2))
				for step := range steps {
					for micro := range micros {
						longest := 1 + random.IntN(60)
						if step%10 == 0 {
							longest = 512 - micro
						}
						r, err := e.Accumulate(context.Background(), mixedBatch(uint64(step*micros+micro), 1+random.IntN(6), longest), step, micro)
						if err != nil {
							t.Fatal(err)
						}
						trace = append(trace, r.Loss)
					}
					norm, err := e.Update(context.Background(), 2e-5)
					if err != nil {
						t.Fatal(err)
					}
					trace = append(trace, norm)
				}
				return trace, slices.Clone(settled(e)), e
			}
			want, wantParams, _ := run(false)
			got, gotParams, e := run(true)
			for i := range want {
				if !(math.Abs(got[i]-want[i]) <= 5*tolerance*math.Abs(want[i])) {
					t.Errorf("loss or norm %d is %v packed, %v padded", i, got[i], want[i])
				}
			}
			for i, p := range e.layout.params {
				a, b := e.layout.slice(wantParams, i), e.layout.slice(gotParams, i)
				worst, largest := 0.0, 1e-3
				for j := range a {
					worst = max(worst, math.Abs(float64(a[j]-b[j])))
					largest = max(largest, math.Abs(float64(a[j])))
				}
				if !(worst <= tolerance*largest) {
					t.Errorf("%s differs by %.2g of its largest element, want at most %g", p.Name, worst/largest, tolerance)
				}
			}
		})
	}
}

// TestPackedEvaluation: rows of a batch are computed as each is alone, in batches of any
// mix of lengths; also one whose mask has a hole, which is padded.
func TestPackedEvaluation(t *testing.T) {
	for _, pooling := range []string{"cls", "mean", "max"} {
		spec := trainingSpec(t, adamWFused)
		spec.Head.Pooling = pooling
		e := openEngine(t, spec, true)
		other := openEngine(t, spec, true)
		unpacked(other)
		for i, longest := range []int{1, 17, 130, 512} {
			b := mixedBatch(uint64(i), 1+2*i, longest)
			if i == 2 {
				b.AttentionMask[1] = 0
			}
			got, err := e.Evaluate(context.Background(), b)
			if err != nil {
				t.Fatal(err)
			}
			want, err := other.Evaluate(context.Background(), b)
			if err != nil {
				t.Fatal(err)
			}
			for j := range want.Logits {
				if d := math.Abs(float64(got.Logits[j] - want.Logits[j])); !(d <= 2e-6) {
					t.Errorf("%s, up to %d tokens: logit %d is %v packed, %v padded", pooling, longest, j, got.Logits[j], want.Logits[j])
				}
			}
		}
	}
}

// TestPackedGraphs: one graph serves all lengths.
func TestPackedGraphs(t *testing.T) {
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	for i := range 20 {
		if _, err := e.Evaluate(context.Background(), mixedBatch(uint64(i), 3, 1+25*i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(hostOf(e).programs.entries); n != 1 {
		t.Errorf("%d graphs for one number of rows, want 1", n)
	}
	if want := (programKey{evaluation, 4, 480}); hostOf(e).programs.largest != want {
		t.Errorf("the largest shape is %v, want %v", hostOf(e).programs.largest, want)
	}
}

// TestStateOfOlderVersion: a state that does not say how dropout is drawn is one of a
// version that drew masks by batch. The run goes on with these, bit by bit, and so does
// what is saved of it.
func TestStateOfOlderVersion(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	old := openEngine(t, trainingSpec(t, adamWFused), true)
	hostOf(old).trainer.masksByBatch = true // as the version was
	train(t, old, 0, 2)
	if err := old.SaveState(ctx, dir); err != nil {
		t.Fatal(err)
	}
	want := train(t, old, 2, 4)

	for range 2 { // the second time from what the resumed run has saved
		resumed := openEngine(t, trainingSpec(t, adamWFused), true)
		if err := resumed.LoadState(ctx, dir); err != nil {
			t.Fatal(err)
		}
		if hostOf(resumed).packs() {
			t.Error("the resumed run packs its batches")
		}
		if err := resumed.SaveState(ctx, dir); err != nil {
			t.Fatal(err)
		}
		if got := train(t, resumed, 2, 4); !slices.Equal(got, want) {
			t.Errorf("losses and norms are %v, want %v", got, want)
		}
		if !slices.Equal(settled(old), settled(resumed)) {
			t.Error("parameters differ after resuming")
		}
	}

	// A run of this version says how it draws, and another rule is refused.
	current := openEngine(t, trainingSpec(t, adamWFused), true)
	if got := train(t, current, 0, 1); got[0] == train(t, old, 0, 1)[0] {
		t.Error("masks by row give the loss of masks by batch")
	}
	if err := current.SaveState(ctx, dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, optimizerFile)
	file, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if rule := file.Metadata()[dropoutKey]; rule != dropoutByRow {
		t.Errorf("the state says that dropout is drawn %q", rule)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	later := map[string]string{dropoutKey: "by star sign"}
	if err := writeState(path, adamWFused, 1, hostOf(current).trainer.optimizer, later); err != nil {
		t.Fatal(err)
	}
	if err := current.LoadState(ctx, dir); err == nil || !strings.Contains(err.Error(), "by star sign") {
		t.Errorf("state with masks of an unknown kind: got error %v", err)
	}
}

// TestMasksOfOlderVersions: they are those of [dropout.Fill], over the whole padded batch.
func TestMasksOfOlderVersions(t *testing.T) {
	e := openEngine(t, trainingSpec(t, adamWFused), true)
	hostOf(e).trainer.masksByBatch = true
	if _, err := e.Accumulate(context.Background(), randomBatch(1, 3, 20), 7, 1); err != nil {
		t.Fatal(err)
	}
	p, ok := hostOf(e).programs.get(programKey{training, 4, 32})
	if !ok {
		t.Fatal("no padded graph was compiled")
	}
	offset := rowGradientBytes(p, e.model.Config.HiddenSize)
	for site, m := range p.graph.Masks {
		n := volume(m.Shape)
		want := make([]byte, n)
		dropout.Fill(want, dropout.Key{Seed: 5, Step: 7<<16 | 1, Site: uint64(site)}, m.Drop, 1)
		if !slices.Equal(want, hostOf(e).trainer.scratch.Bytes()[offset:offset+n]) {
			t.Error(fmt.Sprint("another mask at place ", site))
		}
		offset += roundUp(n, alignment)
	}
}
