package criteria

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// liar is a file system that lists a name which leads out of it.
type liar struct {
	fstest.MapFS
	name string
}

// ReadDir lists the one file under the other name.
func (l liar) ReadDir(string) ([]fs.DirEntry, error) {
	info, err := l.MapFS.Stat("config.json")
	return []fs.DirEntry{entryOf{fs.FileInfoToDirEntry(info), l.name}}, err
}

func (l liar) Stat(string) (fs.FileInfo, error) { return l.MapFS.Stat("config.json") }

func (l liar) Open(string) (fs.File, error) { return l.MapFS.Open("config.json") }

type entryOf struct {
	fs.DirEntry
	name string
}

func (e entryOf) Name() string { return e.name }

// TestStageStaysInside: what a file system lists is copied below the folder or not
// at all.
func TestStageStaysInside(t *testing.T) {
	for _, name := range []string{"../x", "..", "/x", "a/../../x", `..\x`, "", "a/b"} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "model")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		fsys := liar{fstest.MapFS{"config.json": {Data: []byte("{}")}}, name}
		if err := stage(t.Context(), fsys, dir); err == nil || !strings.Contains(err.Error(), "not the name of a file") {
			t.Errorf("%q: %v", name, err)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%q: %v, %v", name, entries, err)
		}
	}
}
