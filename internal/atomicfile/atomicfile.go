// Package atomicfile writes files and folders so that a reader finds the old
// content or the new, never a part of either: not when the disk is full, not
// when the process is killed, not after a power failure.
package atomicfile

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the file path, or makes it.
func WriteFile(path string, content []byte) error {
	return Write(path, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// Write is [WriteFile] for content that write writes piece by piece. If that
// fails, the file stays as it was.
func Write(path string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(f.Name())))
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<16)
	if err := write(buffered); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(buffered.Flush(), f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ReplaceDir replaces the folder dir, or makes it, by one that fill fills. fill
// gets the path of an empty folder beside it. If it fails, dir stays as it was.
func ReplaceDir(dir string, fill func(tmp string) error) (err error) {
	tmp := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp")
	// What a killed process left behind, if any.
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := exchange(tmp, dir); err != nil { // tmp is now the old folder, or gone
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// exchangeByRename puts tmp in the place of dir in two steps. Between them
// there is no dir; that is what it has against [exchange] where the system can.
func exchangeByRename(tmp, dir string) error {
	old := tmp + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := ignoreNotExist(os.Rename(dir, old)); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return errors.Join(err, ignoreNotExist(os.Rename(old, dir)))
	}
	return os.RemoveAll(old)
}

// syncTree makes all files below dir reach the disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return syncDir(path)
		case !d.Type().IsRegular():
			return nil
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
