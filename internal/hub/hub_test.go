package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	testID     = "owner/name"
	testCommit = "0123456789abcdef0123456789abcdef01234567"
)

// fakeHub is a hub of one model. Weights are large files there: the hub
// redirects to a second server, which checks nothing and knows ranges.
type fakeHub struct {
	hub, store *httptest.Server
	files      map[string][]byte
	token      string                                                         // wanted on the hub, if set
	tamper     func(w http.ResponseWriter, r *http.Request, file string) bool // answers instead, if true

	mu       sync.Mutex
	requests []string // METHOD path, with the range
	leaked   []string // requests to the store that carried a token
}

func newFakeHub(t *testing.T, files map[string][]byte) *fakeHub {
	t.Helper()
	h := &fakeHub{files: files}
	h.hub = httptest.NewServer(http.HandlerFunc(h.serveHub))
	t.Cleanup(h.hub.Close)
	h.store = httptest.NewServer(http.HandlerFunc(h.serveStore))
	t.Cleanup(h.store.Close)
	for _, name := range []string{
		"HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
		"XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE", "HUGGING_FACE_HUB_TOKEN",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("HF_ENDPOINT", h.hub.URL+"/")
	return h
}

func smallModel() map[string][]byte {
	return map[string][]byte{
		"config.json":           []byte(`{"model_type":"deberta-v2"}`),
		"tokenizer_config.json": []byte(`{}`),
		"spm.model":             []byte("a sentencepiece model"),
		"pytorch_model.bin":     bytes.Repeat([]byte("weights!"), 1<<19), // 4 MB
		"README.md":             []byte("not needed"),
	}
}

func isWeights(file string) bool {
	return strings.HasSuffix(file, ".bin") || strings.HasSuffix(file, ".safetensors")
}

// etag is what the hub would call a file: SHA-256 of large ones, git's of others.
func (h *fakeHub) etag(file string) string {
	if isWeights(file) {
		sum := sha256.Sum256(h.files[file])
		return hex.EncodeToString(sum[:])
	}
	sum := sha1.Sum(h.files[file])
	return hex.EncodeToString(sum[:])
}

func (h *fakeHub) note(r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := r.Method + " " + r.URL.Path
	if rng := r.Header.Get("Range"); rng != "" {
		line += " " + rng
	}
	h.requests = append(h.requests, line)
}

func (h *fakeHub) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

func (h *fakeHub) serveHub(w http.ResponseWriter, r *http.Request) {
	h.note(r)
	if h.token != "" && r.Header.Get("Authorization") != "Bearer "+h.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/"+testID+"/resolve/")
	revision, file, _ := strings.Cut(rest, "/")
	if !ok {
		w.Header().Set("X-Error-Code", "RepoNotFound")
		http.Error(w, "", http.StatusNotFound)
		return
	}
	if revision != "main" && revision != testCommit {
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		http.Error(w, "", http.StatusNotFound)
		return
	}
	if h.tamper != nil && h.tamper(w, r, file) {
		return
	}
	content, ok := h.files[file]
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		http.Error(w, "", http.StatusNotFound)
		return
	}
	w.Header().Set("X-Repo-Commit", testCommit)
	if isWeights(file) {
		w.Header().Set("X-Linked-Etag", `"`+h.etag(file)+`"`)
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(content)))
		w.Header().Set("ETag", `"another tag"`)
		http.Redirect(w, r, h.store.URL+"/"+file+"?signature=x", http.StatusFound)
		return
	}
	w.Header().Set("ETag", `W/"`+h.etag(file)+`"`)
	http.ServeContent(w, r, file, time.Time{}, bytes.NewReader(content))
}

func (h *fakeHub) serveStore(w http.ResponseWriter, r *http.Request) {
	h.note(r)
	if r.Header.Get("Authorization") != "" {
		h.mu.Lock()
		h.leaked = append(h.leaked, r.URL.Path)
		h.mu.Unlock()
	}
	file := strings.TrimPrefix(r.URL.Path, "/")
	if h.tamper != nil && h.tamper(w, r, "store:"+file) {
		return
	}
	http.ServeContent(w, r, file, time.Time{}, bytes.NewReader(h.files[file]))
}

