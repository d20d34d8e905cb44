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
)

// TestCheckpointingMemory: computing layers twice lets the peak of a training
// step fall by more than a third, and changes no bit of the loss, the norm or the
// parameters.
func TestCheckpointingMemory(t *testing.T) {
	const child = "ENGINE_TEST_RECOMPUTE"
	if value := os.Getenv(child); value != "" {
		measureStep(t, value == "true")
		return
	}
	var peaks [2]int
	var results [2]string
	for i, recompute := range []bool{false, true} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCheckpointingMemory$", "-test.v")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%t", child, recompute))
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
	t.Logf("peak of a step, above the model itself: %d MiB, with checkpointing %d MiB", peaks[0]>>20, peaks[1]>>20)
	if results[0] != results[1] {
		t.Errorf("plain %s, with checkpointing %s", results[0], results[1])
	}
	if 3*peaks[1] > 2*peaks[0] {
		t.Errorf("the peak fell from %d to %d MiB, want less than two thirds", peaks[0]>>20, peaks[1]>>20)
	}
}

// measureStep prints by how much a training step raises the most memory that
// the process ever had.
func measureStep(t *testing.T, recompute bool) {
	config := deberta.Config{HiddenSize: 128, Layers: 8, Heads: 4, IntermediateSize: 512, VocabSize: 1000, PositionBuckets: 256,
		LayerNormEps: 1e-7, HiddenDropout: 0.1, AttentionDropout: 0.1, InitializerRange: 0.02, MaxPosition: 512}
	spec := trainingSpec(t, adamWFused)
	spec.Training.Accumulation, spec.Training.Recompute = 1, recompute
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
	for _, x := range settled(e) {
		sum += float64(x)
	}
	fmt.Printf("peak %d result %v %v %v\n", peak, r.Loss, norm, sum)
}
