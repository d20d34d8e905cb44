package mlflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"math"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
)

const (
	user, password = "criteria", "a password of twenty"
)

func credentials() []string {
	return []string{"MLFLOW_TRACKING_USERNAME=" + user, "MLFLOW_TRACKING_PASSWORD=" + password}
}

// TestRealMLflow writes runs of the three shapes into every kind of store and
// lets MLflow's own client judge them, and reads what that client wrote.
func TestRealMLflow(t *testing.T) {
	mlflowtest.Python(t)
	dir := t.TempDir()
	t.Chdir(dir) // artifacts of the file and SQLite stores belong to this test
	mkdir := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		return path
	}
	server := mlflowtest.StartServer(t, mlflowtest.ServerOptions{Dir: mkdir("server"), Prefix: "/team/ml"})
	guarded := mlflowtest.StartServer(t, mlflowtest.ServerOptions{Dir: mkdir("guarded"), User: user, Password: password})

	uris := []string{
		"sqlite:///ours.db", filepath.Join(dir, "files"), "file://" + filepath.Join(dir, "uri"),
		"sqlite:///" + filepath.Join(dir, "theirs.db"), filepath.Join(dir, "their files"), server.URL, guarded.URL,
	}
	var targets []mlflowtest.Target // all but the first three, which are ours alone
	for _, uri := range uris[3:] {
		target := mlflowtest.Target{URI: uri}
		if strings.HasPrefix(uri, "sqlite:") {
			target.Artifacts = filepath.Join(dir, "theirs")
		}
		targets = append(targets, target)
	}
	open := func(uri string) Store {
		return mustOpen(t, uri, Options{Getenv: quick("MLFLOW_TRACKING_USERNAME", user, "MLFLOW_TRACKING_PASSWORD", password)})
	}
	guarded.Wait(t)
	server.Wait(t)

	t.Run("their runs are read", func(t *testing.T) {
		for _, w := range mlflowtest.Write(t, credentials(), targets...) {
			readTheirs(t, open(w.URI), w)
		}
	})

	t.Run("our runs pass", func(t *testing.T) {
		var checks []mlflowtest.Check
		for _, uri := range uris {
			checks = append(checks, writeShapes(t, open(uri), uri)...)
		}
		mlflowtest.Judge(t, credentials(), checks...)
	})

	t.Run("wrong credentials", func(t *testing.T) {
		for name, env := range map[string]func(string) string{
			"none": quick(), "password": quick("MLFLOW_TRACKING_USERNAME", user, "MLFLOW_TRACKING_PASSWORD", "wr0ng-secret"),
		} {
			s, err := Open(t.Context(), guarded.URL, Options{Getenv: env})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "MLFLOW_TRACKING_USERNAME") || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v; want an error that names the variable and keeps the secret", name, err)
			}
		}
	})

	t.Run("two processes beside a server", func(t *testing.T) {
		writeBesideServer(t, filepath.Join(dir, "server", "mlflow.db"), server)
	})

	t.Run("behind a bad network", func(t *testing.T) {
		target, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		target.Path = "" // the prefix is in the requests
		recordThroughChaos(t, httputil.NewSingleHostReverseProxy(target), "/team/ml")
	})

	t.Run("server killed", func(t *testing.T) {
		s := mustOpen(t, server.URL, Options{Getenv: quick("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")})
		rec := startRecorder(t, s, RecorderOptions{Dir: t.TempDir(), Patience: 3 * time.Minute, MaxPause: 200 * time.Millisecond})
		want := logAll(t, rec, func(step int) {
			time.Sleep(5 * time.Millisecond)
			switch {
			case step == 20:
				server.Kill(t)
			case step == 40:
				server.Start(t)
			case step > 20 && step < 40: // the training goes on for 30 s
				time.Sleep(30 * time.Second / 19)
			}
		})
		if err := rec.End(t.Context(), Finished, at(1000)); err != nil {
			t.Fatal(err)
		}
		want.verify(t, s, rec.RunID(), Finished)
	})
}

