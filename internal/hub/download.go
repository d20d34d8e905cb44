package hub

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/hashicorp/go-cleanhttp"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/criteria-go/criteria/internal/readfile"
	"github.com/criteria-go/criteria/internal/redact"
)

const (
	maxRequestRetries = 4       // of a request that gets no answer, or a 5xx
	maxStalls         = 5       // transfers in a row that add nothing to a file
	maxHops           = 5       // redirects of a HEAD request
	maxAnswer         = 8 << 20 // bytes of JSON
	copyBuffer        = 256 << 10
	progressStep      = 1 << 20
	maxModel          = 16 << 30 // bytes of all files of a model
)

// maxBytes are the bytes that a file may have, by its name; others may have what
// is left for the model.
var maxBytes = map[string]int64{
	configName: readfile.Config, "tokenizer_config.json": readfile.Tokenizer,
	"spm.model": readfile.Tokenizer, "tokenizer.json": readfile.Tokenizer,
	weightNames[0] + indexSuffix: readfile.Index, weightNames[1] + indexSuffix: readfile.Index,
}

// download brings one model into the cache.
type download struct {
	model
	cache  cache
	opts   Options
	client *retryablehttp.Client
	left   int64 // bytes that may still be downloaded
}

func newDownload(m model, c cache, opts Options) *download {
	client := retryablehttp.NewClient()
	client.Logger = nil
	client.RetryMax = maxRequestRetries
	client.RetryWaitMin = opts.retryWait
	client.RetryWaitMax = 20 * opts.retryWait
	transport := cleanhttp.DefaultPooledTransport()
	transport.ResponseHeaderTimeout = opts.idle
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler // the last status says more than "giving up"
	client.HTTPClient = &http.Client{
		Transport: &authTransport{base: transport, endpoint: opts.Endpoint, token: opts.Token},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.Method == http.MethodHead {
				return http.ErrUseLastResponse // head reads every answer on the way
			}
			if len(via) > maxHops {
				return errors.New("stopped after too many redirects")
			}
			if downgrade(via[len(via)-1].URL, req.URL) {
				return errors.New("stopped at a redirect from https to http")
			}
			return nil
		},
	}
	return &download{model: m, cache: c, opts: opts, client: client, left: opts.MaxBytes}
}

// authTransport adds the token to requests to the endpoint, and only to those:
// large files come from other hosts, by links that are signed already. The
// standard client would pass the header on to subdomains and other ports.
type authTransport struct {
	base     *http.Transport
	endpoint string
	token    string
}

