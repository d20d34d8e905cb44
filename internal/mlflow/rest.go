package mlflow

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/criteria-go/criteria/internal/redact"
)

const (
	maxAnswer = 64 << 20 // bytes of a JSON answer
	maxPages  = 1000     // of one listing
)

type restStore struct {
	base   string // without trailing slash and without credentials; may have a path
	host   string
	config restConfig
	client *http.Client

	elsewhere *http.Client // for other servers: without the certificate that says who we are
	root      string       // below which artifacts may lie on this machine; "": nowhere
}

func openREST(ctx context.Context, uri string, opts Options) (Store, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("mlflow: tracking URI %q is not of the form http://HOST:PORT", redact.URL(uri))
	}
	config, err := restConfigFrom(opts)
	if err != nil {
		return nil, err
	}
	if config.user == "" && config.password == "" && u.User != nil {
		config.user = u.User.Username()
		config.password, _ = u.User.Password()
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	s := &restStore{base: strings.TrimRight(u.String(), "/"), host: u.Host, config: config, client: config.httpClient(),
		elsewhere: config.withoutCertificate().httpClient(), root: cmp.Or(opts.ArtifactRoot, opts.Getenv("MLFLOW_DEFAULT_ARTIFACT_ROOT"))}
	// One small question, soon given up: a server that is away must be known
	// before anything is computed.
	err = s.call(ctx, "reach the server", http.MethodPost, "experiments/search", nil, map[string]any{"max_results": 1}, nil, min(config.retries, 2))
	if err != nil {
		s.client.CloseIdleConnections()
		return nil, err
	}
	return s, nil
}

func (s *restStore) URI() string { return s.base }

func (s *restStore) Close() error {
	s.client.CloseIdleConnections()
	s.elsewhere.CloseIdleConnections()
	return nil
}

// newRequest prepares a request to this server, or to another one if address
// says so: then without credentials.
func (s *restStore) newRequest(ctx context.Context, method, address string, body any) (*retryablehttp.Request, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "criteria-go")
	if req.URL.Host != s.host {
		return req, nil
	}
	switch {
	case s.config.user != "" && s.config.password != "":
		req.SetBasicAuth(s.config.user, s.config.password)
	case s.config.token != "":
		req.Header.Set("Authorization", "Bearer "+s.config.token)
	}
	return req, nil
}

// clientFor returns the client for a request, which may go to another server.
func (s *restStore) clientFor(req *retryablehttp.Request) *http.Client {
	if req.URL.Host == s.host {
		return s.client
	}
	return s.elsewhere
}

// call makes one request of the REST API. Requests are repeated, so they must
// be idempotent; see createRun for the one that is not.
func (s *restStore) call(ctx context.Context, op, method, endpoint string, query url.Values, in, out any, retries int) error {
	address := s.base + "/api/2.0/mlflow/" + endpoint
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var body any
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("mlflow: %s: %w", op, err)
		}
		body = b
	}
	req, err := s.newRequest(ctx, method, address, body)
	if err != nil {
		return fmt.Errorf("mlflow: %s: %w", op, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if out == nil {
		out = &struct{}{}
	}
	return s.do(ctx, op, req, retries, func(body []byte) error {
		if err := json.Unmarshal(body, out); err != nil {
			return s.foreign(op, body)
		}
		return nil
	})
}

// do sends a request, with retries, and hands a good answer to accept. The
// answer is read inside of the retries: one that breaks off is asked for again.
func (s *restStore) do(ctx context.Context, op string, req *retryablehttp.Request, retries int, accept func(body []byte) error) error {
	req.SetResponseHandler(func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return s.refusal(op, resp)
		}
		body, err := readAnswer(resp.Body)
		if err != nil {
			return err
		}
		return accept(body)
	})
	resp, err := s.config.retrier(s.clientFor(req), retries).Do(req)
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		return s.explain(ctx, op, err)
	}
	if resp.StatusCode != http.StatusOK { // tried often enough
		return s.refusal(op, resp)
	}
	return nil
}