// writeShapes records one run of each kind: what the trainer, a study and a
// reproduction log.
func writeShapes(t *testing.T, s Store, uri string) []mlflowtest.Check {
	t.Helper()
	ctx := t.Context()
	exp, err := s.EnsureExperiment(ctx, "criteria shapes")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	record := func(name string, b Batch, more func(*Recorder, func(error))) string {
		t.Helper()
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %s: %v", uri, name, err)
			}
		}
		rec, err := Start(ctx, s, RunSpec{ExperimentID: exp, Name: name, User: "ada", Start: began, Tags: append(b.Tags, Tag{TagSourceName, "examples/train"}, Tag{TagSourceType, "LOCAL"})},
			RecorderOptions{Dir: t.TempDir()})
		check(err)
		check(rec.Log(Batch{Params: b.Params, Metrics: b.Metrics}))
		if more != nil {
			more(rec, check)
		}
		check(rec.End(ctx, Finished, time.Now()))
		return rec.RunID()
	}
	point := func(key string, value float64, step int) Metric {
		return Metric{key, value, began.Add(time.Duration(step) * time.Second), int64(step)}
	}
	lineage := func(stage string) []Tag {
		return []Tag{{"stage", stage}, {"git.commit", strings.Repeat("0af1", 10)}, {"git.branch", "main"}, {"git.dirty", "false"}, {"version.go", "1.26"}, {"data.hash.posts.csv", strings.Repeat("ab", 32)}}
	}

	const epochs = 3
	train := Batch{
		Params: []Param{{"train.seed", "42"}, {"train.learning_rate", "2e-05"}, {"model.checkpoint", "tiny"}, {"model.head.hidden_dims", "[256]"}, {"opt.use_amp", "True"}},
		Tags:   append(lineage("train"), Tag{TagNote, "Fine-tuning of *tiny*."}),
	}
	for epoch := 1; epoch <= epochs; epoch++ {
		for _, split := range []string{"train", "val"} {
			for _, score := range []string{"loss", "accuracy", "macro_f1", "weighted_f1"} {
				train.Metrics = append(train.Metrics, point(split+"_"+score, 0.3+float64(epoch)/10, epoch))
			}
		}
	}
	scores := []string{"accuracy", "macro_f1", "weighted_f1", "precision", "recall"}
	for _, score := range append(scores, "loss") {
		train.Metrics = append(train.Metrics, point("test_"+score, 0.7, epochs))
	}
	picture := pngBytes(t)
	trained := record("train-seed42", train, func(rec *Recorder, check func(error)) {
		var inputs []DatasetInput
		for _, split := range []string{"train", "val", "test"} {
			inputs = append(inputs, DatasetInput{Name: "sample", Digest: "digest of " + split, SourceType: "local", Source: `{"uri": "data"}`, Profile: `{"num_rows": 9}`, Tags: []Tag{{TagDataContext, split}}})
		}
		check(rec.LogInputs(inputs))
		check(rec.LogArtifact("config/config.yaml", strings.NewReader("train:\n  seed: 42\n")))
		model := t.TempDir()
		check(os.WriteFile(filepath.Join(model, "config.json"), []byte("{}"), 0o666))
		check(os.WriteFile(filepath.Join(model, "weights with space, 100%.bin"), bytes.Repeat([]byte{1}, 3<<20), 0o666))
		check(rec.LogArtifacts("model", model))
		check(rec.LogArtifact("confusion_matrix.png", bytes.NewReader(picture)))
		row := func(f1 float64, n int) string {
			return fmt.Sprintf(`{"precision": 0.8, "recall": 0.8, "f1-score": %v, "support": %d}`, f1, n)
		}
		check(rec.LogArtifact("classification_report.json", strings.NewReader(fmt.Sprintf(
			`{"0": %s, "1": %s, "accuracy": 0.8, "macro avg": %s, "weighted avg": %s}`, row(0.9, 20), row(0.7, 10), row(0.8, 30), row(0.83, 30)))))
	})

	const trials = 3
	study := record("study", Batch{
		Params:  []Param{{"n_trials", "3"}, {"pruner", "MedianPruner"}, {"sampler", "TPESampler"}},
		Tags:    append(lineage("hpo"), Tag{"study_name", "criteria"}),
		Metrics: []Metric{point("best_trial_number", 1, 0), point("best_trial_value", 0.8, 0)},
	}, func(rec *Recorder, check func(error)) {
		for i := range trials {
			trial := Batch{Params: []Param{{"learning_rate", "1e-05"}, {"batch_size", "8"}}, Tags: []Tag{{TagParentRun, rec.RunID()}, {"trial_number", fmt.Sprint(i)}}}
			status := "completed"
			if i == trials-1 {
				status = "pruned"
			}
			for epoch := 1; epoch <= epochs; epoch++ {
				for _, key := range []string{"train_loss", "val_loss", "val_macro_f1", "val_accuracy"} {
					trial.Metrics = append(trial.Metrics, point(key, 0.5, epoch))
				}
			}
			trial.Metrics = append(trial.Metrics, point("best_val_macro_f1", 0.6, epochs))
			record(fmt.Sprintf("trial-%d", i), trial, func(rec *Recorder, check func(error)) {
				check(rec.Log(Batch{Tags: []Tag{{"trial_status", status}}}))
			})
		}
		check(rec.LogArtifact("best_trial_config.yaml", strings.NewReader("train:\n  seed: 42\n")))
		check(rec.LogArtifact("optimization_history.png", bytes.NewReader(picture)))
		check(rec.LogArtifact("param_importances.png", bytes.NewReader(picture)))
	})

	again := Batch{
		Params: []Param{{"original_run_id", trained}, {"mode", "eval"}, {"tolerance", "0.005"}},
		Tags:   append(lineage("reproducibility"), Tag{"original_run_id", trained}),
	}
	for _, score := range scores {
		for _, prefix := range []string{"replayed", "original", "delta"} {
			again.Metrics = append(again.Metrics, point(prefix+"_test_"+score, 0.7, 0))
		}
	}
	reproduced := record("reproduce", again, func(rec *Recorder, check func(error)) {
		check(rec.Log(Batch{Tags: []Tag{{"reproducibility_status", "passed"}}}))
	})
	return []mlflowtest.Check{
		{URI: uri, Run: trained, Kind: "train", Epochs: epochs},
		{URI: uri, Run: study, Kind: "hpo", Trials: trials},
		{URI: uri, Run: reproduced, Kind: "reproduce"},
	}
}

