package mlflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// abandon leaves a recorder as kill -9 does: what it has written to its
// journal is there, and nobody holds the lock.
func abandon(t testing.TB, rec *Recorder) {
	t.Helper()
	rec.cancel()
	<-rec.done
	if err := rec.journal.close(); err != nil {
		t.Fatal(err)
	}
}

// logSteps records what a training does in some of its steps. Time goes on,
// also if it does the same steps again.
func logSteps(t testing.TB, rec *Recorder, from, to int) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(rec.Log(Batch{Params: []Param{{"seed", "42"}}, Tags: []Tag{{"stage", "train"}}}))
	check(rec.LogInputs([]DatasetInput{{Name: "d", Digest: "x", Source: "{}", SourceType: "local"}}))
	for step := from; step < to; step++ {
		check(rec.Log(Batch{Metrics: []Metric{{"loss", float64(step), time.Now(), int64(step)}, {"val/f1", 1, time.Now(), int64(step)}}}))
		check(rec.LogArtifact(fmt.Sprintf("notes/%d.txt", step), strings.NewReader(fmt.Sprint("note ", step))))
	}
}

// TestResume goes on with a run, whatever became of the process that began it.
// Every step is recorded again, and each is there once.
func TestResume(t *testing.T) {
	const half, all = 6, 12
	for name, leave := range map[string]func(t *testing.T, s *faulty, rec *Recorder){
		"killed at once": func(t *testing.T, _ *faulty, rec *Recorder) { abandon(t, rec) },
		"killed": func(t *testing.T, _ *faulty, rec *Recorder) {
			logSteps(t, rec, 0, half)
			abandon(t, rec)
		},
		"killed while the store was away": func(t *testing.T, s *faulty, rec *Recorder) {
			logSteps(t, rec, 0, half/2)
			s.set(away, nil)
			logSteps(t, rec, half/2, half)
			abandon(t, rec)
		},
		"ended while the store was away": func(t *testing.T, s *faulty, rec *Recorder) {
			s.set(away, nil)
			logSteps(t, rec, 0, half)
			if err := rec.End(t.Context(), Killed, time.Now()); !errors.As(err, new(*SpooledError)) {
				t.Fatalf("End: %v, want a SpooledError", err)
			}
		},
		"ended": func(t *testing.T, _ *faulty, rec *Recorder) {
			logSteps(t, rec, 0, half)
			if err := rec.End(t.Context(), Failed, time.Now()); err != nil {
				t.Fatal(err)
			}
		},
		"finished": func(t *testing.T, _ *faulty, rec *Recorder) {
			logSteps(t, rec, 0, all)
			if err := rec.End(t.Context(), Finished, time.Now()); err != nil {
				t.Fatal(err)
			}
		},
		"killed and ended": func(t *testing.T, s *faulty, rec *Recorder) {
			logSteps(t, rec, 0, half)
			abandon(t, rec)
			rec, err := Resume(t.Context(), s, rec.RunID(), rec.opts)
			if err != nil {
				t.Fatal(err)
			}
			s.set(away, nil)
			logSteps(t, rec, half-2, half+2)
			if err := rec.End(t.Context(), Killed, time.Now()); !errors.As(err, new(*SpooledError)) {
				t.Fatalf("End: %v, want a SpooledError", err)
			}
		},
		"resumed while the store was away": func(t *testing.T, s *faulty, rec *Recorder) {
			logSteps(t, rec, 0, half)
			s.set(away, nil)
			logSteps(t, rec, half, half+1)
			abandon(t, rec)
			if _, err := Resume(t.Context(), s, rec.RunID(), rec.opts); !errors.Is(err, errAway) || errors.Is(err, ErrRejected) {
				t.Fatalf("Resume: %v, want the store's error", err)
			}
		},
		"the store went away while the rest was sent": func(t *testing.T, s *faulty, rec *Recorder) {
			s.set(away, nil)
			logSteps(t, rec, 0, half)
			abandon(t, rec)
			sent := 0
			s.set(func(op string) error {
				if strings.HasPrefix(op, "artifact") {
					sent++
				}
				if sent > half/2 {
					return errAway
				}
				return nil
			}, nil)
			if _, err := Resume(t.Context(), s, rec.RunID(), rec.opts); !errors.Is(err, errAway) {
				t.Fatalf("Resume: %v, want the store's error", err)
			}
		},
	} {
		for kind, open := range stores(t) {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				s := &faulty{Store: open(t)}
				dir := t.TempDir()
				first := startRecorder(t, s, RecorderOptions{Dir: dir, Patience: 50 * time.Millisecond})
				id := first.RunID()
				leave(t, s, first)
				s.set(nil, nil)

				var log bytes.Buffer
				rec, err := Resume(ctx, s, id, RecorderOptions{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				if run, err := s.Run(ctx, id); err != nil || run.Status != Running {
					t.Errorf("status %s, %v after Resume; want RUNNING", run.Status, err)
				}
				logSteps(t, rec, 0, all)
				if err := rec.End(ctx, Finished, time.Now()); err != nil {
					t.Fatal(err)
				}
				run, err := s.Run(ctx, id)
				if err != nil {
					t.Fatal(err)
				}
				if run.Status != Finished || run.End.IsZero() || run.Start.UnixMilli() != start.UnixMilli() || run.Tags["stage"] != "train" || len(run.Inputs) != 1 || run.Params["seed"] != "42" {
					t.Errorf("%+v", run)
				}
				for _, key := range []string{"loss", "val/f1"} {
					history, err := s.MetricHistory(ctx, id, key)
					var got, want []int64
					for _, m := range history {
						got = append(got, m.Step)
					}
					for step := range int64(all) {
						want = append(want, step)
					}
					if diff := cmp.Diff(want, got); err != nil || diff != "" {
						t.Errorf("steps of %s: %v (-want +got)\n%s", key, err, diff)
					}
				}
				for step := range all {
					r, err := s.OpenArtifact(ctx, run, fmt.Sprintf("notes/%d.txt", step))
					if err != nil {
						t.Error(err)
						continue
					}
					r.Close()
				}
				if runs, err := s.SearchRuns(ctx, run.ExperimentID, Tag{TagRunName, "recorded"}); err != nil || len(runs) != 1 {
					t.Errorf("%d runs, %v; want one", len(runs), err)
				}
				if _, err := os.Stat(filepath.Join(dir, journalDir)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("a journal is left: %v", err)
				}
			})
		}
	}
}

