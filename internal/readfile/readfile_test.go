package readfile

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// refused expects an [Error] about path, at once.
func refused(t *testing.T, path string, limit int64, found string) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := All(t.Context(), path, limit)
		done <- err
	}()
	select {
	case err := <-done:
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrRefused) || e.Path != path || e.Remedy == "" ||
			!strings.Contains(e.Found, found) {
			t.Errorf("%s: want an *Error that says %q, got %v", path, found, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: it is still being read", path)
	}
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAll(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, chunk - 1, chunk, chunk + 1, 2*chunk + 7} {
		want := bytes.Repeat([]byte("content"), size/7+1)[:size]
		path := write(t, want)
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{path, link} {
			got, err := All(t.Context(), path, int64(size))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
		}
		if size > 0 {
			refused(t, path, int64(size)-1, "bytes")
		}
	}
}

func TestMissing(t *testing.T) {
	if _, err := All(t.Context(), filepath.Join(t.TempDir(), "none"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestFolder(t *testing.T) { refused(t, t.TempDir(), 1<<20, "a folder") }

// TestSparse: what a file claims to have counts, not what it takes on the disk.
func TestSparse(t *testing.T) {
	path := write(t, nil)
	if err := os.Truncate(path, 12<<30); err != nil {
		t.Skip("this disk has no sparse files: ", err)
	}
	refused(t, path, Config, "12884901888 bytes")
}

func TestContextEnds(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := All(ctx, write(t, []byte("x")), 1); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestFileSystem(t *testing.T) {
	fsys := fstest.MapFS{"a": {Data: []byte("abc")}, "dir/b": {Data: []byte("b")}}
	if got, err := AllFS(t.Context(), fsys, "a", 3); err != nil || string(got) != "abc" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, name := range []string{"a", "dir"} {
		if _, err := AllFS(t.Context(), fsys, name, 2); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