func pngBytes(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 32, 32))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readTheirs compares what MLflow's client wrote with what our store reads.
func readTheirs(t *testing.T, s Store, w mlflowtest.Written) {
	t.Helper()
	ctx := t.Context()
	if id, err := s.EnsureExperiment(ctx, "written by Python"); err != nil || id != w.Experiment {
		t.Errorf("%s: experiment %q, %v; want %q", w.URI, id, err, w.Experiment)
	}
	run, err := s.Run(ctx, w.Run)
	if err != nil {
		t.Fatal(err)
	}
	want := Run{
		ID: w.Run, ExperimentID: w.Experiment, Name: "from Python", User: w.Tags[TagUser], Status: Finished,
		Start: fromMillis(w.Start), End: fromMillis(w.End), ArtifactURI: run.ArtifactURI, Params: w.Params, Tags: w.Tags,
		Metrics: map[string]Metric{}, Inputs: run.Inputs,
	}
	for key, points := range w.History {
		var history []Metric
		for _, p := range points {
			m := Metric{Key: key, Value: math.NaN(), Time: fromMillis(int64(*p[1])), Step: int64(*p[2])}
			if p[0] != nil {
				m.Value = *p[0]
			}
			history = append(history, m)
		}
		want.Metrics[key] = history[len(history)-1]
		got, err := s.MetricHistory(ctx, w.Run, key)
		if diff := cmp.Diff(history, got, cmpRun); err != nil || diff != "" {
			t.Errorf("%s: history of %s: %v (-want +got)\n%s", w.URI, key, err, diff)
		}
	}
	if diff := cmp.Diff(want, run, cmpRun); diff != "" {
		t.Errorf("%s: run (-want +got)\n%s", w.URI, diff)
	}
	if len(run.Inputs) != 1 || run.Inputs[0].Name != "posts" || run.Inputs[0].Digest != "d1ge57" || !slices.Contains(run.Inputs[0].Tags, Tag{TagDataContext, "train"}) {
		t.Errorf("%s: inputs %+v", w.URI, run.Inputs)
	}
	children, err := s.SearchRuns(ctx, w.Experiment, Tag{TagParentRun, w.Run})
	if err != nil || len(children) != 1 || children[0].ID != w.Child {
		t.Errorf("%s: children %v, %v; want %s", w.URI, children, err, w.Child)
	}
	dir := t.TempDir()
	if _, err := Download(ctx, s, run, "", dir, Limits{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		got[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if diff := cmp.Diff(w.Files, got); err != nil || diff != "" {
		t.Errorf("%s: artifacts: %v (-want +got)\n%s", w.URI, err, diff)
	}
}

const (
	envWriter      = "CRITERIA_TEST_WRITE_TO"
	writtenPoints  = 10_000
	writtenAtOnce  = 100
	writtenMetrics = 10
)

// TestWriterProcess is one of the processes of "two processes beside a server".
func TestWriterProcess(t *testing.T) {
	db := os.Getenv(envWriter)
	if db == "" {
		return // there is nothing to test by itself
	}
	ctx := context.Background()
	s, err := Open(ctx, "sqlite:///"+db, Options{ArtifactRoot: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	exp, err := s.EnsureExperiment(ctx, "beside a server") // both processes, at once
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.CreateRun(ctx, RunSpec{ExperimentID: exp, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < writtenPoints; i += writtenAtOnce {
		var b Batch
		for j := i; j < i+writtenAtOnce; j++ {
			b.Metrics = append(b.Metrics, Metric{fmt.Sprint("m", j%writtenMetrics), float64(j), at(j), int64(j)})
		}
		if err := s.LogBatch(ctx, run.ID, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.UpdateRun(ctx, run.ID, Finished, at(writtenPoints)); err != nil {
		t.Fatal(err)
	}
	fmt.Println("wrote", run.ID)
}

// writeBesideServer lets two processes write into the database of a running
// server, and asks the server for every point, while it is asked other things.
func writeBesideServer(t *testing.T, db string, server *mlflowtest.Server) {
	s := mustOpen(t, server.URL, Options{})
	type result struct {
		out []byte
		err error
	}
	results := make(chan result)
	for range 2 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWriterProcess$")
		cmd.Env = append(os.Environ(), envWriter+"="+db)
		go func() {
			out, err := cmd.CombinedOutput()
			results <- result{out, err}
		}()
	}
	var ids []string
	for len(ids) < 2 {
		select {
		case r := <-results:
			var id string
			if _, err := fmt.Sscanf(string(r.out), "wrote %s", &id); err != nil || r.err != nil {
				t.Fatalf("writer: %v\n%s", r.err, r.out)
			}
			ids = append(ids, id)
		default: // the server writes into the same file meanwhile
			if _, err := s.CreateRun(t.Context(), RunSpec{ExperimentID: "0", Start: time.Now()}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	for _, id := range ids {
		run, err := s.Run(t.Context(), id)
		if err != nil || run.Status != Finished {
			t.Fatalf("run %s: %s, %v", id, run.Status, err)
		}
		seen := map[int64]bool{}
		for i := range writtenMetrics {
			history, err := s.MetricHistory(t.Context(), id, fmt.Sprint("m", i))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range history {
				if seen[m.Step] || m.Value != float64(m.Step) || !m.Time.Equal(at(int(m.Step))) {
					t.Errorf("point %+v", m)
				}
				seen[m.Step] = true
			}
		}
		if len(seen) != writtenPoints {
			t.Errorf("run %s has %d points, want %d", id, len(seen), writtenPoints)
		}
	}
}

// TestNewestSchema: a database that a newer MLflow made and that this package
// cannot write is refused with the remedy.
func TestNewestSchema(t *testing.T) {
	dir := t.TempDir()
	uri := "sqlite:///" + filepath.Join(dir, "x.db")
	s := mustOpen(t, uri, Options{ArtifactRoot: dir}).(*sqliteStore)
	for _, change := range []struct{ name, sql, undo string }{
		{"unknown column", "ALTER TABLE metrics RENAME TO old; CREATE TABLE metrics (key, value, timestamp, run_uuid, step, is_nan, shard TEXT NOT NULL)", "DROP TABLE metrics; ALTER TABLE old RENAME TO metrics"},
		{"missing column", "ALTER TABLE runs RENAME COLUMN user_id TO owner", "ALTER TABLE runs RENAME COLUMN owner TO user_id"},
		{"missing table", "ALTER TABLE input_tags RENAME TO old", "ALTER TABLE old RENAME TO input_tags"},
	} {
		if _, err := s.db.Exec(change.sql); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), uri, Options{})
		if !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), "acf3f17fdcc7") || !strings.Contains(err.Error(), "mlflow db upgrade "+uri) {
			t.Errorf("%s: %v; want the revision and the remedy", change.name, err)
		}
		if _, err := s.db.Exec(change.undo); err != nil {
			t.Fatal(err)
		}
	}
	mustOpen(t, uri, Options{})
}
