package ort

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// EnvLibrary names the environment variable that holds the path of the ONNX
// Runtime library, or of a folder that contains it.
const EnvLibrary = "CRITERIA_ORT_LIB"

// Fetch is the command that fetches the libraries, as errors recommend it.
const Fetch = "run `go run github.com/criteria-go/criteria/cmd/criteria-deps`"

// MinVersion is the oldest ONNX Runtime that this package works with.
const MinVersion = "1.24"

// RuntimeError reports that ONNX Runtime, or the BLAS, could not be found or used. Its
// message says where it was looked for and what to do.
type RuntimeError struct {
	Library string   // path of the library in question; empty if none was found
	Want    string   // what was needed
	Got     string   // what was there instead
	Tried   []string // places looked at, in order
	Remedy  string   // what to do; empty: what helps with ONNX Runtime itself
	Err     error    // the cause, if there is one
}

func (e *RuntimeError) Error() string {
	var b strings.Builder
	b.WriteString("onnxruntime: ")
	if e.Library != "" {
		fmt.Fprintf(&b, "%s: ", e.Library)
	}
	fmt.Fprintf(&b, "want %s", e.Want)
	if e.Got != "" {
		fmt.Fprintf(&b, ", got %s", e.Got)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if len(e.Tried) > 0 {
		fmt.Fprintf(&b, " (looked at: %s)", strings.Join(e.Tried, "; "))
	}
	remedy := e.Remedy
	if remedy == "" {
		remedy = fmt.Sprintf(Fetch+", or set %s to the path of libonnxruntime %s or newer", EnvLibrary, MinVersion)
	}
	return b.String() + "; " + remedy
}

func (e *RuntimeError) Unwrap() error { return e.Err }

// FindLibrary returns the path of the ONNX Runtime library: explicit if it is
// not empty, else the one in the environment variable [EnvLibrary], else the
// one in the folder of the program or in "lib" there, else the newest below the
// folder "criteria" of the user's cache, else the one that the system's loader
// finds. explicit and the variable may name a folder. They are
// orders: if nothing is there, the search ends with an error.
//
// tried lists the places that were looked at, the last one being where the
// library was found. The error is a [*RuntimeError].
func FindLibrary(explicit string) (path string, tried []string, err error) {
	return find(searchSpec{
		what:     "ONNX Runtime",
		explicit: explicit,
		env:      EnvLibrary,
		prefixes: []string{"libonnxruntime"},
		loader:   loaderPath,
	})
}

// searchSpec says how a shared library is looked for.
type searchSpec struct {
	what     string
	explicit string
	env      string
	cache    string   // folder in the user's cache; empty: criteria
	prefixes []string // file names without suffix, the preferred one first
	remedy   string   // see RuntimeError
	system   string   // what the system's loader is asked for before any other place is looked at

	// loader asks the system's loader for a name and returns the path.
	loader func(name string) (string, error)
}

func find(s searchSpec) (path string, tried []string, err error) {
	for _, order := range []struct{ source, value string }{
		{"the option", s.explicit},
		{s.env, os.Getenv(s.env)},
	} {
		if order.value == "" {
			if order.source == s.env {
				tried = append(tried, s.env+" (not set)")
			}
			continue
		}
		tried = append(tried, fmt.Sprintf("%s (%s)", order.value, order.source))
		path, err := s.inPath(order.value)
		if err != nil {
			return "", tried, &RuntimeError{Library: order.value, Want: s.what, Got: "nothing usable", Tried: tried, Remedy: s.remedy, Err: err}
		}
		return path, tried, nil
	}
	if s.system != "" {
		tried = append(tried, s.system)
		if path, err := s.loader(s.system); err == nil {
			return path, tried, nil
		}
	}
	for _, dir := range s.besideProgram() {
		tried = append(tried, dir)
		if path, err := s.inFolder(dir); err == nil {
			return path, tried, nil
		}
	}
	if cache, err := os.UserCacheDir(); err == nil {
		dir := filepath.Join(cache, cmp.Or(s.cache, "criteria"))
		tried = append(tried, dir)
		if path, err := s.inPath(dir); err == nil {
			return path, tried, nil
		}
	}
	for _, prefix := range s.prefixes {
		for _, name := range loaderNames(prefix) {
			tried = append(tried, name+" (system loader)")
			if path, err := s.loader(name); err == nil {
				return path, tried, nil
			}
		}
	}
	return "", tried, &RuntimeError{Want: s.what, Got: "nothing", Tried: tried, Remedy: s.remedy}
}

// besideProgram lists the folders where a deployed program has its libraries. Those
// for a GPU are not looked for there: they have the names of others.
func (s searchSpec) besideProgram() []string {
	program, err := os.Executable()
	if err != nil || s.cache != "" {
		return nil
	}
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real
	}
	dir := filepath.Dir(program)
	return []string{dir, filepath.Join(dir, "lib")}
}

