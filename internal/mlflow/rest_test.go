package mlflow

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestWait holds MLflow's own schedule: at once, then 4, 8, 16 … s, at most two
// minutes, with up to one second of jitter; Retry-After wins.
func TestWait(t *testing.T) {
	c, err := restConfigFrom(Options{Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	if c.retries != 7 || c.timeout != 120*time.Second {
		t.Errorf("%d retries, timeout %s; want 7 and 2m0s", c.retries, c.timeout)
	}
	for attempt, want := range []int{0, 4, 8, 16, 32, 64, 120, 120} {
		got, low := c.wait(attempt, nil), time.Duration(want)*time.Second
		high := low + time.Second
		if want == 0 {
			high = low
		}
		if got < low || got > high {
			t.Errorf("after attempt %d: %s, want %s to %s", attempt, got, low, high)
		}
	}
	for header, want := range map[string]time.Duration{"0": 0, "1": time.Second, "99999999": maxBackoff, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0} {
		resp := &http.Response{Header: http.Header{"Retry-After": {header}}}
		if got := c.wait(3, resp); got != want {
			t.Errorf("Retry-After %s: %s, want %s", header, got, want)
		}
	}
	if got := c.wait(1, &http.Response{Header: http.Header{"Retry-After": {"soon"}}}); got < 4*time.Second {
		t.Errorf("Retry-After that makes no sense: %s", got)
	}
	c, err = restConfigFrom(Options{MaxRetries: 2, Getenv: quick("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "3", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0", "MLFLOW_HTTP_REQUEST_TIMEOUT", "1.5")})
	if err != nil || c.retries != 2 || c.wait(2, nil) != 12*time.Second || c.timeout != 1500*time.Millisecond {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := restConfigFrom(Options{Getenv: quick("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")}); err == nil || !strings.Contains(err.Error(), "MLFLOW_HTTP_REQUEST_TIMEOUT") {
		t.Errorf("%v, want an error that names the variable", err)
	}
}

// scripted answers the first requests of an endpoint as told, then lets the
// fake server answer.
type scripted struct {
	next     http.Handler
	endpoint string
	answers  []func(w http.ResponseWriter, r *http.Request)
	mu       sync.Mutex
	count    int
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, s.endpoint) {
		s.next.ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	i := s.count
	s.count++
	s.mu.Unlock()
	if i < len(s.answers) {
		s.answers[i](w, r)
		return
	}
	s.next.ServeHTTP(w, r)
}

func (s *scripted) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func answer(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// cut breaks the connection, after n bytes of an answer.
func cut(n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		text := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"run\": {\"info\": {"
		_, _ = io.WriteString(conn, text[:min(n, len(text))])
	}
}

func newScripted(t *testing.T, endpoint string, answers ...func(http.ResponseWriter, *http.Request)) (*scripted, Store, Run) {
	t.Helper()
	h := &scripted{next: newFakeServer(t), endpoint: endpoint}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s := mustOpen(t, server.URL, Options{})
	exp, err := s.EnsureExperiment(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.CreateRun(t.Context(), RunSpec{ExperimentID: exp, Start: start.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.answers, h.count = answers, 0
	h.mu.Unlock()
	return h, s, run
}

func TestRetries(t *testing.T) {
	type handler = func(http.ResponseWriter, *http.Request)
	for _, c := range []struct {
		name     string
		answers  []handler
		requests int
		want     string // of the error; "" means success
	}{
		{"all that can pass", []handler{answer(408, ""), answer(429, ""), answer(500, ""), answer(502, "<html>"), answer(503, ""), answer(504, "")}, 7, ""},
		{"broken connections", []handler{cut(0), cut(20), cut(1000)}, 4, ""},
		{"for ever", []handler{answer(503, "<h1>busy</h1>"), answer(503, ""), answer(503, ""), answer(503, ""), answer(503, ""), answer(503, ""), answer(503, ""), answer(503, "<h1>still busy</h1>")}, 8, "HTTP 503: \"<h1>still busy</h1>\""},
		{"refused", []handler{answer(400, `{"error_code": "INVALID_PARAMETER_VALUE", "message": "no way"}`)}, 1, "INVALID_PARAMETER_VALUE: no way"},
		{"not implemented", []handler{answer(501, "")}, 1, "HTTP 501"},
		{"a page", []handler{answer(200, "<html><title>Sign in</title>")}, 1, "not MLflow's: \"<html><title>Sign in</title>\""},
		{"wrong address", []handler{answer(404, "<html>Not found")}, 1, "path prefix"},
		{"host header", []handler{answer(403, "Invalid Host header - possible DNS rebinding attack detected")}, 1, "--allowed-hosts"},
		{"no permission", []handler{answer(403, "Permission denied")}, 1, "lacks the permission"},
		{"no credentials", []handler{answer(401, "You are not authenticated.")}, 1, "MLFLOW_TRACKING_TOKEN"},
		{"endless answer", []handler{func(w http.ResponseWriter, _ *http.Request) {
			for block := make([]byte, 1<<20); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}}, 1, "unsafe answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h, s, run := newScripted(t, "runs/log-batch", c.answers...)
			err := s.LogBatch(t.Context(), run.ID, Batch{Tags: []Tag{{"a", "b"}}})
			if n := h.requests(); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			got := ""
			if err != nil {
				got = err.Error()
			}
			if (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
				t.Errorf("error %q, want %q", got, c.want)
			}
		})
	}
}

// TestCreateRunOnce loses answers of runs/create: there is one run in the end.
func TestCreateRunOnce(t *testing.T) {
	lost := func(next http.Handler) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			cut(30)(w, r)
		}
	}
	h, s, _ := newScripted(t, "runs/create", cut(0), answer(503, ""))
	h.mu.Lock()
	h.answers = append(h.answers, lost(h.next), lost(h.next))
	h.mu.Unlock()
	exp, err := s.EnsureExperiment(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.CreateRun(t.Context(), RunSpec{ExperimentID: exp, Name: "once", User: "ada", Start: start, Tags: []Tag{{"a", "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	runs, err := s.SearchRuns(t.Context(), exp, Tag{TagRunName, "once"})
	if err != nil || len(runs) != 1 || runs[0].ID != run.ID || h.requests() != 3 {
		t.Errorf("%d runs after %d requests, %v; want one after 3", len(runs), h.requests(), err)
	}
}

// TestUploadAgain refuses an upload in its middle: the next attempt sends all.
func TestUploadAgain(t *testing.T) {
	early := func(w http.ResponseWriter, r *http.Request) { // without reading the body
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		answer(503, "")(w, r)
	}
	h, s, run := newScripted(t, "mlflow-artifacts", early, cut(0), early)
	content := make([]byte, 8<<20)
	_, _ = rand.Read(content)
	if err := s.PutArtifact(t.Context(), run, "model/weights", io.NewSectionReader(bytes.NewReader(content), 0, int64(len(content)))); err != nil {
		t.Fatal(err)
	}
	r, err := s.OpenArtifact(t.Context(), run, "model/weights")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, content) || h.requests() != 5 {
		t.Errorf("%d bytes after %d requests, %v", len(got), h.requests(), err)
	}
	h, s, run = newScripted(t, "mlflow-artifacts", answer(200, "<html>Sign in"))
	if err := s.PutArtifact(t.Context(), run, "x", section("x")); err == nil || h.requests() != 1 {
		t.Errorf("a page in place of an answer: %v", err)
	}
}

// TestDownloadAgain breaks a download off, and cuts one short without saying
// so: it is begun again.
func TestDownloadAgain(t *testing.T) {
	h, s, run := newScripted(t, "mlflow-artifacts/")
	if err := s.PutArtifact(t.Context(), run, "model/f", section("content")); err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	h.answers, h.count = []func(http.ResponseWriter, *http.Request){cut(1000), answer(200, "con")}, 0
	h.mu.Unlock()
	dir, err := Download(t.Context(), s, run, "model", t.TempDir(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != "content" || h.requests() != 3 {
		t.Errorf("got %q after %d requests, %v", got, h.requests(), err)
	}
}

// TestStall gives up on a server that takes a request and says nothing.
func TestStall(t *testing.T) {
	release := make(chan struct{})
	h := &scripted{next: newFakeServer(t), endpoint: "runs/get", answers: []func(http.ResponseWriter, *http.Request){
		func(http.ResponseWriter, *http.Request) { <-release },
		func(w http.ResponseWriter, _ *http.Request) { // an answer that stops in its middle
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			<-release
		},
		func(http.ResponseWriter, *http.Request) { <-release },
	}}
	server := httptest.NewServer(h)
	defer server.Close()
	defer close(release)
	s := mustOpen(t, server.URL, Options{Getenv: quick("MLFLOW_HTTP_REQUEST_TIMEOUT", "0.2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")})
	_, err := s.Run(t.Context(), "x")
	if err == nil || !strings.Contains(err.Error(), "no progress") || h.requests() != 2 {
		t.Errorf("%v after %d requests, want no progress after 2", err, h.requests())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Run(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the context", err)
	}
}

// TestRedirects: nothing follows a redirect off the host.
func TestRedirects(t *testing.T) {
	var leaked atomic.Int32
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Add(1)
		answer(200, "{}")(w, r)
	}))
	defer evil.Close()
	to := func(status int, base string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, base+r.URL.RequestURI(), status) }
	}
	for _, status := range []int{301, 302, 303, 307, 308} {
		h, s, run := newScripted(t, "/api/", to(status, evil.URL), to(status, evil.URL), to(status, evil.URL), to(status, evil.URL))
		_, errGet := s.Run(t.Context(), run.ID)
		_, errOpen := s.OpenArtifact(t.Context(), run, "x")
		for what, err := range map[string]error{
			"GET": errGet, "POST": s.LogBatch(t.Context(), run.ID, Batch{Tags: []Tag{{"a", "b"}}}), "PUT": s.PutArtifact(t.Context(), run, "x", section("x")), "download": errOpen,
		} {
			if !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), evil.URL) {
				t.Errorf("%d %s: %v, want ErrUnsafe and the address", status, what, err)
			}
		}
		if n := h.requests(); n != 4 {
			t.Errorf("%d: %d requests, want 4", status, n)
		}
	}
	if n := leaked.Load(); n != 0 {
		t.Errorf("the other host got %d requests", n)
	}
	// On the host itself, a GET may go elsewhere, and a POST where it stays one.
	_, s, run := newScripted(t, "runs/", to(302, ""), to(307, ""))
	if _, err := s.Run(t.Context(), run.ID); err != nil {
		t.Error(err)
	}
	if err := s.LogBatch(t.Context(), run.ID, Batch{Tags: []Tag{{"a", "b"}}}); err != nil {
		t.Error(err)
	}
}

// TestForeignArtifacts: artifacts on another host are stored there without
// credentials, and those that only the server can reach are refused at once.
func TestForeignArtifacts(t *testing.T) {
	var seen http.Header
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header }))
	defer other.Close()
	s := mustOpen(t, newFakeServer(t).start(t), Options{Getenv: quick("MLFLOW_TRACKING_TOKEN", "secret")})
	run := Run{ID: "x", ArtifactURI: "mlflow-artifacts://" + strings.TrimPrefix(other.URL, "http://") + "/1/x/artifacts"}
	if err := s.PutArtifact(t.Context(), run, "f", section("x")); err != nil || seen == nil || seen.Get("Authorization") != "" {
		t.Errorf("%v, headers %v", err, seen)
	}
	for _, uri := range []string{"s3://bucket/x", "mlflow-artifacts:/../../x", "mlflow-artifacts:x", ""} {
		err := s.(*restStore).checkArtifactURI(Run{ID: "x", ArtifactURI: uri})
		if err == nil {
			t.Errorf("artifact location %q was accepted", uri)
		}
		if err := s.PutArtifact(t.Context(), Run{ID: "x", ArtifactURI: uri}, "f", section("x")); err == nil {
			t.Errorf("stored an artifact in %q", uri)
		}
	}
	lite := mustOpen(t, "sqlite:///"+filepath.Join(t.TempDir(), "x.db"), Options{})
	if _, err := lite.(*sqliteStore).db.Exec("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'"); err != nil {
		t.Fatal(err)
	}
	if _, err := lite.CreateRun(t.Context(), RunSpec{ExperimentID: "0", Start: start}); err == nil || !strings.Contains(err.Error(), "tracking server") {
		t.Errorf("%v, want an error that names the server", err)
	}
}

