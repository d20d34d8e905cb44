package hub

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/readfile"
)

// TestRedirectingMirror: a mirror that keeps nothing itself sends every request on to the
// hub. The token is for the mirror alone.
func TestRedirectingMirror(t *testing.T) {
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		h := newFakeHub(t, smallModel())
		var leaked []string
		h.tamper = func(_ http.ResponseWriter, r *http.Request, file string) bool {
			if r.Header.Get("Authorization") != "" {
				leaked = append(leaked, file)
			}
			return false
		}
		mirror := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer secret" {
				t.Error("the mirror does not get its token")
			}
			http.Redirect(w, r, h.hub.URL+r.URL.RequestURI(), status)
		}))
		t.Cleanup(mirror.Close)
		dir := mustResolve(t, Options{Endpoint: mirror.URL, Token: "secret"})
		requireSnapshot(t, h, dir, "config.json", "tokenizer_config.json", "spm.model", "pytorch_model.bin")
		if len(leaked)+len(h.leaked) > 0 {
			t.Errorf("%d: the token went along with %q and %q", status, leaked, h.leaked)
		}
	}
}

// TestBudget: all files of a model share one budget, and small ones have a limit
// of their own, whatever the hub says about their size.
func TestBudget(t *testing.T) {
	const megabyte = 1 << 20
	for name, c := range map[string]struct {
		files  map[string][]byte
		silent bool // about sizes
		most   int64
		found  string
	}{
		"weights":                {most: 3 * megabyte, found: "pytorch_model.bin has"},
		"weights without a size": {most: 3 * megabyte, silent: true, found: "pytorch_model.bin has"},
		"shards together": {most: 3 * megabyte, found: "b.bin has", files: map[string][]byte{
			"pytorch_model.bin": nil,
			"pytorch_model.bin.index.json": []byte(
				`{"weight_map":{"x":"a.bin","y":"b.bin"}}`),
			"a.bin": make([]byte, 2*megabyte), "b.bin": make([]byte, 2*megabyte),
		}},
		"configuration":                {found: "config.json has", files: map[string][]byte{"config.json": make([]byte, 2*megabyte)}},
		"configuration without a size": {silent: true, found: "config.json has", files: map[string][]byte{"config.json": make([]byte, 2*megabyte)}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub(t, smallModel())
			for name, content := range c.files {
				if h.files[name] = content; content == nil {
					delete(h.files, name)
				}
			}
			if c.silent {
				h.tamper = func(w http.ResponseWriter, r *http.Request, file string) bool {
					name, store := strings.CutPrefix(file, "store:")
					content, ok := h.files[name]
					if !ok || isWeights(name) && !store {
						return false
					}
					w.Header().Set("X-Repo-Commit", testCommit)
					w.Header().Set("ETag", `"`+h.etag(name)+`"`)
					w.WriteHeader(http.StatusOK)
					w.(http.Flusher).Flush() // so that no length can be given
					for r.Method == http.MethodGet && len(content) > 0 {
						n, err := w.Write(content[:min(len(content), 64<<10)])
						if content = content[n:]; err != nil {
							break
						}
					}
					return true
				}
			}
			_, err := resolve(t, Options{MaxBytes: c.most})
			requireError(t, err, c.found, "the most")
			home := os.Getenv("HF_HOME")
			_ = filepath.WalkDir(home, func(path string, d os.DirEntry, err error) error {
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 3*megabyte {
					t.Errorf("%s was kept, with %d bytes", path, info.Size())
				}
				return err
			})
		})
	}
}

func TestManyShards(t *testing.T) {
	var index strings.Builder
	index.WriteString(`{"weight_map":{"x":"a"`)
	for i := range maxShards + 1 {
		index.WriteString(`,"` + strings.Repeat("x", i+1) + `":"s` + strings.Repeat("x", i%200) + string(rune('a'+i/200)) + `"`)
	}
	index.WriteString("}}")
	path := filepath.Join(t.TempDir(), "index.json")
	if err := os.WriteFile(path, []byte(index.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readIndex(t.Context(), path); err == nil || !strings.Contains(err.Error(), "more than 1000") {
		t.Errorf("got %v", err)
	}
}

// TestSparseCache: a file of the cache that claims to be enormous is not read.
func TestSparseCache(t *testing.T) {
	h := newFakeHub(t, smallModel())
	delete(h.files, "pytorch_model.bin")
	index := bytes.NewBufferString(`{"weight_map":{"x":"a.bin"}}`).Bytes()
	h.files["model.safetensors.index.json"], h.files["a.bin"] = index, []byte("shard")
	dir := mustResolve(t, Options{})
	path := filepath.Join(dir, "model.safetensors.index.json")
	if err := os.Truncate(path, 12<<30); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("this disk has no sparse files: ", err)
	}
	_, err := resolve(t, Options{Offline: true})
	requireError(t, err, "lacks its weights")
	if _, err := readfile.All(t.Context(), path, readfile.Index); err == nil {
		t.Error("it was read")
	}
}

// TestEnvironment reads the variables as huggingface_hub does: older names, ~
// and variables in paths.
func TestEnvironment(t *testing.T) {
	t.Setenv("HOME", "/h")
	t.Setenv("PART", "part")
	for _, c := range []struct {
		env          map[string]string
		cache, token string
	}{
		{nil, "/h/.cache/huggingface/hub", ""},
		{map[string]string{"HF_HOME": "~/x"}, "/h/x/hub", ""},
		{map[string]string{"HF_HOME": "~"}, "/h/hub", ""},
		{map[string]string{"HF_HOME": "/a/$PART/${PART}/$NOPE"}, "/a/part/part/$NOPE/hub", ""},
		{map[string]string{"HF_HUB_CACHE": "~/c/$PART"}, "/h/c/part", ""},
		{map[string]string{"HUGGINGFACE_HUB_CACHE": "~/old"}, "/h/old", ""},
		{map[string]string{"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"}, "/new", ""},
		{map[string]string{"XDG_CACHE_HOME": "~/xdg"}, "/h/xdg/huggingface/hub", ""},
		{map[string]string{"HUGGING_FACE_HUB_TOKEN": " old\r\n"}, "/h/.cache/huggingface/hub", "old"},
		{map[string]string{"HUGGING_FACE_HUB_TOKEN": "old", "HF_TOKEN": "new"}, "/h/.cache/huggingface/hub", "new"},
	} {
		for _, name := range []string{
			"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "HF_HUB_CACHE",
			"HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME",
		} {
			t.Setenv(name, c.env[name])
		}
		opts, err := Options{}.withDefaults(t.Context())
		if err != nil || opts.CacheDir != c.cache || opts.Token != c.token {
			t.Errorf("%v: the cache is %s, the token %q, %v; want %s and %q", c.env, opts.CacheDir, opts.Token, err, c.cache, c.token)
		}
	}
}

// TestSecretsInErrors: neither the password of a mirror nor the signature of a
// link is shown.
func TestSecretsInErrors(t *testing.T) {
	h := newFakeHub(t, smallModel())
	for _, endpoint := range []string{
		"http://ann:hunter/zwo@" + strings.TrimPrefix(h.hub.URL, "http://"), "ftp://ann:hunterzwo@track",
		"http://ann:hunterzwo@127.0.0.1:1",
	} {
		_, err := resolve(t, Options{Endpoint: endpoint})
		if err == nil || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "zwo") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
	h.store.Close() // links lead nowhere
	if _, err := resolve(t, Options{}); err == nil || strings.Contains(err.Error(), "signature=x") {
		t.Errorf("got %v", err)
	}
}
