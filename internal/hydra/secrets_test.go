package hydra

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestSecrets: an address with a password that is given on the command line is
// not shown on the console, and what is written with it is for its owner alone.
func TestSecrets(t *testing.T) {
	for _, uri := range []string{
		"http://ann:hunter/two@track", "http://ann:hunter@two@track", "http://track?password=huntertwo",
		"http://hunter:two@track:5000/prefix",
	} {
		for _, args := range [][]string{
			{"+uri='" + uri + "'"},
			{"+uri='" + uri + "'", "train.seed=1,2", "--multirun"},
			{"uri=" + uri}, // there is no such key
			{"uri=" + uri + "~", "train.seed=~"},
			{"train.seed=" + uri},
		} {
			r := newRun(t)
			r.fail = errors.New("cannot reach " + uri)
			if exit := r.app.Run(t.Context(), args, r.task); exit == 0 {
				t.Fatalf("%q passes", args)
			}
			for _, shown := range []string{r.stdout.String(), r.stderr.String()} {
				if strings.Contains(shown, "hunter") || strings.Contains(shown, "two") {
					t.Errorf("%q shows:\n%s", args, shown)
				}
			}
			for _, job := range r.jobs {
				requirePrivate(t, filepath.Join(job.OutputDir, ".hydra"))
			}
		}
	}
}

// requirePrivate expects files in a folder that only their owner may read.
func requirePrivate(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%s: %d files, %v", dir, files, err)
	}
}
