// Package memwatch fails tests of readers that take far more memory than what
// they read is worth.
package memwatch

import (
	"runtime/metrics"
	"testing"
)

// What a reader may allocate: something to begin with, and a multiple of its
// input.
const (
	base   = 64 << 20
	factor = 8
)

const allocated = "/gc/heap/allocs:bytes"

// Start watches the rest of a test, or of one run of a fuzz target, that reads
// size bytes: it fails if Go allocates more than 64 MiB and eight times the
// size meanwhile, all goroutines together, whether it is freed again or not.
// Memory of C is not seen. Tests that run in parallel count each other's.
func Start(t testing.TB, size int) {
	t.Helper()
	before := total()
	t.Cleanup(func() {
		if got, most := total()-before, Allowance(size); got > most {
			t.Errorf("%d bytes of input made Go allocate %d bytes, more than %d", size, got, most)
		}
	})
}

// Allowance is the number of bytes that may be allocated for an input of size
// bytes.
func Allowance(size int) uint64 { return base + factor*uint64(size) }

func total() uint64 {
	sample := []metrics.Sample{{Name: allocated}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
