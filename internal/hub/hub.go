// Package hub turns the name of a checkpoint into a local folder.
//
// A name is a folder that holds config.json, or the id of a model on a Hugging
// Face hub, owner/name or owner/name@revision. Models of a hub are kept in the
// cache that the Python libraries use, in the same layout, so that a model which
// either side has downloaded is there for both, and is used without a network:
//
//	models--owner--name/
//	  blobs/ETAG                     the content of a file
//	  refs/main                      the commit that a branch or tag stands for
//	  snapshots/COMMIT/config.json   a link to the blob
//	.locks/models--owner--name/      one download of a file at a time
//
// The environment variables of the Python libraries are honoured: HF_ENDPOINT,
// HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
// TRANSFORMERS_OFFLINE and the older HUGGINGFACE_HUB_CACHE and
// HUGGING_FACE_HUB_TOKEN. Paths may begin with ~ and have variables in them.
package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/criteria-go/criteria/internal/readfile"
	"github.com/criteria-go/criteria/internal/redact"
)

// Options say where models are looked for. The zero value takes everything from
// the environment, as the Python libraries do.
type Options struct {
	// CacheDir is the cache. Default: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub,
	// XDG_CACHE_HOME/huggingface/hub or ~/.cache/huggingface/hub.
	CacheDir string
	// Endpoint is the hub's address. Default: HF_ENDPOINT or the public hub.
	Endpoint string
	// Token is the access token for private and gated models. It is sent to the
	// Endpoint only, never to a host that the hub redirects to. Default:
	// HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or the file HF_TOKEN_PATH or HF_HOME/token.
	Token string
	// Offline forbids every request. Default: HF_HUB_OFFLINE or
	// TRANSFORMERS_OFFLINE.
	Offline bool
	// MaxBytes is how much is downloaded for one model, all files together; what
	// more claims to be one is refused. Default: 16 GiB.
	MaxBytes int64
	// Progress, if set, is told about each file that is downloaded: how many of
	// its bytes are there, of how many (-1 if the hub does not say). It is called
	// when a transfer starts, about once per megabyte and when it is complete, on
	// the goroutine that called Resolve, and must not block.
	Progress func(file string, done, total int64)

	idle      time.Duration // longest wait for the next byte
	retryWait time.Duration // first wait before a failed request is repeated
}

// Error reports a model that cannot be had.
type Error struct {
	Ref    string // the name that was given to Resolve
	Found  string // what went wrong
	Remedy string // what the user can do about it
	Status int    // the hub's HTTP status, 0 if it is not about one
	Err    error  // cause, or nil
}

