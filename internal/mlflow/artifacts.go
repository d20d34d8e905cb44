package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/criteria-go/criteria/internal/readfile"
)

// checkArtifactPath accepts slash-separated relative paths in shortest form.
func checkArtifactPath(p string) error {
	if p == "." || !fs.ValidPath(p) || strings.ContainsRune(p, 0) || !filepath.IsLocal(filepath.FromSlash(p)) {
		return invalid("check artifact path", fmt.Sprintf("%q: a path must be relative, separated by /, without . or .. parts", p))
	}
	return nil
}

// localFolder returns the folder that an artifact URI names, or an error that
// says what to do when it is none.
func localFolder(uri string) (string, error) {
	scheme, _, hasScheme := strings.Cut(uri, ":")
	switch {
	case uri == "":
		return "", errors.New("mlflow: the run has no artifact location")
	case !hasScheme || len(scheme) == 1 || strings.ContainsAny(scheme, `/\`):
		return filepath.FromSlash(uri), nil
	case scheme == "file":
		return pathOfFileURI(uri)
	case scheme == "mlflow-artifacts":
		return "", &APIError{Op: "find artifacts", Code: codeInvalid, Message: fmt.Sprintf(
			"%s is kept by a tracking server, because the experiment was created through one: "+
				"set the tracking URI to the server's address (http://HOST:PORT), or choose a new experiment name", uri)}
	}
	return "", &APIError{Op: "find artifacts", Code: codeInvalid, Message: fmt.Sprintf(
		"%s is in a %s store, which only the server can reach: start the server with --serve-artifacts (the default) "+
			"and --artifacts-destination, and use an experiment whose location starts with mlflow-artifacts:", uri, scheme)}
}

// tempPrefix marks files that are being written; lists leave them out.
const tempPrefix = ".partial-"

// putLocal stores content below the folder of an artifact URI: a file appears
// complete or not at all.
func putLocal(ctx context.Context, uri, p string, content *io.SectionReader) error {
	if err := checkArtifactPath(p); err != nil {
		return err
	}
	dir, err := localFolder(uri)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("mlflow: store artifact %s: %w", p, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("mlflow: store artifact %s: %w", p, err)
	}
	defer root.Close()
	r := io.NewSectionReader(content, 0, content.Size())
	if err := writeAtomic(root, p, readerWithContext(ctx, r)); err != nil {
		return fmt.Errorf("mlflow: store artifact %s in %s: %w", p, dir, err)
	}
	return nil
}

// writeAtomic writes root/p by a temporary file beside it.
func writeAtomic(root *os.Root, p string, r io.Reader) (err error) {
	name := filepath.FromSlash(p)
	if dir := filepath.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	temp := filepath.Join(filepath.Dir(name), tempPrefix+newID())
	f, err := root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Rename(temp, name)
}

func listLocal(uri, p string) ([]FileInfo, error) {
	if p != "" {
		if err := checkArtifactPath(p); err != nil {
			return nil, err
		}
	}
	dir, err := localFolder(uri)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("mlflow: list artifacts: %w", err)
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(path.Join(".", p)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("mlflow: list artifacts: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return nil, err // as MLflow: a file has no entries
	}
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("mlflow: list artifacts: %w", err)
	}
	var out []FileInfo
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) || !utf8.ValidString(e.Name()) {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.IsDir() && !info.Mode().IsRegular() {
			continue // gone in the meantime, or a link that may lead elsewhere
		}
		fi := FileInfo{Path: path.Join(p, e.Name()), IsDir: e.IsDir()}
		if !fi.IsDir {
			fi.Size = info.Size()
		}
		out = append(out, fi)
	}
	slices.SortFunc(out, func(a, b FileInfo) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func openLocal(uri, p string) (io.ReadCloser, error) {
	if err := checkArtifactPath(p); err != nil {
		return nil, err
	}
	dir, err := localFolder(uri)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noArtifact(p, dir)
	} else if err != nil {
		return nil, fmt.Errorf("mlflow: read artifact %s: %w", p, err)
	}
	defer root.Close()
	f, err := readfile.OpenIn(root, filepath.FromSlash(p))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, readfile.ErrRefused) {
		return nil, noArtifact(p, dir)
	} else if err != nil {
		return nil, fmt.Errorf("mlflow: read artifact %s: %w", p, err)
	}
	return f, nil
}

func noArtifact(p, where string) error {
	return &APIError{Op: "read artifact", Code: codeNotFound, Message: fmt.Sprintf("no file %s in %s", p, where)}
}

// Limits bounds what [Download] accepts from a store that may be hostile. A
// zero field means its default.
type Limits struct {
	Files int   // default 10,000
	Bytes int64 // of all files together; default 16 GiB
	Depth int   // of folders; default 32
}

// Download copies the artifact file or folder p of a run below dir, under its
// full artifact path, and returns where it lies. p == "" copies everything.
// Paths that lead out of p, and more than limits allows, are [ErrUnsafe].
func Download(ctx context.Context, s Store, run Run, p, dir string, limits Limits) (string, error) {
	if p != "" {
		if err := checkArtifactPath(p); err != nil {
			return "", err
		}
	}
	if limits.Files == 0 {
		limits.Files = 10_000
	}
	if limits.Bytes == 0 {
		limits.Bytes = 16 << 30
	}
	if limits.Depth == 0 {
		limits.Depth = 32
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("mlflow: download: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("mlflow: download: %w", err)
	}
	defer root.Close()
	d := downloader{store: s, run: run, root: root, left: limits}
	entries, err := s.ListArtifacts(ctx, run, p)
	switch {
	case err != nil:
	case len(entries) > 0:
		err = d.tree(ctx, p, entries, 1)
	case p == "":
		err = noArtifact("at all", run.ArtifactURI)
	default: // a file lists as nothing
		err = d.file(ctx, p, -1)
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.FromSlash(p)), nil
}

type downloader struct {
	store Store
	run   Run
	root  *os.Root
	left  Limits
}

// tree copies the entries that the store listed for the folder p.
func (d *downloader) tree(ctx context.Context, p string, entries []FileInfo, depth int) error {
	if depth > d.left.Depth {
		return fmt.Errorf("mlflow: download %s: folders are nested too deep: %w", p, ErrUnsafe)
	}
	for _, e := range entries {
		if checkArtifactPath(e.Path) != nil || path.Dir(e.Path) != path.Join(".", p) {
			return fmt.Errorf("mlflow: download %q: the store listed %q, which does not lie in it: %w", p, e.Path, ErrUnsafe)
		}
		if !e.IsDir {
			if err := d.file(ctx, e.Path, e.Size); err != nil {
				return err
			}
			continue
		}
		if err := d.root.MkdirAll(filepath.FromSlash(e.Path), 0o777); err != nil {
			return fmt.Errorf("mlflow: download: %w", err)
		}
		below, err := d.store.ListArtifacts(ctx, d.run, e.Path)
		if err != nil {
			return err
		}
		if err := d.tree(ctx, e.Path, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// file copies one file; it begins again when the connection breaks.
func (d *downloader) file(ctx context.Context, p string, size int64) error {
	if d.left.Files--; d.left.Files < 0 {
		return fmt.Errorf("mlflow: download %s: too many files: %w", p, ErrUnsafe)
	}
	if size > d.left.Bytes {
		return fmt.Errorf("mlflow: download %s: %d bytes are more than the %d that are left: %w", p, size, d.left.Bytes, ErrUnsafe)
	}
	var err error
	for attempt := range 4 {
		if attempt > 0 {
			if err := sleep(ctx, time.Duration(attempt)*time.Second); err != nil {
				return err
			}
		}
		var broken bool
		if broken, err = d.try(ctx, p, size); !broken {
			return err
		}
	}
	return err
}

// try copies one file and reports whether the connection broke meanwhile, so
// that another try may help.
func (d *downloader) try(ctx context.Context, p string, size int64) (broken bool, err error) {
	body, err := d.store.OpenArtifact(ctx, d.run, p)
	if err != nil {
		return false, err // a store has its own retries for this
	}
	defer body.Close()
	counted := &countingReader{r: io.LimitReader(readerWithContext(ctx, body), d.left.Bytes+1), max: d.left.Bytes}
	if err := writeAtomic(d.root, p, counted); err != nil {
		broken = counted.err != nil && !errors.Is(err, ErrUnsafe) && ctx.Err() == nil
		return broken, fmt.Errorf("mlflow: download %s: %w", p, err)
	}
	if size > 0 && counted.n != size { // 0 may mean that the store does not know
		return true, errors.Join(fmt.Errorf("mlflow: download %s: got %d of %d bytes", p, counted.n, size), d.root.Remove(filepath.FromSlash(p)))
	}
	d.left.Bytes -= counted.n
	return false, nil
}

// countingReader counts and bounds what it passes on, and remembers whether
// the source failed.
type countingReader struct {
	r      io.Reader
	n, max int64
	err    error
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.n += int64(n); c.n > c.max {
		err = fmt.Errorf("more than the %d bytes that are left: %w", c.max, ErrUnsafe)
	}
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// readerWithContext stops a copy when ctx ends.
func readerWithContext(ctx context.Context, r io.Reader) io.Reader { return ctxReader{ctx, r} }

type ctxReader struct {
	ctx context.Context // for the length of one copy
	r   io.Reader
}

func (c ctxReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