func TestCredentials(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".mlflow"), 0o700); err != nil {
		t.Fatal(err)
	}
	ini := "; of the user\n[other]\nmlflow_tracking_username = no\n[mlflow]\n# comment\nmlflow_tracking_username = filed\nMLFLOW_TRACKING_PASSWORD: hidden\n"
	if err := os.WriteFile(filepath.Join(home, ".mlflow", "credentials"), []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	basic := func(user, password string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(user, password)
		return r.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name string
		env  []string
		user string // of the URI
		want string
	}{
		{"none", nil, "", ""},
		{"basic", []string{"MLFLOW_TRACKING_USERNAME", "u", "MLFLOW_TRACKING_PASSWORD", "p"}, "", basic("u", "p")},
		{"basic wins", []string{"MLFLOW_TRACKING_USERNAME", "u", "MLFLOW_TRACKING_PASSWORD", "p", "MLFLOW_TRACKING_TOKEN", "t"}, "", basic("u", "p")},
		{"token", []string{"MLFLOW_TRACKING_TOKEN", "t"}, "", "Bearer t"},
		{"half a pair", []string{"MLFLOW_TRACKING_USERNAME", "u", "MLFLOW_TRACKING_TOKEN", "t"}, "", "Bearer t"},
		{"file", []string{"HOME", home}, "", basic("filed", "hidden")},
		{"file and environment", []string{"HOME", home, "MLFLOW_TRACKING_PASSWORD", "p"}, "", basic("filed", "p")},
		{"in the address", nil, "u:p@", basic("u", "p")},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Get("Authorization")
				answer(200, "{}")(w, r)
			}))
			defer server.Close()
			s := mustOpen(t, strings.Replace(server.URL, "http://", "http://"+c.user, 1), Options{Getenv: quick(c.env...)})
			if got != c.want {
				t.Errorf("Authorization %q, want %q", got, c.want)
			}
			if s.URI() != server.URL {
				t.Errorf("URI %q, want it without credentials", s.URI())
			}
		})
	}
}

