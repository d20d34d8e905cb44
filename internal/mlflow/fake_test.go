package mlflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fakeServer answers MLflow's REST API from an SQLite store, so that the REST
// client is tested everywhere; the tests against the real server keep it honest.
type fakeServer struct {
	store     *sqliteStore
	artifacts string // folder of the artifact proxy
	prefix    string // path prefix of the API
	pageSize  int    // of metric histories; small, so that paging is tested
}

func newFakeServer(t testing.TB) *fakeServer {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(t.Context(), "sqlite:///"+filepath.Join(dir, "server.db"), Options{ArtifactRoot: filepath.Join(dir, "proxy")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &fakeServer{store: s.(*sqliteStore), artifacts: filepath.Join(dir, "proxy"), pageSize: 7}
}

// start serves the fake on loopback and returns its address.
func (f *fakeServer) start(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.URL + f.prefix
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, ok := strings.CutPrefix(r.URL.Path, f.prefix+"/api/2.0/")
	if !ok {
		http.Error(w, "<html>404</html>", http.StatusNotFound)
		return
	}
	var err error
	if name, ok := strings.CutPrefix(p, "mlflow-artifacts/artifacts/"); ok {
		err = f.artifact(w, r, name)
	} else {
		err = f.api(w, r, strings.TrimPrefix(p, "mlflow/"))
	}
	if err == nil {
		return
	}
	status, code := http.StatusBadRequest, codeInvalid
	var api *APIError
	if errors.As(err, &api) {
		code = api.Code
	}
	if errors.Is(err, os.ErrNotExist) {
		code = codeNotFound
	}
	if code == codeNotFound {
		status = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error_code": code, "message": err.Error()})
}

func (f *fakeServer) artifact(w http.ResponseWriter, r *http.Request, name string) error {
	file := filepath.Join(f.artifacts, filepath.FromSlash(path.Clean("/"+name)))
	switch r.Method {
	case http.MethodPut:
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		return os.WriteFile(file, b, 0o666)
	case http.MethodGet:
		b, err := os.ReadFile(file)
		if err == nil {
			_, err = w.Write(b)
		}
		return err
	}
	return fmt.Errorf("method %s", r.Method)
}

func (f *fakeServer) api(w http.ResponseWriter, r *http.Request, endpoint string) error {
	var in struct {
		Name         string       `json:"name"`
		ExperimentID string       `json:"experiment_id"`
		RunID        string       `json:"run_id"`
		RunName      string       `json:"run_name"`
		UserID       string       `json:"user_id"`
		Status       Status       `json:"status"`
		StartTime    int64        `json:"start_time"`
		EndTime      int64        `json:"end_time"`
		Metrics      []restMetric `json:"metrics"`
		Params       []Param      `json:"params"`
		Tags         []Tag        `json:"tags"`
		Datasets     []restInput  `json:"datasets"`
		Experiments  []string     `json:"experiment_ids"`
		Filter       string       `json:"filter"`
	}
	if r.Method == http.MethodPost {
		if r.Header.Get("Content-Type") != "application/json" {
			return errors.New("content type")
		}
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if len(b) > 1_000_000 {
			return errors.New("the request is larger than 1 MB")
		}
		if err := json.Unmarshal(b, &in); err != nil {
			return err
		}
	}
	ctx, q, s := r.Context(), r.URL.Query(), f.store
	answer := func(v any) error {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(v)
	}
	switch r.Method + " " + endpoint {
	case "POST experiments/search":
		return answer(map[string]any{})
	case "GET experiments/get-by-name":
		var id, stage string
		err := s.db.QueryRowContext(ctx, "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", q.Get("experiment_name")).Scan(&id, &stage)
		if err != nil {
			return &APIError{Code: codeNotFound, Message: err.Error()}
		}
		return answer(map[string]any{"experiment": map[string]any{"experiment_id": id, "lifecycle_stage": stage}})
	case "POST experiments/create":
		id, err := s.EnsureExperiment(ctx, in.Name)
		if err != nil {
			return err
		}
		return answer(map[string]any{"experiment_id": id})
	case "POST runs/create":
		run, err := s.CreateRun(ctx, RunSpec{ExperimentID: in.ExperimentID, Name: in.RunName, User: in.UserID, Start: fromMillis(in.StartTime), Tags: in.Tags})
		if err != nil {
			return err
		}
		return answer(map[string]any{"run": f.toREST(run)})
	case "POST runs/log-batch":
		if len(in.Metrics) > 1000 || len(in.Params) > 100 || len(in.Tags) > 100 || len(in.Metrics)+len(in.Params)+len(in.Tags) > 1000 {
			return errors.New("the batch is too large")
		}
		b := Batch{Params: in.Params, Tags: in.Tags}
		for _, m := range in.Metrics {
			b.Metrics = append(b.Metrics, m.metric())
		}
		if err := s.LogBatch(ctx, in.RunID, b); err != nil {
			return err
		}
		return answer(map[string]any{})
	case "POST runs/log-inputs":
		var r restRun
		r.Info.RunID, r.Inputs.Datasets = "x", in.Datasets
		run, err := r.run()
		if err == nil {
			err = s.LogInputs(ctx, in.RunID, run.Inputs)
		}
		if err != nil {
			return err
		}
		return answer(map[string]any{})
	case "POST runs/update":
		if err := s.UpdateRun(ctx, in.RunID, in.Status, fromMillis(in.EndTime)); err != nil {
			return err
		}
		return answer(map[string]any{"run_info": map[string]any{}})
	case "POST runs/delete":
		if _, err := s.db.ExecContext(ctx, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", in.RunID); err != nil {
			return err
		}
		return answer(map[string]any{})
	case "GET runs/get":
		run, err := s.Run(ctx, q.Get("run_id"))
		if err != nil {
			return err
		}
		return answer(map[string]any{"run": f.toREST(run)})
	case "POST runs/search":
		runs, err := f.search(ctx, in.Experiments[0], in.Filter)
		if err != nil {
			return err
		}
		var out []restRun
		for _, run := range runs {
			out = append(out, f.toREST(run))
		}
		return answer(map[string]any{"runs": out})
	case "GET metrics/get-history":
		points, err := s.MetricHistory(ctx, q.Get("run_id"), q.Get("metric_key"))
		if err != nil {
			return err
		}
		from, _ := strconv.Atoi(q.Get("page_token"))
		to := min(from+f.pageSize, len(points))
		var out []restMetric
		for _, m := range points[from:to] {
			out = append(out, metricToREST(m))
		}
		page := map[string]any{"metrics": out}
		if to < len(points) {
			page["next_page_token"] = strconv.Itoa(to)
		}
		return answer(page)
	case "GET artifacts/list":
		run, err := s.Run(ctx, q.Get("run_id"))
		if err != nil {
			return err
		}
		files, err := s.ListArtifacts(ctx, run, q.Get("path"))
		if err != nil {
			return err
		}
		var out []map[string]any
		for _, fi := range files {
			out = append(out, map[string]any{"path": fi.Path, "is_dir": fi.IsDir, "file_size": strconv.FormatInt(fi.Size, 10)})
		}
		return answer(map[string]any{"files": out})
	}
	http.Error(w, "<html>404</html>", http.StatusNotFound)
	return nil
}

func (f *fakeServer) search(ctx context.Context, experiment, filter string) ([]Run, error) {
	var ms int64
	if _, err := fmt.Sscanf(filter, "attributes.start_time = %d", &ms); err == nil {
		var runs []Run
		var ids []string
		err := each(ctx, f.store.db, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		}, "SELECT run_uuid FROM runs WHERE start_time = ?", ms)
		for _, id := range ids {
			run, err := f.store.Run(ctx, id)
			if err != nil {
				return nil, err
			}
			runs = append(runs, run)
		}
		return runs, err
	}
	key, value, ok := strings.Cut(strings.TrimPrefix(filter, "tags.`"), "` = ")
	if !ok || len(value) < 2 {
		return nil, fmt.Errorf("filter %q", filter)
	}
	return f.store.SearchRuns(ctx, experiment, Tag{key, value[1 : len(value)-1]})
}

func (f *fakeServer) toREST(run Run) restRun {
	var r restRun
	i := &r.Info
	i.RunID, i.RunName, i.ExperimentID, i.UserID, i.Status = run.ID, run.Name, run.ExperimentID, run.User, string(run.Status)
	i.StartTime, i.EndTime = restInt(millis(run.Start)), restInt(millis(run.End))
	i.ArtifactURI = fmt.Sprintf("mlflow-artifacts:/%s/%s/artifacts", run.ExperimentID, run.ID)
	for k, v := range run.Params {
		r.Data.Params = append(r.Data.Params, Param{k, v})
	}
	for k, v := range run.Tags {
		r.Data.Tags = append(r.Data.Tags, Tag{k, v})
	}
	for _, m := range run.Metrics {
		r.Data.Metrics = append(r.Data.Metrics, metricToREST(m))
	}
	for _, in := range run.Inputs {
		var x restInput
		x.Tags = in.Tags
		d := &x.Dataset
		d.Name, d.Digest, d.SourceType, d.Source, d.Schema, d.Profile = in.Name, in.Digest, in.SourceType, in.Source, in.Schema, in.Profile
		r.Inputs.Datasets = append(r.Inputs.Datasets, x)
	}
	return r
}
