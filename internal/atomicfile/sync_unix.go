//go:build unix

package atomicfile

import (
	"errors"
	"os"
)

// syncDir makes the names in dir reach the disk.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
