package hydra

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
)

// freeDir makes the output directory of a run or a sweep and returns its name. A
// name that is made of the time is also that of another run that was started in
// the same second: then it gets _1, _2 and so on, where Hydra would let both write
// to one directory. A name that the user chose is taken as it is.
func (r *runner) freeDir(composed *composition, group, dir string) (string, error) {
	raw, _ := composed.hydra().child(group).child("dir").plain().(string)
	if !strings.Contains(raw, "${now:") {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return "", errorf(KindOS, "cannot create the output directory: %v", err)
	}
	for n := 0; n < 10_000; n++ {
		name := dir
		if n > 0 {
			name = fmt.Sprintf("%s_%d", dir, n)
		}
		err := os.Mkdir(name, 0o777)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", errorf(KindOS, "cannot create the output directory: %v", err)
		}
		if n == 0 {
			return dir, nil
		}
		r.warn(fmt.Sprintf("The output directory %s is that of another run: this one writes to %s", dir, name))
		h := composed.hydra()
		return name, h.withClosed(false, func() error { return h.child(group).set("dir", name) })
	}
	return "", errorf(KindOS, "the output directory %s and all of its variants exist", dir)
}

// lockDir makes an output directory and takes it for this process, so that no
// other one writes its records there meanwhile. It is the directory itself that is
// locked: nothing is left behind. Where that is not possible there is no lock.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, errorf(KindOS, "cannot create the output directory: %v", err)
	}
	lock := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	unlock = func() { _ = lock.Close() }
	if ok, err := lock.TryLock(); err == nil && !ok {
		unlock()
		return nil, errorf(KindOS, "the output directory %s is in use by another run: wait for it to end, or give another hydra.run.dir", dir)
	}
	return unlock, nil
}
