package criteria_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// In a container it is the container's limit that counts.
func TestFreeMemory(t *testing.T) {
	write := func(root, name, text string) {
		path := filepath.Join(root, "sys/fs/cgroup", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	free := func(root string) int64 {
		n, err := criteria.FreeMemory(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := free(t.TempDir()); n < 1<<20 {
		t.Errorf("the machine has %d bytes left", n)
	}
	unlimited, v1, v2 := t.TempDir(), t.TempDir(), t.TempDir()
	write(unlimited, "memory.max", "max\n")
	write(unlimited, "memory.current", "1000\n")
	if n := free(unlimited); n < 1<<20 {
		t.Errorf("without a limit there are %d bytes left", n)
	}
	write(v2, "memory.max", "100000\n")
	write(v2, "memory.current", "70000\n")
	write(v2, "memory.stat", "anon 1\ninactive_file 20000\nactive_file 5\n")
	write(v1, "memory/memory.limit_in_bytes", "100000\n")
	write(v1, "memory/memory.usage_in_bytes", "120000\n")
	for root, want := range map[string]int64{v2: 50000, v1: 0} {
		if n := free(root); n != want {
			t.Errorf("%d bytes left, want %d", n, want)
		}
	}
}

// lines is a log that several goroutines write to.
type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

// Trials that do not fit into memory together run one after the other. Those of
// the tiny model do fit, and the scores are the same.
func TestStudyJobsFitMemory(t *testing.T) {
	const checkpoint = "testdata/sample/tiny-deberta"
	run := func(jobs, length int) (*criteria.StudyResult, string) {
		var log lines
		s, err := criteria.NewStudy(
			criteria.WithCheckpoint(checkpoint), criteria.WithDataset(fakes.Dataset(6, 6, 6, 1)), criteria.Configure(func(c *criteria.Config) { c.Model.Tokenizer.MaxLength, c.Train.Epochs = length, 1 }), criteria.WithOutputDir(t.TempDir()), criteria.Configure(func(c *criteria.Config) { c.HPO.Storage, c.HPO.NTrials, c.HPO.NJobs = "", 2, jobs }),
			criteria.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
		)
		if err != nil {
			t.Fatal(err)
		}
		result, err := s.Run(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return result, log.String()
	}
	one, _ := run(1, 64)
	two, log := run(2, 64)
	if !strings.Contains(log, "2 trials at a time") {
		t.Errorf("log:\n%s", log)
	}
	for i := range one.Trials {
		if a, b := one.Trials[i], two.Trials[i]; a.Value != b.Value {
			t.Errorf("trial %d has %v alone and %v beside another", i, a.Value, b.Value)
		}
	}
	if _, log := run(1000, 64); !strings.Contains(log, "do not fit") && !strings.Contains(log, "1000 trials at a time") {
		t.Errorf("log:\n%s", log)
	}
}