// Error gives everything on one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("model %q: %s", e.Ref, e.Found)
	if e.Err != nil {
		s += ": " + strings.Join(strings.Fields(e.Err.Error()), " ")
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Resolve returns the folder of the checkpoint that ref names. A local folder is
// returned as it is. A model of the hub is taken from the cache if it is there
// with its configuration, weights and tokenizer; what is missing is downloaded:
// config.json, tokenizer_config.json, spm.model and tokenizer.json, and the
// weights as model.safetensors or else as pytorch_model.bin.
//
// A broken transfer is resumed, in the same call and in later ones. The files of
// the returned folder belong to the cache and must not be changed. Failures are
// of type *[Error]; if ctx ends, errors.Is reports its cause.
func Resolve(ctx context.Context, ref string, opts Options) (string, error) {
	info, err := os.Stat(ref)
	switch {
	case err == nil && !info.IsDir():
		return "", &Error{Ref: ref, Found: "it is a file", Remedy: "give the folder that holds it and config.json"}
	case err == nil:
		if !present(filepath.Join(ref, configName)) {
			return "", &Error{Ref: ref, Found: "the folder has no " + configName, Remedy: "give a folder that save_pretrained has written, or a hub id such as owner/name"}
		}
		return ref, nil
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return "", &Error{Ref: ref, Found: "the folder cannot be looked at", Err: err, Remedy: "check its permissions"}
	}
	m, err := parse(ref)
	if err != nil {
		return "", err
	}
	opts, err = opts.withDefaults(ctx)
	if err != nil {
		return "", &Error{Ref: ref, Found: "the hub's settings are wrong", Err: err}
	}
	c := cache{root: opts.CacheDir, repo: filepath.Join(opts.CacheDir, m.folder())}
	if dir, missing := c.find(ctx, m); missing == "" {
		return dir, nil
	} else if opts.Offline {
		if dir != "" && missing == tokenizerName {
			return dir, nil // whoever needs the tokenizer will say so
		}
		return "", &Error{Ref: ref,
			Found:  fmt.Sprintf("the cache %s lacks its %s, and HF_HUB_OFFLINE forbids to download it", c.root, missing),
			Remedy: "unset HF_HUB_OFFLINE, or set HF_HOME to the cache that holds the model"}
	}
	return newDownload(m, c, opts).run(ctx)
}

// model is a checkpoint on the hub.
type model struct {
	ref      string // as the user wrote it
	id       string // owner/name
	revision string // branch, tag or commit
}

// folder is the model's folder in the cache.
func (m model) folder() string { return "models--" + strings.ReplaceAll(m.id, "/", "--") }

var (
	idPattern       = regexp.MustCompile(`^\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?$`)
	revisionPattern = regexp.MustCompile(`^\w[\w.+/-]{0,254}$`)
)

// parse reads a hub id. Owner and name become parts of paths in the cache, so
// nothing is accepted that the hub itself would not.
func parse(ref string) (model, error) {
	id, revision, pinned := strings.Cut(ref, "@")
	if !pinned {
		revision = "main"
	}
	if strings.Count(id, "/") != 1 || filepath.IsAbs(ref) || strings.HasPrefix(ref, ".") || strings.HasPrefix(ref, "~") {
		return model{}, &Error{Ref: ref, Found: "there is no such folder, and it is not a hub id", Err: fs.ErrNotExist,
			Remedy: "check the path, or give a hub id: owner/name or owner/name@revision"}
	}
	if !idPattern.MatchString(id) || strings.Contains(id, "..") || strings.Contains(id, "--") {
		return model{}, &Error{Ref: ref, Found: "there is no such folder, and it cannot be a hub id", Err: fs.ErrNotExist,
			Remedy: "a hub id is owner/name, each of letters, digits and single . _ -"}
	}
	if !revisionPattern.MatchString(revision) || strings.Contains(revision, "..") || !filepath.IsLocal(revision) {
		return model{}, &Error{Ref: ref, Found: fmt.Sprintf("%q is not a revision", revision),
			Remedy: "give a branch, a tag or a commit after the @"}
	}
	return model{ref: ref, id: id, revision: revision}, nil
}

const publicEndpoint = "https://huggingface.co"

// withDefaults fills what is not set from the environment.
func (o Options) withDefaults(ctx context.Context) (Options, error) {
	home := os.Getenv("HF_HOME")
	if home == "" {
		base := os.Getenv("XDG_CACHE_HOME")
		if base == "" {
			user, err := os.UserHomeDir()
			if err != nil && cmp.Or(o.CacheDir, os.Getenv("HF_HUB_CACHE"), os.Getenv("HUGGINGFACE_HUB_CACHE")) == "" {
				return o, fmt.Errorf("no place for the cache: set HF_HOME: %w", err)
			}
			base = filepath.Join(user, ".cache")
		}
		home = filepath.Join(base, "huggingface")
	}
	home = expand(home)
	if o.CacheDir == "" {
		o.CacheDir = expand(cmp.Or(os.Getenv("HF_HUB_CACHE"), os.Getenv("HUGGINGFACE_HUB_CACHE"), filepath.Join(home, "hub")))
	}
	o.Endpoint = strings.TrimRight(cmp.Or(o.Endpoint, os.Getenv("HF_ENDPOINT"), publicEndpoint), "/")
	if u, err := url.Parse(o.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return o, fmt.Errorf("HF_ENDPOINT %q is not an address such as %s", redact.URL(o.Endpoint), publicEndpoint)
	}
	if o.Token = strings.TrimSpace(cmp.Or(o.Token, os.Getenv("HF_TOKEN"), os.Getenv("HUGGING_FACE_HUB_TOKEN"))); o.Token == "" {
		// The file that the login command of the Python client writes. Most users
		// have none, and public models need none: who does is told so by the hub.
		path := expand(cmp.Or(os.Getenv("HF_TOKEN_PATH"), filepath.Join(home, "token")))
		content, _ := readfile.All(ctx, path, readfile.Text)
		o.Token = strings.TrimSpace(string(content))
	}
	o.Token = strings.NewReplacer("\r", "", "\n", "").Replace(o.Token)
	if o.MaxBytes <= 0 {
		o.MaxBytes = maxModel
	}
	o.Offline = o.Offline || isTrue(os.Getenv("HF_HUB_OFFLINE")) || isTrue(os.Getenv("TRANSFORMERS_OFFLINE"))
	o.idle = cmp.Or(o.idle, 30*time.Second)
	o.retryWait = cmp.Or(o.retryWait, 500*time.Millisecond)
	return o, nil
}

var variable = regexp.MustCompile(`\$(\w+|\{[^}]*\})`)

// expand replaces a ~ at the beginning of a path, and variables in it, as the
// Python client does: those that are not set stay as they are.
func expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		if home, err := os.UserHomeDir(); err == nil {
			path = strings.TrimRight(home, "/") + rest
		}
	}
	return variable.ReplaceAllStringFunc(path, func(name string) string {
		if value, ok := os.LookupEnv(strings.Trim(name, "${}")); ok {
			return value
		}
		return name
	})
}

// isTrue reads a switch as the Python client does.
func isTrue(s string) bool {
	switch strings.ToUpper(s) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}
