package modelstore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/sumfile"
)

// folder writes files into a folder of their own.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A base checkpoint in a folder is hashed as far as its files are there, and no others.
func TestFindBase(t *testing.T) {
	dir := folder(t, map[string]string{"config.json": "{}", "model.safetensors": "weights", "notes.txt": "mine"})
	base, err := FindBase(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if base.Dir != dir || len(base.Hashes) != 2 {
		t.Errorf("%+v: want the two files of %s", base, dir)
	}
	want, err := sumfile.Hash(filepath.Join(dir, "model.safetensors"))
	if err != nil || base.Hashes["model.safetensors"] != want {
		t.Errorf("weights have %s, want %s, %v", base.Hashes["model.safetensors"], want, err)
	}
	if _, err := FindBase(t.Context(), filepath.Join(dir, "absent"), nil); err == nil {
		t.Error("a folder that does not exist is found")
	}
}

// A cached model is used only if it has the list that was stored, and is what it says.
func TestIsCached(t *testing.T) {
	dir := folder(t, map[string]string{"model.safetensors": "weights"})
	if err := sumfile.Write(dir); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(dir, sumfile.Name))
	if err != nil {
		t.Fatal(err)
	}
	if !isCached(dir, list) {
		t.Error("an intact model is not taken from the cache")
	}
	other := []byte(strings.Repeat("0f", 32) + "  model.safetensors\n")
	if isCached(dir, other) || isCached(t.TempDir(), list) {
		t.Error("a model with another list, or none, is taken from the cache")
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), []byte("spoilt"), 0o644); err != nil {
		t.Fatal(err)
	}
	if isCached(dir, list) {
		t.Error("a damaged model is taken from the cache")
	}
	var damaged *DamagedError
	err = verifyTop(dir, list)
	if !errors.As(err, &damaged) || damaged.File != filepath.Join(dir, "model.safetensors") || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v; want a DamagedError that names the file", err)
	}
}
