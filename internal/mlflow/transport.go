package mlflow

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-cleanhttp"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/criteria-go/criteria/internal/readfile"
)

// restConfig is what MLflow's own client takes from the environment.
type restConfig struct {
	user, password string // Basic, if both are set
	token          string // Bearer, otherwise
	tls            *tls.Config
	retries        int
	backoff        time.Duration // wait before the second retry, doubled for each further one
	jitter         time.Duration
	timeout        time.Duration // without any progress
}

const (
	maxBackoff      = 120 * time.Second
	maxCertificates = 16 << 20 // bytes of a bundle
)

func restConfigFrom(opts Options) (restConfig, error) {
	env := opts.Getenv
	c := restConfig{
		user: env("MLFLOW_TRACKING_USERNAME"), password: env("MLFLOW_TRACKING_PASSWORD"), token: env("MLFLOW_TRACKING_TOKEN"),
	}
	if c.user == "" || c.password == "" {
		user, password := credentialsFile(env)
		c.user, c.password = cmp.Or(c.user, user), cmp.Or(c.password, password)
	}
	var errs []error
	number := func(name string, dflt float64) float64 {
		s := env(name)
		if s == "" {
			return dflt
		}
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || v < 0 || v > 1e6 {
			errs = append(errs, fmt.Errorf("mlflow: %s=%q is not a number from 0 to 1e6", name, s))
		}
		return v
	}
	seconds := func(name string, dflt float64) time.Duration {
		return time.Duration(number(name, dflt) * float64(time.Second))
	}
	c.retries = int(number("MLFLOW_HTTP_REQUEST_MAX_RETRIES", 7))
	c.backoff = seconds("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", 2)
	c.jitter = seconds("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", 1)
	c.timeout = seconds("MLFLOW_HTTP_REQUEST_TIMEOUT", 120)
	if opts.MaxRetries != 0 {
		c.retries = min(c.retries, max(opts.MaxRetries, 0))
	}
	var err error
	if c.tls, err = tlsConfig(env); err != nil {
		errs = append(errs, err)
	}
	return c, errors.Join(errs...)
}

// credentialsFile reads user and password from ~/.mlflow/credentials, an INI
// file with a section [mlflow].
func credentialsFile(env func(string) string) (user, password string) {
	home := cmp.Or(env("HOME"), env("USERPROFILE"))
	if home == "" {
		return "", ""
	}
	f, err := readfile.Open(filepath.Join(home, ".mlflow", "credentials"))
	if err != nil {
		return "", "" // it is optional
	}
	defer f.Close()
	return parseCredentials(io.LimitReader(f, maxMeta))
}

func parseCredentials(r io.Reader) (user, password string) {
	inside := false
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			inside = line == "[mlflow]"
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			key, value, ok = strings.Cut(line, ":")
		}
		if !inside || !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "mlflow_tracking_username":
			user = strings.TrimSpace(value)
		case "mlflow_tracking_password":
			password = strings.TrimSpace(value)
		}
	}
	return user, password
}

