package readfile

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, path, 1<<20, "a named pipe")
	if _, err := AllFS(t.Context(), os.DirFS(filepath.Dir(path)), "pipe", 1); !errors.Is(err, ErrRefused) {
		t.Errorf("in a file system: %v", err)
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := OpenIn(root, "pipe"); !errors.Is(err, ErrRefused) {
		t.Errorf("below a folder: %v", err)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused(t, path, 1<<20, "a socket")
}

func TestDevice(t *testing.T) { refused(t, "/dev/zero", 1<<20, "a device") }

// TestUnknownSize: files of /proc claim to be empty.
func TestUnknownSize(t *testing.T) {
	got, err := All(t.Context(), "/proc/self/status", 1<<20)
	if err != nil || !strings.HasPrefix(string(got), "Name:") {
		t.Errorf("got %q, %v", got, err)
	}
	refused(t, "/proc/self/status", 10, "bytes")
}
