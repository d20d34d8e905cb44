//go:build peer

package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// BenchmarkPeerStep alternates our training step with the same step in PyTorch
// (transformers' eager model) and reports the ratio of the median times, and
// the peak memory of both processes. An iteration is one step of each.
func BenchmarkPeerStep(b *testing.B) {
	for _, s := range benchmarkShapes(b) {
		b.Run(s.String(), func(b *testing.B) {
			peer := startPeer(b)
			step := newStep(b, s.rows, s.length)
			for range 2 {
				step()
				peer(s)
			}
			var ours, theirs []float64
			var memory float64
			for b.Loop() {
				start := time.Now()
				step()
				ours = append(ours, time.Since(start).Seconds())
				answer := peer(s)
				theirs = append(theirs, answer.Seconds)
				memory = answer.PeakGB
			}
			b.ReportMetric(median(ours), "s/step")
			b.ReportMetric(median(theirs), "torch-s/step")
			b.ReportMetric(median(theirs)/median(ours), "torch/ours")
			b.ReportMetric(peakMemory(b), "peak-GB")
			b.ReportMetric(memory, "torch-peak-GB")
		})
	}
}

type peerAnswer struct {
	Seconds float64 `json:"seconds"`
	PeakGB  float64 `json:"peak_gb"`
}

// startPeer starts the PyTorch process; the function it returns takes a step.
func startPeer(b *testing.B) func(shape) peerAnswer {
	b.Helper()
	python := os.Getenv("CRITERIA_PEER_PYTHON")
	if python == "" {
		b.Fatal("CRITERIA_PEER_PYTHON must name a Python with torch and transformers: run make bench-peer")
	}
	cmd := exec.Command(python, "testdata/torch_step.py", "eager", "2", "0.1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	return func(s shape) peerAnswer {
		if _, err := fmt.Fprintf(in, "%d %d\n", s.rows, s.length); err != nil {
			b.Fatal(err)
		}
		line, err := lines.ReadBytes('\n')
		if err != nil && err != io.EOF {
			b.Fatal(err)
		}
		var answer peerAnswer
		if err := json.Unmarshal(line, &answer); err != nil {
			b.Fatalf("%v in %q", err, line)
		}
		return answer
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