func tlsConfig(env func(string) string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	insecure := strings.ToLower(env("MLFLOW_TRACKING_INSECURE_TLS"))
	ca, client := env("MLFLOW_TRACKING_SERVER_CERT_PATH"), env("MLFLOW_TRACKING_CLIENT_CERT_PATH")
	if insecure == "true" || insecure == "1" {
		if ca != "" {
			return nil, errors.New("mlflow: MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH exclude each other")
		}
		config.InsecureSkipVerify = true // what the user asked for, by MLflow's own switch
	}
	if ca != "" {
		pem, err := readfile.All(context.Background(), ca, maxCertificates)
		if err != nil {
			return nil, fmt.Errorf("mlflow: MLFLOW_TRACKING_SERVER_CERT_PATH: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mlflow: MLFLOW_TRACKING_SERVER_CERT_PATH: %s holds no PEM certificate", ca)
		}
	}
	if client != "" {
		f, err := readfile.Open(client) // which LoadX509KeyPair would wait for, were it a pipe
		if err != nil {
			return nil, fmt.Errorf("mlflow: MLFLOW_TRACKING_CLIENT_CERT_PATH: %w", err)
		}
		_ = f.Close()
		cert, err := tls.LoadX509KeyPair(client, client)
		if err != nil {
			return nil, fmt.Errorf("mlflow: MLFLOW_TRACKING_CLIENT_CERT_PATH: %s must hold certificate and key in PEM form: %w", client, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

// withoutCertificate returns the settings for servers that must not learn who we
// are.
func (c restConfig) withoutCertificate() restConfig {
	c.tls = c.tls.Clone()
	c.tls.Certificates = nil
	return c
}

// httpClient never leaves the host of the request: credentials, metrics and
// weights must not end up where a redirect points to.
func (c restConfig) httpClient() *http.Client {
	base := cleanhttp.DefaultPooledTransport() // shares nothing with the program around us
	base.TLSClientConfig = c.tls
	return &http.Client{
		Transport: stallTransport{base, c.timeout},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			first := via[0]
			if req.URL.Scheme != first.URL.Scheme || req.URL.Host != first.URL.Host || req.Method != first.Method || len(via) > 5 {
				return &redirectError{from: first.URL, to: req.URL}
			}
			return nil
		},
	}
}

type redirectError struct{ from, to *url.URL }

func (e *redirectError) Error() string {
	return fmt.Sprintf("the server redirects to %s://%s, which is not followed; if that is the tracking server, use its address as tracking URI", e.to.Scheme, e.to.Host)
}

func (e *redirectError) Is(target error) bool { return target == ErrUnsafe }

// retrier sends requests as MLflow's client does: the statuses 408, 429 and
// 500 to 504 without 501, and broken connections, are tried again at once,
// then after 4, 8, 16 … seconds; a server may name the wait by Retry-After.
func (c restConfig) retrier(client *http.Client, retries int) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:   client,
		RetryMax:     retries,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		CheckRetry:   checkRetry,
		Backoff:      func(_, _ time.Duration, attempt int, resp *http.Response) time.Duration { return c.wait(attempt, resp) },
	}
}

func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, ErrUnsafe):
		return false, err
	case errors.As(err, new(*APIError)): // an answer that arrived and makes no sense
		return false, err
	case err != nil:
		// Bad certificates and impossible URLs will not become better.
		return retryablehttp.DefaultRetryPolicy(ctx, nil, err)
	}
	return retryStatus(resp.StatusCode), nil
}

func retryStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// wait is how long to wait after the given attempt, counted from 0.
func (c restConfig) wait(attempt int, resp *http.Response) time.Duration {
	if resp != nil {
		if after := resp.Header.Get("Retry-After"); after != "" {
			if s, err := strconv.Atoi(after); err == nil && s >= 0 {
				return min(time.Duration(min(s, 1000))*time.Second, maxBackoff)
			}
			if t, err := http.ParseTime(after); err == nil {
				return min(max(time.Until(t), 0), maxBackoff)
			}
		}
	}
	if attempt == 0 {
		return 0
	}
	wait := time.Duration(min(float64(c.backoff)*float64(int64(1)<<min(attempt, 40)), float64(maxBackoff)))
	return wait + time.Duration(rand.Float64()*float64(c.jitter))
}

// errStalled ends a request on which nothing has moved for too long.
var errStalled = errors.New("no progress within MLFLOW_HTTP_REQUEST_TIMEOUT")

// stallTransport bounds the time without progress, not the whole time of a
// request: a model of a gigabyte may take as long as it needs.
type stallTransport struct {
	base    http.RoundTripper
	timeout time.Duration
}

func (t stallTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watchdog{ctx: ctx, cancel: cancel, timeout: t.timeout}
	w.timer = time.AfterFunc(t.timeout, func() { cancel(errStalled) })
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = watchedBody{req.Body, w, false}
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		err = w.explain(err)
		w.stop()
		return nil, err
	}
	resp.Body = watchedBody{resp.Body, w, true}
	return resp, nil
}

type watchdog struct {
	ctx     context.Context // of one request
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	timeout time.Duration
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

func (w *watchdog) explain(err error) error {
	if errors.Is(context.Cause(w.ctx), errStalled) {
		return fmt.Errorf("%w (%s)", errStalled, w.timeout)
	}
	return err
}

type watchedBody struct {
	io.ReadCloser
	w    *watchdog
	last bool // closing it ends the request
}

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.w.timer.Reset(b.w.timeout)
	}
	if err != nil && err != io.EOF {
		err = b.w.explain(err)
	}
	return n, err
}

func (b watchedBody) Close() error {
	err := b.ReadCloser.Close()
	if b.last {
		b.w.stop()
	}
	return err
}
