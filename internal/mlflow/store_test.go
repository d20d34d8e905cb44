package mlflow

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// quick makes a client that does not wait; MLflow's waits are tested where
// they are computed.
func quick(vars ...string) func(string) string {
	env := map[string]string{"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0.001", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.001", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
	for i := 0; i+1 < len(vars); i += 2 {
		env[vars[i]] = vars[i+1]
	}
	return func(name string) string { return env[name] }
}

func mustOpen(t testing.TB, uri string, opts Options) Store {
	t.Helper()
	if opts.Getenv == nil {
		opts.Getenv = quick()
	}
	s, err := Open(t.Context(), uri, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// stores opens one store of each kind.
func stores(t *testing.T) map[string]func(t *testing.T) Store {
	return map[string]func(t *testing.T) Store{
		"sqlite": func(t *testing.T) Store {
			dir := t.TempDir()
			return mustOpen(t, "sqlite:///"+filepath.Join(dir, "sub", "ml flow%41.db"), Options{ArtifactRoot: filepath.Join(dir, "mlruns")})
		},
		"files":    func(t *testing.T) Store { return mustOpen(t, filepath.Join(t.TempDir(), "mlruns"), Options{}) },
		"file URI": func(t *testing.T) Store { return mustOpen(t, "file://"+t.TempDir()+"/ml%20runs", Options{}) },
		"REST":     func(t *testing.T) Store { return mustOpen(t, newFakeServer(t).start(t), Options{}) },
		"REST with a path prefix": func(t *testing.T) Store {
			f := newFakeServer(t)
			f.prefix = "/team/ml"
			return mustOpen(t, f.start(t)+"/", Options{})
		},
	}
}

var start = time.UnixMilli(1_760_000_000_123)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

var cmpRun = cmp.Options{
	cmpopts.EquateNaNs(), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmpopts.SortSlices(func(a, b DatasetInput) bool { return a.Name < b.Name }),
	cmpopts.SortSlices(func(a, b Tag) bool { return a.Key < b.Key }),
}

func section(s string) *io.SectionReader {
	return io.NewSectionReader(strings.NewReader(s), 0, int64(len(s)))
}

// TestStore is the contract of every store: what is written is read back.
func TestStore(t *testing.T) {
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testStore(t, open(t))
		})
	}
}

