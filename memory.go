package criteria

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v4/mem"

	"github.com/criteria-go/criteria/internal/engine"
)

// memoryEstimator is implemented by an [Engine] that knows how many bytes a
// training will take. Others are trusted.
type memoryEstimator interface {
	trainingMemory(spec ModelSpec, rows, length int) (int64, error)
}

func (r onnxRuntime) trainingMemory(spec ModelSpec, rows, length int) (int64, error) {
	n, err := engine.TrainingMemory(engineSpec(spec), rows, length)
	if err != nil {
		return 0, publicError(err)
	}
	return n, nil
}

// jobs returns how many trials may run at the same time: as many as were asked
// for, or fewer if the largest that may be drawn would not all fit into memory.
func (r *studyRun) jobs(ctx context.Context) int {
	want := r.config.HPO.NJobs
	e, ok := r.base.backend().(memoryEstimator)
	if !ok || want == 1 {
		return want
	}
	space, train := r.config.HPO.SearchSpace, r.base.splits.get(PhaseTrain)
	rows := slices.Max(space.BatchSize.Choices)
	length := max(slices.Max(train.lengths), train.padTo)
	largest := hyperparameters{HeadLayers: space.HeadLayers.High, HiddenDim: space.HiddenDim.High}.apply(r.config)
	each, err := e.trainingMemory(r.base.modelSpec(largest), min(rows, train.len()), length)
	if err != nil {
		r.log.Warn("it is not known how much memory a trial takes", "error", err)
		return want
	}
	free, err := freeMemory(ctx, "/")
	if err != nil {
		r.log.Warn("it is not known how much memory is free", "error", err)
		return want
	}
	fit := max(1, int(free/max(each, 1)))
	if fit < want {
		r.log.Warn(fmt.Sprintf("hpo.n_jobs=%d trials of up to %.1f GB each (%d pairs of %d tokens) do not fit into "+
			"the %.1f GB of memory that are free: running %d at a time; "+
			"fewer or shorter pairs take less (hpo.search_space.batch_size.choices, model.tokenizer.max_length)",
			want, float64(each)/1e9, rows, length, float64(free)/1e9, fit))
		return fit
	}
	r.log.Info(fmt.Sprintf("%d trials at a time, of up to %.1f GB each; %.1f GB of memory are free",
		want, float64(each)/1e9, float64(free)/1e9))
	return want
}

// freeMemory returns how many bytes the process may still take: what the machine
// has left or, in a container, what its limit leaves. root is / but in tests.
func freeMemory(ctx context.Context, root string) (int64, error) {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return 0, fmt.Errorf("criteria: %w", err)
	}
	free := int64(m.Available)
	for _, c := range []struct{ dir, limit, used, cache string }{
		{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "},
		{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "},
	} {
		dir := filepath.Join(root, c.dir)
		limit, limited := readNumber(filepath.Join(dir, c.limit))
		used, known := readNumber(filepath.Join(dir, c.used))
		if !limited || !known {
			continue
		}
		// Files that are only cached make room when it is needed.
		stat, _ := os.ReadFile(filepath.Join(dir, "memory.stat"))
		for line := range strings.Lines(string(stat)) {
			if rest, ok := strings.CutPrefix(line, c.cache); ok {
				if n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64); err == nil {
					used -= n
				}
			}
		}
		free = min(free, max(0, limit-used))
	}
	return free, nil
}

// readNumber reads a file that holds one number; "max", no limit, is none.
func readNumber(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}
