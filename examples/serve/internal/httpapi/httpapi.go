// Package httpapi answers questions about pairs over HTTP: predictions, health
// and metrics. It is a package of its own so that tests and other programs can
// put it behind any listener.
//
//	POST /v1/predict   {"post": …, "criterion": …} or {"pairs": [{…}, …]}
//	GET  /healthz      200 while the process lives
//	GET  /readyz       200 while requests are welcome
//	GET  /metrics      in Prometheus' text format
//
// Every answer but those of /metrics is JSON; what went wrong has the form
// {"error": {"code": …, "message": …}}. No text of a request is logged, nor part
// of an error.
package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/criteria-go/criteria"
)

// Classifier is what the server asks; [criteria.Classifier] is one.
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

// Server is the handler of all paths. It is safe for concurrent use.
type Server struct {
	classifier Classifier
	limits     Limits
	log        *slog.Logger
	metrics    *metrics
	mux        *http.ServeMux
	draining   atomic.Bool
}

// New returns a server that asks c and logs one line per request to log.
func New(c Classifier, limits Limits, log *slog.Logger) *Server {
	s := &Server{classifier: c, limits: limits.withDefaults(), log: log, metrics: newMetrics(c.Stats), mux: http.NewServeMux()}
	s.handle(http.MethodPost, "/v1/predict", s.predict)
	s.handle(http.MethodGet, "/healthz", func(*http.Request) (any, error) { return status{"ok"}, nil })
	s.handle(http.MethodGet, "/readyz", s.ready)
	s.mux.Handle("/metrics", s.metrics.handler())
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, "other", func(*http.Request) (any, error) {
			return nil, &Error{http.StatusNotFound, "not_found", "want /v1/predict, /healthz, /readyz or /metrics"}
		})
	})
	return s
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Drain makes /readyz tell load balancers to send no more requests. Those that
// come nevertheless are still answered.
func (s *Server) Drain() { s.draining.Store(true) }

// Error is an answer that says what is wrong.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"` // for programs, e.g. too_many_pairs
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// StatusClientClosed is logged when the client has gone, as nginx does; nobody
// receives it.
const StatusClientClosed = 499

type status struct {
	Status string `json:"status"`
}

func (s *Server) ready(*http.Request) (any, error) {
	if s.draining.Load() {
		return nil, &Error{http.StatusServiceUnavailable, "draining", "the server is about to end"}
	}
	return status{"ready"}, nil
}

func (s *Server) handle(method, path string, f func(*http.Request) (any, error)) {
	s.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, r, path, func(r *http.Request) (any, error) {
			if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
				w.Header().Set("Allow", method)
				return nil, &Error{http.StatusMethodNotAllowed, "method_not_allowed", "want " + method}
			}
			return f(r)
		})
	})
}

// answer writes what f returns, and counts and logs the request.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, path string, f func(*http.Request) (any, error)) {
	started := time.Now()
	body, err := s.call(r, f)
	code := http.StatusOK
	if err != nil {
		e := s.publicError(r.Context(), err)
		code, body = e.Status, struct {
			Error *Error `json:"error"`
		}{e}
	}
	if code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if code != StatusClientClosed {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(body) // a client that has gone since cannot be told
	}
	took := time.Since(started)
	s.metrics.observe(path, code, took)
	level, attrs := slog.LevelInfo, []slog.Attr{
		slog.String("method", r.Method), slog.String("path", path), slog.Int("status", code),
		slog.Duration("took", took), slog.String("remote", r.RemoteAddr),
	}
	if p, ok := body.(predictions); ok {
		attrs = append(attrs, slog.Int("pairs", len(p.Predictions)))
	} else if _, ok := body.(prediction); ok {
		attrs = append(attrs, slog.Int("pairs", 1))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
		if code >= 500 {
			level = slog.LevelError
		}
	} else if path != "/v1/predict" {
		level = slog.LevelDebug
	}
	s.log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", attrs...)
}

// call makes a panic an error: one request must not end the others.
func (s *Server) call(r *http.Request, f func(*http.Request) (any, error)) (body any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "value", fmt.Sprint(p), "stack", string(debug.Stack()))
			body, err = nil, errors.New("the handler panicked")
		}
	}()
	return f(r)
}

// publicError says what a client may know of an error.
func (s *Server) publicError(ctx context.Context, err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case ctx.Err() != nil:
		return &Error{StatusClientClosed, "client_closed_request", "the client has gone"}
	case errors.Is(err, criteria.ErrOverloaded):
		return &Error{http.StatusTooManyRequests, "overloaded", "too many requests are waiting; try again later"}
	case errors.Is(err, criteria.ErrClosed):
		return &Error{http.StatusServiceUnavailable, "closing", "the server is about to end"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{http.StatusServiceUnavailable, "timeout", fmt.Sprintf("no answer within %v; try again later or ask for less", s.limits.Timeout)}
	}
	return &Error{http.StatusInternalServerError, "internal", "the server could not compute an answer; its log says why"}
}

