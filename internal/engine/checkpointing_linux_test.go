package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
)

// TestCheckpointingMemory: computing layers twice lets the peak of a training
// step fall by more than a third, and changes no bit of the loss, the norm or the
// parameters.
func TestCheckpointingMemory(t *testing.T) {
	peaks, results := comparePeaks(t, 16, func(recompute bool) Spec {
		spec := trainingSpec(t, adamWFused)
		spec.Training.Recompute = recompute
		return spec
	})
	t.Logf("peak of a step, above the model itself: %d MiB, with checkpointing %d MiB", peaks[0]>>20, peaks[1]>>20)
	if results[0] != results[1] {
		t.Errorf("plain %s, with checkpointing %s", results[0], results[1])
	}
	if 3*peaks[1] > 2*peaks[0] {
		t.Errorf("the peak fell from %d to %d MiB, want less than two thirds", peaks[0]>>20, peaks[1]>>20)
	}
}

// TestFlashMemory: with the fused attention no layer keeps a value of the size of the
// probabilities. Of many layers it needs a quarter less, though on the host a layer
// takes more while it is computed.
func TestFlashMemory(t *testing.T) {
	peaks, _ := comparePeaks(t, 16, func(flash bool) Spec {
		spec := onHost(t, graph.Float32)
		spec.Device.Flash = flash
		return spec
	})
	t.Logf("peak of a step, above the model itself: %d MiB, with the fused attention %d MiB", peaks[0]>>20, peaks[1]>>20)
	if 4*peaks[1] > 3*peaks[0] {
		t.Errorf("the peak fell from %d to %d MiB, want less than three quarters", peaks[0]>>20, peaks[1]>>20)
	}
}

// comparePeaks measures a step of a training without and with something, each in a
// process of its own, and returns the peaks of memory and what was computed.
func comparePeaks(t *testing.T, layers int, specOf func(with bool) Spec) (peaks [2]int, results [2]string) {
	const child = "ENGINE_TEST_WITH"
	if value := os.Getenv(child); value != "" {
		measureStep(t, layers, specOf(value == "true"))
		t.SkipNow() // the rest is for the parent
	}
	for i, with := range []bool{false, true} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%t", child, with))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if rest, ok := strings.CutPrefix(line, "peak "); ok {
				peak, result, _ := strings.Cut(strings.TrimSpace(rest), " result ")
				if peaks[i], err = strconv.Atoi(peak); err != nil {
					t.Fatal(err)
				}
				results[i] = result
			}
		}
		if peaks[i] == 0 {
			t.Fatalf("no peak in\n%s", out)
		}
	}
	return peaks, results
}

// measureStep prints by how much a training step raises the most memory that
// the process ever had.
func measureStep(t *testing.T, layers int, spec Spec) {
	config := deberta.Config{HiddenSize: 128, Layers: layers, Heads: 4, IntermediateSize: 512, VocabSize: 1000, PositionBuckets: 256,
		LayerNormEps: 1e-7, HiddenDropout: 0.1, AttentionDropout: 0.1, InitializerRange: 0.02, MaxPosition: 512}
	spec.Training.Accumulation = 1
	e, err := open(config, nil, spec, "", func(e *Engine) error {
		fillRandom(e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	before := peakMemory(t)
	r, err := e.Accumulate(context.Background(), randomBatch(1, 8, 256), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	peak := int(1e9 * (peakMemory(t) - before))
	norm, err := e.Update(context.Background(), 1e-3)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, x := range e.current(t) {
		sum += float64(x)
	}
	fmt.Printf("peak %d result %v %v %v\n", peak, r.Loss, norm, sum)
}
