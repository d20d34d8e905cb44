package hydra_test

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/hydra"
)

func TestOpenLog(t *testing.T) {
	for name, verbose := range map[string]bool{"info": false, "verbose": true} {
		t.Run(name, func(t *testing.T) {
			job := &hydra.Job{Name: "train", LogFile: filepath.Join(t.TempDir(), "train.log"), Verbose: verbose}
			var console strings.Builder
			log, file, err := job.OpenLog(&console)
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("quiet")
			log.Info("epoch 1/5", "loss", 0.5, "dir", "a b", "empty", "", slog.Group("g", "x", 1))
			log.With("run", 7).WithGroup("h").Warn("careful", "y", true, slog.Attr{})
			log.Error("two\nlines")
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			want := "[TIME][train][INFO] - epoch 1/5 loss=0.5 dir=\"a b\" empty=\"\" g.x=1\n" +
				"[TIME][train][WARNING] - careful run=7 h.y=true\n"
			if verbose {
				want = "[TIME][train][DEBUG] - quiet\n" + want
			}
			timeless := func(text string) string {
				return regexp.MustCompile(`\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]`).ReplaceAllString(text, "[TIME]")
			}
			if diff := cmp.Diff(want, timeless(console.String())); diff != "" {
				t.Errorf("console (-want +got):\n%s", diff)
			}
			written, err := os.ReadFile(job.LogFile)
			want += "[TIME][train][ERROR] - two\nlines\n"
			if diff := cmp.Diff(want, timeless(string(written))); err != nil || diff != "" {
				t.Errorf("%v, file (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestOpenLogFails(t *testing.T) {
	job := &hydra.Job{LogFile: filepath.Join(t.TempDir(), "none", "train.log")}
	if _, _, err := job.OpenLog(io.Discard); err == nil {
		t.Error("no error for a folder that does not exist")
	}
}
