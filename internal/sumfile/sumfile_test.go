package sumfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// folder returns a folder with two files and their list.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.txt": "alpha\n", "below/b.txt": "beta\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The list is what sha256sum prints, and what was written is found intact.
func TestWrite(t *testing.T) {
	dir := folder(t)
	got, err := os.ReadFile(filepath.Join(dir, Name))
	if err != nil {
		t.Fatal(err)
	}
	const first = "b6a98d9ce9a2d9149288fa3df42d377c3e42737afdcdaf714e33c0a100b51060  a.txt\n" // printf 'alpha\\n' | sha256sum
	if !strings.HasPrefix(string(got), first) || !strings.HasSuffix(string(got), "  below/b.txt\n") || strings.Count(string(got), "\n") != 2 {
		t.Errorf("%q: want the lines of a.txt and below/b.txt, the first one %q", got, first)
	}
	sums, err := Verify(dir)
	if err != nil || len(sums) != 2 {
		t.Errorf("%v, %v; want two sums", sums, err)
	}
	if diff := cmp.Diff(Sums{"a.txt": sums["a.txt"]}, sums.Top()); diff != "" {
		t.Errorf("at the top (-want +got):\n%s", diff)
	}
	if err := Write(dir); err != nil { // the list is not one of its own files
		t.Fatal(err)
	}
	if again, err := Verify(dir); err != nil || cmp.Diff(sums, again) != "" {
		t.Errorf("written again: %v, %v", again, err)
	}
}

// Whatever is wrong with a folder is named.
func TestVerify(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil  func(dir string) error
		want   string
		noList bool
	}{
		"changed": {
			func(dir string) error {
				return os.WriteFile(filepath.Join(dir, "a.txt"), nil, 0o644)
			},
			"a.txt has SHA-256 e3b0c442", false,
		},
		"gone": {
			func(dir string) error {
				return os.Remove(filepath.Join(dir, "below", "b.txt"))
			},
			"below/b.txt is missing", false,
		},
		"no list": {
			func(dir string) error {
				return os.Remove(filepath.Join(dir, Name))
			},
			Name, true,
		},
		"spoilt list": {
			func(dir string) error {
				return os.WriteFile(filepath.Join(dir, Name), []byte("x\n"), 0o644)
			},
			"line 1", false,
		},
		"out of there": {
			func(dir string) error {
				return os.WriteFile(filepath.Join(dir, Name), []byte(strings.Repeat("0f", 32)+"  ../x\n"), 0o644)
			},
			"../x", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			if err := tc.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Verify(dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v; want one with %q", err, tc.want)
			}
			if got := errors.Is(err, fs.ErrNotExist); got != tc.noList {
				t.Errorf("%v is fs.ErrNotExist: %v", err, got)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(strings.Repeat("0f", 32) + "  state.json\n"))
	f.Add([]byte("state.json\n"))
	f.Add([]byte(strings.Repeat("0f", 32) + "  ../x\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		memwatch.Start(t, len(text))
		sums, err := Parse(text)
		for name, sum := range sums {
			if len(sum) != 64 {
				t.Errorf("%q: checksum %q", name, sum)
			}
		}
		if err != nil && sums != nil {
			t.Errorf("%v and %d checksums; want one or the other", err, len(sums))
		}
	})
}