// foreign is an answer with status 200 that is not MLflow's.
func (s *restStore) foreign(op string, body []byte) error {
	return &APIError{Op: op, Status: http.StatusOK, Message: fmt.Sprintf("the answer is not MLflow's: %s (is %s the address of an MLflow server?)", excerpt(body), s.base)}
}

func readAnswer(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
	if len(b) > maxAnswer {
		return nil, fmt.Errorf("the answer has more than %d bytes: %w", maxAnswer, ErrUnsafe)
	}
	return b, err
}

// explain adds the remedy to an error of the network.
func (s *restStore) explain(ctx context.Context, op string, err error) error {
	var api *APIError
	if errors.As(err, &api) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("mlflow: %s: %w", op, ctx.Err())
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // its text repeats the address
	}
	return fmt.Errorf("mlflow: %s: %s does not answer: %w (start it with `mlflow server --host … --port …`, or set mlflow.tracking_uri, e.g. to sqlite:///mlflow.db)", op, s.base, err)
}

// refusal turns an answer that is not 200 into an error, whatever its form.
func (s *restStore) refusal(op string, resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // what there is of it
	return parseRefusal(op, s.base, resp.StatusCode, b)
}

func parseRefusal(op, base string, status int, body []byte) *APIError {
	e := &APIError{Op: op, Status: status}
	var answer struct {
		Code    any    `json:"error_code"` // a number in some old versions
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &answer) == nil && (answer.Code != nil || answer.Message != "") {
		e.Code, _ = answer.Code.(string)
		e.Message = truncate(answer.Message, 1000)
	} else {
		e.Message = excerpt(body)
	}
	switch {
	case status == http.StatusUnauthorized:
		e.Message += " (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN)"
	case status == http.StatusForbidden && bytes.Contains(body, []byte("Invalid Host header")):
		e.Message += " (start the server with `--allowed-hosts` naming the host of the tracking URI, or use an IP address)"
	case status == http.StatusForbidden:
		e.Message += " (the user that MLFLOW_TRACKING_USERNAME names lacks the permission)"
	case e.Code == "" && status == http.StatusNotFound:
		e.Message += fmt.Sprintf(" (is %s the address of an MLflow server, with its path prefix if it has one?)", base)
	}
	return e
}

// excerpt shows the beginning of an answer that was not understood.
func excerpt(b []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(b[:min(len(b), 800)]), "")), " ")
	if text == "" {
		return "no further explanation"
	}
	return strconv.Quote(truncate(text, 200))
}

// restNumber reads what MLflow answers for numbers: numbers, or strings for
// values that JSON lacks and for large integers.
type restNumber float64

func (n *restNumber) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	switch s {
	case "NaN":
		*n = restNumber(math.NaN())
	case "Infinity":
		*n = restNumber(math.Inf(1))
	case "-Infinity":
		*n = restNumber(math.Inf(-1))
	case "null":
	default:
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return err
		}
		*n = restNumber(v)
	}
	return nil
}

func (n restNumber) MarshalJSON() ([]byte, error) {
	switch v := float64(n); {
	case math.IsNaN(v):
		return []byte(`"NaN"`), nil
	case math.IsInf(v, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(v, -1):
		return []byte(`"-Infinity"`), nil
	default:
		return json.Marshal(v)
	}
}

// restInt is an int64 that may come as a string.
type restInt int64

func (n *restInt) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" {
		return nil
	}
	v, err := strconv.ParseInt(s, 10, 64)
	*n = restInt(v)
	return err
}

type restMetric struct {
	Key       string     `json:"key"`
	Value     restNumber `json:"value"`
	Timestamp restInt    `json:"timestamp"`
	Step      restInt    `json:"step"`
}

func (m restMetric) metric() Metric {
	return Metric{Key: m.Key, Value: float64(m.Value), Time: fromMillis(int64(m.Timestamp)), Step: int64(m.Step)}
}

func metricToREST(m Metric) restMetric {
	return restMetric{Key: m.Key, Value: restNumber(m.Value), Timestamp: restInt(millis(m.Time)), Step: restInt(m.Step)}
}

