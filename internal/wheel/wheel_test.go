package wheel

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// packed returns a wheel with one file in it.
func packed(t *testing.T) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	f, err := z.Create("pkg/lib/libx.so")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("library")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// TestFetch takes a library from indexes of both forms, and from those that serve
// something else.
func TestFetch(t *testing.T) {
	good := packed(t)
	pinned := Wheel{"some-part", "1.0", sumOf(good), map[string]string{"pkg/lib/libx.so": "libx.so"}}
	other := pinned
	other.Members = map[string]string{"pkg/liby.so": "liby.so"}
	asJSON := func(address, sum string) string {
		return fmt.Sprintf(`{"files": [{"url": "wrong.whl", "hashes": {"sha256": "00"}}, {"url": %q, "hashes": {"sha256": %q}}]}`, address, sum)
	}
	asHTML := fmt.Sprintf(`<a href="wrong.whl#sha256=%064d">x</a> <a data-x="y" href="../../files/some%%2D1.whl#sha256=%s">y</a>`, 0, pinned.SHA256)
	const listing = "application/vnd.pypi.simple.v1+json; charset=utf-8"
	for name, c := range map[string]struct {
		wheel         Wheel
		kind, listing string
		body          []byte
		want          string // in the error; empty: none
	}{
		"JSON":         {pinned, listing, asJSON("/files/some-1.whl", pinned.SHA256), good, ""},
		"HTML":         {pinned, "text/html", asHTML, good, ""},
		"other file":   {pinned, listing, asJSON("/files/some-1.whl", sumOf(nil)), good, "no file with the SHA-256"},
		"other bytes":  {pinned, listing, asJSON("/files/some-1.whl", pinned.SHA256), good[:len(good)-5], "other bytes"},
		"no library":   {other, listing, asJSON("/files/some-1.whl", pinned.SHA256), good, "liby.so"},
		"no listing":   {pinned, listing, "<html>", good, "listing"},
		"missing file": {pinned, listing, asJSON("/nowhere", pinned.SHA256), good, "404"},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("/simple/some-part/", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.kind)
				fmt.Fprint(w, c.listing)
			})
			mux.HandleFunc("/files/some-1.whl", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(c.body) })
			server := httptest.NewServer(mux)
			defer server.Close()
			t.Setenv(EnvIndex, server.URL+"/simple/")
			dir := t.TempDir()
			err := c.wheel.Fetch(context.Background(), dir)
			left, readErr := os.ReadDir(dir)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want one about %q", err, c.want)
				}
				if len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, "libx.so")); string(got) != "library" || len(left) != 1 {
				t.Errorf("installed %q, and %v", got, left)
			}
		})
	}
}

// TestFetchHidesPasswords: the address of an index may have one in it.
func TestFetchHidesPasswords(t *testing.T) {
	w := Wheel{"some-part", "1.0", sumOf(nil), nil}
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	for _, index := range []string{
		strings.Replace(server.URL, "://", "://me:hunter2@", 1),
		"http://me:hunter2@127.0.0.1:bad/",
	} {
		t.Setenv(EnvIndex, index)
		err := w.Fetch(context.Background(), t.TempDir())
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("error %v, want one without the password", err)
		}
	}
}