// TestResumeParam: a parameter that has another value now does not disturb.
func TestResumeParam(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})
	rec := startRecorder(t, s, RecorderOptions{Dir: dir})
	if err := rec.Log(Batch{Params: []Param{{"threads", "1"}}}); err != nil {
		t.Fatal(err)
	}
	abandon(t, rec)
	var log bytes.Buffer
	rec, err := Resume(t.Context(), s, rec.RunID(), RecorderOptions{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rec.Log(Batch{Params: []Param{{"threads", "2"}, {"new", "x"}}}), rec.End(t.Context(), Finished, at(9))); err != nil {
		t.Fatal(err)
	}
	run, err := s.Run(t.Context(), rec.RunID())
	if diff := cmp.Diff(map[string]string{"threads": "1", "new": "x"}, run.Params); err != nil || diff != "" {
		t.Errorf("params: %v (-want +got)\n%s", err, diff)
	}
	if !strings.Contains(log.String(), "param=threads kept=1 now=2") {
		t.Errorf("log: %s", &log)
	}
}

// remove deletes a run as MLflow does: it stays in the store, out of sight.
func remove(t *testing.T, s Store, id string) {
	t.Helper()
	var err error
	switch s := s.(type) {
	case *sqliteStore:
		_, err = s.db.Exec("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", id)
	case *fileStore:
		var dir string
		if dir, _, err = s.find("delete", id); err == nil {
			err = s.updateMeta(dir, map[string]any{"lifecycle_stage": "deleted"})
		}
	case *restStore:
		err = s.call(t.Context(), "delete run", http.MethodPost, "runs/delete", nil, map[string]any{"run_id": id}, nil, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestResumeRefuses: a run that cannot be resumed is left as it is, and so is
// what waits to be sent.
func TestResumeRefuses(t *testing.T) {
	for kind, open := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := open(t)
			dir := t.TempDir()
			for _, id := range []string{strings.Repeat("0", 32), "run1", "pending-x"} {
				if _, err := Resume(ctx, s, id, RecorderOptions{Dir: dir}); !errors.Is(err, ErrRejected) {
					t.Errorf("Resume of %s: %v, want ErrRejected", id, err)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, journalDir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a journal is left: %v", err)
			}
			rec := startRecorder(t, s, RecorderOptions{Dir: dir})
			if _, err := Resume(ctx, s, rec.RunID(), RecorderOptions{Dir: dir}); !errors.Is(err, ErrInUse) {
				t.Errorf("Resume of a run that is being recorded: %v, want ErrInUse", err)
			}
			abandon(t, rec)
			remove(t, s, rec.RunID())
			if _, err := Resume(ctx, s, rec.RunID(), RecorderOptions{Dir: dir}); !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), "deleted") && !strings.Contains(err.Error(), "active") {
				t.Errorf("Resume of a deleted run: %v, want ErrRejected", err)
			}
			if left, err := journals(dir); err != nil || len(left) != 1 {
				t.Errorf("journals %v, %v; want the first one", left, err)
			}
		})
	}
}

