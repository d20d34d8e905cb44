package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/atomicfile"
)

// tree maps the files below dir to their content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	for _, content := range []string{"one", "", "a longer content"} {
		if err := atomicfile.WriteFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"a": content}, tree(t, dir)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v; want 0644", info.Mode(), err)
	}
}

func TestWriteFileLeavesNothingWhenItFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o755); err != nil { // a folder is in the way
		t.Fatal(err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "a"), []byte("x")); err == nil {
		t.Error("no error though a folder has the name")
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "none", "a"), []byte("x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that does not exist: %v; want fs.ErrNotExist", err)
	}
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

func TestReplaceDir(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "model")
	fill := func(files map[string]string, fail error) func(string) error {
		return func(tmp string) error {
			for name, content := range files {
				path := filepath.Join(tmp, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
					return err
				}
			}
			return fail
		}
	}
	if err := atomicfile.ReplaceDir(dir, fill(map[string]string{"a": "1", "sub/b": "2"}, nil)); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"model/a": "1", "model/sub/b": "2"}
	if diff := cmp.Diff(want, tree(t, parent)); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	if err := atomicfile.ReplaceDir(dir, fill(map[string]string{"a": "3", "c": "4"}, nil)); err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"model/a": "3", "model/c": "4"}
	if diff := cmp.Diff(want, tree(t, parent)); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	full := errors.New("disk full")
	if err := atomicfile.ReplaceDir(dir, fill(map[string]string{"a": "half"}, full)); !errors.Is(err, full) {
		t.Errorf("error %v; want that of fill", err)
	}
	if diff := cmp.Diff(want, tree(t, parent)); diff != "" {
		t.Errorf("after a failure (-want +got):\n%s", diff)
	}
	// A process that was killed left its folder.
	if err := os.MkdirAll(filepath.Join(parent, ".model.tmp", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.ReplaceDir(dir, fill(map[string]string{"a": "5"}, nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"model/a": "5"}, tree(t, parent)); diff != "" {
		t.Errorf("after a killed process (-want +got):\n%s", diff)
	}
}

func TestExchangeByRename(t *testing.T) {
	parent := t.TempDir()
	tmp, dir := filepath.Join(parent, "tmp"), filepath.Join(parent, "dir")
	for _, content := range []string{"first", "second"} {
		if err := os.Mkdir(tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "a"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.ExchangeByRename(tmp, dir); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"dir/a": content}, tree(t, parent)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