type restRun struct {
	Info struct {
		RunID        string  `json:"run_id"`
		RunUUID      string  `json:"run_uuid"`
		RunName      string  `json:"run_name"`
		ExperimentID string  `json:"experiment_id"`
		UserID       string  `json:"user_id"`
		Status       string  `json:"status"`
		StartTime    restInt `json:"start_time"`
		EndTime      restInt `json:"end_time"`
		ArtifactURI  string  `json:"artifact_uri"`
	} `json:"info"`
	Data struct {
		Metrics []restMetric `json:"metrics"`
		Params  []Param      `json:"params"`
		Tags    []Tag        `json:"tags"`
	} `json:"data"`
	Inputs struct {
		Datasets []restInput `json:"dataset_inputs"`
	} `json:"inputs"`
}

type restInput struct {
	Tags    []Tag `json:"tags"`
	Dataset struct {
		Name       string `json:"name"`
		Digest     string `json:"digest"`
		SourceType string `json:"source_type"`
		Source     string `json:"source"`
		Schema     string `json:"schema,omitempty"`
		Profile    string `json:"profile,omitempty"`
	} `json:"dataset"`
}

func (r restRun) run() (Run, error) {
	run := Run{
		ID: cmp.Or(r.Info.RunID, r.Info.RunUUID), ExperimentID: r.Info.ExperimentID, Name: r.Info.RunName, User: r.Info.UserID,
		Status: Status(r.Info.Status), Start: fromMillis(int64(r.Info.StartTime)), End: fromMillis(int64(r.Info.EndTime)),
		ArtifactURI: r.Info.ArtifactURI, Params: map[string]string{}, Tags: tagMap(r.Data.Tags), Metrics: map[string]Metric{},
	}
	if !idForm.MatchString(run.ID) {
		return Run{}, fmt.Errorf("mlflow: the server answered %q as the ID of a run", truncate(run.ID, 60))
	}
	for _, p := range r.Data.Params {
		run.Params[p.Key] = p.Value
	}
	for _, m := range r.Data.Metrics {
		run.Metrics[m.Key] = m.metric()
	}
	for _, in := range r.Inputs.Datasets {
		d := in.Dataset
		run.Inputs = append(run.Inputs, DatasetInput{Name: d.Name, Digest: d.Digest, SourceType: d.SourceType, Source: d.Source, Schema: d.Schema, Profile: d.Profile, Tags: in.Tags})
	}
	return run, nil
}

func (s *restStore) EnsureExperiment(ctx context.Context, name string) (string, error) {
	if err := checkExperimentName(name); err != nil {
		return "", err
	}
	id, err := s.experiment(ctx, name)
	if !errors.Is(err, ErrNotFound) {
		return id, err
	}
	var created struct {
		ID string `json:"experiment_id"`
	}
	err = s.call(ctx, "create experiment", http.MethodPost, "experiments/create", nil, map[string]any{"name": name}, &created, s.config.retries)
	var api *APIError
	if errors.As(err, &api) && api.Code == codeExists { // somebody else, or an answer of ours that was lost
		return s.experiment(ctx, name)
	}
	return created.ID, err
}

func (s *restStore) experiment(ctx context.Context, name string) (string, error) {
	var answer struct {
		Experiment struct {
			ID    string `json:"experiment_id"`
			Stage string `json:"lifecycle_stage"`
		} `json:"experiment"`
	}
	err := s.call(ctx, "find experiment", http.MethodGet, "experiments/get-by-name", url.Values{"experiment_name": {name}}, nil, &answer, s.config.retries)
	if err != nil {
		return "", err
	}
	if answer.Experiment.Stage == "deleted" {
		return "", deletedExperiment(name, answer.Experiment.ID)
	}
	if answer.Experiment.ID == "" {
		return "", fmt.Errorf("mlflow: find experiment %q: the server answered without an ID", name)
	}
	return answer.Experiment.ID, nil
}

