package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/criteria-go/criteria"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// running is a server on a port of its own.
type running struct {
	address string
	log     *lockedBuffer
	stop    func() error // ends it and waits
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, c Classifier, drain time.Duration) running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := new(lockedBuffer)
	s := testServer(c, WithLogger(slog.New(slog.NewJSONHandler(log, nil))))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l, drain) }()
	stop := sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return running{l.Addr().String(), log, stop}
}

// exchange sends bytes and returns the answers that come until the connection
// is closed.
func exchange(t *testing.T, address, text string) []*http.Response {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var answers []*http.Response
	for r := bufio.NewReader(c); ; {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return answers
		}
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body = io.NopCloser(bytes.NewReader(body))
		answers = append(answers, answer)
	}
}

const body = `{"post": "hello", "criterion": "c"}`

// Whatever comes over a connection is answered in JSON with a documented code.
func TestWire(t *testing.T) {
	r := start(t, classifier{}, 0)
	for name, tc := range map[string]struct {
		text string
		want []string // codes, "" for an answer that is none
	}{
		"good":                {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n" + body, []string{""}},
		"chunked":             {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n23;a=b\r\n" + body + "\r\n0\r\nTrailer: x\r\n\r\n", []string{""}},
		"no HTTP":             {"hello\r\n\r\n", []string{"invalid_http"}},
		"TLS":                 {"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", []string{"invalid_http"}},
		"no host":             {"GET /healthz HTTP/1.1\r\n\r\n", []string{"invalid_http"}},
		"space in a header":   {"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", []string{"invalid_http"}},
		"negative length":     {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", []string{"invalid_http"}},
		"two lengths":         {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", []string{"invalid_http"}},
		"version":             {"GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", []string{"unsupported_http_version"}},
		"large headers":       {"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 30<<10) + "\r\n\r\n", []string{"headers_too_large"}},
		"transfer encoding":   {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", []string{"unsupported_transfer_encoding"}},
		"expectation":         {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 2\r\n\r\n{}", []string{"expectation_failed"}},
		"redirect":            {"POST //v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", []string{"not_found"}},
		"dots":                {"POST /v1/../v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", []string{"not_found"}},
		"slash":               {"POST /v1/predict/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", []string{"not_found"}},
		"asterisk":            {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", []string{"not_found"}},
		"connect":             {"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", []string{"not_found"}},
		"HTTP/2":              {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []string{"not_found"}},
		"metrics":             {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", []string{"method_not_allowed"}},
		"both lengths":        {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n" + body + "\r\n0\r\n\r\n", []string{"invalid_http"}},
		"both, other order":   {"POST /v1/predict HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 35\r\n\r\n23\r\n" + body + "\r\n0\r\n\r\n", []string{"invalid_http"}},
		"folded":              {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 35\r\n\r\n" + body, []string{"invalid_http"}},
		"bad chunk":           {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", []string{"invalid_request"}},
		"cut off":             {"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n" + body[:10], []string{"invalid_request"}},
		"pipelined":           {strings.Repeat("POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n"+body, 3), []string{"", "", ""}},
		"pipelined, then bad": {"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nPOST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n23\r\n" + body + "\r\n0\r\n\r\nPOST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", []string{"", "", "invalid_http"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, answer := range exchange(t, r.address, tc.text) {
				var e errorBody
				if err := json.NewDecoder(answer.Body).Decode(&e); err != nil {
					t.Fatalf("status %d: %v", answer.StatusCode, err)
				}
				if kind := answer.Header.Get("Content-Type"); kind != "application/json" {
					t.Errorf("status %d: Content-Type %q", answer.StatusCode, kind)
				}
				if e.Error == nil {
					got = append(got, "")
					continue
				}
				if answer.StatusCode == 200 || e.Error.Message == "" || answer.Header.Get("Date") == "" {
					t.Errorf("status %d, %v: %+v", answer.StatusCode, answer.Header, e.Error)
				}
				got = append(got, e.Error.Code)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	if log := r.log.String(); strings.Count(log, `"level":"ERROR"`) > 0 || !strings.Contains(log, `"status":431`) {
		t.Errorf("log:\n%s", log)
	}
}

// FuzzFraming: whatever arrives, and in whichever pieces, the same requests are
// ambiguous, and nothing is kept of it but one line.
func FuzzFraming(f *testing.F) {
	f.Add("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n", uint8(3))
	f.Add("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET / HTTP/1.0\r\nTransfer-Encoding: x\r\n\r\n", uint8(1))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		memwatch.Start(t, len(text))
		var whole, pieces framing
		whole.read([]byte(text))
		for piece := range slices.Chunk([]byte(text), int(size)+1) {
			pieces.read(piece)
		}
		if !slices.Equal(whole.found, pieces.found) || whole.lost != pieces.lost || len(pieces.line) > maxLine+256 {
			t.Errorf("%v, %v in one piece; %v, %v in pieces of %d", whole.found, whole.lost, pieces.found, pieces.lost, int(size)+1)
		}
	})
}

// A server answers from the start; questions have to wait for the model.
func TestLoading(t *testing.T) {
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *http.Request) (int, string) { w := record(s, r); return w.Code, w.Body.String() }
	get := func(path string) *http.Request { return newRequest(http.MethodGet, path, "") }
	if code, _ := ask(get("/healthz")); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	for _, r := range []*http.Request{get("/readyz"), post(body)} {
		if code, text := ask(r); code != http.StatusServiceUnavailable || !strings.Contains(text, `"loading"`) {
			t.Errorf("%s without a model: %d %s", r.URL, code, text)
		}
	}
	if err := s.SetModel("a b", classifier{}); err == nil {
		t.Error("a name with a blank was accepted")
	}
	if err := s.SetModel("m", classifier{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{get("/readyz"), post(body)} {
		if code, text := ask(r); code != http.StatusOK {
			t.Errorf("%s with a model: %d %s", r.URL, code, text)
		}
	}
}

// Clients that keep their connections open lose no request when the server
// drains: each is told to open another connection before this one is closed.
func TestDrainLosesNothing(t *testing.T) {
	r := start(t, classifier{}, 400*time.Millisecond)
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	var closing, answered atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				resp, err := client.Post("http://"+r.address+"/v1/predict", "application/json", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("status %d, error %v", resp.StatusCode, err)
					return
				}
				answered.Add(1)
				if resp.Close {
					closing.Add(1)
					return // and asks another server
				}
			}
		})
	}
	for answered.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	if n := closing.Load(); n != 0 {
		t.Errorf("%d connections were to be closed before the end", n)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	for { // a probe meanwhile
		resp, err := client.Get("http://" + r.address + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			break
		}
	}
	wg.Wait()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := closing.Load(); n != 8 {
		t.Errorf("%d clients of 8 were told to close their connections", n)
	}
	log := r.log.String()
	if strings.Contains(log, `"level":"ERROR"`) || !strings.Contains(log, `"draining: the server is about to end"`) {
		t.Errorf("log:\n%s", log[max(0, len(log)-3000):])
	}
}

// The time of a request has its unit in its name.
func TestLogOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, log := ask(classifier{before: func(context.Context, []criteria.Pair) error {
			time.Sleep(20 * time.Millisecond)
			return nil
		}}, post(body))
		if !strings.Contains(log, `"took_seconds":0.02,`) {
			t.Error(log)
		}
	})
}