func (t *authTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.token != "" && sameOrigin(req.URL, t.endpoint) {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	return t.base.RoundTrip(req)
}

// CloseIdleConnections lets the client's method of that name reach the base.
func (t *authTransport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// downgrade reports whether a redirect leaves TLS.
func downgrade(from, to *url.URL) bool { return from.Scheme == "https" && to.Scheme != "https" }

func sameOrigin(u *url.URL, endpoint string) bool {
	e, err := url.Parse(endpoint)
	return err == nil && u.Scheme == e.Scheme && strings.EqualFold(u.Host, e.Host)
}

// run downloads what the cache lacks, and returns the snapshot.
func (d *download) run(ctx context.Context) (string, error) {
	defer d.client.HTTPClient.CloseIdleConnections()
	config, err := d.head(ctx, d.revision, configName)
	if err != nil {
		return "", err
	}
	if config == nil {
		return "", d.fail(nil, "it has no "+configName, "choose a model in the format of the transformers library", http.StatusNotFound)
	}
	commit := config.commit
	if err := d.file(ctx, commit, configName, config); err != nil {
		return "", err
	}
	// From here on files are asked for by their commit, so that a push in between
	// cannot mix two versions.
	for _, name := range optionalNames {
		if _, err := d.optional(ctx, commit, name); err != nil {
			return "", err
		}
	}
	if err := d.weights(ctx, commit); err != nil {
		return "", err
	}
	if commit != d.revision {
		if err := d.cache.setRef(d.revision, commit); err != nil {
			return "", d.diskError(err)
		}
	}
	return d.cache.snapshot(commit), nil
}

// weights downloads the first form of the weights that the model has.
func (d *download) weights(ctx context.Context, commit string) error {
	for _, name := range weightNames {
		if found, err := d.optional(ctx, commit, name); found || err != nil {
			return err
		}
		index := name + indexSuffix
		found, err := d.optional(ctx, commit, index)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		shards, err := readIndex(ctx, filepath.Join(d.cache.snapshot(commit), index))
		if err != nil {
			return d.fail(err, "its index of weights is broken", "choose another revision", 0)
		}
		for _, shard := range shards {
			found, err := d.optional(ctx, commit, shard)
			if err != nil {
				return err
			}
			if !found {
				return d.fail(nil, fmt.Sprintf("it lacks %s, which %s names", shard, index), "choose another revision", http.StatusNotFound)
			}
		}
		return nil
	}
	return d.fail(nil, "it has no "+strings.Join(weightNames, " and no "),
		"choose a model, or a revision after @, that has PyTorch weights", http.StatusNotFound)
}

// optional downloads a file unless it is in the snapshot already, and says
// whether the model has it.
func (d *download) optional(ctx context.Context, commit, file string) (bool, error) {
	if present(filepath.Join(d.cache.snapshot(commit), file)) {
		return true, nil
	}
	r, err := d.head(ctx, commit, file)
	if r == nil || err != nil {
		return false, err
	}
	return true, d.file(ctx, commit, file, r)
}

// remote is what the hub says about a file.
type remote struct {
	url    string
	commit string
	etag   string
	size   int64  // in bytes, -1 if the hub does not say
	sha256 string // of the content, "" if the hub does not say
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// head asks for a file's commit, tag and size; nil means that the model has no
// such file. For a large file the hub answers with a redirect to the host that
// has it, and puts the file's own tag, its SHA-256, into that answer's headers:
// so redirects off the hub are followed only if their answer says nothing of the
// file, which is how a mirror sends on to the hub itself. The token does not go
// there.
func (d *download) head(ctx context.Context, revision, file string) (*remote, error) {
	address := fmt.Sprintf("%s/%s/resolve/%s/%s", d.opts.Endpoint, d.id, url.PathEscape(revision), url.PathEscape(file))
	r := &remote{url: address, size: -1}
	var commit, etag, linkedTag, linkedSize string
	for hop := 0; ; hop++ {
		resp, err := d.request(ctx, http.MethodHead, address, 0)
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close() // empty
		h := resp.Header
		commit = cmp.Or(commit, h.Get("X-Repo-Commit"))
		linkedTag = cmp.Or(linkedTag, h.Get("X-Linked-Etag"))
		linkedSize = cmp.Or(linkedSize, h.Get("X-Linked-Size"))
		etag = cmp.Or(h.Get("ETag"), etag)
		if resp.StatusCode/100 == 3 {
			next, err := resp.Location()
			if err != nil || hop == maxHops {
				return nil, d.fail(err, "the hub redirects in circles", "check HF_ENDPOINT", resp.StatusCode)
			}
			silent := linkedTag == "" && (etag == "" || commit == "")
			if (sameOrigin(next, d.opts.Endpoint) || silent) && !downgrade(resp.Request.URL, next) {
				address = next.String()
				continue
			}
		} else if resp.StatusCode == http.StatusOK {
			r.size = resp.ContentLength
		} else if resp.StatusCode == http.StatusNotFound && (h.Get("X-Error-Code") == "EntryNotFound" || file != configName) {
			return nil, nil
		} else {
			return nil, d.statusError(resp)
		}
		break
	}
	if n, err := strconv.ParseInt(linkedSize, 10, 64); err == nil && n >= 0 {
		r.size = n
	}
	if r.etag = cleanTag(cmp.Or(linkedTag, etag)); !namePattern.MatchString(r.etag) {
		return nil, d.fail(nil, fmt.Sprintf("the hub gives %s no usable ETag (%q)", file, r.etag), "check that HF_ENDPOINT is a Hugging Face hub or a mirror of one", 0)
	}
	if linked := cleanTag(linkedTag); sha256Pattern.MatchString(linked) {
		r.sha256 = linked
	}
	if r.commit = commit; r.commit == "" {
		var err error
		if r.commit, err = d.commit(ctx, revision); err != nil {
			return nil, err
		}
	}
	if !namePattern.MatchString(r.commit) {
		return nil, d.fail(nil, fmt.Sprintf("the hub names an impossible commit %q", r.commit), "check HF_ENDPOINT", 0)
	}
	return r, nil
}

// cleanTag strips an ETag of its quotes and of the mark of weak ones.
func cleanTag(tag string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`)
}

// commit asks the hub's API for the commit of a revision. Mirrors that serve
// files without the header X-Repo-Commit make this necessary.
func (d *download) commit(ctx context.Context, revision string) (string, error) {
	if commitPattern.MatchString(revision) {
		return revision, nil
	}
	address := fmt.Sprintf("%s/api/models/%s/revision/%s", d.opts.Endpoint, d.id, url.PathEscape(revision))
	resp, err := d.request(ctx, http.MethodGet, address, 0)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", d.statusError(resp)
	}
	var info struct {
		SHA string `json:"sha"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&info); err != nil || info.SHA == "" {
		return "", d.fail(err, "the hub does not name the commit of "+revision, "check that HF_ENDPOINT is a Hugging Face hub or a mirror of one", 0)
	}
	return info.SHA, nil
}

// request sends a request without a body, and repeats it as long as the hub gives
// no answer or a 5xx. A from above 0 asks for the rest of a file.
func (d *download) request(ctx context.Context, method, address string, from int64) (*http.Response, error) {
	req, err := retryablehttp.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, d.fail(err, "the hub's address cannot be used", "check HF_ENDPOINT", 0)
	}
	req.Header.Set("User-Agent", "criteria (https://github.com/criteria-go/criteria)")
	req.Header.Set("Accept-Encoding", "identity") // so that sizes are those of the file
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	resp, err := d.client.Do(req)
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
		}
		return nil, d.networkError(ctx, err)
	}
	return resp, nil
}

