package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	got := command([]string{"hpo.storage=postgresql://ann:secret@db/optuna", "model.head.activation=relu", "hpo.search_space.batch_size.choices=[4, 8]"})
	want := " 'hpo.storage=postgresql://ann:***@db/optuna' model.head.activation=relu 'hpo.search_space.batch_size.choices=[4, 8]'"
	if !strings.HasSuffix(got, want) || strings.Contains(got, "secret") {
		t.Errorf("command %s, want it to end with%s", got, want)
	}
	if got := quote("it's"); got != `'it'\''s'` {
		t.Errorf("quoted: %s", got)
	}
}

func TestHPOFails(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, override := range map[string]string{
		"unknown key": "hpo.n_trails=1", "bad value": "hpo.sampler.type=TPE", "bad storage": "hpo.storage=optuna.db", "no data": "data.redsm5_dir=none",
	} {
		t.Run(name, func(t *testing.T) {
			if code := run(t.Context(), []string{override, "hydra.run.dir=" + filepath.Join(t.TempDir(), "out")}); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
		})
	}
	if _, err := os.Stat("optuna.db"); err == nil {
		t.Error("a database was made for nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := run(ctx, []string{"hydra.run.dir=" + t.TempDir()}); code != 130 {
		t.Errorf("exit code %d after Ctrl-C, want 130", code)
	}
}
