package memwatch

import (
	"testing"
)

// recorder is a test that may fail without failing this one.
type recorder struct {
	testing.TB
	cleanup func()
	failed  bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Cleanup(f func())      { r.cleanup = f }
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestStart(t *testing.T) {
	const input = 1 << 20
	for _, c := range []struct {
		allocate int
		fails    bool
	}{
		{1 << 20, false},
		{60 << 20, false},
		{80 << 20, true},
	} {
		r := &recorder{TB: t}
		Start(r, input)
		kept := make([][]byte, 0, 100)
		for n := 0; n < c.allocate; n += 1 << 20 {
			kept = append(kept, make([]byte, 1<<20))
		}
		r.cleanup()
		if r.failed != c.fails {
			t.Errorf("%d bytes allocated in %d pieces: failed is %v", c.allocate, len(kept), r.failed)
		}
	}
}