// file brings a file into the cache and links it into the snapshot. A lock, the
// one the Python client takes, keeps other processes from writing the same blob.
func (d *download) file(ctx context.Context, commit, file string, r *remote) error {
	locks := filepath.Join(d.cache.root, ".locks", d.folder())
	for _, dir := range []string{locks, filepath.Dir(d.cache.blob(r.etag))} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return d.diskError(err)
		}
	}
	lock := flock.New(filepath.Join(locks, r.etag+".lock"), flock.SetPermissions(0o644))
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		if ctx.Err() != nil {
			return d.networkError(ctx, err)
		}
		return d.diskError(err)
	}
	defer func() { _ = lock.Close() }()

	if r.size > d.limit(file) {
		return d.tooLarge(file, r.size)
	}
	blob := d.cache.blob(r.etag)
	info, err := os.Stat(blob)
	if err != nil || r.size >= 0 && info.Size() != r.size {
		if err := d.fetch(ctx, file, r, blob); err != nil {
			return err
		}
	}
	if err := d.cache.link(commit, file, r.etag); err != nil {
		return d.diskError(err)
	}
	return nil
}

// limit is how many bytes a file may have.
func (d *download) limit(file string) int64 {
	if most, ok := maxBytes[file]; ok {
		return min(most, d.left)
	}
	return d.left
}

func (d *download) tooLarge(file string, size int64) error {
	return d.fail(nil, fmt.Sprintf("%s has %d bytes or more, and %d are the most that it may have", file, size, d.limit(file)),
		"check that it is a model of the kind that is wanted, and HF_ENDPOINT", 0)
}

// fetch downloads a file to path. The bytes go to path.incomplete, where the next
// attempt finds them, and get their name when the file is whole and on the disk.
func (d *download) fetch(ctx context.Context, file string, r *remote, path string) error {
	part := path + ".incomplete"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return d.diskError(err)
	}
	defer func() { _ = f.Close() }() // nothing is lost: a whole file is synced first

	most, stalls := int64(-1), 0
	for {
		done, err := d.transfer(ctx, file, r, f)
		if err == nil {
			break
		}
		var broken *brokenTransferError
		if !errors.As(err, &broken) {
			return err
		}
		if done > most {
			most, stalls = done, 0
		} else if stalls++; stalls == maxStalls {
			return d.fail(broken.cause, fmt.Sprintf("the transfer of %s breaks off at byte %d, again and again", file, done),
				"run it again: the download continues where it stopped", 0)
		}
		select {
		case <-ctx.Done():
			return d.networkError(ctx, broken.cause)
		case <-time.After(retryablehttp.DefaultBackoff(d.opts.retryWait, 20*d.opts.retryWait, stalls, nil)):
		}
	}
	if err := d.verify(file, r, f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return d.diskError(err)
	}
	info, err := f.Stat()
	if err != nil {
		return d.diskError(err)
	}
	d.left -= info.Size()
	if err := os.Rename(part, path); err != nil {
		return d.diskError(err)
	}
	return nil
}

