package mlflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// faulty fails before or after it has passed a call on. A call that fails
// after it was passed on is one whose answer was lost.
type faulty struct {
	Store
	mu     sync.Mutex
	before func(op string) error
	after  func(op string) error
	calls  []string
}

func (f *faulty) do(op string, call func() error) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.calls = append(f.calls, op)
	f.mu.Unlock()
	if before != nil {
		if err := before(op); err != nil {
			return err
		}
	}
	if err := call(); err != nil {
		return err
	}
	if after != nil {
		return after(op)
	}
	return nil
}

func (f *faulty) set(before, after func(string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faulty) CreateRun(ctx context.Context, spec RunSpec) (run Run, err error) {
	err = f.do("create", func() error { run, err = f.Store.CreateRun(ctx, spec); return err })
	if err != nil {
		return Run{}, err
	}
	return run, nil
}

func (f *faulty) FindRun(ctx context.Context, spec RunSpec) (run Run, err error) {
	err = f.do("find", func() error { run, err = f.Store.FindRun(ctx, spec); return err })
	return run, err
}

func (f *faulty) LogBatch(ctx context.Context, id string, b Batch) error {
	return f.do("batch", func() error { return f.Store.LogBatch(ctx, id, b) })
}

func (f *faulty) LogInputs(ctx context.Context, id string, in []DatasetInput) error {
	return f.do("inputs", func() error { return f.Store.LogInputs(ctx, id, in) })
}

func (f *faulty) UpdateRun(ctx context.Context, id string, s Status, end time.Time) error {
	return f.do("update", func() error { return f.Store.UpdateRun(ctx, id, s, end) })
}

func (f *faulty) PutArtifact(ctx context.Context, run Run, p string, c *io.SectionReader) error {
	return f.do("artifact "+p, func() error { return f.Store.PutArtifact(ctx, run, p, c) })
}

var errAway = errors.New("connection refused")

func away(string) error { return errAway }

// record runs one recorder against store: points of two metrics, parameters,
// tags, an input and artifacts. During steps in gap the caller may break things.
type recording struct {
	dir     string
	metrics map[string][]Metric
}

const recordedSteps = 60

func startRecorder(t testing.TB, s Store, opts RecorderOptions) *Recorder {
	t.Helper()
	exp, err := s.EnsureExperiment(context.Background(), "recorded")
	if err != nil {
		t.Fatal(err)
	}
	if opts.Patience == 0 {
		opts.Patience = 10 * time.Second
	}
	if opts.MaxPause == 0 {
		opts.MaxPause = 5 * time.Millisecond
	}
	rec, err := Start(context.Background(), s, RunSpec{ExperimentID: exp, Name: "recorded", User: "ada", Start: start}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// logAll records everything that a training does; at is called before each step.
func logAll(t testing.TB, rec *Recorder, at func(step int)) recording {
	t.Helper()
	r := recording{dir: rec.opts.Dir, metrics: map[string][]Metric{}}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(rec.Log(Batch{Params: []Param{{"seed", "42"}, {"train.epochs", "5"}}, Tags: []Tag{{"stage", "train"}}}))
	check(rec.LogInputs([]DatasetInput{{Name: "d", Digest: "x", Source: "{}", SourceType: "local"}}))
	for step := range recordedSteps {
		at(step)
		var b Batch
		for _, key := range []string{"train_loss", "val/f1"} {
			m := Metric{key, rand.Float64(), start.Add(time.Duration(step) * time.Second), int64(step)}
			b.Metrics = append(b.Metrics, m)
			r.metrics[key] = append(r.metrics[key], m)
		}
		check(rec.Log(b))
		if step%20 == 10 {
			check(rec.LogArtifact(fmt.Sprintf("notes/%d.txt", step), strings.NewReader(fmt.Sprint("note ", step))))
		}
	}
	model := filepath.Join(r.dir, "best_model")
	check(os.MkdirAll(filepath.Join(model, "sub"), 0o777))
	check(os.WriteFile(filepath.Join(model, "weights"), bytes.Repeat([]byte("w"), 100_000), 0o666))
	check(os.WriteFile(filepath.Join(model, "sub", "config.json"), []byte("{}"), 0o666))
	check(rec.LogArtifacts("model", model))
	return r
}

// verify compares the run with what was recorded, point by point.
func (r recording) verify(t testing.TB, s Store, id string, status Status) {
	t.Helper()
	ctx := context.Background()
	run, err := s.Run(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if run.Status != status || run.End.IsZero() {
		t.Errorf("status %s, end %v; want %s", run.Status, run.End, status)
	}
	if diff := cmp.Diff(map[string]string{"seed": "42", "train.epochs": "5"}, run.Params); diff != "" {
		t.Errorf("params (-want +got)\n%s", diff)
	}
	if run.Tags["stage"] != "train" || len(run.Inputs) != 1 {
		t.Errorf("tags %v, inputs %v", run.Tags, run.Inputs)
	}
	for key, want := range r.metrics {
		got, err := s.MetricHistory(ctx, id, key)
		if diff := cmp.Diff(want, got, cmpRun); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", key, err, diff)
		}
		if diff := cmp.Diff(want[len(want)-1], run.Metrics[key], cmpRun); diff != "" {
			t.Errorf("last %s (-want +got)\n%s", key, diff)
		}
	}
	dir := t.TempDir()
	if _, err := Download(ctx, s, run, "", dir, Limits{}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"notes/10.txt": "note 10", "notes/50.txt": "note 50", "model/weights": strings.Repeat("w", 100_000), "model/sub/config.json": "{}"} {
		if got, err := os.ReadFile(filepath.Join(dir, p)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", p, len(got), err)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, journalDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal is still there: %v", err)
	}
}

func TestRecorder(t *testing.T) {
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			rec := startRecorder(t, s, RecorderOptions{Dir: t.TempDir()})
			want := logAll(t, rec, func(int) {})
			if err := rec.End(t.Context(), Finished, at(1000)); err != nil {
				t.Fatal(err)
			}
			want.verify(t, s, rec.RunID(), Finished)
			if err := rec.Log(Batch{Tags: []Tag{{"late", "x"}}}); err == nil {
				t.Error("Log after End succeeded")
			}
			if err := rec.End(t.Context(), Finished, at(1000)); err == nil {
				t.Error("End after End succeeded")
			}
		})
	}
}