// CreateRun is the one request that must not be repeated blindly: when the
// answer was lost there may be a run already. It is then looked for by what
// makes it unique, its start time together with its name.
func (s *restStore) CreateRun(ctx context.Context, spec RunSpec) (Run, error) {
	spec, err := spec.prepare()
	if err != nil {
		return Run{}, err
	}
	// The limits of a batch hold for the tags here too.
	first := Batch{Tags: spec.Tags}.split()
	in := map[string]any{
		"experiment_id": spec.ExperimentID, "user_id": spec.User, "run_name": spec.Name,
		"start_time": millis(spec.Start), "tags": first[0].Tags,
	}
	var answer struct {
		Run restRun `json:"run"`
	}
	for attempt := 0; ; attempt++ {
		err := s.call(ctx, "create run", http.MethodPost, "runs/create", nil, in, &answer, 0)
		var run Run
		if err == nil {
			if run, err = answer.Run.run(); err == nil {
				for _, rest := range first[1:] {
					if err := s.LogBatch(ctx, run.ID, rest); err != nil {
						return Run{}, err
					}
				}
				return run, s.checkArtifactURI(run)
			}
		}
		var api *APIError
		final := errors.As(err, &api) && api.Status != http.StatusOK && !retryStatus(api.Status)
		if final || attempt >= s.config.retries || ctx.Err() != nil || errors.Is(err, ErrUnsafe) {
			return Run{}, err
		}
		if err := sleep(ctx, s.config.wait(attempt, nil)); err != nil {
			return Run{}, err
		}
		if run, err := s.FindRun(ctx, spec); err == nil {
			return run, s.checkArtifactURI(run)
		} else if !errors.Is(err, ErrNotFound) {
			return Run{}, err
		}
	}
}

func (s *restStore) FindRun(ctx context.Context, spec RunSpec) (Run, error) {
	spec, err := spec.prepare()
	if err != nil {
		return Run{}, err
	}
	runs, err := s.search(ctx, spec.ExperimentID, fmt.Sprintf("attributes.start_time = %d", millis(spec.Start)))
	if err != nil {
		return Run{}, err
	}
	made := spec
	made.Tags = Batch{Tags: spec.Tags}.split()[0].Tags // the others come after the answer
	i := slices.IndexFunc(runs, made.made)
	if i < 0 {
		return Run{}, noSuchRun(spec)
	}
	return runs[i], s.LogBatch(ctx, runs[i].ID, Batch{Tags: spec.Tags})
}

// checkArtifactURI refuses at the start what PutArtifact could not store.
func (s *restStore) checkArtifactURI(run Run) error {
	if strings.HasPrefix(run.ArtifactURI, "mlflow-artifacts:") {
		_, err := s.artifactURL(run, "x")
		return err
	}
	_, err := ownFolder(run.ArtifactURI, s.root)
	return err
}

func (s *restStore) LogBatch(ctx context.Context, runID string, b Batch) error {
	b, err := b.prepare()
	if err != nil {
		return err
	}
	for _, part := range b.split() {
		in := struct {
			RunID   string       `json:"run_id"`
			Metrics []restMetric `json:"metrics,omitempty"`
			Params  []Param      `json:"params,omitempty"`
			Tags    []Tag        `json:"tags,omitempty"`
		}{RunID: runID, Params: part.Params, Tags: part.Tags}
		for _, m := range part.Metrics {
			in.Metrics = append(in.Metrics, metricToREST(m))
		}
		if err := s.call(ctx, "log batch", http.MethodPost, "runs/log-batch", nil, in, nil, s.config.retries); err != nil {
			return err
		}
	}
	return nil
}

func (s *restStore) LogInputs(ctx context.Context, runID string, inputs []DatasetInput) error {
	inputs, err := prepareInputs(inputs)
	if err != nil || len(inputs) == 0 {
		return err
	}
	var list []restInput
	for _, in := range inputs {
		var r restInput
		r.Tags = in.Tags
		d := &r.Dataset
		d.Name, d.Digest, d.SourceType, d.Source, d.Schema, d.Profile = in.Name, in.Digest, in.SourceType, in.Source, in.Schema, in.Profile
		list = append(list, r)
	}
	return s.call(ctx, "log inputs", http.MethodPost, "runs/log-inputs", nil, map[string]any{"run_id": runID, "datasets": list}, nil, s.config.retries)
}

