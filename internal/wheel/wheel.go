// Package wheel takes shared libraries out of Python wheels, the one place that
// carries ONNX Runtime and OpenBLAS built for every platform under a stable name
// and version. No Python is needed for it, and no Python code in them is used.
//
// A wheel is a zip file (the packaging specification "Binary distribution format").
// It is looked for on a package index by its SHA-256, which is pinned (the
// specification "Simple repository API").
package wheel

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/go-retryablehttp"
)

// EnvIndex names the variable that holds the address of a package index other than
// [DefaultIndex]. It is pip's.
const EnvIndex = "PIP_INDEX_URL"

// DefaultIndex is that of the Python community.
const DefaultIndex = "https://pypi.org/simple"

// Limits of what an index may send, in bytes. The largest wheel that is pinned,
// that of cuBLAS, has 0.5 GB.
const (
	maxListing = 64 << 20
	maxWheel   = 2 << 30
	maxMember  = 4 << 30
)

// Wheel is one file of a Python distribution.
type Wheel struct {
	Distribution string // its name on the index
	Version      string
	SHA256       string            // in hexadecimal
	Members      map[string]string // path of a file in the wheel → name to install it under
}

// Fetch downloads a wheel and installs its members in dir, which exists. None of
// them appears there before it is whole, and none at all unless the wheel is the
// pinned one.
func (w Wheel) Fetch(ctx context.Context, dir string) error {
	tmp, err := os.CreateTemp(dir, ".wheel-*")
	if err != nil {
		return err
	}
	defer func() {
		tmp.Close()
		os.Remove(tmp.Name())
	}()
	if err := w.download(ctx, tmp); err != nil {
		return fmt.Errorf("%s %s: %w", w.Distribution, w.Version, err)
	}
	if err := w.Unpack(tmp, dir); err != nil {
		return fmt.Errorf("%s %s: %w", w.Distribution, w.Version, err)
	}
	return nil
}

func (w Wheel) download(ctx context.Context, to io.Writer) error {
	c := newClient()
	defer c.CloseIdleConnections()
	address, err := w.find(ctx, c)
	if err != nil {
		return err
	}
	body, _, err := get(ctx, c, address, "*/*")
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(to, io.LimitReader(body, maxWheel+1))
	if err != nil {
		return err
	}
	if n > maxWheel {
		return fmt.Errorf("the index sends more than %d bytes", maxWheel)
	}
	return nil
}

// newClient tries again what a network loses.
func newClient() *http.Client {
	c := retryablehttp.NewClient()
	c.Logger = nil
	c.RetryMax = 3
	return c.StandardClient()
}

func get(ctx context.Context, c *http.Client, address, accept string) (io.ReadCloser, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, hidden(err)
	}
	request.Header.Set("Accept", accept)
	response, err := c.Do(request)
	if err != nil {
		return nil, nil, hidden(err)
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, nil, fmt.Errorf("%s answers %s", response.Request.URL.Redacted(), response.Status)
	}
	return response.Body, response.Header, nil
}

// hidden returns an error of an address without a password that may be in it.
func hidden(err error) error {
	var e *url.Error
	if !errors.As(err, &e) {
		return err
	}
	shown := "the package index"
	if u, parseErr := url.Parse(e.URL); parseErr == nil {
		shown = u.Redacted()
	}
	return fmt.Errorf("%s: %w", shown, e.Err)
}

// find asks the index for the address of the file with the pinned SHA-256.
func (w Wheel) find(ctx context.Context, c *http.Client) (string, error) {
	index := os.Getenv(EnvIndex)
	if index == "" {
		index = DefaultIndex
	}
	page := strings.TrimSuffix(index, "/") + "/" + w.Distribution + "/"
	body, header, err := get(ctx, c, page, "application/vnd.pypi.simple.v1+json, text/html;q=0.1")
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxListing))
	if err != nil {
		return "", err
	}
	base, err := url.Parse(page)
	if err != nil {
		return "", hidden(err)
	}
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	address := w.inHTML(text)
	if strings.HasSuffix(kind, "+json") {
		if address, err = w.inJSON(text); err != nil {
			return "", err
		}
	}
	if address == "" {
		return "", fmt.Errorf("%s has no file with the SHA-256 %s; set %s to an index that has it", base.Redacted(), w.SHA256, EnvIndex)
	}
	found, err := base.Parse(address)
	if err != nil {
		return "", hidden(err)
	}
	return found.String(), nil
}

// inJSON finds the address in a listing of PEP 691.
func (w Wheel) inJSON(text []byte) (string, error) {
	var listing struct {
		Files []struct {
			URL    string            `json:"url"`
			Hashes map[string]string `json:"hashes"`
		} `json:"files"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return "", fmt.Errorf("the listing of the index: %w", err)
	}
	for _, f := range listing.Files {
		if strings.EqualFold(f.Hashes["sha256"], w.SHA256) {
			return f.URL, nil
		}
	}
	return "", nil
}

var anchor = regexp.MustCompile(`href\s*=\s*["']([^"']+)#sha256=([0-9a-fA-F]{64})["']`)

// inHTML finds the address in a listing of PEP 503.
func (w Wheel) inHTML(text []byte) string {
	for _, m := range anchor.FindAllSubmatch(text, -1) {
		if strings.EqualFold(string(m[2]), w.SHA256) {
			return html.UnescapeString(string(m[1]))
		}
	}
	return ""
}

// Unpack installs the members of a wheel in dir after checking that it is the
// pinned one.
func (w Wheel) Unpack(file *os.File, dir string) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != w.SHA256 {
		return fmt.Errorf("found a wheel with the SHA-256 %s, want %s: the index serves other bytes than the pinned ones", got, w.SHA256)
	}
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return err
	}
	for _, member := range slices.Sorted(maps.Keys(w.Members)) {
		if err := install(archive, member, filepath.Join(dir, path.Base(w.Members[member]))); err != nil {
			return err
		}
	}
	return nil
}

// install puts a member of an archive under its name in one step.
func install(archive *zip.Reader, member, name string) (err error) {
	from, err := archive.Open(member)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			to.Close()
			os.Remove(to.Name())
		}
	}()
	n, err := io.Copy(to, io.LimitReader(from, maxMember+1))
	if err != nil {
		return err
	}
	if n > maxMember {
		return fmt.Errorf("%s has more than %d bytes", member, maxMember)
	}
	if err = to.Chmod(0o644); err != nil {
		return err
	}
	if err = to.Sync(); err != nil {
		return err
	}
	if err = to.Close(); err != nil {
		return err
	}
	return os.Rename(to.Name(), name)
}