// TestRecorderSurvivesFaults lets every kind of call fail at random, before and
// after it had its effect.
func TestRecorderSurvivesFaults(t *testing.T) {
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &faulty{Store: open(t)}
			random := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			sometimes := func(string) error {
				mu.Lock()
				defer mu.Unlock()
				if random.Float64() < 0.3 {
					return errAway
				}
				return nil
			}
			rec := startRecorder(t, s, RecorderOptions{Dir: t.TempDir()})
			s.set(sometimes, sometimes)
			want := logAll(t, rec, func(int) { time.Sleep(time.Millisecond) })
			if err := rec.End(t.Context(), Finished, at(1000)); err != nil {
				t.Fatal(err)
			}
			s.set(nil, nil)
			want.verify(t, s, rec.RunID(), Finished)
		})
	}
}

// TestRecorderStoreAway takes the store away in mid-run: it comes back before
// the end, or never, so that Sync delivers.
func TestRecorderStoreAway(t *testing.T) {
	for _, c := range []struct {
		name   string
		backAt int
	}{{"comes back", 40}, {"never comes back", -1}} {
		for name, open := range stores(t) {
			t.Run(c.name+" "+name, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				s := &faulty{Store: open(t)}
				var log bytes.Buffer
				rec := startRecorder(t, s, RecorderOptions{Dir: t.TempDir(), Patience: 200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				want := logAll(t, rec, func(step int) {
					switch step {
					case 15:
						s.set(away, nil)
					case c.backAt:
						s.set(nil, nil)
					}
				})
				err := rec.End(ctx, Finished, at(1000))
				if c.backAt < 0 {
					var spooled *SpooledError
					if !errors.As(err, &spooled) || !errors.Is(err, errAway) {
						t.Fatalf("End: %v, want a SpooledError", err)
					}
					if !strings.Contains(log.String(), "does not answer") {
						t.Errorf("log: %s", log.String())
					}
					// The store is still away: nothing changes.
					opener := func(context.Context, string) (Store, error) { return noClose{s}, nil }
					if _, err := Sync(ctx, want.dir, opener, nil); !errors.As(err, &spooled) {
						t.Fatalf("Sync: %v, want a SpooledError", err)
					}
					s.set(nil, nil)
					runs, err := Sync(ctx, want.dir, opener, nil)
					if diff := cmp.Diff([]SyncedRun{{ID: rec.RunID(), Name: "recorded", URI: s.URI()}}, runs); err != nil || diff != "" {
						t.Fatalf("Sync: %v (-want +got)\n%s", err, diff)
					}
				} else if err != nil {
					t.Fatal(err)
				}
				want.verify(t, s, rec.RunID(), Finished)
			})
		}
	}
}

type noClose struct{ Store }

func (noClose) Close() error { return nil }

func TestStartNeedsTheStore(t *testing.T) {
	dir := t.TempDir()
	s := &faulty{Store: mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})}
	s.set(away, nil)
	if _, err := Start(t.Context(), s, RunSpec{ExperimentID: "0", Start: start}, RecorderOptions{Dir: dir}); !errors.Is(err, errAway) {
		t.Errorf("%v, want the store's error", err)
	}
	if _, err := os.Stat(filepath.Join(dir, journalDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a journal was left behind: %v", err)
	}
	s.set(nil, nil)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), s, RunSpec{ExperimentID: "0", Start: start}, RecorderOptions{Dir: file}); err == nil {
		t.Error("Start succeeded without a folder for the journal")
	}
	if runs, err := s.SearchRuns(t.Context(), "0", Tag{TagRunName, ""}); err != nil || len(runs) != 0 {
		t.Errorf("runs were left behind: %v, %v", runs, err)
	}
}

