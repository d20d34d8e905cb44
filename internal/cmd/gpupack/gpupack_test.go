package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/fakecuda"
)

// TestPack packs, unpacks and runs gpu-check as on a machine that has a driver and
// nothing else, under a stand-in for NVIDIA's libraries: it reports what is wrong
// and what is missing, and all that needs neither numbers nor PyTorch works with
// the emptied library.
func TestPack(t *testing.T) {
	library := os.Getenv(envRuntime)
	if library == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(envRuntime + " is not set: run make test")
		}
		t.Skip(envRuntime + " is not set (make test provides it)")
	}
	t.Chdir(filepath.Join("..", "..", ".."))
	dir, nvidia := t.TempDir(), t.TempDir()
	if err := fakecuda.Build(t.Context(), filepath.Join(filepath.Dir(library), provider), nvidia); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, archiveName)
	if err := pack(t.Context(), archive, library, 90); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(archive); err != nil || info.Size() > 60e6 {
		t.Errorf("the archive has %d bytes, want at most 60 MB: %v", info.Size(), err)
	}
	program, python := filepath.Join(dir, "gpu-check"), filepath.Join(dir, "python")
	for path, content := range map[string]string{program: string(script), python: "#!/bin/sh\nexit 1\n"} {
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", program, "-size", "tiny", "-shapes", "2x32")
	cmd.Dir = t.TempDir()
	for _, v := range os.Environ() { // nothing of the machine's own runtime
		if !strings.HasPrefix(v, "CRITERIA_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+cmd.Dir, "XDG_CACHE_HOME=", "PYTHON="+python, fakecuda.EnvLibraries+"="+nvidia)
	out, err := cmd.CombinedOutput()
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 1 {
		t.Errorf("it ended with %v, want status 1", err)
	}
	for _, want := range []string{"compute capability 9.0", "ONNX Runtime 1.31.1", "| speed, ours | 1 of 1 shapes | all | ok |", "Failed: PyTorch; gradients, fp32;"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestStripErrors(t *testing.T) {
	for name, library := range map[string][]byte{"empty": nil, "text": []byte("#!/bin/sh\n")} {
		if _, _, err := strip(library, 90); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
