package mlflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzMetricLines reads a metric file of a file store. What was read is
// written and read again.
func FuzzMetricLines(f *testing.F) {
	f.Add([]byte("1700000000000 0.5 1\n1700000000001 nan 2\n"))
	f.Add([]byte("1700000000000 inf -3\r\n\n1 -inf 0"))
	f.Add([]byte("1 2\n"))
	f.Add([]byte("x y z\n"))
	f.Add([]byte("9223372036854775808 1 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		memwatch.Start(t, len(b))
		points, err := parseMetrics("m", b)
		if err != nil {
			return
		}
		for _, want := range points {
			got, err := parseMetricLine("m", metricLine(want))
			same := got.Value == want.Value || math.IsNaN(got.Value) && math.IsNaN(want.Value)
			if err != nil || !same || got.Step != want.Step || millis(got.Time) != millis(want.Time) {
				t.Errorf("%+v became %+v, %v", want, got, err)
			}
		}
	})
}

// FuzzFileStore reads a run whose meta.yaml, metric and dataset are foreign.
func FuzzFileStore(f *testing.F) {
	f.Add("artifact_uri: /x\nexperiment_id: '0'\nrun_id: abc\nstatus: 3\nend_time: 5\nlifecycle_stage: active\n", "1 2 3\n", "source_type: DATASET\nsource_id: abc\ntags: {a: b}\n")
	f.Add("status: 99\nexperiment_id: ../..\nend_time: null\n", "1 nan 3\n", "source_type: DATASET\nsource_id: ../../x\n")
	f.Add("a: &a [x, x]\nb: [*a, *a]\n", "", "[")
	f.Add("- 1\n", "\x00", "")
	dir := f.TempDir()
	s := mustOpen(f, dir, Options{})
	f.Fuzz(func(t *testing.T, meta, metric, input string) {
		memwatch.Start(t, len(meta)+len(metric)+len(input))
		base := filepath.Join(dir, "0", "abc")
		for p, content := range map[string]string{"meta.yaml": meta, "metrics/m": metric, "inputs/i/meta.yaml": input} {
			p = filepath.Join(base, filepath.FromSlash(p))
			if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(content), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		ctx := context.Background()
		run, err := s.Run(ctx, "abc")
		if err != nil {
			return
		}
		if run.ID != "abc" {
			t.Errorf("ID %q", run.ID)
		}
		// Whatever it said, nothing below may fail otherwise than by an error.
		_, _ = s.MetricHistory(ctx, "abc", "m")
		_, _ = s.SearchRuns(ctx, "0", Tag{"a", "b"})
		if r, err := s.OpenArtifact(ctx, Run{ArtifactURI: filepath.Join(dir, "none")}, run.ArtifactURI); err == nil {
			r.Close()
			t.Errorf("opened %q outside of the artifacts", run.ArtifactURI)
		}
	})
}

// FuzzRESTAnswers gives the client any answer to every kind of question.
func FuzzRESTAnswers(f *testing.F) {
	f.Add(200, []byte(`{"run": {"info": {"run_id": "abc", "artifact_uri": "mlflow-artifacts:/0/abc/artifacts", "start_time": "1"}, "data": {"metrics": [{"key": "a", "value": "NaN", "timestamp": 1, "step": 2}]}}}`))
	f.Add(200, []byte(`{"files": [{"path": "../../etc/passwd", "is_dir": false, "file_size": "7"}, {"path": "x", "is_dir": true}]}`))
	f.Add(200, []byte(`{"experiment": {"experiment_id": "1", "lifecycle_stage": "deleted"}, "metrics": [{"value": 1e999}]}`))
	f.Add(404, []byte(`{"error_code": 5, "message": "x"}`))
	f.Add(500, []byte(`<html>`))
	f.Add(200, []byte(`{"runs": [{"info": {"run_id": "../x"}}]}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		memwatch.Start(t, len(body))
		if status < 200 || status > 599 || status/100 == 3 {
			status = 200
		}
		config, err := restConfigFrom(Options{Getenv: quick(), MaxRetries: -1})
		if err != nil {
			t.Fatal(err)
		}
		s := &restStore{base: "http://h", host: "h", config: config}
		s.client = &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{}}, nil
		})}
		ctx := context.Background()
		run, err := s.Run(ctx, "abc")
		if err == nil && !idForm.MatchString(run.ID) {
			t.Errorf("run ID %q", run.ID)
		}
		if err != nil && status != 200 && !errors.As(err, new(*APIError)) {
			t.Errorf("status %d: %v", status, err)
		}
		if err == nil {
			if address, err := s.artifactURL(run, "a/b"); err == nil && !strings.Contains(address, "/api/2.0/mlflow-artifacts/artifacts/") {
				t.Errorf("artifact location %q became %q", run.ArtifactURI, address)
			}
		}
		// Answers with a page token repeat for ever: see maxPages.
		if !bytes.Contains(bytes.ToLower(body), []byte("token")) {
			_, _ = s.EnsureExperiment(ctx, "x")
			_, _ = s.MetricHistory(ctx, "abc", "a")
			_, _ = s.SearchRuns(ctx, "0", Tag{"a", "b"})
			_, _ = s.FindRun(ctx, RunSpec{Name: "n", ExperimentID: "0", Start: start})
			dir := t.TempDir()
			_, _ = Download(ctx, s, Run{ID: "abc", ArtifactURI: "mlflow-artifacts:/0/abc/artifacts"}, "", filepath.Join(dir, "in"), Limits{Files: 5, Depth: 2})
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("wrote beside the folder: %v, %v", entries, err)
			}
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzJournal reads a journal that somebody else wrote.
func FuzzJournal(f *testing.F) {
	line := func(r record) string {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		return string(b) + "\n"
	}
	head := "{\"sent\":\"00000000000000000000\"}\n"
	run := line(record{Run: &runRecord{URI: "sqlite:///x.db", Spec: RunSpec{Name: "n", Start: start}}})
	batch := line(record{Batch: toBatchRecord(Batch{Metrics: []Metric{{"m", math.NaN(), start, 1}}})})
	f.Add([]byte(head + run + line(record{Created: &createdRecord{ID: "abc"}}) + batch + line(record{End: &endRecord{Status: Finished, Time: 5}})))
	f.Add([]byte(head + run + batch + "{half a li"))
	f.Add([]byte(head + run + "\x00\x00\n" + batch))
	f.Add([]byte("{\"sent\":\"99999999999999999999\"}\n" + run))
	f.Add([]byte("{}\n"))
	path := filepath.Join(f.TempDir(), "x.jsonl")
	f.Fuzz(func(t *testing.T, b []byte) {
		memwatch.Start(t, len(b))
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		j, _, err := openJournal(path)
		if err != nil {
			return
		}
		if j.base < counterSize || j.sent < j.base || j.end < j.sent || j.end > int64(len(b)) {
			t.Errorf("base %d, sent %d, end %d of %d bytes", j.base, j.sent, j.end, len(b))
		}
		lines, offset, end := j.pending()
		for offset < end {
			_, n, err := lines.next()
			if err != nil {
				t.Fatalf("at %d of %d: %v", offset, end, err)
			}
			offset += n
		}
		if err := j.close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzSmallTexts feeds the readers of short foreign texts.
func FuzzSmallTexts(f *testing.F) {
	f.Add("[mlflow]\nmlflow_tracking_username = a\n")
	f.Add("file:///a%20b")
	f.Add("http://u:p@host/x")
	f.Add("0, 50, 1024, 2048, 70.5, 300\n1, [N/A], 1, 0, x, 1\n")
	f.Add("a/../b")
	f.Fuzz(func(t *testing.T, s string) {
		memwatch.Start(t, len(s))
		parseCredentials(strings.NewReader(s))
		_, _ = pathOfFileURI(s)
		gpus := map[string]float64{}
		parseGPUs(strings.NewReader(s), gpus)
		for key := range gpus {
			if err := ValidKey(key); err != nil {
				t.Error(err)
			}
		}
		if key := CleanKey(s); ValidKey(key) != nil {
			t.Errorf("CleanKey(%q) = %q", s, key)
		}
		if checkArtifactPath(s) == nil && !filepath.IsLocal(s) {
			t.Errorf("artifact path %q", s)
		}
	})
}