// TestTLS checks the three variables of MLflow's client for certificates.
func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(newFakeServer(t))
	clientPEM, clientCert := selfSigned(t)
	pool := x509.NewCertPool()
	pool.AddCert(clientCert)
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	var certified atomic.Bool
	next := server.Config.Handler
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		certified.Store(len(r.TLS.PeerCertificates) > 0)
		next.ServeHTTP(w, r)
	})
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	ca := write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	client := write("client.pem", clientPEM)
	nothing := write("nothing.pem", nil)
	for _, c := range []struct {
		name      string
		env       []string
		want      string // of the error
		certified bool
	}{
		{"unknown authority", nil, "certificate", false},
		{"its own authority", []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", ca}, "", false},
		{"insecure", []string{"MLFLOW_TRACKING_INSECURE_TLS", "true"}, "", false},
		{"client certificate", []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", ca, "MLFLOW_TRACKING_CLIENT_CERT_PATH", client}, "", true},
		{"both", []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", ca, "MLFLOW_TRACKING_INSECURE_TLS", "true"}, "exclude each other", false},
		{"no certificate", []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", nothing}, "no PEM certificate", false},
		{"no file", []string{"MLFLOW_TRACKING_SERVER_CERT_PATH", filepath.Join(dir, "absent")}, "no such file", false},
		{"no key", []string{"MLFLOW_TRACKING_CLIENT_CERT_PATH", ca}, "certificate and key", false},
	} {
		s, err := Open(t.Context(), server.URL, Options{Getenv: quick(c.env...)})
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		got := ""
		if err != nil {
			got = err.Error()
		}
		if (err == nil) != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		} else if err == nil && certified.Load() != c.certified {
			t.Errorf("%s: client certificate %v, want %v", c.name, certified.Load(), c.certified)
		}
	}
}

func selfSigned(t *testing.T) ([]byte, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})...), cert
}

