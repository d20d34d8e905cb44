package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/criteria-go/criteria/internal/readfile"
)

// ErrInUse says that another process, or another [Recorder] of this one, is
// recording the run.
var ErrInUse = errors.New("mlflow: the run is still being recorded by another process")

// systemPrefix begins the keys of the metrics that a [SystemSampler] takes.
// Nobody records them twice, and of a long run there are very many.
const systemPrefix = "system/"

// had is what a resumed run had before: it is not to be recorded again.
type had struct {
	points     map[point]bool
	params     map[string]string
	systemStep int64 // the next one of the system metrics
}

// point is what MLflow's charts show one value for. Its tables would keep two
// with different times.
type point struct {
	key  string
	step int64
}

// Resume goes on with a run that an earlier process recorded in the output
// directory opts.Dir, however it ended: the status becomes RUNNING again. What
// waits there to be sent is sent before Resume returns. From then on points of
// a key and step that the run has already, and parameters that it has, are
// dropped: the caller may record again whatever might have been lost.
//
// runID may be what [Recorder.RunID] said while the store was away. The error
// is [ErrRejected] if the store does not have the run or it was deleted, and
// [ErrInUse] if it is still being recorded.
func Resume(ctx context.Context, store Store, runID string, opts RecorderOptions) (_ *Recorder, err error) {
	opts = opts.withDefaults()
	old, runID, err := takeOver(ctx, store, runID, opts)
	defer func() {
		for _, j := range old {
			err = errors.Join(err, j.close())
		}
	}()
	if err != nil {
		return nil, err
	}
	run, err := store.Run(ctx, runID)
	if err != nil {
		return nil, err
	}
	r := newRecorder(store, RunSpec{ExperimentID: run.ExperimentID, Name: run.Name, User: run.User, Start: run.Start}, opts)
	// As in Start, the journal comes first. The older ones stay as long as
	// there is something in them.
	if r.journal, err = createJournal(opts.Dir, r.spec); err != nil {
		return nil, err
	}
	if err := r.created(run); err != nil {
		return nil, errors.Join(err, r.journal.remove())
	}
	if err := store.UpdateRun(ctx, runID, Running, time.Time{}); err != nil {
		if errors.Is(err, ErrRejected) {
			return nil, errors.Join(err, r.journal.remove())
		}
		return nil, errors.Join(err, r.journal.close()) // it may have arrived
	}
	for len(old) > 0 {
		last := newRecorder(store, r.spec.Spec, opts)
		last.journal, last.resumed = old[0], true
		last.run.Store(&run)
		if _, err := last.sendPending(ctx, new(RejectedError)); err != nil {
			return nil, errors.Join(err, r.journal.close())
		}
		err := old[0].remove()
		old = old[1:]
		if err != nil {
			return nil, errors.Join(err, r.journal.close())
		}
	}
	if r.had, err = readHad(ctx, store, runID); err != nil {
		return nil, errors.Join(err, r.journal.close())
	}
	r.begin()
	return r, nil
}

// takeOver locks the journals that earlier processes left of a run, oldest
// first, and finds the ID that the store gave it if that was not known yet.
func takeOver(ctx context.Context, store Store, runID string, opts RecorderOptions) (old []*journal, id string, err error) {
	paths, err := journals(opts.Dir)
	if err != nil {
		return nil, runID, err
	}
	type left struct {
		*journal
		last time.Time
	}
	var found []left
	defer func() {
		slices.SortFunc(found, func(a, b left) int { return a.last.Compare(b.last) })
		for _, l := range found {
			old = append(old, l.journal)
		}
	}()
	for _, path := range paths {
		state, err := peekJournal(path)
		pending := runID == pendingID(path)
		if err != nil || state.run.URI != store.URI() || !pending && (state.created == nil || state.created.ID != runID) {
			continue // not of this run; Sync complains about those that cannot be read
		}
		j, state, err := openJournal(path)
		switch {
		case errors.Is(err, errGone):
			continue
		case errors.Is(err, errInUse):
			return nil, runID, fmt.Errorf("run %s in %s: %w", runID, opts.Dir, ErrInUse)
		case err != nil:
			return nil, runID, err
		}
		found = append(found, left{j, state.last})
		switch {
		case pending && state.created != nil:
			runID = state.created.ID
		case pending:
			r := newRecorder(store, state.run.Spec, opts)
			r.journal = j
			if err := r.createDeferred(ctx); err != nil {
				return nil, runID, err
			}
			runID = r.RunID()
		}
	}
	return nil, runID, nil
}

// peekJournal reads what a journal says about its run, without locking it.
func peekJournal(path string) (journalState, error) {
	f, err := readfile.Open(path)
	if err != nil {
		return journalState{}, err
	}
	defer f.Close()
	if _, err := f.Seek(counterSize, io.SeekStart); err != nil {
		return journalState{}, err
	}
	state, _, _, err := readJournal(f)
	return state, err
}

// readHad reads the points and parameters that a run has.
func readHad(ctx context.Context, store Store, runID string) (*had, error) {
	run, err := store.Run(ctx, runID)
	if err != nil {
		return nil, err
	}
	h := &had{points: map[point]bool{}, params: run.Params}
	for key, last := range run.Metrics {
		if strings.HasPrefix(key, systemPrefix) {
			h.systemStep = max(h.systemStep, last.Step+1)
			continue
		}
		history, err := store.MetricHistory(ctx, runID, key)
		if err != nil {
			return nil, err
		}
		for _, m := range history {
			h.points[point{key, m.Step}] = true
		}
	}
	return h, nil
}

// SystemStep returns the step at which a [SystemSampler] goes on: 0 unless the
// run was resumed.
func (r *Recorder) SystemStep() int {
	if r.had == nil {
		return 0
	}
	return int(r.had.systemStep)
}

// without returns what of b the run does not have yet.
func (h *had) without(b Batch, log *slog.Logger) Batch {
	if h == nil {
		return b
	}
	out := Batch{Tags: b.Tags}
	for _, m := range b.Metrics {
		if !h.points[point{m.Key, m.Step}] {
			out.Metrics = append(out.Metrics, m)
		}
	}
	for _, p := range b.Params {
		was, ok := h.params[p.Key]
		if !ok {
			out.Params = append(out.Params, p)
		} else if was != p.Value {
			log.Warn("a parameter of a run cannot be changed in MLflow: the run keeps the one that it was started with", "param", p.Key, "kept", was, "now", p.Value)
		}
	}
	return out
}

// pendingID is what a run is called, after its journal, until the store has
// answered.
func pendingID(journal string) string {
	return "pending-" + strings.TrimSuffix(filepath.Base(journal), ".jsonl")
}