// inFolder returns the newest library that lies in a folder, not below it.
func (s searchSpec) inFolder(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, prefix := range s.prefixes {
		best := ""
		for _, e := range entries {
			if !e.IsDir() && isLibrary(e.Name(), prefix) && (best == "" || compareVersions(best, e.Name()) < 0) {
				best = e.Name()
			}
		}
		if best != "" {
			return filepath.Join(dir, best), nil
		}
	}
	return "", fs.ErrNotExist
}

// loaderNames lists the names under which a system installs a library.
func loaderNames(prefix string) []string {
	if runtime.GOOS == "darwin" {
		return []string{prefix + ".dylib"}
	}
	return []string{prefix + ".so", prefix + ".so.1"}
}

// isLibrary reports whether name is prefix with the suffix of a shared library,
// with or without a version: libx.so, libx.so.1.32.0, libx.1.32.0.dylib.
func isLibrary(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	if runtime.GOOS == "darwin" {
		return strings.HasSuffix(rest, ".dylib") && strings.Trim(strings.TrimSuffix(rest, ".dylib"), ".0123456789") == ""
	}
	return strings.HasPrefix(rest, ".so") && strings.Trim(rest[len(".so"):], ".0123456789") == ""
}

// Libraries sit a few folders deep where they were unpacked; anything deeper
// belongs to somebody else.
const maxDepth = 6

// inPath returns path if it is a file, or the newest matching library below
// it if it is a folder.
func (s searchSpec) inPath(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return filepath.Abs(path)
	}
	for _, prefix := range s.prefixes {
		var best string
		err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // a folder that cannot be read holds nothing for us
			}
			rel, _ := filepath.Rel(path, p)
			if d.IsDir() && strings.Count(rel, string(filepath.Separator)) >= maxDepth {
				return fs.SkipDir
			}
			if !d.IsDir() && isLibrary(d.Name(), prefix) &&
				(best == "" || compareVersions(filepath.Base(best), d.Name()) < 0) {
				best = p
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		if best != "" {
			return filepath.Abs(best)
		}
	}
	return "", fmt.Errorf("%s: no file %s* in it: %w", path, s.prefixes[0], fs.ErrNotExist)
}

// compareVersions orders strings by the numbers in them, so that 1.9 comes
// before 1.24. What is no digit only separates.
func compareVersions(a, b string) int {
	x, y := numbers(a), numbers(b)
	for i := range max(len(x), len(y)) {
		var p, q int
		if i < len(x) {
			p = x[i]
		}
		if i < len(y) {
			q = y[i]
		}
		if p != q {
			return p - q
		}
	}
	return 0
}

func numbers(s string) []int {
	var out []int
	for _, field := range strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		n, err := strconv.Atoi(field)
		if err != nil {
			break
		}
		out = append(out, n)
	}
	return out
}

func loaderPath(name string) (string, error) {
	lib, err := openLibrary(name)
	if err != nil {
		return "", err
	}
	defer lib.close()
	path := lib.path()
	if path == "" {
		return "", errors.New("the loader does not say where it found " + name)
	}
	return path, nil
}