// chaos is a bad network: it loses requests, loses answers, cuts answers,
// delays them, and puts pages and refusals of its own in their place.
type chaos struct {
	next   http.Handler
	mu     sync.Mutex
	random *mathrand.Rand
	on     bool
	did    map[string]int
}

func (c *chaos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	what := "pass"
	if c.on {
		what = []string{"pass", "pass", "pass", "drop", "lose", "truncate", "delay", "500", "429", "503", "page"}[c.random.IntN(11)]
	}
	c.did[what]++
	delay := time.Duration(c.random.IntN(30)) * time.Millisecond
	c.mu.Unlock()
	switch what {
	case "pass":
		c.next.ServeHTTP(w, r)
	case "delay":
		time.Sleep(delay)
		c.next.ServeHTTP(w, r)
	case "drop":
		cut(0)(w, r)
	case "lose": // it has its effect
		c.next.ServeHTTP(httptest.NewRecorder(), r)
		cut(0)(w, r)
	case "truncate":
		rec := httptest.NewRecorder()
		c.next.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		w.Header().Set("Content-Length", fmt.Sprint(len(body)+10))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	case "429":
		w.Header().Set("Retry-After", "0")
		answer(429, "slow down")(w, r)
	case "page":
		answer(200, "<!doctype html><title>Sign in</title>")(w, r)
	case "500":
		answer(500, `{"error_code": "INTERNAL_ERROR", "message": "no connection to the database"}`)(w, r)
	case "503":
		answer(503, "<html>Service Unavailable</html>")(w, r)
	}
}