// brokenTransferError is a transfer that may be continued.
type brokenTransferError struct{ cause error }

func (e *brokenTransferError) Error() string { return e.cause.Error() }

// transfer asks for what f lacks and appends it. It returns how many bytes f has
// then; nil means that these are all.
func (d *download) transfer(ctx context.Context, file string, r *remote, f *os.File) (done int64, err error) {
	if done, err = f.Seek(0, io.SeekEnd); err != nil {
		return 0, d.diskError(err)
	}
	if r.size >= 0 && done > r.size || r.size < 0 {
		done = 0 // not a beginning of this file, or no way to know
	}
	if r.size >= 0 && done == r.size {
		return done, nil // a process was killed before it could rename the file
	}
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	resp, err := d.request(ctx, http.MethodGet, r.url, done)
	if err != nil {
		return done, err
	}
	defer resp.Body.Close()
	// A server that falls silent must not hold the program for ever.
	idle := time.AfterFunc(d.opts.idle, cancel)
	defer idle.Stop()
	total := resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
		done = 0 // the whole file, whatever was asked for
	case http.StatusPartialContent:
		start, all, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil || start != done {
			return d.restart(f, fmt.Errorf("asked for bytes from %d on, got %q", done, resp.Header.Get("Content-Range")))
		}
		total = all
	case http.StatusRequestedRangeNotSatisfiable:
		return d.restart(f, errors.New(resp.Status))
	default:
		return done, d.statusError(resp)
	}
	if total > d.limit(file) {
		return 0, errors.Join(d.tooLarge(file, total), os.Remove(f.Name()))
	}
	if r.size >= 0 && total >= 0 && total != r.size {
		return 0, d.discard(f, fmt.Sprintf("the hub announces %d bytes for %s, but sends %d", r.size, file, total))
	}
	total = max(total, r.size)
	if err := f.Truncate(done); err != nil {
		return done, d.diskError(err)
	}
	if _, err := f.Seek(done, io.SeekStart); err != nil {
		return done, d.diskError(err)
	}
	d.report(file, done, total)
	reported := done
	buffer := make([]byte, copyBuffer)
	for {
		n, readErr := resp.Body.Read(buffer)
		if n > 0 {
			idle.Reset(d.opts.idle)
			if done += int64(n); total >= 0 && done > total {
				return 0, d.discard(f, fmt.Sprintf("the hub announces %d bytes for %s, but sends more", total, file))
			}
			if done > d.limit(file) {
				return 0, errors.Join(d.tooLarge(file, done), os.Remove(f.Name()))
			}
			if _, err := f.Write(buffer[:n]); err != nil {
				return done, d.diskError(err)
			}
			if done-reported >= progressStep {
				d.report(file, done, total)
				reported = done
			}
		}
		switch {
		case readErr == nil:
			continue
		case errors.Is(readErr, io.EOF) && (total < 0 || done == total):
			if reported < done {
				d.report(file, done, done)
			}
			return done, nil
		case outer.Err() != nil:
			return done, d.networkError(outer, readErr)
		case ctx.Err() != nil:
			readErr = fmt.Errorf("no byte arrived for %v", d.opts.idle)
		case errors.Is(readErr, io.EOF):
			readErr = io.ErrUnexpectedEOF
		}
		return done, &brokenTransferError{readErr}
	}
}

func (d *download) report(file string, done, total int64) {
	if d.opts.Progress != nil {
		d.opts.Progress(file, done, total)
	}
}

// restart drops what is there of a file, for the next transfer to start anew.
func (d *download) restart(f *os.File, cause error) (int64, error) {
	if err := f.Truncate(0); err != nil {
		return 0, d.diskError(err)
	}
	return 0, &brokenTransferError{cause}
}

