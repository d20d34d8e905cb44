package modelstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// Stored is a model that a run stored in MLflow.
type Stored struct {
	Store mlflow.Store
	Run   mlflow.Run
	Path  string // of its folder among the artifacts of the run
}

// DamagedError says which file of a model is not what was stored.
type DamagedError struct {
	File string
	Err  error // what is wrong with it
}

func (e *DamagedError) Error() string { return "the model is not what was stored: " + e.Err.Error() }

// Unwrap returns what is wrong with the file.
func (e *DamagedError) Unwrap() error { return e.Err }

// Fetch brings the model into the folder cache, unless it is there already and
// intact, and returns the folder of the model. Below cache every store, run and
// path has a folder of its own, into which one process at a time downloads. Only
// the files at the top of the model are fetched: folders below it hold what
// training alone needs, which is three times as large.
//
// A file that has not the checksum that was stored with it is a [*DamagedError]. A
// model that was stored without checksums is downloaded each time.
func (m Stored) Fetch(ctx context.Context, cache string, log *slog.Logger) (dir string, err error) {
	place := sha256.Sum256([]byte(m.Store.URI()))
	target := filepath.Join(cache, hex.EncodeToString(place[:8]), m.Run.ID, url.PathEscape(m.Path))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return "", err
	}
	lock := flock.New(target + ".lock")
	if _, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()

	dir = filepath.Join(target, filepath.FromSlash(m.Path))
	list, err := m.list(ctx)
	if err != nil {
		return "", err
	}
	if list != nil && isCached(dir, list) {
		return dir, nil
	}
	if list == nil {
		log.Warn("the model was stored without checksums: whether it is what was stored is not known",
			"run_id", m.Run.ID, "path", m.Path)
	}
	log.Info("downloading the model", "run_id", m.Run.ID, "path", m.Path, "dir", dir)
	err = atomicfile.ReplaceDir(target, func(tmp string) error {
		if err := m.downloadTop(ctx, tmp); err != nil || list == nil {
			return err
		}
		return verifyTop(filepath.Join(tmp, filepath.FromSlash(m.Path)), list)
	})
	return dir, err
}

// Copy replaces dir by the model, with all folders below it, in one step. It
// verifies nothing.
func (m Stored) Copy(ctx context.Context, dir string) error {
	return atomicfile.ReplaceDir(dir, func(tmp string) error { return m.download(ctx, tmp) })
}

// ReadArtifact reads an artifact of a run that is known to be small.
func ReadArtifact(ctx context.Context, store mlflow.Store, run mlflow.Run, name string) ([]byte, error) {
	r, err := store.OpenArtifact(ctx, run, name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, sumfile.MaxBytes))
	return text, errors.Join(err, r.Close())
}

// list returns the list of checksums of the model, or nil if it was stored
// without.
func (m Stored) list(ctx context.Context) ([]byte, error) {
	text, err := ReadArtifact(ctx, m.Store, m.Run, path.Join(m.Path, sumfile.Name))
	if errors.Is(err, mlflow.ErrNotFound) {
		return nil, nil
	}
	return text, err
}

// isCached reports whether dir holds the model that has this list, intact.
func isCached(dir string, list []byte) bool {
	was, err := sumfile.Read(dir)
	if err != nil {
		return false
	}
	is, err := sumfile.Parse(list)
	return err == nil && maps.Equal(was, is) && verifyTop(dir, list) == nil
}

// verifyTop checks the files at the top of dir against a list of checksums.
func verifyTop(dir string, list []byte) error {
	sums, err := sumfile.Parse(list)
	if err != nil {
		return err
	}
	err = sums.Top().Check(dir)
	if fault, ok := errors.AsType[*sumfile.Error](err); ok {
		return &DamagedError{File: filepath.Join(dir, fault.File), Err: err}
	}
	return err
}

// downloadTop copies the files at the top of the model below dir.
func (m Stored) downloadTop(ctx context.Context, dir string) error {
	entries, err := m.Store.ListArtifacts(ctx, m.Run, m.Path)
	if err != nil {
		return err
	}
	found := false
	for _, e := range entries {
		if e.IsDir {
			continue
		}
		if path.Dir(e.Path) != m.Path {
			return fmt.Errorf("the store lists %q in %s: %w", e.Path, m.Path, mlflow.ErrUnsafe)
		}
		if _, err := mlflow.Download(ctx, m.Store, m.Run, e.Path, dir, mlflow.Limits{}); err != nil {
			return err
		}
		found = true
	}
	if !found {
		return fmt.Errorf("the run has no model at %s: %w", m.Path, fs.ErrNotExist)
	}
	return nil
}

// download makes the whole model the content of dir, an empty folder.
func (m Stored) download(ctx context.Context, dir string) (err error) {
	// Download keeps the artifact's path, so the model arrives one folder deeper.
	staging := dir + ".download"
	if err := os.RemoveAll(staging); err != nil { // what a killed process left
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staging)) }()
	model, err := mlflow.Download(ctx, m.Store, m.Run, m.Path, staging, mlflow.Limits{})
	if err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil {
		return err
	}
	return os.Rename(model, dir)
}