// recordThroughChaos records a run behind a bad network and compares the whole
// run, point by point.
func recordThroughChaos(t *testing.T, next http.Handler, prefix string) {
	t.Helper()
	c := &chaos{next: next, random: mathrand.New(mathrand.NewPCG(3, 4)), did: map[string]int{}}
	server := httptest.NewServer(c)
	defer server.Close()
	s := mustOpen(t, server.URL+prefix, Options{Getenv: quick("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")})
	for i := range 3 {
		rec := startRecorder(t, s, RecorderOptions{Dir: t.TempDir(), MaxPause: time.Millisecond, Patience: time.Minute})
		c.mu.Lock()
		c.on = true
		c.mu.Unlock()
		want := logAll(t, rec, func(int) { time.Sleep(2 * time.Millisecond) })
		if err := rec.End(t.Context(), Finished, at(1000+i)); err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.on = false
		c.mu.Unlock()
		want.verify(t, s, rec.RunID(), Finished)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, what := range []string{"drop", "lose", "truncate", "delay", "500", "429", "503", "page"} {
		if c.did[what] == 0 {
			t.Errorf("the network never did %q: %v", what, c.did)
		}
	}
}

func TestRecorderBehindBadNetwork(t *testing.T) {
	recordThroughChaos(t, newFakeServer(t), "")
}

func TestRESTNumbers(t *testing.T) {
	for in, want := range map[string]string{"1.5": "1.5", `"1.5"`: "1.5", `"NaN"`: `"NaN"`, `"Infinity"`: `"Infinity"`, `"-Infinity"`: `"-Infinity"`, "null": "0"} {
		var n restNumber
		if err := n.UnmarshalJSON([]byte(in)); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		got, err := n.MarshalJSON()
		if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", in, err, diff)
		}
	}
	var n restNumber
	if err := n.UnmarshalJSON([]byte(`"x"`)); err == nil {
		t.Error("x is a number")
	}
	var i restInt
	if err := i.UnmarshalJSON([]byte(`"12"`)); err != nil || i != 12 {
		t.Errorf("%d, %v", i, err)
	}
}
