package hydra

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/redact"
)

// sweep runs the jobs that the overrides of the task expand to. All of them are
// composed before the first one runs, so that a mistake shows at once.
func (r *runner) sweep(ctx context.Context, c *composer, req request, composed *composition) error {
	h := &Config{root: composed.root, env: composed.env}
	dirValue, err := h.Get("hydra.sweep.dir")
	if err != nil {
		return err
	}
	dir, err := r.freeDir(composed, "sweep", pyStr(dirValue))
	if err != nil {
		return err
	}
	jobs, err := r.expandJobs(h, composed.repo)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return errorf(KindOS, "cannot create the sweep directory: %v", err)
	}
	if err := writeFile(filepath.Join(dir, "multirun.yaml"), dump(composed.root.plain())); err != nil {
		return err
	}
	batchSize, err := h.Get("hydra.sweeper.max_batch_size")
	if err != nil {
		return err
	}
	batch := len(jobs)
	if n, ok := batchSize.(int64); ok && n > 0 && n < int64(batch) {
		batch = int(n)
	}
	own := []string{}
	if dir != pyStr(dirValue) {
		own = append(own, "hydra.sweep.dir='"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(dir)+"'")
	}
	for _, line := range plainList(composed.hydra(), "overrides.hydra") {
		own = append(own, pyStr(line))
	}
	compose := func(overrides []string) (*composition, error) {
		return c.compose(request{config: req.config, overrides: slices.Concat(own, overrides), mode: modeRun})
	}
	num := 0
	for chunk := range slices.Chunk(jobs, max(batch, 1)) {
		for _, overrides := range chunk {
			if _, err := compose(overrides); err != nil {
				return err
			}
		}
		if err := r.logf("Launching %d jobs locally", len(chunk)); err != nil {
			return err
		}
		var failure error
		for _, overrides := range chunk {
			if err := ctx.Err(); err != nil {
				return &jobError{overrides, context.Cause(ctx)}
			}
			err := r.sweepJob(ctx, compose, overrides, num)
			if _, failed := err.(*jobError); err != nil && !failed {
				return err
			}
			if failure == nil {
				failure = err
			}
			num++
		}
		if failure != nil {
			return failure
		}
	}
	return nil
}

// expandJobs returns the overrides of every job.
func (r *runner) expandJobs(h *Config, repo *repository) ([][]string, error) {
	var lines []string
	params, err := h.Get("hydra.sweeper.params")
	if err != nil {
		return nil, err
	}
	if m, ok := params.(Map); ok {
		for _, e := range m {
			lines = append(lines, pyStr(e.Key)+"="+pyStr(e.Value))
		}
	}
	for _, line := range plainList(h.root.child("hydra"), "overrides.task") {
		lines = append(lines, pyStr(line))
	}
	overrides, err := parseOverrides(lines)
	if err != nil {
		return nil, err
	}
	return expandSweep(overrides, repo.options)
}

// sweepJob composes and runs one job of a sweep.
func (r *runner) sweepJob(ctx context.Context, compose func([]string) (*composition, error), overrides []string, num int) error {
	shown := slices.DeleteFunc(slices.Clone(overrides), func(line string) bool { return strings.HasPrefix(line, "hydra.") })
	for i, line := range shown {
		shown[i] = redact.Setting(line)
	}
	if err := r.logf("\t#%d : %s", num, strings.Join(shown, " ")); err != nil {
		return err
	}
	composed, err := compose(overrides)
	if err != nil {
		return err
	}
	if err := checkSupported(composed); err != nil {
		return err
	}
	job := composed.hydra().child("job")
	for _, key := range []string{"id", "num"} {
		if err := job.set(key, int64(num)); err != nil {
			return err
		}
	}
	h := &Config{root: composed.root, env: composed.env}
	dir, err := h.Get("hydra.sweep.dir")
	if err != nil {
		return err
	}
	subdir, err := h.Get("hydra.sweep.subdir")
	if err != nil {
		return err
	}
	return r.runJob(ctx, composed, joinPath(pyStr(dir), pyStr(subdir)), num)
}

// joinPath joins two paths; an absolute second one stands alone.
func joinPath(dir, sub string) string {
	if filepath.IsAbs(sub) {
		return sub
	}
	return filepath.Join(dir, sub)
}

// logf writes a line of Hydra's own log.
func (r *runner) logf(format string, args ...any) error {
	_, err := fmt.Fprintf(r.app.Stdout, "[%s][HYDRA] %s\n", r.app.Now().Format("2006-01-02 15:04:05,000"), fmt.Sprintf(format, args...))
	return err
}