func resolve(t *testing.T, opts Options) (string, error) {
	t.Helper()
	opts.retryWait = time.Millisecond
	return Resolve(t.Context(), testID, opts)
}

func mustResolve(t *testing.T, opts Options) string {
	t.Helper()
	dir, err := resolve(t, opts)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// requireError expects an *Error on one line with a remedy and all of parts.
func requireError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Remedy == "" || e.Ref == "" {
		t.Fatalf("want an *Error with a remedy, got %#v", err)
	}
	for _, part := range append(parts, e.Remedy) {
		if message := err.Error(); !strings.Contains(message, part) || strings.Contains(message, "\n") {
			t.Errorf("want one line about %q, got %q", part, message)
		}
	}
}

// requireSnapshot compares a folder with the files of the model that it should
// hold, as links to blobs named by their tags.
func requireSnapshot(t *testing.T, h *fakeHub, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content, h.files[e.Name()]) {
			t.Errorf("%s: the content differs", e.Name())
		}
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if want := filepath.Join("..", "..", "blobs", h.etag(e.Name())); err != nil || link != want {
			t.Errorf("%s: want a link to %s, got %q, %v", e.Name(), want, link, err)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "..", "..", "blobs", "*"))
	if err != nil || len(blobs) != len(names) {
		t.Errorf("want %d blobs, got %v, %v", len(names), blobs, err)
	}
}

func TestDownload(t *testing.T) {
	h := newFakeHub(t, smallModel())
	progress := map[string][]int64{}
	dir := mustResolve(t, Options{Progress: func(file string, done, total int64) {
		if total != int64(len(h.files[file])) {
			t.Errorf("%s: total %d", file, total)
		}
		progress[file] = append(progress[file], done)
	}})
	want := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--owner--name", "snapshots", testCommit)
	if dir != want {
		t.Errorf("want %s, got %s", want, dir)
	}
	requireSnapshot(t, h, dir, "config.json", "tokenizer_config.json", "spm.model", "pytorch_model.bin")
	if ref, err := os.ReadFile(filepath.Join(dir, "..", "..", "refs", "main")); err != nil || string(ref) != testCommit {
		t.Errorf("refs/main: %q, %v", ref, err)
	}
	for file, calls := range progress {
		size := int64(len(h.files[file]))
		if !slices.IsSorted(calls) || calls[0] != 0 || calls[len(calls)-1] != size || int64(len(calls)) > 3+size/progressStep {
			t.Errorf("progress of %s (%d bytes): %v", file, size, calls)
		}
	}
	if diff := cmp.Diff([]string{"config.json", "pytorch_model.bin", "spm.model", "tokenizer_config.json"}, slices.Sorted(maps.Keys(progress))); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}

	before := len(h.seen())
	if again := mustResolve(t, Options{}); again != dir {
		t.Errorf("second time: %s", again)
	}
	if byCommit, err := Resolve(t.Context(), testID+"@"+testCommit, Options{}); err != nil || byCommit != dir {
		t.Errorf("by commit: %s, %v", byCommit, err)
	}
	if now := len(h.seen()); now != before {
		t.Errorf("a cached model took %d requests", now-before)
	}
}

