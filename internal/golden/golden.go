// Package golden finds the reference cases that the TestGolden… tests compare with.
package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// EnvDir names the environment variable that points the golden tests at another
// folder of the same layout as testdata/golden.
const EnvDir = "CRITERIA_GOLDEN"

// Dir returns the folder of golden cases: the one in CRITERIA_GOLDEN if it is
// set, testdata/golden of the repository otherwise. A folder that does not
// exist ends the test: a golden test must never pass by finding nothing.
func Dir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(EnvDir)
	if dir == "" {
		dir = filepath.Join(Root(t), "testdata", "golden")
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Fatalf("golden cases: %q is not a folder (set %s to one laid out like testdata/golden)", dir, EnvDir)
	}
	return dir
}

// Glob lists the golden files that match pattern, relative to Dir, and ends
// the test if there is none.
func Glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Dir(t), filepath.FromSlash(pattern)))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("golden cases: nothing matches %q in %s", pattern, Dir(t))
	}
	return files
}

// Root returns the root of the repository: the nearest parent of the working
// directory that holds go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
}
