package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/criteria-go/criteria"
)

// classifier answers by what it was asked: the length of the post in percent.
type classifier struct {
	before func(ctx context.Context, pairs []criteria.Pair) error
}

func (c classifier) Predict(ctx context.Context, pairs []criteria.Pair) ([]criteria.Prediction, error) {
	if c.before != nil {
		if err := c.before(ctx, pairs); err != nil {
			return nil, err
		}
	}
	var out []criteria.Prediction
	for _, p := range pairs {
		probability := float64(len(p.Post)) / 100
		out = append(out, criteria.Prediction{Probability: probability, Label: probability > 0.5, Truncated: len(p.Post) > 90})
	}
	return out, nil
}

func (classifier) Stats() criteria.Stats {
	return criteria.Stats{Waiting: 3, Pairs: 20, Batches: 4, Refused: 1}
}
func (classifier) Threshold() float64 { return 0.5 }

func newRequest(method, path, body string) *http.Request {
	return httptest.NewRequest(method, path, strings.NewReader(body))
}

func post(body string) *http.Request { return newRequest(http.MethodPost, "/v1/predict", body) }

func record(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// testServer returns a server with a model.
func testServer(c Classifier, opts ...Option) *Server {
	s, err := New(opts...)
	if err != nil {
		panic(err)
	}
	if err := s.SetModel(DefaultModel, c); err != nil {
		panic(err)
	}
	return s
}

// ask returns status and body of an answer, and what was logged.
func ask(c Classifier, r *http.Request) (*httptest.ResponseRecorder, string) {
	var log bytes.Buffer
	s := testServer(c, WithLimits(Limits{Body: 1000, Pairs: 3, Text: 100, Timeout: 50 * time.Millisecond}),
		WithLogger(slog.New(slog.NewJSONHandler(&log, nil))))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w, log.String()
}

func TestPredict(t *testing.T) {
	for name, tc := range map[string]struct{ body, want string }{
		"one":           {`{"post": "hello", "criterion": "c"}`, `{"probability":0.05,"label":false,"truncated":false}`},
		"many":          {`{"pairs": [{"post": "hello", "criterion": "c"}, {"criterion": "c", "post": "` + strings.Repeat("x", 95) + `"}]}`, `{"predictions":[{"probability":0.05,"label":false,"truncated":false},{"probability":0.95,"label":true,"truncated":true}],"threshold":0.5}`},
		"list of one":   {`{"pairs": [{"post": "hello", "criterion": "c"}]}`, `{"predictions":[{"probability":0.05,"label":false,"truncated":false}],"threshold":0.5}`},
		"escapes":       {`{"post": "\u00e9\n\u0000", "criterion": "\"c\""}`, `{"probability":0.04,"label":false,"truncated":false}`},
		"all languages": {`{"post": "日本", "criterion": "c"}`, `{"probability":0.06,"label":false,"truncated":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := ask(classifier{}, post(tc.body))
			if diff := cmp.Diff(tc.want+"\n", w.Body.String()); w.Code != http.StatusOK || diff != "" {
				t.Errorf("status %d (-want +got):\n%s", w.Code, diff)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
}

// goNames are what a client has no use for.
var goNames = regexp.MustCompile(`serve\.|httpapi|struct|\*string|\[\]|Go |json\.|question`)

// What is wrong is said in the words of JSON, and where.
func TestMessages(t *testing.T) {
	for body, want := range map[string]string{
		`{"post": 1, "criterion": "c"}`:                  "post: want a text, not a number",
		`{"pairs": {}}`:                                  "pairs: want a list, not an object",
		`{"pairs": [{"post": "a"}, true]}`:               "pairs[1]: want an object, not a boolean",
		`{"pairs": [{"post": "a", "criterion": ["b"]}]}`: "pairs[0].criterion: want a text, not a list",
		`["a"]`:                                  "want an object, not a list",
		`{"pairs": [{"post": "a"}]}`:             "pairs[0].criterion: want a text",
		`{"post": "a", "criterion": "b"} {}`:     "not JSON from byte 32 on",
		`{"post": "a", "criterion": "b", "x":1}`: `want {"post": "…", "criterion": "…"} or {"pairs": [{…}, …]}, in lower case, and no other fields`,
	} {
		w, _ := ask(classifier{}, post(body))
		var got errorBody
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Error.Message != want {
			t.Errorf("%s: %q, want %q", body, got.Error.Message, want)
		}
	}
}

// Prometheus' own linter, which promtool calls, finds nothing to say.
func TestMetricsNames(t *testing.T) {
	s := testServer(classifier{})
	record(s, post(`{"post": "hello", "criterion": "c"}`))
	problems, err := promlint.New(record(s, newRequest(http.MethodGet, "/metrics", "")).Body).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, error %v", problems, err)
	}
}

func TestRefusals(t *testing.T) {
	const good = `{"post": "hello", "criterion": "c"}`
	failing := func(err error) classifier {
		return classifier{before: func(context.Context, []criteria.Pair) error { return err }}
	}
	request := func(method, path, contentType, body string) *http.Request {
		r := newRequest(method, path, body)
		r.Header.Set("Content-Type", contentType)
		return r
	}
	with := func(name, value string) *http.Request {
		r := request("POST", "/v1/predict", "application/json", good)
		r.Header.Add(name, value)
		return r
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		classifier classifier
		request    *http.Request
		status     int
		code       string
	}{
		"path":            {classifier{}, request("GET", "/v2/predict", "", ""), 404, "not_found"},
		"method":          {classifier{}, request("GET", "/v1/predict", "", ""), 405, "method_not_allowed"},
		"method of probe": {classifier{}, request("POST", "/healthz", "", ""), 405, "method_not_allowed"},
		"media type":      {classifier{}, request("POST", "/v1/predict", "text/csv", good), 415, "unsupported_media_type"},
		"bad media type":  {classifier{}, request("POST", "/v1/predict", ";;;", good), 415, "unsupported_media_type"},
		"charset":         {classifier{}, request("POST", "/v1/predict", "application/json; charset=latin1", good), 415, "unsupported_media_type"},
		"two media types": {classifier{}, with("Content-Type", "text/plain"), 415, "unsupported_media_type"},
		"compressed":      {classifier{}, with("Content-Encoding", "identity, gzip"), 415, "unsupported_media_type"},
		"metrics":         {classifier{}, request("POST", "/metrics", "", ""), 405, "method_not_allowed"},
		"empty":           {classifier{}, post(""), 400, "invalid_json"},
		"no JSON":         {classifier{}, post("post=hello"), 400, "invalid_json"},
		"cut JSON":        {classifier{}, post(good[:20]), 400, "invalid_json"},
		"two values":      {classifier{}, post(good + good), 400, "invalid_json"},
		"UTF-8":           {classifier{}, post("{\"post\": \"\xff\", \"criterion\": \"c\"}"), 400, "invalid_utf8"},
		"UTF-16":          {classifier{}, post("\xfe\xff\x00{"), 400, "invalid_utf8"},
		"lone surrogate":  {classifier{}, post(`{"post": "\ud83d", "criterion": "c"}`), 400, "invalid_utf8"},
		"turned pair":     {classifier{}, post(`{"post": "\ude00\ud83d", "criterion": "c"}`), 400, "invalid_utf8"},
		"same key twice":  {classifier{}, post(`{"post": "a", "criterion": "c", "post": "b"}`), 400, "invalid_request"},
		"the same inside": {classifier{}, post(`{"pairs": [{"post": "a", "post": "a", "criterion": "c"}]}`), 400, "invalid_request"},
		"other case":      {classifier{}, post(`{"Post": "a", "criterion": "c"}`), 400, "invalid_request"},
		"wrong type":      {classifier{}, post(`{"post": 1, "criterion": "c"}`), 400, "invalid_request"},
		"not an object":   {classifier{}, post(`["a", "b"]`), 400, "invalid_request"},
		"null":            {classifier{}, post(`null`), 400, "invalid_request"},
		"unknown field":   {classifier{}, post(`{"post": "a", "criterion": "c", "model": "x"}`), 400, "invalid_request"},
		"no criterion":    {classifier{}, post(`{"post": "a"}`), 400, "invalid_request"},
		"empty post":      {classifier{}, post(`{"post": "", "criterion": "c"}`), 400, "invalid_request"},
		"no pairs":        {classifier{}, post(`{"pairs": []}`), 400, "invalid_request"},
		"both":            {classifier{}, post(`{"post": "a", "pairs": [` + good + `]}`), 400, "invalid_request"},
		"many pairs":      {classifier{}, post(`{"pairs": [` + strings.Repeat(good+",", 3) + good + `]}`), 413, "too_many_pairs"},
		"long text":       {classifier{}, post(`{"post": "` + strings.Repeat("x", 101) + `", "criterion": "c"}`), 413, "text_too_long"},
		"long body":       {classifier{}, post(`{"post": "` + strings.Repeat("x", 1000) + `"}`), 413, "body_too_large"},
		"overloaded":      {failing(&criteria.OverloadError{Waiting: 5, Limit: 5}), post(good), 429, "overloaded"},
		"closed":          {failing(criteria.ErrClosed), post(good), 503, "closing"},
		"slow model": {classifier{before: func(ctx context.Context, _ []criteria.Pair) error {
			<-ctx.Done()
			return fmt.Errorf("predict: %w", context.Cause(ctx))
		}}, post(good), 503, "timeout"},
		"broken model": {failing(errors.New("secret")), post(good), 500, "internal"},
		"panic":        {classifier{before: func(context.Context, []criteria.Pair) error { panic("secret") }}, post(good), 500, "internal"},
		"client gone":  {failing(gone.Err()), post(good).WithContext(gone), 200, ""}, // nothing is written
	} {
		t.Run(name, func(t *testing.T) {
			w, log := ask(tc.classifier, tc.request)
			var got struct{ Error Error }
			if tc.code != "" {
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
					t.Fatalf("%v: %s", err, w.Body)
				}
			} else if w.Body.Len() > 0 || !strings.Contains(log, "499") {
				t.Errorf("body %s, log %s; want none, and 499 in the log", w.Body, log)
			}
			if w.Code != tc.status || got.Error.Code != tc.code || (tc.code != "" && got.Error.Message == "") {
				t.Errorf("status %d, %+v; want %d, %s", w.Code, got.Error, tc.status, tc.code)
			}
			if retry := w.Header().Get("Retry-After"); (retry != "") != (w.Code == 429 || w.Code == 503) {
				t.Errorf("status %d with Retry-After %q", w.Code, retry)
			}
			if goNames.MatchString(w.Body.String()) {
				t.Errorf("the answer speaks of Go: %s", w.Body)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the answer gives away what happened inside: %s", w.Body)
			}
		})
	}
}

// The text of a post must not be in the log, nor in an answer that is an error.
func TestNoTextInLogs(t *testing.T) {
	const secret = "nobody-must-read-this"
	for _, body := range []string{
		`{"post": "` + secret + `", "criterion": "` + secret + `"}`,
		`{"post": "` + secret + `"}`,
		`{"post": "` + secret + `", "criterion": 7}`,
		`{"` + secret + `": 1}`,
		`{"post": "` + secret,
		secret,
		`{"post": "` + secret + `", "criterion": "` + strings.Repeat(secret, 10) + `"}`,
	} {
		w, log := ask(classifier{}, post(body))
		if strings.Contains(log, secret) || !strings.Contains(log, `"path":"/v1/predict"`) {
			t.Errorf("log of %s: %s", body, log)
		}
		if strings.Contains(w.Body.String(), secret) {
			t.Errorf("answer to %s: %s", body, w.Body)
		}
	}
}

func TestProbesAndMetrics(t *testing.T) {
	s := testServer(classifier{})
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	for _, body := range []string{`{"post": "hello", "criterion": "c"}`, `{}`} {
		s.ServeHTTP(httptest.NewRecorder(), post(body))
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	_, text := get("/metrics")
	for _, line := range []string{
		`criteria_http_requests_total{code="200",path="/v1/predict"} 1`, `criteria_http_requests_total{code="400",path="/v1/predict"} 1`,
		`criteria_http_request_duration_seconds_count{path="/v1/predict"} 2`,
		`criteria_queue_pairs{model="criteria"} 3`, `criteria_pairs_total{model="criteria"} 20`, `criteria_batches_total{model="criteria"} 4`, `criteria_refused_calls_total{model="criteria"} 1`, "go_goroutines ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	s.Drain()
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("/readyz while draining: %d %s", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz while draining: %d", code)
	}
}

// When the context ends, what was asked is answered and then the server ends.
func TestServeDrains(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	s := testServer(classifier{before: func(context.Context, []criteria.Pair) error {
		close(asked)
		<-release
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, listener, 0) }()
	answered := make(chan string, 1)
	url := "http://" + listener.Addr().String()
	go func() {
		resp, err := http.Post(url+"/v1/predict", "application/json", strings.NewReader(`{"post": "hello", "criterion": "c"}`))
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	<-asked
	cancel()
	for { // Shutdown has begun when connections are refused
		resp, err := http.Get(url + "/healthz")
		if err != nil {
			break
		}
		resp.Body.Close()
	}
	select {
	case err := <-ended:
		t.Fatalf("Serve returned %v while a request was being answered", err)
	default:
	}
	close(release)
	if got := <-answered; !strings.Contains(got, "0.05") {
		t.Errorf("answer %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