// TestResumePending goes on with a run that the store had not answered for.
func TestResumePending(t *testing.T) {
	for kind, open := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := &faulty{Store: open(t)}
			dir := t.TempDir()
			s.set(away, nil)
			first := startRecorder(t, s, RecorderOptions{Dir: dir, Deferred: true})
			logSteps(t, first, 0, 3)
			abandon(t, first)
			s.set(nil, nil)
			rec, err := Resume(ctx, s, first.RunID(), RecorderOptions{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			logSteps(t, rec, 0, 5)
			if err := rec.End(ctx, Finished, time.Now()); err != nil {
				t.Fatal(err)
			}
			if history, err := s.MetricHistory(ctx, rec.RunID(), "loss"); err != nil || len(history) != 5 {
				t.Errorf("%d points, %v; want 5", len(history), err)
			}
		})
	}
}

// TestResumeSystemMetrics: they go on where they were.
func TestResumeSystemMetrics(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})
	rec := startRecorder(t, s, RecorderOptions{Dir: dir})
	for step := range 4 {
		if err := rec.Log(Batch{Metrics: []Metric{{"system/cpu_utilization_percentage", 1, at(step), int64(step)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := rec.SystemStep(); got != 0 {
		t.Errorf("SystemStep() = %d of a new run, want 0", got)
	}
	abandon(t, rec)
	rec, err := Resume(t.Context(), s, rec.RunID(), RecorderOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := rec.SystemStep(); got != 4 {
		t.Errorf("SystemStep() = %d, want 4", got)
	}
	if err := rec.End(t.Context(), Finished, at(9)); err != nil {
		t.Fatal(err)
	}
}

// TestSweepJournals removes what a killed process left half made.
func TestSweepJournals(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, journalDir)
	for _, name := range []string{"half.new", "gone/artifact", "kept.rejected.jsonl", "busy.new"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	busy, err := lockJournal(filepath.Join(folder, "busy.new"), 0)
	if err != nil {
		t.Fatal(err)
	}
	sync := func(want ...string) {
		t.Helper()
		if runs, err := Sync(t.Context(), dir, func(context.Context, string) (Store, error) { return nil, ErrSkip }, nil); err != nil || len(runs) != 0 {
			t.Errorf("Sync: %v, %v", runs, err)
		}
		entries, err := os.ReadDir(folder)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("left: %v (-want +got)\n%s", err, diff)
		}
	}
	sync("busy.new", "kept.rejected.jsonl")
	if err := busy.close(); err != nil {
		t.Fatal(err)
	}
	sync("kept.rejected.jsonl")
	if err := os.Remove(filepath.Join(folder, "kept.rejected.jsonl")); err != nil {
		t.Fatal(err)
	}
	sync()
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}
