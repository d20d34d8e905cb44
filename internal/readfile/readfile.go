// Package readfile reads files that somebody else has written: never more of
// them than a limit, and nothing but regular files. A pipe would wait for a
// writer for ever, /dev/zero never ends, and a sparse file of some bytes on
// disk can be larger than all memory.
package readfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// What files of each kind may have at most, in bytes: many times what the
// largest in use have.
const (
	Config    = 1 << 20   // config.json and other settings of a model
	YAML      = 1 << 20   // configuration
	Index     = 32 << 20  // which shard holds which tensor
	Tokenizer = 128 << 20 // tokenizer.json, spm.model
	Text      = 1 << 20   // lists of checksums, references, tokens, credentials
	Table     = 1 << 30   // posts and annotations
	Graph     = 2 << 30   // an ONNX model: what protobuf can hold
)

// chunk is how much is read between two looks at the context.
const chunk = 1 << 20

// ErrRefused is what errors.Is finds in every [Error].
var ErrRefused = errors.New("the file is refused")

// An Error reports a file that is there but is not read.
type Error struct {
	Path   string
	Found  string // what it is
	Remedy string // what to do about it
}

func (e *Error) Error() string { return fmt.Sprintf("%s %s; %s", e.Path, e.Found, e.Remedy) }

// Is makes [ErrRefused] match.
func (e *Error) Is(target error) bool { return target == ErrRefused }

// Open opens a regular file for reading, or what a link to one leads to.
// Everything else is an [Error]: it is neither waited for nor read. The caller
// closes the file.
func Open(path string) (*os.File, error) {
	return open(path, func() (fs.FileInfo, error) { return os.Stat(path) },
		func() (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|nonBlocking, 0) })
}

// OpenIn is [Open] for a file below a folder that no link in its path leads out
// of.
func OpenIn(root *os.Root, name string) (*os.File, error) {
	return open(name, func() (fs.FileInfo, error) { return root.Stat(name) },
		func() (*os.File, error) { return root.OpenFile(name, os.O_RDONLY|nonBlocking, 0) })
}

// open looks at a file before it is opened, since opening alone can set a device
// to work, and again afterwards, since it may have been replaced meanwhile.
func open(path string, stat func() (fs.FileInfo, error), openFile func() (*os.File, error)) (*os.File, error) {
	info, err := stat()
	if err != nil {
		return nil, err
	}
	if err := check(path, info); err != nil {
		return nil, err
	}
	f, err := openFile()
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = check(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func check(path string, info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return &Error{Path: path, Found: "is " + kind(info.Mode()), Remedy: "give a regular file"}
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return fmt.Sprintf("no regular file (%v)", mode.Type())
}

// All returns the content of a regular file of at most limit bytes. A larger
// one is an [Error]. When ctx ends, so does the reading.
func All(ctx context.Context, path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	content, err := From(ctx, f, path, limit)
	return content, errors.Join(err, f.Close())
}

// From is [All] for a file that is open already; its name is for messages.
func From(ctx context.Context, f fs.File, name string, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := check(name, info); err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, tooLarge(name, info.Size(), limit)
	}
	// The size is a guess: files of /proc claim none, and others may grow.
	var content bytes.Buffer
	content.Grow(int(info.Size()) + bytes.MinRead)
	source := &io.LimitedReader{R: f, N: limit + 1}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, context.Cause(ctx))
		}
		n, err := io.CopyN(&content, source, chunk)
		switch {
		case int64(content.Len()) > limit:
			return nil, tooLarge(name, max(info.Size(), int64(content.Len())), limit)
		case errors.Is(err, io.EOF) || err == nil && n == 0:
			return content.Bytes(), nil
		case err != nil:
			return nil, err
		}
	}
}

func tooLarge(name string, size, limit int64) error {
	return &Error{
		Path:   name,
		Found:  fmt.Sprintf("has %d bytes, and a file of its kind at most %d", size, limit),
		Remedy: "check that it is the right one",
	}
}

// AllFS is [All] for a file of a file system.
func AllFS(ctx context.Context, fsys fs.FS, name string, limit int64) ([]byte, error) {
	// A folder of the system waits for the writer of a pipe when it opens it.
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if err := check(name, info); err != nil {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	content, err := From(ctx, f, name, limit)
	return content, errors.Join(err, f.Close())
}
