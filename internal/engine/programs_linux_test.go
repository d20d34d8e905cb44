package engine

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// A classifier that sees batches of ever new shapes does not grow without end.
func TestShapesDoNotAddUp(t *testing.T) {
	dir := t.TempDir()
	if err := openEngine(t, trainingSpec(t, adamWFused), true).SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	e := openEngine(t, Spec{Dir: dir, Threads: 1}, true)
	evaluate := func(rows, length int) {
		t.Helper()
		if _, err := e.Evaluate(context.Background(), randomBatch(1, rows, length)); err != nil {
			t.Fatal(err)
		}
	}
	next := 0
	// grow evaluates batches of n new numbers of rows, which is what packed batches have
	// graphs for, and returns by how many bytes the process grows.
	grow := func(n int) int {
		before := resident(t)
		for range n {
			evaluate(4+4*next, 20)
			next++
		}
		return resident(t) - before
	}
	hostOf(e).programs.limit = 4
	evaluate(4+4*100, 20) // the largest: the arena has what all others need
	grow(20)
	bounded := grow(40)
	hostOf(e).programs.limit = 1000
	unbounded := grow(40)
	t.Logf("40 shapes take %d kB, and %d kB if all graphs are kept", bounded>>10, unbounded>>10)
	if 2*bounded > unbounded {
		t.Errorf("40 shapes take %d kB, want less than half of the %d kB of 40 graphs", bounded>>10, unbounded>>10)
	}
}

// resident returns the resident size of the process in bytes.
func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no VmRSS in /proc/self/status")
	return 0
}
