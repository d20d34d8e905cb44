package criteria_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
)

func TestProgressLines(t *testing.T) {
	var out strings.Builder
	hooks := criteria.ProgressBar(&out)
	now := time.Unix(0, 0)
	step := func(phase criteria.Phase, epoch, pairs, total int, after time.Duration) {
		now = now.Add(after)
		hooks.Step(criteria.StepEvent{Phase: phase, Epoch: epoch, Epochs: 2, Pairs: pairs, Total: total, Time: now})
	}
	hooks.Download(criteria.DownloadEvent{File: "model.safetensors", Total: 370e6})
	hooks.Download(criteria.DownloadEvent{File: "model.safetensors", Done: 370e6, Total: 370e6})
	step(criteria.PhaseTrain, 1, 16, 1000, 0)
	step(criteria.PhaseTrain, 1, 116, 1000, 4*time.Second)
	step(criteria.PhaseTrain, 1, 316, 1000, 6*time.Second)  // the first line: 300 pairs in 10 s
	step(criteria.PhaseTrain, 1, 416, 1000, 5*time.Second)  // too soon
	step(criteria.PhaseTrain, 1, 616, 1000, 5*time.Second)  // 600 pairs in 20 s
	step(criteria.PhaseTrain, 1, 1000, 1000, 9*time.Second) // the end is said by the epoch's own line
	step(criteria.PhaseVal, 1, 10, 100, time.Second)
	step(criteria.PhaseTrain, 2, 16, 1000, 20*time.Second)
	step(criteria.PhaseTest, 2, 50, 200, time.Second)
	step(criteria.PhaseTest, 2, 100, 200, 10*time.Second)
	want := "download model.safetensors: 370.0 MB\n" +
		"epoch 1/2 train: 316/1000 pairs, 30.0 pairs/s, 23s left\n" +
		"epoch 1/2 train: 616/1000 pairs, 30.0 pairs/s, 13s left\n" +
		"test: 100/200 pairs, 5.0 pairs/s, 20s left\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What a terminal shows after a stretch of work is what stood there before.
func TestProgressBars(t *testing.T) {
	var out strings.Builder
	hooks := criteria.Bars(&out)
	since := func() string {
		text := out.String()
		out.Reset()
		return text
	}
	step := func(pairs int) {
		hooks.Step(criteria.StepEvent{Phase: criteria.PhaseTrain, Epoch: 1, Epochs: 2, Pairs: pairs, Total: 100})
	}
	hooks.Download(criteria.DownloadEvent{File: "config.json", Done: 1, Total: 2})
	if text := since(); !strings.Contains(text, "download config.json") {
		t.Errorf("a download shows %q", text)
	}
	step(10)
	if text := since(); !strings.Contains(text, "epoch 1/2 train") || !strings.Contains(text, "/100") {
		t.Errorf("a step shows %q", text)
	}
	step(100)
	if text := since(); !strings.HasSuffix(text, " \r") {
		t.Errorf("after the last step stands %q; want a cleared line", text)
	}
	hooks.Step(criteria.StepEvent{Phase: criteria.PhaseVal, Epoch: 1, Epochs: 2, Pairs: 10, Total: 100})
	since()
	hooks.End(criteria.EndEvent{Status: criteria.RunKilled})
	if text := since(); !strings.HasSuffix(text, " \r") {
		t.Errorf("after the end of the run stands %q; want a cleared line", text)
	}
}
