package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/fakecuda"
	"github.com/criteria-go/criteria/internal/golden"
)

// TestMain lets the test binary stand in for the command, which starts itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-part" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// check runs the command and returns its status and what it prints.
func checked(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out, log strings.Builder
	code := run(t.Context(), append([]string{"-size", "tiny", "-shapes", "2x32", "-golden", golden.Dir(t)}, args...), &out, &log)
	t.Logf("%s\n%s", out.String(), log.String())
	return code, out.String()
}

// verdicts are the last words of the lines of the last table.
func verdicts(text string) map[string]string {
	v := map[string]string{}
	_, table, _ := strings.Cut(text, "## Verdict")
	for line := range strings.Lines(table) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); len(cells) == 4 {
			v[strings.TrimPrefix(cells[0], "| ")] = strings.TrimSuffix(cells[3], " |")
		}
	}
	return v
}

func expect(t *testing.T, text string, want map[string]string) {
	t.Helper()
	got := verdicts(text)
	for what, word := range want {
		if got[what] != word {
			t.Errorf("verdict on %s is %q, want %q", what, got[what], word)
		}
	}
}

// noPython is a Python that has no PyTorch.
func noPython(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho no module named torch >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRehearsal: on the host our side of the comparison is right, and what PyTorch
// should have said is missed.
func TestRehearsal(t *testing.T) {
	code, text := checked(t, "-device", "host", "-python", noPython(t))
	if code != 1 {
		t.Errorf("status %d without PyTorch, want 1", code)
	}
	const ok, failed = "ok", "**failed**"
	expect(t, text, map[string]string{
		"gradients, fp32": ok, "gradients, fp16": ok, "kernels, adamw_torch_fused": ok, "kernels, adamw_bnb_8bit": ok, "speed, ours": ok, "speed, ours, checkpointing": ok, "operators": ok,
		"gradients, fp32, fused attention": ok, "gradients, fp16, fused attention": ok, "kernels, fused attention": ok, "speed, ours, fused attention": ok,
		"PyTorch": failed, "loss, fp32": failed, "loss, fp16": failed, "loss, fp16, fused attention": failed, "speed, eager": failed,
	})
	for _, want := range []string{"no module named torch", "| batch | Gemm |", "| optimizer | ", "| 30 | 0.", "| 2 × 32 | "} {
		if !strings.Contains(text, want) {
			t.Errorf("the output lacks %q", want)
		}
	}
}

// TestStandIn: on a GPU that computes nothing, everything runs and the comparisons
// fail.
func TestStandIn(t *testing.T) {
	if !fakecuda.Run(t) {
		return
	}
	code, text := checked(t, "-python", noPython(t))
	if code != 1 {
		t.Errorf("status %d, want 1", code)
	}
	const ok, failed = "ok", "**failed**"
	expect(t, text, map[string]string{
		"gradients, fp32": failed, "gradients, bf16": failed, "kernels, adamw_torch_fused": failed, "kernels, adamw_bnb_8bit": failed, "loss, fp32": failed, "loss, bf16": failed, "loss, bf16, fused attention": failed,
		"gradients, fp32, fused attention": failed, "gradients, bf16, fused attention": failed, "kernels, fused attention": failed,
		"speed, ours": ok, "speed, ours, checkpointing": ok, "speed, ours, fused attention": ok, "operators": ok,
	})
	if !strings.Contains(text, "off by 1.0e+00 in the worst of 8 cases") || !strings.Contains(text, "compute capability 9.0") {
		t.Error("the gradients were not compared")
	}
}

// TestTimeIsUp: the command ends, and says what it did not come to.
func TestTimeIsUp(t *testing.T) {
	code, text := checked(t, "-device", "host", "-python", noPython(t), "-time", "1ms")
	if code != 1 || !strings.Contains(text, "no time left") || !strings.Contains(text, "**Failed: ") {
		t.Errorf("status %d", code)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-shapes", "16"}, {"-size", "large"}, {"-device", "tpu"}, {"-unknown"}} {
		if code, _ := checked(t, args...); code != 2 {
			t.Errorf("%v: status %d, want 2", args, code)
		}
	}
}