func testStore(t *testing.T, s Store) {
	ctx := t.Context()
	exp, err := s.EnsureExperiment(ctx, "criteria Ωmega")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.EnsureExperiment(ctx, "criteria Ωmega"); err != nil || again != exp {
		t.Fatalf("second EnsureExperiment: %q, %v; want %q", again, err, exp)
	}
	run, err := s.CreateRun(ctx, RunSpec{ExperimentID: exp, Name: "first run", User: "ada", Start: start, Tags: []Tag{{"stage", "train"}}})
	if err != nil {
		t.Fatal(err)
	}
	if run.Status != Running || len(run.ID) != 32 || run.ArtifactURI == "" {
		t.Fatalf("created %+v", run)
	}

	long := strings.Repeat("ä", 9000)
	batch := Batch{
		Params: []Param{{"train.learning_rate", "2e-05"}, {"none", ""}, {"long", long}, {"lines", "a\nb\n"}, {"a/b: c-d", "x"}},
		Tags:   []Tag{{"git.dirty", "false"}, {"long", long}, {"replaced", "old"}},
	}
	for step := range 20 {
		batch.Metrics = append(batch.Metrics, Metric{"val_macro_f1", 0.5 + float64(step)/100, at(step), int64(step)})
	}
	batch.Metrics = append(batch.Metrics,
		Metric{"nan", math.NaN(), at(1), 1}, Metric{"small", 5e-324, at(1), -3}, Metric{"system/cpu", 1e300, at(1), 1},
		// The last value is the one of the highest step, not the last written.
		Metric{"loss", 1, at(9), 5}, Metric{"loss", 2, at(1), 6}, Metric{"loss", 3, at(10), 1})
	for range 2 { // sending again changes nothing
		if err := s.LogBatch(ctx, run.ID, batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.LogBatch(ctx, run.ID, Batch{Tags: []Tag{{"replaced", "new"}, {TagRunName, "renamed"}}}); err != nil {
		t.Fatal(err)
	}
	err = s.LogBatch(ctx, run.ID, Batch{Params: []Param{{"train.learning_rate", "3e-05"}}})
	if !errors.Is(err, ErrRejected) {
		t.Errorf("changing a parameter: %v, want ErrRejected", err)
	}
	inputs := []DatasetInput{
		{Name: "posts", Digest: "0123456789abcdef", SourceType: "local", Source: `{"uri": "posts.csv"}`, Profile: `{"num_rows": 3}`, Tags: []Tag{{TagDataContext, "train"}}},
		{Name: "posts val", Digest: "0123456789abcdef", SourceType: "local", Source: `{"uri": "posts.csv"}`, Schema: `{}`, Tags: []Tag{{TagDataContext, "val"}}},
	}
	for range 2 {
		if err := s.LogInputs(ctx, run.ID, inputs); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.UpdateRun(ctx, run.ID, Finished, at(100)); err != nil {
		t.Fatal(err)
	}

	cut := func(s string, n int) string { return string([]rune(s)[:n]) }
	want := Run{
		ID: run.ID, ExperimentID: exp, Name: "renamed", User: "ada", Status: Finished, Start: start, End: at(100), ArtifactURI: run.ArtifactURI,
		Params: map[string]string{"train.learning_rate": "2e-05", "none": "", "long": cut(long, 6000), "lines": "a\nb\n", "a/b: c-d": "x"},
		Tags:   map[string]string{"stage": "train", "git.dirty": "false", "long": cut(long, 8000), "replaced": "new", TagRunName: "renamed", TagUser: "ada"},
		Metrics: map[string]Metric{
			"val_macro_f1": {"val_macro_f1", 0.69, at(19), 19}, "nan": {"nan", math.NaN(), at(1), 1}, "small": {"small", 5e-324, at(1), -3},
			"system/cpu": {"system/cpu", 1e300, at(1), 1}, "loss": {"loss", 2, at(1), 6},
		},
		Inputs: inputs,
	}
	got, err := s.Run(ctx, run.ID)
	if diff := cmp.Diff(want, got, cmpRun); err != nil || diff != "" {
		t.Errorf("Run: %v (-want +got)\n%s", err, diff)
	}
	history, err := s.MetricHistory(ctx, run.ID, "val_macro_f1")
	if diff := cmp.Diff(batch.Metrics[:20], history, cmpRun); err != nil || diff != "" {
		t.Errorf("MetricHistory: %v (-want +got)\n%s", err, diff)
	}
	if history, err := s.MetricHistory(ctx, run.ID, "unknown"); err != nil || len(history) != 0 {
		t.Errorf("history of an unknown metric: %v, %v", history, err)
	}

	// Nested runs are found by their tag.
	var children []string
	for i := range 3 {
		child, err := s.CreateRun(ctx, RunSpec{ExperimentID: exp, Start: at(i), Tags: []Tag{{TagParentRun, run.ID}}})
		if err != nil {
			t.Fatal(err)
		}
		if child.Name == "" {
			t.Error("a run without a name got none")
		}
		children = append(children, child.ID)
	}
	found, err := s.SearchRuns(ctx, exp, Tag{TagParentRun, run.ID})
	var ids []string
	for _, r := range found {
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff(children, ids); err != nil || diff != "" {
		t.Errorf("SearchRuns: %v (-want +got)\n%s", err, diff)
	}

	testArtifacts(t, s, run)
	testRefusals(t, s, exp, run)
}

func testArtifacts(t *testing.T, s Store, run Run) {
	ctx := t.Context()
	files := map[string]string{
		"confusion_matrix.png": "picture", "config/config.yaml": "seed: 42\n", "model/weights 100%#?&+é.bin": strings.Repeat("w", 300_000), "model/sub/empty": "",
	}
	for p, content := range files {
		if err := s.PutArtifact(ctx, run, p, section("old")); err != nil {
			t.Fatal(err)
		}
		if err := s.PutArtifact(ctx, run, p, section(content)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.ListArtifacts(ctx, run, "model")
	want := []FileInfo{{Path: "model/sub", IsDir: true}, {Path: "model/weights 100%#?&+é.bin", Size: 300_000}}
	if diff := cmp.Diff(want, list); err != nil || diff != "" {
		t.Errorf("ListArtifacts: %v (-want +got)\n%s", err, diff)
	}
	for _, p := range []string{"absent", "config/config.yaml"} {
		if list, err := s.ListArtifacts(ctx, run, p); err != nil || len(list) != 0 {
			t.Errorf("ListArtifacts(%q) = %v, %v; want nothing", p, list, err)
		}
	}
	dir := t.TempDir()
	if _, err := Download(ctx, s, run, "", dir, Limits{}); err != nil {
		t.Fatal(err)
	}
	one := t.TempDir()
	where, err := Download(ctx, s, run, "config/config.yaml", one, Limits{})
	if err != nil || where != filepath.Join(one, "config", "config.yaml") {
		t.Fatalf("Download: %q, %v", where, err)
	}
	for p, content := range files {
		got, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil || string(got) != content {
			t.Errorf("downloaded %s: %d bytes, %v; want %d bytes", p, len(got), err, len(content))
		}
	}
	for _, l := range []Limits{{Files: 2}, {Bytes: 1000}, {Depth: 1}} {
		if _, err := Download(ctx, s, run, "", t.TempDir(), l); !errors.Is(err, ErrUnsafe) {
			t.Errorf("Download with %+v: %v, want ErrUnsafe", l, err)
		}
	}
	for _, p := range []string{"../x", "/x", "", ".", "a//b", "a/../b", "a/./b", "a\x00b"} {
		if err := s.PutArtifact(ctx, run, p, section("x")); err == nil {
			t.Errorf("PutArtifact(%q) succeeded", p)
		}
		if r, err := s.OpenArtifact(ctx, run, p); err == nil {
			r.Close()
			t.Errorf("OpenArtifact(%q) succeeded", p)
		}
	}
}

func testRefusals(t *testing.T, s Store, exp string, run Run) {
	ctx := t.Context()
	absent := strings.Repeat("0", 32)
	open := func(id, p string) error {
		r, err := s.OpenArtifact(ctx, run, p)
		if err == nil {
			r.Close()
		}
		return err
	}
	_, errRun := s.Run(ctx, absent)
	_, errForm := s.Run(ctx, "../"+exp)
	_, errCreate := s.CreateRun(ctx, RunSpec{ExperimentID: "12345", Start: start})
	for what, err := range map[string]error{
		"Run": errRun, "Run with a path": errForm, "CreateRun": errCreate, "OpenArtifact": open(run.ID, "absent"),
		"LogBatch":  s.LogBatch(ctx, absent, Batch{Tags: []Tag{{"a", "b"}}}),
		"LogInputs": s.LogInputs(ctx, absent, []DatasetInput{{Name: "a", Digest: "b"}}),
		"UpdateRun": s.UpdateRun(ctx, absent, Finished, at(1)),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s of what is not there: %v, want ErrNotFound", what, err)
		}
	}
	for _, key := range []string{"", "..", "a/../b", "/a", "a//b", "a,b", "ä\x00", strings.Repeat("k", 251)} {
		if err := s.LogBatch(ctx, run.ID, Batch{Metrics: []Metric{{Key: key, Time: start}}}); !errors.Is(err, ErrRejected) {
			t.Errorf("metric key %q: %v, want ErrRejected", truncate(key, 20), err)
		}
	}
	for _, name := range []string{"", strings.Repeat("n", 501)} {
		if _, err := s.EnsureExperiment(ctx, name); err == nil {
			t.Errorf("experiment name of %d characters was accepted", len(name))
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.PutArtifact(cancelled, run, "late", section("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("PutArtifact with a context that is done: %v", err)
	}
}

// TestLargeBatch logs more than one request may carry.
func TestLargeBatch(t *testing.T) {
	for name, open := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, s := t.Context(), open(t)
			exp, err := s.EnsureExperiment(ctx, "large")
			if err != nil {
				t.Fatal(err)
			}
			run, err := s.CreateRun(ctx, RunSpec{ExperimentID: exp, Start: start})
			if err != nil {
				t.Fatal(err)
			}
			var b Batch
			for i := range 2500 {
				b.Metrics = append(b.Metrics, Metric{"m", float64(i), at(i), int64(i)})
			}
			for i := range 250 {
				b.Params = append(b.Params, Param{fmt.Sprint("p", i), strings.Repeat("\u00e9", 6000)})
				b.Tags = append(b.Tags, Tag{fmt.Sprint("t", i), strings.Repeat("\"", 6000)})
			}
			if err := s.LogBatch(ctx, run.ID, b); err != nil {
				t.Fatal(err)
			}
			got, err := s.Run(ctx, run.ID)
			if err != nil {
				t.Fatal(err)
			}
			history, err := s.MetricHistory(ctx, run.ID, "m")
			if err != nil || len(history) != 2500 || len(got.Params) != 250 || len(got.Tags) != 251 {
				t.Errorf("%d points, %d params, %d tags, %v", len(history), len(got.Params), len(got.Tags), err)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	db := filepath.Join(dir, "x.db")
	if err := os.WriteFile(db, []byte("text"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ uri, want string }{
		{"", "sqlite:///mlflow.db"},
		{"sqlite://x.db", "sqlite:///relative.db"},
		{"sqlite:///", "sqlite:///relative.db"},
		{"sqlite:///" + db, "not a database"},
		{db, "did you mean sqlite:///"},
		{"mlflow.db", "did you mean sqlite:///mlflow.db"},
		{"postgresql://me:secret@db/x", "mlflow server --backend-store-uri"},
		{"databricks", ""},
		{"http://", "http://HOST:PORT"},
		{"http://me:secret@127.0.0.1:1/", "mlflow server"},
		{"file://otherhost/x", "must be local"},
		{"file://", "names no folder"},
	} {
		if c.uri == "databricks" {
			continue // a folder of that name, as in MLflow's own rule for plain paths
		}
		s, err := Open(t.Context(), c.uri, Options{Getenv: quick()})
		if err == nil {
			s.Close()
			t.Errorf("Open(%q) succeeded", c.uri)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): %v\nwant %q and no secret", c.uri, err, c.want)
		}
	}
}

func TestSplitKeepsAll(t *testing.T) {
	var b Batch
	for i := range 3210 {
		b.Metrics = append(b.Metrics, Metric{Key: "m", Step: int64(i)})
		if i < 333 {
			b.Params = append(b.Params, Param{fmt.Sprint("p", i), strings.Repeat("v", i*18)})
			b.Tags = append(b.Tags, Tag{fmt.Sprint("t", i), ""})
		}
	}
	var joined Batch
	for _, part := range b.split() {
		if n := len(part.Metrics) + len(part.Params) + len(part.Tags); n > 1000 || n == 0 || len(part.Params) > 100 || len(part.Tags) > 100 {
			t.Errorf("part of %d metrics, %d params, %d tags", len(part.Metrics), len(part.Params), len(part.Tags))
		}
		joined.Metrics = append(joined.Metrics, part.Metrics...)
		joined.Params = append(joined.Params, part.Params...)
		joined.Tags = append(joined.Tags, part.Tags...)
	}
	if diff := cmp.Diff(b, joined, cmpRun); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestCleanKey(t *testing.T) {
	for in, want := range map[string]string{
		"train.csv": "train.csv", "posts (1).csv": "posts _1_.csv", "../x": "__/x", "/abs/x": "abs/x", "a//b/": "a/b", "": "_", "..": "__", "ä,ö": "ä_ö", "\xff": "_", strings.Repeat("k", 300): strings.Repeat("k", 250),
	} {
		got := CleanKey(in)
		if got != want || ValidKey(got) != nil {
			t.Errorf("CleanKey(%q) = %q (%v), want %q", in, got, ValidKey(got), want)
		}
	}
}

// hostile lists and serves what a reader must not follow.
type hostile struct {
	Store
	list map[string][]FileInfo
	body string
}

func (h hostile) ListArtifacts(_ context.Context, _ Run, p string) ([]FileInfo, error) {
	return h.list[p], nil
}

func (h hostile) OpenArtifact(context.Context, Run, string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte(h.body))), nil
}

func TestDownloadRefusesHostileStores(t *testing.T) {
	for name, list := range map[string][]FileInfo{
		"parent":        {{Path: "../evil", Size: 1}},
		"absolute":      {{Path: "/evil", Size: 1}},
		"deep parent":   {{Path: "model/../../evil", Size: 1}},
		"elsewhere":     {{Path: "other/evil", Size: 1}},
		"itself":        {{Path: "model", IsDir: true}},
		"empty":         {{Path: "", IsDir: true}},
		"too large":     {{Path: "model/x", Size: 1 << 40}},
		"lies of size":  {{Path: "model/x", Size: 0}},
		"backslash dir": {{Path: `model/..\..\evil/`, Size: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "in")
			s := hostile{list: map[string][]FileInfo{"model": list}, body: strings.Repeat("x", 2000)}
			_, err := Download(t.Context(), s, Run{}, "model", dir, Limits{Bytes: 1000})
			if !errors.Is(err, ErrUnsafe) {
				t.Errorf("%v, want ErrUnsafe", err)
			}
			if err := filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					t.Errorf("left %s behind", p)
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("link in the folder", func(t *testing.T) {
		top := t.TempDir()
		if err := os.Symlink(top, filepath.Join(top, "model")); err != nil {
			t.Fatal(err)
		}
		sub := filepath.Join(top, "sub")
		if err := os.Mkdir(sub, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(top, filepath.Join(sub, "model")); err != nil {
			t.Fatal(err)
		}
		s := hostile{list: map[string][]FileInfo{"model": {{Path: "model/x", Size: 1}}}, body: "x"}
		if _, err := Download(t.Context(), s, Run{}, "model", sub, Limits{}); err == nil {
			t.Error("wrote through a link that leads out of the folder")
		}
	})
}