// discard drops what is there of a file that cannot be right.
func (d *download) discard(f *os.File, found string) error {
	if err := os.Remove(f.Name()); err != nil {
		return d.diskError(err)
	}
	return d.fail(nil, found, "run it again, it starts anew; if that does not help, check HF_ENDPOINT and the proxy on the way", 0)
}

// verify compares a whole file with what the hub said about it.
func (d *download) verify(file string, r *remote, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return d.diskError(err)
	}
	if r.size >= 0 && info.Size() != r.size {
		return d.discard(f, fmt.Sprintf("the hub announces %d bytes for %s, but %d arrived", r.size, file, info.Size()))
	}
	if r.sha256 == "" {
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return d.diskError(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return d.diskError(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != r.sha256 {
		return d.discard(f, fmt.Sprintf("%s arrived damaged: its SHA-256 is %s, not %s", file, got, r.sha256))
	}
	return nil
}

var contentRange = regexp.MustCompile(`^bytes (\d+)-\d+/(\d+|\*)$`)

// parseContentRange returns the first byte and the size of the whole file, -1 if
// the server does not know it.
func parseContentRange(s string) (start, total int64, err error) {
	m := contentRange.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, fmt.Errorf("Content-Range %q", s)
	}
	start, err = strconv.ParseInt(m[1], 10, 64)
	if m[2] == "*" || err != nil {
		return start, -1, err
	}
	total, err = strconv.ParseInt(m[2], 10, 64)
	return start, total, err
}

func (d *download) fail(err error, found, remedy string, status int) error {
	return &Error{Ref: d.ref, Found: found, Remedy: remedy, Status: status, Err: redact.Error(err)}
}

// networkError tells a hub that cannot be reached from a caller who gave up.
func (d *download) networkError(ctx context.Context, err error) error {
	if err := ctx.Err(); err != nil {
		return d.fail(err, "the download was stopped", "run it again: it continues where it stopped", 0)
	}
	return d.fail(err, "the hub cannot be reached",
		"check the network and the proxy, set HF_ENDPOINT to a mirror, or give a local folder", 0)
}

// diskError is about the cache's own disk.
func (d *download) diskError(err error) error {
	remedy := "check the permissions of the cache, or set HF_HOME to another folder"
	switch {
	case errors.Is(err, syscall.ENOSPC):
		remedy = "the disk is full: free some space, or set HF_HOME to another folder"
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR):
		remedy = "a file stands where the cache wants a folder: set HF_HOME to another folder"
	}
	return d.fail(err, "the cache "+d.cache.root+" cannot be written", remedy, 0)
}

// statusError explains an answer other than the file.
func (d *download) statusError(resp *http.Response) error {
	found := "the hub answers " + resp.Status
	if message := resp.Header.Get("X-Error-Message"); message != "" {
		found += " (" + message + ")"
	}
	var remedy string
	switch code := resp.Header.Get("X-Error-Code"); {
	case resp.StatusCode == http.StatusForbidden || code == "GatedRepo":
		remedy = fmt.Sprintf("open %s/%s, accept the model's terms, and set HF_TOKEN to an access token of that account",
			redact.URL(d.opts.Endpoint), d.id)
	case resp.StatusCode == http.StatusUnauthorized && d.opts.Token != "":
		remedy = fmt.Sprintf("check that the access token in HF_TOKEN is valid and may read %s, and the spelling of the id", d.id)
	case resp.StatusCode == http.StatusUnauthorized:
		remedy = "check the spelling of the id; if the model is private or gated, set HF_TOKEN to an access token"
	case code == "RevisionNotFound":
		remedy = fmt.Sprintf("the model has no revision %q: check the part after the @", d.revision)
	case resp.StatusCode == http.StatusNotFound:
		remedy = fmt.Sprintf("check the spelling of %s and of its revision %q; if the model is private, set HF_TOKEN to an access token", d.id, d.revision)
	case resp.StatusCode == http.StatusTooManyRequests:
		remedy = "wait some minutes, or set HF_TOKEN: known users may ask more often"
	default:
		remedy = "try again later, or set HF_ENDPOINT to a mirror"
	}
	return d.fail(nil, found, remedy, resp.StatusCode)
}
