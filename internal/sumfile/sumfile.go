// Package sumfile reads, writes and verifies lists of checksums in the format of
// sha256sum(1), which show whether a folder still holds what was written into it.
package sumfile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/readfile"
)

// Name of the list in the folder whose files it names.
const Name = "SHA256SUMS"

// MaxBytes limits the lists that are read: far more than any folder of ours needs.
const MaxBytes = 64 << 20

// Sums are SHA-256 in hexadecimal, by the names of files, slash separated and
// relative to the folder.
type Sums map[string]string

// Error names a file that is not what the list says. A missing one is not
// [fs.ErrNotExist], which stands for a missing list.
type Error struct {
	File      string // its name in the list
	Want, Got string // SHA-256; Got is "" if there is no such file
}

func (e *Error) Error() string {
	if e.Got == "" {
		return e.File + " is missing"
	}
	return fmt.Sprintf("%s has SHA-256 %s, want %s", e.File, e.Got, e.Want)
}

// Hash returns the SHA-256 of a file, in hexadecimal.
func Hash(path string) (string, error) {
	f, err := readfile.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Write writes the list of all files below dir into it, in one step.
func Write(dir string) error {
	sums, err := hashAll(dir)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&b, "%s  %s\n", sums[name], name)
	}
	return atomicfile.WriteFile(filepath.Join(dir, Name), b.Bytes())
}

// Read reads the list in dir. Without one the error is [fs.ErrNotExist].
func Read(dir string) (Sums, error) {
	text, err := readfile.All(context.Background(), filepath.Join(dir, Name), MaxBytes)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}

// Parse reads the text of a list. Besides the lines of a list it takes nothing.
func Parse(text []byte) (Sums, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("%s has more than %d bytes", Name, MaxBytes)
	}
	sums := make(Sums)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size {
			return nil, fmt.Errorf("%s: line %d is no checksum and name", Name, n)
		}
		sums[name] = sum
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	return sums, nil
}

// Verify reads the list in dir and checks every file that it names; the first, by
// name, that is not what it was is an [*Error].
func Verify(dir string) (Sums, error) {
	sums, err := Read(dir)
	if err != nil {
		return nil, err
	}
	return sums, sums.Check(dir)
}

// Check checks the files of dir that the list names, as [Verify] does.
func (s Sums) Check(dir string) error {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("%s names %q, which is not in its folder", Name, name)
		}
		got, err := Hash(filepath.Join(dir, filepath.FromSlash(name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return &Error{File: name, Want: s[name]}
		case err != nil:
			return err
		case got != s[name]:
			return &Error{File: name, Want: s[name], Got: got}
		}
	}
	return nil
}

// Top returns the part of the list that is about files at the top of its folder.
func (s Sums) Top() Sums {
	top := maps.Clone(s)
	maps.DeleteFunc(top, func(name, _ string) bool { return strings.Contains(name, "/") })
	return top
}

// hashAll returns the SHA-256 of every file below dir but the list of them.
func hashAll(dir string) (Sums, error) {
	sums := make(Sums)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == Name {
			return err
		}
		sums[filepath.ToSlash(name)], err = Hash(path)
		return err
	})
	return sums, err
}