func (s *restStore) UpdateRun(ctx context.Context, runID string, status Status, end time.Time) error {
	in := map[string]any{"run_id": runID, "status": string(status)}
	if !end.IsZero() {
		in["end_time"] = millis(end)
	}
	return s.call(ctx, "update run", http.MethodPost, "runs/update", nil, in, nil, s.config.retries)
}

func (s *restStore) Run(ctx context.Context, runID string) (Run, error) {
	var answer struct {
		Run restRun `json:"run"`
	}
	if err := s.call(ctx, "read run "+runID, http.MethodGet, "runs/get", url.Values{"run_id": {runID}}, nil, &answer, s.config.retries); err != nil {
		return Run{}, err
	}
	return answer.Run.run()
}

func (s *restStore) MetricHistory(ctx context.Context, runID, key string) ([]Metric, error) {
	query := url.Values{"run_id": {runID}, "metric_key": {key}, "max_results": {"25000"}}
	var out []Metric
	for range maxPages {
		var answer struct {
			Metrics []restMetric `json:"metrics"`
			Next    string       `json:"next_page_token"`
		}
		if err := s.call(ctx, "read metric "+key, http.MethodGet, "metrics/get-history", query, nil, &answer, s.config.retries); err != nil {
			return nil, err
		}
		for _, m := range answer.Metrics {
			out = append(out, m.metric())
		}
		if answer.Next == "" {
			slices.SortStableFunc(out, compareMetrics)
			return out, nil
		}
		query.Set("page_token", answer.Next)
	}
	return nil, fmt.Errorf("mlflow: read metric %s: the server never stops sending pages: %w", key, ErrUnsafe)
}

func (s *restStore) SearchRuns(ctx context.Context, experimentID string, tag Tag) ([]Run, error) {
	quote := "'"
	if strings.Contains(tag.Value, quote) {
		quote = `"`
	}
	if strings.Contains(tag.Value, quote) || strings.ContainsAny(tag.Key, "`\"") {
		return nil, invalid("search runs", fmt.Sprintf("tag %q: MLflow cannot search for a value with both kinds of quotes", tag.Key))
	}
	return s.search(ctx, experimentID, "tags.`"+tag.Key+"` = "+quote+tag.Value+quote)
}

func (s *restStore) search(ctx context.Context, experimentID, filter string) ([]Run, error) {
	in := map[string]any{
		"experiment_ids": []string{experimentID}, "filter": filter, "run_view_type": "ACTIVE_ONLY",
		"max_results": 1000, "order_by": []string{"attributes.start_time ASC"},
	}
	var out []Run
	for range maxPages {
		var answer struct {
			Runs []restRun `json:"runs"`
			Next string    `json:"next_page_token"`
		}
		if err := s.call(ctx, "search runs", http.MethodPost, "runs/search", nil, in, &answer, s.config.retries); err != nil {
			return nil, err
		}
		for _, r := range answer.Runs {
			run, err := r.run()
			if err != nil {
				return nil, err
			}
			out = append(out, run)
		}
		if answer.Next == "" {
			return out, nil
		}
		in["page_token"] = answer.Next
	}
	return nil, fmt.Errorf("mlflow: search runs: the server never stops sending pages: %w", ErrUnsafe)
}

// artifactURL returns the address at which the server stores and serves an
// artifact for its clients.
func (s *restStore) artifactURL(run Run, p string) (string, error) {
	u, err := url.Parse(run.ArtifactURI)
	if err != nil || u.Opaque != "" {
		return "", fmt.Errorf("mlflow: the artifact location %q of run %s is not of the form mlflow-artifacts:/PATH", run.ArtifactURI, run.ID)
	}
	base := s.base
	if u.Host != "" && !strings.EqualFold(u.Host, s.host) { // another server keeps the artifacts
		other, err := url.Parse(s.base)
		if err != nil {
			return "", fmt.Errorf("mlflow: %w", err)
		}
		other.Host = u.Host
		base = other.String()
	}
	if err := checkArtifactPath(p); err != nil {
		return "", err
	}
	full := path.Join(strings.Trim(u.Path, "/"), p)
	if err := checkArtifactPath(full); err != nil {
		return "", fmt.Errorf("mlflow: artifact location %q: %w", run.ArtifactURI, err)
	}
	segments := strings.Split(full, "/")
	for i, segment := range segments {
		segments[i] = url.PathEscape(segment)
	}
	return base + "/api/2.0/mlflow-artifacts/artifacts/" + strings.Join(segments, "/"), nil
}