// TestDeferredStart begins a nested run while the store is away; the first
// attempt has created it, but its answer was lost.
func TestDeferredStart(t *testing.T) {
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &faulty{Store: open(t)}
			lost := func(op string) error {
				if op == "create" {
					s.set(away, nil)
					return errAway
				}
				return nil
			}
			s.set(nil, lost)
			rec := startRecorder(t, s, RecorderOptions{Dir: t.TempDir(), Deferred: true})
			if !strings.HasPrefix(rec.RunID(), "pending-") {
				t.Errorf("ID %q", rec.RunID())
			}
			want := logAll(t, rec, func(step int) {
				if step == 30 {
					s.set(nil, nil)
				}
			})
			if err := rec.End(t.Context(), Failed, at(1000)); err != nil {
				t.Fatal(err)
			}
			want.verify(t, s, rec.RunID(), Failed)
			exp, err := s.EnsureExperiment(t.Context(), "recorded")
			if err != nil {
				t.Fatal(err)
			}
			if runs, err := s.SearchRuns(t.Context(), exp, Tag{TagRunName, "recorded"}); err != nil || len(runs) != 1 {
				t.Errorf("%d runs, %v; want one", len(runs), err)
			}
		})
	}
}

// TestRejectedRecords sends a parameter that the store refuses: the rest
// arrives, and what was refused is kept.
func TestRejectedRecords(t *testing.T) {
	dir := t.TempDir()
	s := &faulty{Store: mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})}
	rec := startRecorder(t, s, RecorderOptions{Dir: dir})
	s.set(away, nil)
	for i := range 5 {
		if err := rec.Log(Batch{Params: []Param{{fmt.Sprint("p", i), "x"}}, Metrics: []Metric{{"m", 1, at(i), int64(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := rec.Log(Batch{Params: []Param{{"p3", "other"}}}); err != nil {
		t.Fatal(err)
	}
	if err := rec.Log(Batch{Tags: []Tag{{"last", "x"}}}); err != nil {
		t.Fatal(err)
	}
	s.set(nil, nil)
	err := rec.End(t.Context(), Finished, at(10))
	var rejected *RejectedError
	if !errors.As(err, &rejected) || len(rejected.Errors) != 1 {
		t.Fatalf("End: %v, want a RejectedError of one record", err)
	}
	kept, err := os.ReadFile(rejected.File)
	if err != nil || !strings.Contains(string(kept), `"other"`) {
		t.Errorf("kept %q, %v", kept, err)
	}
	run, err := s.Run(t.Context(), rec.RunID())
	if err != nil || run.Status != Finished || len(run.Params) != 5 || run.Params["p3"] != "x" || run.Tags["last"] != "x" {
		t.Errorf("%+v, %v", run, err)
	}
	if err := rec.Log(Batch{Params: []Param{{"bad,key", ""}}}); !errors.Is(err, ErrRejected) {
		t.Errorf("a bad key: %v, want ErrRejected at once", err)
	}
}

// TestSyncWrongStore gives Sync a store that does not have the run: nothing is
// thrown away.
func TestSyncWrongStore(t *testing.T) {
	dir := t.TempDir()
	right := &faulty{Store: mustOpen(t, "sqlite:///"+filepath.Join(dir, "right.db"), Options{ArtifactRoot: dir})}
	wrong := mustOpen(t, "sqlite:///"+filepath.Join(dir, "wrong.db"), Options{ArtifactRoot: dir})
	rec := startRecorder(t, right, RecorderOptions{Dir: dir, Patience: time.Millisecond})
	right.set(away, nil)
	want := logAll(t, rec, func(int) {})
	if err := rec.End(t.Context(), Finished, at(1000)); !errors.As(err, new(*SpooledError)) {
		t.Fatalf("End: %v", err)
	}
	right.set(nil, nil)
	_, err := Sync(t.Context(), dir, func(context.Context, string) (Store, error) { return noClose{wrong}, nil }, nil)
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("Sync to the wrong store: %v, want ErrNotFound", err)
	}
	if _, err := Sync(t.Context(), dir, func(context.Context, string) (Store, error) { return noClose{right}, nil }, nil); err != nil {
		t.Fatal(err)
	}
	want.verify(t, right, rec.RunID(), Finished)
}

// TestEndStopsWithItsContext: a store that accepts calls and never answers must
// not hold up the end of a run that was told to stop.
func TestEndStopsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})
	hung := &hungStore{Store: s}
	rec := startRecorder(t, hung, RecorderOptions{Dir: dir, Patience: time.Hour})
	if err := rec.Log(Batch{Tags: []Tag{{"a", "b"}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := rec.End(ctx, Killed, at(1)); !errors.As(err, new(*SpooledError)) {
		t.Errorf("End: %v, want a SpooledError", err)
	}
	hung2 := startRecorder(t, hung, RecorderOptions{Dir: t.TempDir(), Patience: 10 * time.Millisecond})
	if err := hung2.Log(Batch{Tags: []Tag{{"a", "b"}}}); err != nil {
		t.Fatal(err)
	}
	if err := hung2.End(t.Context(), Killed, at(1)); !errors.As(err, new(*SpooledError)) {
		t.Errorf("End: %v, want a SpooledError", err)
	}
}

type hungStore struct{ Store }

func (hungStore) LogBatch(ctx context.Context, _ string, _ Batch) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestKilledProcess kills a process that records a run. The next one finds what
// it had recorded and marks the run as KILLED.
func TestKilledProcess(t *testing.T) {
	const env = "CRITERIA_TEST_RECORD_IN"
	if dir := os.Getenv(env); dir != "" {
		s, err := Open(context.Background(), "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: filepath.Join(dir, "mlruns")})
		if err != nil {
			t.Fatal(err)
		}
		f := &faulty{Store: s}
		rec := startRecorder(t, f, RecorderOptions{Dir: filepath.Join(dir, "out")})
		f.set(away, nil) // so that all of it waits in the journal
		logAll(t, rec, func(int) {})
		fmt.Println("recorded", rec.RunID())
		select {} // until killed
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var id string
	if _, err := fmt.Fscanf(out, "recorded %s\n", &id); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{})
	opener := func(context.Context, string) (Store, error) { return noClose{s}, nil }
	if runs, err := Sync(t.Context(), filepath.Join(dir, "out"), opener, nil); err != nil || len(runs) != 0 {
		t.Errorf("Sync took a run that is being recorded: %v, %v", runs, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	runs, err := Sync(t.Context(), filepath.Join(dir, "out"), opener, nil)
	if diff := cmp.Diff([]SyncedRun{{ID: id, Name: "recorded", URI: s.URI(), Killed: true}}, runs); err != nil || diff != "" {
		t.Fatalf("Sync: %v (-want +got)\n%s", err, diff)
	}
	run, err := s.Run(t.Context(), id)
	if err != nil || run.Status != Killed || !run.End.Equal(at(recordedSteps-1)) {
		t.Errorf("status %s, end %v, %v; want KILLED at the time of the last point", run.Status, run.End, err)
	}
	if history, err := s.MetricHistory(t.Context(), id, "train_loss"); err != nil || len(history) != recordedSteps {
		t.Errorf("%d points, %v", len(history), err)
	}
}

// TestJournalKeepsWholeRecords cuts a journal at every length: what was whole
// is read, and nothing makes it fail.
func TestJournalKeepsWholeRecords(t *testing.T) {
	dir := t.TempDir()
	j, err := createJournal(dir, runRecord{URI: "sqlite:///x.db", Spec: RunSpec{Name: "n", Start: start}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.appendCreated(Run{ID: "abc", ArtifactURI: "/x"}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := j.append(record{Batch: toBatchRecord(Batch{Metrics: []Metric{{"m", 1, at(i), int64(i)}}})}); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		path := filepath.Join(t.TempDir(), "cut.jsonl")
		if err := os.WriteFile(path, whole[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		j, state, err := openJournal(path)
		lines := bytes.Count(whole[:n], []byte("\n"))
		if (err == nil) != (lines >= 2) {
			t.Fatalf("%d bytes, %d lines: %v", n, lines, err)
		}
		if err != nil {
			continue
		}
		if wantEnd := int64(bytes.LastIndexByte(whole[:n], '\n') + 1); j.end != wantEnd {
			t.Errorf("%d bytes: ends at %d, want %d", n, j.end, wantEnd)
		}
		if (state.created != nil) != (lines >= 3) {
			t.Errorf("%d bytes: created %v", n, state.created)
		}
		if err := j.close(); err != nil {
			t.Error(err)
		}
	}
}

// TestJournalIsEmptied logs so much that the journal would grow without bound.
func TestJournalIsEmptied(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})
	rec := startRecorder(t, s, RecorderOptions{Dir: dir})
	note := strings.Repeat("x", 7000)
	for i := range 1000 {
		if err := rec.Log(Batch{Tags: []Tag{{"note", note + fmt.Sprint(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		rec.journal.mu.Lock()
		end, base := rec.journal.end, rec.journal.base
		rec.journal.mu.Unlock()
		if end == base {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the journal still has %d bytes", end)
		}
		time.Sleep(time.Millisecond)
	}
	if err := rec.Log(Batch{Tags: []Tag{{"after", "x"}}}); err != nil {
		t.Fatal(err)
	}
	if err := rec.End(t.Context(), Finished, at(1)); err != nil {
		t.Fatal(err)
	}
	run, err := s.Run(t.Context(), rec.RunID())
	if err != nil || run.Tags["note"] != note+"999" || run.Tags["after"] != "x" || run.Status != Finished {
		t.Errorf("%s, %v", run.Status, err)
	}
}

// BenchmarkRecorderLog is what logging costs the training loop: ten metrics at
// once. A training step on a CPU takes hundreds of milliseconds.
func BenchmarkRecorderLog(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, "sqlite:///"+filepath.Join(dir, "x.db"), Options{ArtifactRoot: dir})
	rec := startRecorder(b, s, RecorderOptions{Dir: dir})
	step := 0
	for b.Loop() {
		batch := Batch{}
		for i := range 10 {
			batch.Metrics = append(batch.Metrics, Metric{fmt.Sprint("metric_", i), float64(step), start, int64(step)})
		}
		if err := rec.Log(batch); err != nil {
			b.Fatal(err)
		}
		step++
	}
	b.StopTimer()
	if err := rec.End(context.Background(), Finished, at(1)); err != nil {
		b.Fatal(err)
	}
}
