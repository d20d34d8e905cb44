// Package serve puts classifiers behind HTTP: predictions, health and metrics.
//
//	POST /v1/predict   {"post": …, "criterion": …} or {"pairs": [{…}, …]}
//	GET  /healthz      200 while the process lives
//	GET  /readyz       200 while requests are welcome
//	GET  /metrics      in Prometheus' text format
//
// [Handler] is for programs that have a classifier and an HTTP server of their
// own. [New] makes a server that may listen before its model is loaded, and
// [Server.Serve] runs it until a context ends:
//
//	server, err := serve.New(serve.WithLogger(log))
//	…
//	go func() { c, err := criteria.Load(ctx, dir); … server.SetModel("criteria", c) }()
//	err = server.Serve(ctx, listener, 5*time.Second)
//
// Every answer but those of /metrics is JSON; what went wrong has the form
// {"error": {"code": …, "message": …}}, see [Error]. No text of a request is
// logged, nor part of an error.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/criteria-go/criteria"
)

// Classifier is what a server asks; [*criteria.Classifier] is one. It is called
// by many goroutines at once.
type Classifier interface {
	Predict(ctx context.Context, pairs []criteria.Pair) ([]criteria.Prediction, error)
	Stats() criteria.Stats
	Threshold() float64
}

// Limits bounds what a request may ask for. A zero field means its default.
type Limits struct {
	Body    int64         // bytes of a request; default 1 MiB
	Pairs   int           // in one request; default 128
	Text    int           // bytes of a post or a criterion; default 64 KiB
	Timeout time.Duration // for an answer, waiting included; default 30 s
	Read    time.Duration // for a request to arrive; default 15 s
}

// Option configures a [Server].
type Option func(*Server) error

// WithLimits bounds what requests may ask for.
func WithLimits(l Limits) Option {
	return func(s *Server) error {
		if l.Body < 0 || l.Pairs < 0 || l.Text < 0 || l.Timeout < 0 || l.Read < 0 {
			return &criteria.OptionError{Option: "serve.WithLimits", Value: l, Reason: "want no negative limit; 0 is the default"}
		}
		s.limits = l.withDefaults()
		return nil
	}
}

func (l Limits) withDefaults() Limits {
	if l.Body == 0 {
		l.Body = 1 << 20
	}
	if l.Pairs == 0 {
		l.Pairs = 128
	}
	if l.Text == 0 {
		l.Text = 64 << 10
	}
	if l.Timeout == 0 {
		l.Timeout = 30 * time.Second
	}
	if l.Read == 0 {
		l.Read = 15 * time.Second
	}
	return l
}

// WithLogger logs one line per request. Default: nothing is logged.
func WithLogger(log *slog.Logger) Option {
	return func(s *Server) error {
		if log == nil {
			return &criteria.OptionError{Option: "serve.WithLogger", Value: log, Reason: "want a logger"}
		}
		s.log = log
		return nil
	}
}

// Server is the handler of all paths. It is safe for concurrent use.
type Server struct {
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	routes   map[string]endpoint // by path
	draining atomic.Bool

	mu     sync.RWMutex
	models map[string]Classifier
	first  string // name of the model of /v1/predict
}

// New returns a server without a model: until it gets one by [Server.SetModel],
// /readyz says no and predictions are refused with the code loading.
func New(opts ...Option) (*Server, error) {
	s := &Server{limits: Limits{}.withDefaults(), log: slog.New(slog.DiscardHandler), models: make(map[string]Classifier)}
	for _, opt := range opts {
		if err := opt(s); err != nil {
			return nil, err
		}
	}
	s.metrics = newMetrics(s.snapshot)
	s.routes = map[string]endpoint{
		"/v1/predict": {http.MethodPost, s.predict},
		"/healthz":    {http.MethodGet, func(*http.Request) (answer, error) { return answer{body: status{"ok"}}, nil }},
		"/readyz":     {http.MethodGet, s.ready},
		"/metrics":    {http.MethodGet, s.metrics.show},
	}
	return s, nil
}

// DefaultModel is the name of the model that [Handler] serves.
const DefaultModel = "criteria"

// Handler returns a handler of all paths that asks c.
func Handler(c Classifier, opts ...Option) (http.Handler, error) {
	s, err := New(opts...)
	if err != nil {
		return nil, err
	}
	return s, s.SetModel(DefaultModel, c)
}

var modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// SetModel adds a model, or puts another one in the place of that name. The
// first one is asked by /v1/predict. A model that was replaced may still be
// answering requests; close it as [criteria.Classifier.Close] does, which waits
// for them.
func (s *Server) SetModel(name string, c Classifier) error {
	if !modelName.MatchString(name) || c == nil {
		return &criteria.OptionError{Option: "SetModel", Value: name,
			Reason: "want a classifier, and a name of letters, digits, dots, dashes and underscores"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == "" {
		s.first = name
	}
	s.models[name] = c
	return nil
}

// model returns the model of that name, or the first one.
func (s *Server) model(name string) (Classifier, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.first == "" {
		return nil, &Error{http.StatusServiceUnavailable, "loading", "the model is not loaded yet; try again later"}
	}
	if name == "" {
		name = s.first
	}
	c, ok := s.models[name]
	if !ok {
		return nil, &Error{http.StatusNotFound, "not_found", "there is no model of that name"}
	}
	return c, nil
}

// snapshot returns the counters of all models by their names.
func (s *Server) snapshot() map[string]criteria.Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make(map[string]criteria.Stats, len(s.models))
	for name, c := range s.models {
		all[name] = c.Stats()
	}
	return all
}

// Drain makes /readyz tell load balancers to send no more requests, and answers
// tell clients to ask on other connections. Requests that come nevertheless are
// still answered.
func (s *Server) Drain() { s.draining.Store(true) }

type status struct {
	Status string `json:"status"`
}

func (s *Server) ready(*http.Request) (answer, error) {
	if s.draining.Load() {
		return answer{}, &Error{http.StatusServiceUnavailable, "draining", "the server is about to end"}
	}
	if _, err := s.model(""); err != nil {
		return answer{}, err
	}
	return answer{body: status{"ready"}}, nil
}

// endpoint is what a path leads to.
type endpoint struct {
	method string
	handle func(*http.Request) (answer, error)
}

// answer is what a request gets.
type answer struct {
	body  any                                          // written as JSON
	write func(w http.ResponseWriter, r *http.Request) // if it is not nil, instead of body
	pairs int                                          // that were asked about
}

// ServeHTTP implements [http.Handler]. Paths are taken as they are: none is
// redirected to its shorter form.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	path := r.URL.Path
	e, known := s.routes[path]
	if !known {
		path = "other"
		e = endpoint{r.Method, func(*http.Request) (answer, error) {
			return answer{}, &Error{http.StatusNotFound, "not_found", "want /v1/predict, /healthz, /readyz or /metrics"}
		}}
	}
	if s.draining.Load() {
		w.Header().Set("Connection", "close")
	}
	a, err := s.call(w, r, e)
	code := http.StatusOK
	if err != nil {
		failure := s.publicError(r.Context(), err)
		code, a = failure.Status, answer{body: errorBody{failure}}
	}
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	switch {
	case code == StatusClientClosed:
	case a.write != nil:
		a.write(w, r)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(a.body) // a client that has gone since cannot be told
	}
	s.report(r.Context(), request{r.Method, path, r.RemoteAddr, code, a.pairs, time.Since(started), err})
}

// request is what is counted and logged of one.
type request struct {
	method, path, remote string
	code, pairs          int
	took                 time.Duration
	err                  error
}

// report counts and logs a request.
func (s *Server) report(ctx context.Context, r request) {
	s.metrics.observe(r.path, r.code, r.took)
	level, attrs := slog.LevelInfo, []slog.Attr{
		slog.String("method", r.method), slog.String("path", r.path), slog.Int("status", r.code),
		slog.Float64("took_seconds", r.took.Seconds()), slog.String("remote", r.remote),
	}
	if r.pairs > 0 {
		attrs = append(attrs, slog.Int("pairs", r.pairs))
	}
	var e *Error
	switch {
	case r.err == nil && r.path != "/v1/predict":
		level = slog.LevelDebug
	case r.err != nil:
		attrs = append(attrs, slog.String("error", r.err.Error()))
		// A refusal on purpose is no fault of the server's.
		if r.code >= http.StatusInternalServerError && !errors.As(r.err, &e) && !errors.Is(r.err, criteria.ErrClosed) {
			level = slog.LevelError
		}
	}
	s.log.LogAttrs(context.WithoutCancel(ctx), level, "request", attrs...)
}

// call makes a panic an error: one request must not end the others.
func (s *Server) call(w http.ResponseWriter, r *http.Request, e endpoint) (a answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "value", fmt.Sprint(p), "stack", string(debug.Stack()))
			a, err = answer{}, errors.New("the handler panicked")
		}
	}()
	if ambiguous(r) {
		w.Header().Set("Connection", "close")
		return answer{}, &Error{http.StatusBadRequest, "invalid_http", "the request does not say clearly where it ends: " +
			"want either Content-Length or Transfer-Encoding, each in one line"}
	}
	if r.Method != e.method && (e.method != http.MethodGet || r.Method != http.MethodHead) {
		allow := e.method
		if allow == http.MethodGet {
			allow = strings.Join([]string{http.MethodGet, http.MethodHead}, ", ")
		}
		w.Header().Set("Allow", allow)
		return answer{}, &Error{http.StatusMethodNotAllowed, "method_not_allowed", "want " + allow}
	}
	a, err = e.handle(r)
	var failure *Error
	if errors.As(err, &failure) && failure.Status == http.StatusUnsupportedMediaType {
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110, 12.5.3
	}
	return a, err
}
