package criteria

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/readfile"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// A resume point, for users a checkpoint, is a folder checkpoints/step-NNNNNNNN of the
// output directory. It appears in one piece, and whatever happens to it later shows,
// because it holds the checksums of all its files.
const (
	checkpointsDir = "checkpoints"
	resumePrefix   = "step-"
	sessionDir     = "session"     // weights and optimizer state, as the engine writes them
	stateFile      = "state.json"  // a resumeState
	runConfigFile  = "config.yaml" // the resolved configuration, without secrets

	// resumeFormat is that of state.json. Format 1 does not name the order of the
	// batches, which was always that of data.Chunked.
	resumeFormat  = 2
	maxStateBytes = 64 << 20 // of state.json and config.yaml: far more than 100 000 epochs need
)

// resumeState is what a resume point knows besides weights and optimizer.
type resumeState struct {
	Format   int               `json:"format"`
	RunID    string            `json:"run_id"`   // of the tracker; "" without one
	Data     map[string]string `json:"data"`     // SHA-256 of each file that was read
	Splits   map[Phase]string  `json:"splits"`   // digest of each split
	Model    map[string]string `json:"model"`    // SHA-256 of each file of the base checkpoint; empty at step 0
	Versions map[string]string `json:"versions"` // of what computes
	Order    string            `json:"order"`    // of the batches of an epoch, as data.ParseOrder reads it
	Training trainState        `json:"training"`
}

// resumePoint is one that was read.
type resumePoint struct {
	dir   string
	state resumeState
}

// writeResumePoint writes the point dir in one step. The start of a run, step 0, needs
// no weights: they are a function of the configuration.
func writeResumePoint(ctx context.Context, dir string, session Session, state resumeState, config Config) error {
	return atomicfile.ReplaceDir(dir, func(tmp string) error {
		if state.Training.Step > 0 {
			weights := filepath.Join(tmp, sessionDir)
			if err := os.Mkdir(weights, 0o755); err != nil {
				return err
			}
			if err := session.SaveState(ctx, weights); err != nil {
				return err
			}
		}
		text, err := json.MarshalIndent(state, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, stateFile), append(text, '\n'), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, runConfigFile), config.Redacted().YAML(), 0o644); err != nil {
			return err
		}
		return sumfile.Write(tmp)
	})
}

// damagedError is a resume point that is not what was written.
type damagedError struct{ error }

func (e damagedError) Unwrap() error { return e.error }

// damaged reports whether it is proven that a resume point is not what was written.
// A file that could not be opened or read, for want of a permission, a descriptor
// or a network, may be as good as ever, and so may one of another version.
func damaged(err error) bool {
	var proof damagedError
	var reading syscall.Errno
	unread := errors.As(err, &reading) && reading != syscall.ENOENT || errors.Is(err, readfile.ErrRefused)
	return errors.As(err, &proof) && !unread
}

// readResumePoint reads one and checks all of its files.
func readResumePoint(dir string) (resumeState, Config, error) {
	fail := func(err error) (resumeState, Config, error) { return resumeState{}, Config{}, err }
	listed, err := sumfile.Verify(dir)
	if err != nil {
		return fail(damagedError{err})
	}
	for _, name := range []string{stateFile, runConfigFile} {
		if listed[name] == "" {
			return fail(damagedError{fmt.Errorf("%s does not list %s", sumfile.Name, name)})
		}
	}
	text, err := readSmall(filepath.Join(dir, stateFile))
	if err != nil {
		return fail(err)
	}
	state, err := parseState(text)
	if err != nil {
		return fail(err)
	}
	if text, err = readSmall(filepath.Join(dir, runConfigFile)); err != nil {
		return fail(err)
	}
	config, err := ParseConfig(text)
	if err != nil {
		return fail(err)
	}
	return state, config, nil
}

// parseState reads a state and refuses one that no training can be in.
func parseState(text []byte) (resumeState, error) {
	var c resumeState
	if err := json.Unmarshal(text, &c); err != nil {
		return resumeState{}, fmt.Errorf("%s: %w", stateFile, err)
	}
	s := c.Training
	ok := s.Step >= 0 && s.Micro >= 0 && s.Epoch >= 0 && s.Epoch <= maxEpochs &&
		s.BestEpoch >= 0 && s.BestEpoch <= len(s.History) &&
		(len(s.History) == 0) == (s.BestEpoch == 0) &&
		(s.Epoch == len(s.History) && s.Micro == 0 || s.Epoch == len(s.History)+1 && s.Micro > 0) &&
		(s.Step == 0) == (s.Epoch == 0)
	for i, e := range s.History {
		ok = ok && e.Epoch == i+1
	}
	for _, row := range s.Tally.Confusion {
		ok = ok && row[0] >= 0 && row[1] >= 0
	}
	switch {
	case c.Format < 1 || c.Format > resumeFormat:
		return resumeState{}, fmt.Errorf("%s has format %d, want 1 to %d: it was written by another version",
			stateFile, c.Format, resumeFormat)
	case !ok || math.IsNaN(s.Tally.LossSum):
		const wrong = "%s: epoch %d, micro-batch %d, step %d and %d finished epochs do not go together"
		return resumeState{}, fmt.Errorf(wrong, stateFile, s.Epoch, s.Micro, s.Step, len(s.History))
	}
	if c.Format == 1 {
		c.Order = data.Chunked.String()
	}
	if _, err := data.ParseOrder(c.Order); err != nil {
		return resumeState{}, fmt.Errorf("%s: %w", stateFile, err)
	}
	return c, nil
}

// order returns the order of the batches of an epoch.
func (s resumeState) order() data.Order {
	order, _ := data.ParseOrder(s.Order) // checked when it was read
	return order
}

// resumePointDirs lists the resume points below root, the last first.
func resumePointDirs(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	steps := make(map[string]int)
	var names []string
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), resumePrefix)
		if step, err := strconv.Atoi(digits); ok && err == nil && e.IsDir() {
			steps[e.Name()] = step
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(steps[b], steps[a]) })
	return names, nil
}

// pruneResumePoints removes all but the last ones, and what a killed process
// left behind of one it was writing.
func pruneResumePoints(root string, most int) error {
	names, err := resumePointDirs(root)
	if err != nil {
		return err
	}
	rubbish, err := filepath.Glob(filepath.Join(root, "."+resumePrefix+"*"))
	errs := []error{err}
	for _, name := range names[min(most, len(names)):] {
		rubbish = append(rubbish, filepath.Join(root, name))
	}
	for _, path := range rubbish {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// readSmall reads a file that is known to be small.
func readSmall(path string) ([]byte, error) {
	return readfile.All(context.Background(), path, maxStateBytes)
}