func TestDownloadForms(t *testing.T) {
	base := func(extra map[string][]byte) map[string][]byte {
		files := smallModel()
		delete(files, "pytorch_model.bin")
		maps.Copy(files, extra)
		return files
	}
	small := []string{"config.json", "tokenizer_config.json", "spm.model"}
	tests := []struct {
		name  string
		files map[string][]byte
		want  []string
	}{
		{"safetensors are preferred", base(map[string][]byte{"model.safetensors": []byte("a"), "pytorch_model.bin": []byte("b")}), []string{"model.safetensors"}},
		{"shards", base(map[string][]byte{
			"model.safetensors.index.json": []byte(`{"weight_map":{"x":"one.safetensors","y":"two.safetensors","z":"one.safetensors"}}`),
			"one.safetensors":              []byte("1"), "two.safetensors": []byte("2"), "pytorch_model.bin": []byte("b"),
		}), []string{"model.safetensors.index.json", "one.safetensors", "two.safetensors"}},
		{"fast tokenizer", base(map[string][]byte{"tokenizer.json": []byte(`{"model":{}}`), "pytorch_model.bin": []byte("b")}), []string{"tokenizer.json", "pytorch_model.bin"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHub(t, test.files)
			requireSnapshot(t, h, mustResolve(t, Options{}), append(test.want, small...)...)
			before := len(h.seen())
			mustResolve(t, Options{})
			if now := len(h.seen()); now != before {
				t.Errorf("a cached model took %d requests", now-before)
			}
		})
	}
	for name, test := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"no weights":    {base(nil), "no model.safetensors and no pytorch_model.bin"},
		"missing shard": {base(map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map":{"x":"one.safetensors"}}`)}), "lacks one.safetensors"},
		"escaping shard": {base(map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map":{"x":"../../x"}}`)}),
			"cannot be a part of a model"},
		"no config": {map[string][]byte{"README.md": nil}, "no config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			newFakeHub(t, test.files)
			_, err := resolve(t, Options{})
			requireError(t, err, test.want)
		})
	}
}

// TestCacheFilledByPython lays the cache out as huggingface_hub does and expects
// it to be used without a network.
func TestCacheFilledByPython(t *testing.T) {
	fill := func(t *testing.T, root string, files ...string) string {
		t.Helper()
		repo := filepath.Join(root, "models--owner--name")
		dir := filepath.Join(repo, "snapshots", testCommit)
		for _, d := range []string{dir, filepath.Join(repo, "blobs"), filepath.Join(repo, "refs")} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range files {
			blob := filepath.Join(repo, "blobs", "tag-of-"+file)
			if err := os.WriteFile(blob, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join("..", "..", "blobs", "tag-of-"+file), filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(repo, "refs", "main"), []byte(testCommit), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	whole := []string{"config.json", "pytorch_model.bin", "spm.model"}
	for name, place := range map[string]struct {
		env  map[string]string // VARIABLE: folder below a temporary one
		root string
	}{
		"HF_HUB_CACHE":   {map[string]string{"HF_HUB_CACHE": "c", "HF_HOME": "h"}, "c"},
		"HF_HOME":        {map[string]string{"HF_HOME": "h", "XDG_CACHE_HOME": "x"}, "h/hub"},
		"XDG_CACHE_HOME": {map[string]string{"HF_HOME": "", "XDG_CACHE_HOME": "x"}, "x/huggingface/hub"},
		"HOME":           {map[string]string{"HF_HOME": "", "HOME": "u"}, "u/.cache/huggingface/hub"},
	} {
		t.Run(name, func(t *testing.T) {
			newFakeHub(t, nil)
			temp := t.TempDir()
			for variable, folder := range place.env {
				if folder != "" {
					folder = filepath.Join(temp, folder)
				}
				t.Setenv(variable, folder)
			}
			want := fill(t, filepath.Join(temp, place.root), whole...)
			for _, offline := range []string{"", "1", "true"} {
				t.Setenv("HF_HUB_OFFLINE", offline)
				if got := mustResolve(t, Options{}); got != want {
					t.Errorf("want %s, got %s", want, got)
				}
			}
		})
	}
	t.Run("completed online", func(t *testing.T) {
		h := newFakeHub(t, smallModel())
		root := t.TempDir()
		fill(t, root, "config.json", "pytorch_model.bin")
		dir := mustResolve(t, Options{CacheDir: root})
		if content, err := os.ReadFile(filepath.Join(dir, "spm.model")); err != nil || !bytes.Equal(content, h.files["spm.model"]) {
			t.Errorf("spm.model: %q, %v", content, err)
		}
		if slices.ContainsFunc(h.seen(), func(r string) bool { return strings.Contains(r, ".bin") }) {
			t.Errorf("asked for weights that are there: %v", h.seen())
		}
	})
	for name, test := range map[string]struct {
		files []string
		want  string // missing; "" if the folder is usable
	}{
		"offline, nothing":      {nil, "config.json"},
		"offline, no weights":   {[]string{"config.json", "spm.model"}, "weights"},
		"offline, no tokenizer": {[]string{"config.json", "model.safetensors"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub(t, smallModel())
			root := t.TempDir()
			fill(t, root, test.files...)
			_, err := resolve(t, Options{CacheDir: root, Offline: true})
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else {
				requireError(t, err, test.want, "HF_HUB_OFFLINE", root)
			}
			if len(h.seen()) > 0 {
				t.Errorf("offline, but asked %v", h.seen())
			}
		})
	}
	t.Run("dangling link", func(t *testing.T) {
		newFakeHub(t, nil)
		root := t.TempDir()
		fill(t, root, whole...)
		if err := os.Remove(filepath.Join(root, "models--owner--name", "blobs", "tag-of-pytorch_model.bin")); err != nil {
			t.Fatal(err)
		}
		_, err := resolve(t, Options{CacheDir: root, Offline: true})
		requireError(t, err, "weights")
	})
}

// TestResume breaks the connection in the middle of the weights, as often as a
// case says, and expects the download to continue by ranges.
func TestResume(t *testing.T) {
	files := smallModel()
	const file = "pytorch_model.bin"
	half := len(files[file]) / 2
	breakAt := func(w http.ResponseWriter, n int) {
		w.Header().Set("Content-Length", strconv.Itoa(len(files[file])))
		_, _ = w.Write(files[file][:n])
		panic(http.ErrAbortHandler)
	}
	t.Run("in one call", func(t *testing.T) {
		h := newFakeHub(t, files)
		h.tamper = func(w http.ResponseWriter, r *http.Request, name string) bool {
			if name == "store:"+file && r.Header.Get("Range") == "" {
				breakAt(w, half)
			}
			return false
		}
		requireSnapshot(t, h, mustResolve(t, Options{}), "config.json", "tokenizer_config.json", "spm.model", file)
		if !slices.ContainsFunc(h.seen(), func(r string) bool { return strings.HasPrefix(r, "GET /"+file+" bytes=") }) {
			t.Errorf("not resumed: %v", h.seen())
		}
	})
	t.Run("in a later call", func(t *testing.T) {
		h := newFakeHub(t, files)
		ctx, cancel := context.WithCancel(t.Context())
		h.tamper = func(w http.ResponseWriter, r *http.Request, name string) bool {
			if name == "store:"+file && r.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", strconv.Itoa(len(files[file])))
				_, _ = w.Write(files[file][:half])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return true
			}
			return false
		}
		_, err := Resolve(ctx, testID, Options{Progress: func(name string, done, _ int64) {
			if name == file && done > 0 {
				cancel()
			}
		}})
		requireError(t, err, "stopped", "continues where it stopped")
		if !errors.Is(err, context.Canceled) {
			t.Errorf("not context.Canceled: %v", err)
		}
		if _, err := resolve(t, Options{Offline: true}); err == nil {
			t.Error("half a download counts as a model")
		}
		first := int64(-1)
		dir := mustResolve(t, Options{Progress: func(name string, done, _ int64) {
			if name == file && first < 0 {
				first = done
			}
		}})
		requireSnapshot(t, h, dir, "config.json", "tokenizer_config.json", "spm.model", file)
		if first <= 0 {
			t.Errorf("the second call started at byte %d", first)
		}
	})
	t.Run("server without ranges", func(t *testing.T) {
		h := newFakeHub(t, files)
		tries := 0
		h.tamper = func(w http.ResponseWriter, r *http.Request, name string) bool {
			if name != "store:"+file {
				return false
			}
			if tries++; tries == 1 {
				breakAt(w, half)
			}
			_, _ = w.Write(files[file])
			return true
		}
		requireSnapshot(t, h, mustResolve(t, Options{}), "config.json", "tokenizer_config.json", "spm.model", file)
	})
	t.Run("server that falls silent", func(t *testing.T) {
		h := newFakeHub(t, files)
		h.tamper = func(w http.ResponseWriter, r *http.Request, name string) bool {
			if name == "store:"+file && r.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", strconv.Itoa(len(files[file])))
				_, _ = w.Write(files[file][:half])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return true
			}
			return false
		}
		requireSnapshot(t, h, mustResolve(t, Options{idle: 200 * time.Millisecond}), "config.json", "tokenizer_config.json", "spm.model", file)
	})
	t.Run("never complete", func(t *testing.T) {
		h := newFakeHub(t, files)
		h.tamper = func(w http.ResponseWriter, r *http.Request, name string) bool {
			if name == "store:"+file {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, len(files[file])-1, len(files[file])))
				if r.Header.Get("Range") == "" {
					breakAt(w, half)
				}
				w.WriteHeader(http.StatusPartialContent)
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			return false
		}
		_, err := resolve(t, Options{})
		requireError(t, err, "breaks off at byte", "run it again")
	})
	t.Run("range refused", func(t *testing.T) {
		for _, status := range []int{http.StatusRequestedRangeNotSatisfiable, http.StatusPartialContent} { // the latter of the wrong place
			h := newFakeHub(t, files)
			tries := 0
			h.tamper = func(w http.ResponseWriter, r *http.Request, name string) bool {
				if name != "store:"+file {
					return false
				}
				if tries++; tries == 1 {
					breakAt(w, half)
				}
				if r.Header.Get("Range") != "" {
					w.Header().Set("Content-Range", "bytes 7-9/10")
					w.WriteHeader(status)
					return true
				}
				return false
			}
			requireSnapshot(t, h, mustResolve(t, Options{}), "config.json", "tokenizer_config.json", "spm.model", file)
		}
	})
	t.Run("other content left behind", func(t *testing.T) {
		h := newFakeHub(t, files)
		blobs := filepath.Join(os.Getenv("HF_HOME"), "hub", "models--owner--name", "blobs")
		if err := os.MkdirAll(blobs, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(blobs, h.etag(file)+".incomplete"), bytes.Repeat([]byte("?"), 100), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := resolve(t, Options{})
		requireError(t, err, "SHA-256")
		requireSnapshot(t, h, mustResolve(t, Options{}), "config.json", "tokenizer_config.json", "spm.model", file)
	})
}

func TestWrongSize(t *testing.T) {
	const file = "pytorch_model.bin"
	for name, answer := range map[string]func(w http.ResponseWriter, content []byte){
		"shorter": func(w http.ResponseWriter, content []byte) {
			w.Header().Set("Content-Length", strconv.Itoa(len(content)-1))
			_, _ = w.Write(content[1:])
		},
		"longer": func(w http.ResponseWriter, content []byte) { _, _ = w.Write(append(content, content...)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub(t, smallModel())
			h.tamper = func(w http.ResponseWriter, _ *http.Request, name string) bool {
				if name == "store:"+file {
					answer(w, h.files[file])
					return true
				}
				return false
			}
			_, err := resolve(t, Options{})
			requireError(t, err, fmt.Sprintf("announces %d bytes", len(h.files[file])))
			left, err := filepath.Glob(filepath.Join(os.Getenv("HF_HOME"), "hub", "*", "blobs", h.etag(file)+"*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestAnswers(t *testing.T) {
	status := func(code int, headers ...string) func(http.ResponseWriter, *http.Request, string) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(code)
			return true
		}
	}
	tests := []struct {
		name   string
		ref    string
		token  string // wanted by the hub
		env    string // HF_TOKEN
		tamper func(http.ResponseWriter, *http.Request, string) bool
		status int
		want   []string
	}{
		{name: "misspelt", ref: "owner/nmae", status: 404, want: []string{"spelling of owner/nmae"}},
		{name: "no such revision", ref: "owner/name@v9", status: 404, want: []string{`no revision "v9"`}},
		{name: "no token", ref: testID, token: "secret", status: 401, want: []string{"spelling", "HF_TOKEN"}},
		{name: "wrong token", ref: testID, token: "secret", env: "guess", status: 401, want: []string{"HF_TOKEN is valid"}},
		{name: "gated", ref: testID, tamper: status(403, "X-Error-Code", "GatedRepo"), status: 403, want: []string{"accept the model's terms"}},
		{name: "out of order", ref: testID, tamper: status(503), status: 503, want: []string{"503", "try again later"}},
		{name: "too many", ref: testID, tamper: status(429), status: 429, want: []string{"429", "wait"}},
		{name: "no tag", ref: testID, tamper: status(200, "X-Repo-Commit", testCommit), want: []string{"no usable ETag"}},
		{name: "escaping tag", ref: testID, tamper: status(200, "X-Repo-Commit", testCommit, "ETag", `"../../../x"`), want: []string{"no usable ETag"}},
		{name: "escaping commit", ref: testID, tamper: status(200, "X-Repo-Commit", "../../x", "ETag", `"x"`), want: []string{"impossible commit"}},
		{name: "redirects in circles", ref: testID, tamper: status(302, "Location", "/owner/name/resolve/main/config.json"), status: 302, want: []string{"circles"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newFakeHub(t, smallModel())
			h.token, h.tamper = test.token, test.tamper
			t.Setenv("HF_TOKEN", test.env)
			_, err := Resolve(t.Context(), test.ref, Options{retryWait: time.Millisecond})
			requireError(t, err, append(test.want, test.ref)...)
			var e *Error
			if errors.As(err, &e); e.Status != test.status {
				t.Errorf("want status %d, got %d", test.status, e.Status)
			}
			if test.env != "" && strings.Contains(err.Error(), test.env) {
				t.Errorf("the message shows the token: %v", err)
			}
		})
	}
	t.Run("no hub", func(t *testing.T) {
		h := newFakeHub(t, nil)
		h.hub.Close()
		_, err := resolve(t, Options{})
		requireError(t, err, "cannot be reached", "HF_ENDPOINT")
	})
	t.Run("no address", func(t *testing.T) {
		newFakeHub(t, nil)
		_, err := resolve(t, Options{Endpoint: "hub.example"})
		if err == nil || !strings.Contains(err.Error(), "not an address") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a failure that passes", func(t *testing.T) {
		h := newFakeHub(t, smallModel())
		tries := 0
		h.tamper = func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			if tries++; tries < 3 {
				w.WriteHeader(http.StatusBadGateway)
				return true
			}
			return false
		}
		mustResolve(t, Options{})
	})
}

// TestTokenStaysOnTheHub: the store is another port of the same machine, to which
// the standard client would send the token.
func TestTokenStaysOnTheHub(t *testing.T) {
	for _, source := range []string{"HF_TOKEN", "HF_TOKEN_PATH", "file", "option"} {
		t.Run(source, func(t *testing.T) {
			h := newFakeHub(t, smallModel())
			h.token = "secret"
			var opts Options
			path := filepath.Join(os.Getenv("HF_HOME"), "token")
			switch source {
			case "HF_TOKEN":
				t.Setenv("HF_TOKEN", h.token)
			case "option":
				opts.Token = h.token
			case "HF_TOKEN_PATH":
				path = filepath.Join(t.TempDir(), "t")
				t.Setenv("HF_TOKEN_PATH", path)
				fallthrough
			default:
				if err := os.WriteFile(path, []byte(h.token+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			mustResolve(t, opts)
			if len(h.leaked) > 0 {
				t.Errorf("the token went to the store: %v", h.leaked)
			}
		})
	}
}

// TestMirror serves files without the hub's own headers.
func TestMirror(t *testing.T) {
	h := newFakeHub(t, smallModel())
	mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/models/"+testID+"/revision/main" {
			_, _ = fmt.Fprintf(w, `{"sha":%q}`, testCommit)
			return
		}
		file := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		content, ok := h.files[file]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"`+h.etag(file)+`"`)
		w.(http.Flusher).Flush() // so that no size is sent
		_, _ = w.Write(content)
	}))
	defer mirror.Close()
	requireSnapshot(t, h, mustResolve(t, Options{Endpoint: mirror.URL}), "config.json", "tokenizer_config.json", "spm.model", "pytorch_model.bin")
}

func TestTwoAtOnce(t *testing.T) {
	h := newFakeHub(t, smallModel())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dir, err := Resolve(t.Context(), testID, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			requireSnapshot(t, h, dir, "config.json", "tokenizer_config.json", "spm.model", "pytorch_model.bin")
		})
	}
	wg.Wait()
	for _, file := range []string{"/pytorch_model.bin", "/" + testID + "/resolve/main/config.json"} {
		n := 0
		for _, r := range h.seen() {
			if r == "GET "+file {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s was downloaded %d times", file, n)
		}
	}
}

func TestLocalFolders(t *testing.T) {
	h := newFakeHub(t, smallModel())
	t.Chdir(t.TempDir())
	for _, dir := range []string{"model", "a/b", "empty", "owner"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"model/config.json", "a/b/config.json", "file"} {
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, ref := range []string{"model", "./model", "a/b", "a/../model"} {
		if dir, err := Resolve(t.Context(), ref, Options{}); err != nil || dir != ref {
			t.Errorf("%s: %q, %v", ref, dir, err)
		}
	}
	for ref, want := range map[string]string{
		"empty":               "no config.json",
		"file":                "is a file",
		"":                    "not a hub id",
		"model2":              "not a hub id",
		"./owner/x":           "not a hub id",
		"../x":                "not a hub id",
		"/x/y":                "not a hub id",
		"~/x":                 "not a hub id",
		"a/b/c":               "not a hub id",
		"owner/../x":          "not a hub id",
		"other/..":            "cannot be a hub id",
		"owner/x--y":          "cannot be a hub id",
		"owner/x y":           "cannot be a hub id",
		"owner/.x":            "cannot be a hub id",
		"owner/name@":         "not a revision",
		"owner/name@../x":     "not a revision",
		"owner/name@/x":       "not a revision",
		"owner/name@a/../../": "not a revision",
	} {
		dir, err := Resolve(t.Context(), ref, Options{})
		if err == nil {
			t.Errorf("%q gave %s", ref, dir)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || e.Remedy == "" {
			t.Errorf("%q: want an *Error about %q, got %v", ref, want, err)
		}
	}
	if _, err := Resolve(t.Context(), "missing", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
	if len(h.seen()) > 0 {
		t.Errorf("asked the hub: %v", h.seen())
	}
}

// TestPoisonedCache: what a cache says is no more trusted than what a user says.
func TestPoisonedCache(t *testing.T) {
	newFakeHub(t, nil)
	root := t.TempDir()
	refs := filepath.Join(root, "models--owner--name", "refs")
	if err := os.MkdirAll(refs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(refs, "main"), []byte("../../elsewhere"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := resolve(t, Options{CacheDir: root, Offline: true})
	requireError(t, err, `revision "main"`)
}

func TestReadOnlyCache(t *testing.T) {
	newFakeHub(t, smallModel())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := resolve(t, Options{CacheDir: filepath.Join(file, "cache")})
	requireError(t, err, "cannot be written", "HF_HOME")
}

// TestNothingIsLeftRunning counts goroutines after downloads that ended in
// several ways.
func TestNothingIsLeftRunning(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("downloads", func(t *testing.T) {
		h := newFakeHub(t, smallModel())
		mustResolve(t, Options{})
		h.token = "secret"
		if _, err := resolve(t, Options{CacheDir: t.TempDir()}); err == nil {
			t.Error("no error without a token")
		}
	})
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string][2]int64{
		"bytes 5-9/10": {5, 10}, "bytes 5-9/*": {5, -1}, "bytes */10": {}, "": {}, "bytes 5-9/99999999999999999999": {},
	} {
		start, total, err := parseContentRange(s)
		var got [2]int64
		if err == nil {
			got = [2]int64{start, total}
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", s, diff)
		}
	}
}
