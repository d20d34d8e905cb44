package criteria

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
)

// ErrDirInUse says that another run is at work in the output directory, in this
// process or another one on this machine.
var ErrDirInUse = errors.New("criteria: the output directory is in use by another run")

// lockFile is in every output directory. It stays there: a lock whose file is
// removed can be held twice.
const lockFile = ".lock"

// lockOutputDir makes an output directory and takes it for one run, before
// anything is written there; the lock ends with the process at the latest. Runs
// that share the directory may do so with others that share it, but with none
// that does not.
func lockOutputDir(s *settings, shared bool) (unlock func() error, err error) {
	dir := s.outputDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, withRemedy(fmt.Errorf("criteria: output directory: %w", err), dir, "")
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	try := lock.TryLock
	if shared {
		try = lock.TryRLock
	}
	switch ok, err := try(); {
	case errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.ENOLCK):
		s.log.Warn("this file system has no locks: let no other run write to the output directory", "dir", dir, "error", err)
		return lock.Close, nil
	case err != nil:
		return nil, errors.Join(withRemedy(fmt.Errorf("criteria: output directory: %w", err), dir, ""), lock.Close())
	case !ok:
		return nil, errors.Join(fmt.Errorf("%w: %s; wait for it to end, or give this run another directory", ErrDirInUse, dir), lock.Close())
	}
	return lock.Close, nil
}