// pair is a question.
type pair struct {
	Post      *string `json:"post"`
	Criterion *string `json:"criterion"`
}

// request is the body of /v1/predict: one pair, or many.
type request struct {
	pair
	Pairs []pair `json:"pairs"`
}

type prediction struct {
	Probability float64 `json:"probability"` // that the post shows the criterion
	Label       bool    `json:"label"`       // whether that is above the threshold
	Truncated   bool    `json:"truncated"`   // whether the pair was too long and was cut
}

type predictions struct {
	Predictions []prediction `json:"predictions"`
	Threshold   float64      `json:"threshold"`
}

func (s *Server) predict(r *http.Request) (any, error) {
	pairs, single, err := s.read(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.Timeout)
	defer cancel()
	results, err := s.classifier.Predict(ctx, pairs)
	if err != nil {
		return nil, err
	}
	s.metrics.predicted(results)
	answers := predictions{make([]prediction, len(results)), s.classifier.Threshold()}
	for i, p := range results {
		answers.Predictions[i] = prediction{p.Probability, p.Label, p.Truncated}
	}
	if single {
		return answers.Predictions[0], nil
	}
	return answers, nil
}

// read returns the pairs that a request asks about.
func (s *Server) read(r *http.Request) (pairs []criteria.Pair, single bool, err error) {
	if t := r.Header.Get("Content-Type"); t != "" {
		if media, _, err := mime.ParseMediaType(t); err != nil || media != "application/json" {
			return nil, false, &Error{http.StatusUnsupportedMediaType, "unsupported_media_type", "want application/json"}
		}
	}
	text, err := s.body(r)
	if err != nil {
		return nil, false, err
	}
	var q request
	if err := decode(text, &q); err != nil {
		return nil, false, err
	}
	single = q.Pairs == nil
	if single {
		q.Pairs = []pair{q.pair}
	} else if q.Post != nil || q.Criterion != nil {
		return nil, false, invalid("want either post and criterion or pairs, not both")
	}
	switch n := len(q.Pairs); {
	case n == 0:
		return nil, false, invalid("want at least one pair")
	case n > s.limits.Pairs:
		return nil, false, &Error{http.StatusRequestEntityTooLarge, "too_many_pairs", fmt.Sprintf("found %d pairs, want at most %d", n, s.limits.Pairs)}
	}
	pairs = make([]criteria.Pair, len(q.Pairs))
	for i, p := range q.Pairs {
		where := "pairs[" + strconv.Itoa(i) + "]."
		if single {
			where = ""
		}
		for _, field := range []struct {
			name string
			text *string
			to   *string
		}{{"post", p.Post, &pairs[i].Post}, {"criterion", p.Criterion, &pairs[i].Criterion}} {
			switch {
			case field.text == nil || *field.text == "":
				return nil, false, invalid("%s%s: want a text", where, field.name)
			case len(*field.text) > s.limits.Text:
				return nil, false, &Error{http.StatusRequestEntityTooLarge, "text_too_long",
					fmt.Sprintf("%s%s: found %d bytes, want at most %d", where, field.name, len(*field.text), s.limits.Text)}
			}
			*field.to = *field.text
		}
	}
	return pairs, single, nil
}

func (s *Server) body(r *http.Request) ([]byte, error) {
	tooLarge := &Error{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("want at most %d bytes", s.limits.Body)}
	if r.ContentLength > s.limits.Body {
		return nil, tooLarge
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, s.limits.Body+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Error{http.StatusRequestTimeout, "slow_request", "the request did not arrive in time"}
	case err != nil:
		// The connection broke, or what came over it is no HTTP.
		return nil, invalid("the request could not be read")
	case int64(len(text)) > s.limits.Body:
		return nil, tooLarge
	case !utf8.Valid(text):
		return nil, &Error{http.StatusBadRequest, "invalid_utf8", "the request is not UTF-8"}
	}
	return text, nil
}

// decode reads exactly one JSON value with the fields of q and no others.
func decode(text []byte, q *request) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(q)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return &Error{http.StatusBadRequest, "invalid_json", "something follows the JSON value"}
		}
		return nil
	case errors.As(err, &syntax):
		return &Error{http.StatusBadRequest, "invalid_json", fmt.Sprintf("not JSON from byte %d on", syntax.Offset)}
	case errors.As(err, &kind):
		return invalid("%s: want %v, not a JSON %s", kind.Field, kind.Type, kind.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{http.StatusBadRequest, "invalid_json", "the JSON value is not complete"}
	}
	return invalid(`want {"post": "…", "criterion": "…"} or {"pairs": [{…}, …]} and no other fields`)
}

func invalid(format string, args ...any) *Error {
	return &Error{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}