// isLocal reports whether the artifacts of a run lie on a disk. Is it the one of
// this machine, as MLflow's client takes for granted? See ownFolder.
func isLocal(run Run) bool { return !strings.HasPrefix(run.ArtifactURI, "mlflow-artifacts:") }

func (s *restStore) PutArtifact(ctx context.Context, run Run, p string, content *io.SectionReader) error {
	if isLocal(run) {
		dir, err := ownFolder(run.ArtifactURI, s.root)
		if err != nil {
			return err
		}
		return putLocal(ctx, dir, p, content)
	}
	op := "store artifact " + p
	address, err := s.artifactURL(run, p)
	if err != nil {
		return err
	}
	// A reader of its own for each attempt: when the server answers early,
	// net/http may still be reading the body of the attempt before.
	body := func() (io.Reader, error) { return io.NewSectionReader(content, 0, content.Size()), nil }
	req, err := s.newRequest(ctx, http.MethodPut, address, retryablehttp.ReaderFunc(body))
	if err != nil {
		return fmt.Errorf("mlflow: %s: %w", op, err)
	}
	req.ContentLength = content.Size()
	req.Header.Set("Content-Type", "application/octet-stream")
	return s.do(ctx, op, req, s.config.retries, func(body []byte) error {
		// MLflow answers nothing or {}. A page comes from something in
		// between, and then nothing has been stored.
		if len(body) > 0 && !json.Valid(body) {
			return s.foreign(op, body)
		}
		return nil
	})
}

func (s *restStore) OpenArtifact(ctx context.Context, run Run, p string) (io.ReadCloser, error) {
	if isLocal(run) {
		dir, err := ownFolder(run.ArtifactURI, s.root)
		if err != nil {
			return nil, err
		}
		return openLocal(dir, p)
	}
	op := "read artifact " + p
	address, err := s.artifactURL(run, p)
	if err != nil {
		return nil, err
	}
	req, err := s.newRequest(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("mlflow: %s: %w", op, err)
	}
	resp, err := s.config.retrier(s.clientFor(req), s.config.retries).Do(req)
	if err != nil {
		if resp != nil {
			resp.Body.Close()
		}
		return nil, s.explain(ctx, op, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, s.refusal(op, resp)
	}
	return resp.Body, nil
}

func (s *restStore) ListArtifacts(ctx context.Context, run Run, p string) ([]FileInfo, error) {
	if p != "" {
		if err := checkArtifactPath(p); err != nil {
			return nil, err
		}
	}
	query := url.Values{"run_id": {run.ID}}
	if p != "" {
		query.Set("path", p)
	}
	var out []FileInfo
	for range maxPages {
		var answer struct {
			Files []struct {
				Path  string  `json:"path"`
				IsDir bool    `json:"is_dir"`
				Size  restInt `json:"file_size"`
			} `json:"files"`
			Next string `json:"next_page_token"`
		}
		if err := s.call(ctx, "list artifacts", http.MethodGet, "artifacts/list", query, nil, &answer, s.config.retries); err != nil {
			return nil, err
		}
		for _, f := range answer.Files {
			out = append(out, FileInfo{Path: f.Path, IsDir: f.IsDir, Size: int64(f.Size)})
		}
		if answer.Next == "" {
			slices.SortFunc(out, func(a, b FileInfo) int { return strings.Compare(a.Path, b.Path) })
			return out, nil
		}
		query.Set("page_token", answer.Next)
	}
	return nil, fmt.Errorf("mlflow: list artifacts: the server never stops sending pages: %w", ErrUnsafe)
}
