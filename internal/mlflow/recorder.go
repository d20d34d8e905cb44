package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Recorder stands between one run and its store. What it is given it writes
// to a journal in the output directory, which costs microseconds, and sends
// from there in the background, in order. While the store is away the journal
// grows; when it answers again the journal is sent; when all has arrived the
// journal is removed. Sending is idempotent, so nothing is lost and nothing is
// there twice, whatever ended the process or the connection.
type Recorder struct {
	store   Store
	opts    RecorderOptions
	journal *journal
	spec    runRecord
	had     *had // what a resumed run has already; nil otherwise
	resumed bool // the end of the run is not the end, because it goes on

	run      atomic.Pointer[Run] // nil until the store has created it
	pending  string              // what RunID says until then
	progress atomic.Int64        // when something last arrived, Unix nanoseconds

	mu     sync.Mutex
	ended  bool
	notify chan struct{} // something was appended; never closed
	ending chan struct{} // closed by End
	cancel context.CancelFunc
	done   chan struct{} // the sender has ended
	err    error         // why it could not send all; read after done
}

// RecorderOptions says how a [Recorder] works. Dir is needed.
type RecorderOptions struct {
	// Dir is the output directory; what cannot be sent waits in Dir/.mlflow.
	Dir string
	// Deferred allows a store to be away at the start: the run is then created
	// when it answers. It is meant for the later runs of a study.
	Deferred bool
	// Patience is how long End waits without any progress before it gives up;
	// default 60 s.
	Patience time.Duration
	// MaxPause is the longest pause between two attempts to send while the
	// store is away; default 30 s. The first pause is 1 s, or MaxPause if that
	// is shorter.
	MaxPause time.Duration
	// Logger is told when the store goes away and comes back; default: none.
	Logger *slog.Logger
}

// SpooledError says that a run has ended while part of it waits in a journal.
type SpooledError struct {
	Dir string // output directory to give to [Sync]
	Err error  // why it could not be sent
}

func (e *SpooledError) Error() string {
	return fmt.Sprintf("mlflow: part of the run could not be sent and waits in %s: %v", filepath.Join(e.Dir, journalDir), e.Err)
}

func (e *SpooledError) Unwrap() error { return e.Err }

// RejectedError lists what the store refused for good. The records are kept
// beside the journal.
type RejectedError struct {
	File   string
	Errors []error
}

func (e *RejectedError) Error() string {
	return fmt.Sprintf("mlflow: the store refused %d records, which are kept in %s: %v", len(e.Errors), e.File, e.Errors[0])
}

func (e *RejectedError) Unwrap() []error { return e.Errors }

// Start creates a run and returns its recorder. A store that is away is an
// error, unless opts.Deferred is set. End must be called.
func Start(ctx context.Context, store Store, spec RunSpec, opts RecorderOptions) (*Recorder, error) {
	spec, err := spec.prepare()
	if err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	r := newRecorder(store, spec, opts)
	// The journal comes first: a run that is in the store must never be
	// without something that will end it.
	if r.journal, err = createJournal(opts.Dir, r.spec); err != nil {
		return nil, err
	}
	r.pending = pendingID(r.journal.path)
	run, err := store.CreateRun(ctx, spec)
	switch {
	case err == nil:
		err = r.created(run)
	case opts.Deferred && !errors.Is(err, ErrRejected) && ctx.Err() == nil:
		err = nil
	}
	if err != nil {
		return nil, errors.Join(err, r.journal.remove())
	}
	r.begin()
	return r, nil
}

func (o RecorderOptions) withDefaults() RecorderOptions {
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	if o.MaxPause == 0 {
		o.MaxPause = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func newRecorder(store Store, spec RunSpec, opts RecorderOptions) *Recorder {
	return &Recorder{
		store: store, opts: opts, spec: runRecord{URI: store.URI(), Spec: spec},
		notify: make(chan struct{}, 1), ending: make(chan struct{}), done: make(chan struct{}),
	}
}

func (r *Recorder) created(run Run) error {
	if err := r.journal.appendCreated(run); err != nil {
		return err
	}
	r.run.Store(&run)
	return nil
}

// begin starts the sender. It is not bound to the context of Start: it has to
// outlive a Ctrl-C, so that the end of the run is recorded. End joins it.
func (r *Recorder) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.progress.Store(time.Now().UnixNano())
	go func() {
		defer close(r.done)
		r.err = r.send(ctx)
	}()
}

// RunID returns the ID of the run in the store, or one that starts with
// "pending-" as long as the store has not answered to a deferred start.
func (r *Recorder) RunID() string {
	if run := r.run.Load(); run != nil {
		return run.ID
	}
	return r.pending
}

// Log records points, parameters and tags. The error is about them or about
// the journal, never about the store.
func (r *Recorder) Log(b Batch) error {
	b, err := b.prepare()
	if err != nil {
		return err
	}
	var records []record
	for _, part := range r.had.without(b, r.opts.Logger).split() {
		records = append(records, record{Batch: toBatchRecord(part)})
	}
	return r.append(records...)
}

// LogInputs records the datasets that the run used.
func (r *Recorder) LogInputs(inputs []DatasetInput) error {
	inputs, err := prepareInputs(inputs)
	if err != nil || len(inputs) == 0 {
		return err
	}
	return r.append(record{Inputs: inputs})
}

// LogArtifact records what content yields under a slash-separated path.
func (r *Recorder) LogArtifact(p string, content io.Reader) error {
	return r.logArtifact(p, "", content)
}

// LogArtifactFile records a file. It must not be changed in place afterwards;
// replacing it is fine.
func (r *Recorder) LogArtifactFile(p, file string) error { return r.logArtifact(p, file, nil) }

func (r *Recorder) logArtifact(p, file string, content io.Reader) error {
	if err := checkArtifactPath(p); err != nil {
		return err
	}
	name, err := r.journal.addFile(file, content)
	if err != nil {
		return err
	}
	return r.append(record{Artifact: &artifactRecord{Path: p, File: name}})
}

// LogArtifacts records all files below dir under a slash-separated path.
func (r *Recorder) LogArtifacts(p, dir string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		return r.LogArtifactFile(path.Join(p, filepath.ToSlash(rel)), file)
	})
}

var errEnded = errors.New("mlflow: the run has ended already")

func (r *Recorder) append(records ...record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return errEnded
	}
	if err := r.journal.append(records...); err != nil {
		return err
	}
	r.wake()
	return nil
}

func (r *Recorder) wake() {
	select {
	case r.notify <- struct{}{}:
	default: // it will look anyway
	}
}

// End records how and when the run ended, sends what is left and releases
// everything. If the store is away, or ctx ends, the error is a
// [*SpooledError]; if the store refused something, a [*RejectedError].
func (r *Recorder) End(ctx context.Context, status Status, end time.Time) error {
	r.mu.Lock()
	if r.ended {
		r.mu.Unlock()
		return errEnded
	}
	r.ended = true
	err := r.journal.append(record{End: &endRecord{Status: status, Time: restInt(millis(end))}})
	r.mu.Unlock()
	close(r.ending)
	// The sender gives up by itself when the store is away. It is stopped here
	// if it waits for a store that takes connections and does not answer.
	began := time.Now()
	for waiting := err == nil; waiting; {
		left := r.opts.Patience + time.Second - time.Since(later(began, time.Unix(0, r.progress.Load())))
		timer := time.NewTimer(max(left, 0))
		select {
		case <-r.done:
			waiting = false
		case <-ctx.Done():
			waiting = false
		case <-timer.C:
			waiting = left > 0
		}
		timer.Stop()
	}
	r.cancel()
	<-r.done
	if err != nil && r.endDirectly(ctx, status, end) == nil {
		return r.journal.remove()
	}
	return errors.Join(err, r.finish())
}

// endDirectly tells the store the end of a run that the journal could not take,
// because its disk is full, most likely.
func (r *Recorder) endDirectly(ctx context.Context, status Status, end time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Patience)
	defer cancel()
	if _, err := r.sendPending(ctx, new(RejectedError)); err != nil {
		return err
	}
	run := r.run.Load()
	if run == nil {
		return errors.New("mlflow: the store has not answered yet")
	}
	return r.store.UpdateRun(ctx, run.ID, status, end)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// finish removes the journal if all has arrived, or makes it safe.
func (r *Recorder) finish() error {
	var rejected *RejectedError
	if r.err == nil || errors.As(r.err, &rejected) {
		return errors.Join(r.err, r.journal.remove())
	}
	err := errors.Join(r.journal.sync(), r.journal.close())
	return errors.Join(&SpooledError{Dir: r.opts.Dir, Err: r.err}, err)
}

// send is the sender: it returns when the end of the run has arrived (nil or a
// *RejectedError), and with any other error when it gives up.
func (r *Recorder) send(ctx context.Context) error {
	var rejected RejectedError
	var failed error // why the last attempt failed; nil while the store answers
	var since time.Time
	var pause time.Duration
	for {
		ended, err := r.sendPending(ctx, &rejected)
		switch {
		case err == nil && failed != nil:
			r.opts.Logger.Info("MLflow answers again: what was kept has been sent", "tracking_uri", r.store.URI(), "run", r.RunID())
			failed, pause = nil, 0
		case err == nil:
		case ctx.Err() != nil:
			return errors.Join(err, failed)
		case failed == nil:
			r.opts.Logger.Warn("MLflow does not answer: the run goes on, and what cannot be sent is kept and sent later",
				"tracking_uri", r.store.URI(), "run", r.RunID(), "kept_in", filepath.Join(r.opts.Dir, journalDir), "error", err)
			failed, since = err, time.Now()
		default:
			failed = err
		}
		if ended {
			if len(rejected.Errors) > 0 {
				return &rejected
			}
			return nil
		}
		if failed == nil {
			select {
			case <-r.notify:
			case <-r.ending:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		pause = min(max(2*pause, time.Second), r.opts.MaxPause)
		if err := r.keep(ctx, pause, since); err != nil {
			return errors.Join(failed, err)
		}
	}
}

var errPatience = errors.New("no answer until the end of the run")

// keep waits for the next attempt. Until then what comes in is made safe
// against the loss of the machine too. When the run ends there is one more
// attempt at once, and others as long as the patience lasts.
func (r *Recorder) keep(ctx context.Context, pause time.Duration, since time.Time) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	ending := r.ending
	select {
	case <-ending:
		if time.Since(since)+pause > r.opts.Patience {
			return errPatience
		}
		ending = nil
	default:
	}
	for {
		if err := r.journal.sync(); err != nil {
			r.opts.Logger.Warn("what is kept for MLflow may not survive a power failure", "error", err)
		}
		select {
		case <-r.notify:
		case <-ending:
			return nil
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendPending sends what the journal holds and reports whether the end of the
// run was among it.
func (r *Recorder) sendPending(ctx context.Context, rejected *RejectedError) (ended bool, err error) {
	lines, offset, end := r.journal.pending()
	if offset < end && r.run.Load() == nil {
		if err := r.createDeferred(ctx); err != nil {
			return false, err
		}
		// The record of it was appended behind those that are read now.
	}
	for offset < end {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		// Points of many steps go in one request.
		var group []record
		var size int64
		for offset+size < end {
			rec, n, err := lines.next()
			if err != nil {
				return false, fmt.Errorf("mlflow: read the journal: %w", err)
			}
			size += n
			group = append(group, rec)
			if rec.Batch == nil || size > maxBatchBytes {
				break
			}
		}
		last := group[len(group)-1]
		if err := r.deliver(ctx, group, rejected); err != nil {
			return false, err
		}
		r.progress.Store(time.Now().UnixNano())
		offset += size
		if err := r.journal.advance(offset); err != nil {
			return false, err
		}
		if last.Artifact != nil {
			// It has arrived; if it cannot be removed, that only costs room.
			_ = os.Remove(filepath.Join(r.journal.files(), filepath.Base(last.Artifact.File)))
		}
		if last.End != nil {
			return true, nil
		}
	}
	return false, nil
}

func (r *Recorder) createDeferred(ctx context.Context) error {
	spec := r.spec.Spec
	run, err := r.store.FindRun(ctx, spec)
	if errors.Is(err, ErrNotFound) {
		run, err = r.store.CreateRun(ctx, spec)
	}
	if err != nil {
		return err
	}
	return r.created(run)
}

// deliver sends a group of records: batches, and at most one record of another
// kind, which is the last. A batch that is refused is sent record by record,
// so that one does not take the others with it.
func (r *Recorder) deliver(ctx context.Context, group []record, rejected *RejectedError) error {
	var all Batch
	batches := 0
	for _, rec := range group {
		if rec.Batch == nil {
			continue
		}
		b := rec.Batch.batch()
		all.Metrics = append(all.Metrics, b.Metrics...)
		all.Params = append(all.Params, b.Params...)
		all.Tags = append(all.Tags, b.Tags...)
		batches++
	}
	id := r.run.Load().ID
	refuse := func(rec record, err error) error {
		// A run that is not there means the wrong store, or one that was
		// replaced: then all is kept.
		if !errors.Is(err, ErrRejected) || errors.Is(err, ErrNotFound) {
			return err
		}
		r.opts.Logger.Warn("MLflow refuses a record of the run for good", "run", id, "error", err)
		rejected.File = r.journal.files() + rejectedSuffix
		rejected.Errors = append(rejected.Errors, err)
		return r.journal.reject(rec)
	}
	if !all.Empty() {
		err := r.store.LogBatch(ctx, id, all)
		switch {
		case err == nil:
		case batches == 1:
			if err := refuse(group[slices.IndexFunc(group, func(rec record) bool { return rec.Batch != nil })], err); err != nil {
				return err
			}
		case errors.Is(err, ErrRejected):
			for _, rec := range group {
				if rec.Batch == nil {
					continue
				}
				if err := r.store.LogBatch(ctx, id, rec.Batch.batch()); err != nil {
					if err := refuse(rec, err); err != nil {
						return err
					}
				}
			}
		default:
			return err
		}
	}
	last := group[len(group)-1]
	if err := r.deliverLast(ctx, last); err != nil {
		return refuse(last, err)
	}
	return nil
}

func (r *Recorder) deliverLast(ctx context.Context, rec record) error {
	run := r.run.Load()
	switch {
	case rec.Inputs != nil:
		return r.store.LogInputs(ctx, run.ID, rec.Inputs)
	case rec.End != nil && r.resumed:
		return nil
	case rec.End != nil:
		return r.store.UpdateRun(ctx, run.ID, rec.End.Status, fromMillis(int64(rec.End.Time)))
	case rec.Artifact != nil:
		f, err := r.journal.openFile(rec.Artifact.File)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it had arrived when the process was stopped
		} else if err != nil {
			return fmt.Errorf("mlflow: %w", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("mlflow: %w", err)
		}
		return r.store.PutArtifact(ctx, *run, rec.Artifact.Path, io.NewSectionReader(progressReader{f, &r.progress}, 0, info.Size()))
	}
	return nil
}

// progressReader notes that an artifact is on its way: a large one must not
// be taken for a store that is away.
type progressReader struct {
	io.ReaderAt
	progress *atomic.Int64
}

func (p progressReader) ReadAt(b []byte, off int64) (int, error) {
	p.progress.Store(time.Now().UnixNano())
	return p.ReaderAt.ReadAt(b, off)
}

// SyncedRun is a run that [Sync] found in an output directory.
type SyncedRun struct {
	ID     string
	Name   string
	URI    string // the store that it was sent to
	Killed bool   // its process had ended without saying how
}

// Sync sends what earlier runs left in an output directory. A run whose
// process ended without a word becomes KILLED. Runs that are still being
// recorded are left alone. open opens the store for a tracking URI; it decides
// which store that is, and may return [ErrSkip].
func Sync(ctx context.Context, dir string, open func(ctx context.Context, uri string) (Store, error), logger *slog.Logger) ([]SyncedRun, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	paths, err := journals(dir)
	var out []SyncedRun
	errs := []error{err}
	for _, p := range paths {
		run, err := syncOne(ctx, dir, p, open, logger)
		if err == nil || errors.As(err, new(*RejectedError)) {
			out = append(out, run)
		}
		if !errors.Is(err, errInUse) && !errors.Is(err, errGone) && !errors.Is(err, ErrSkip) {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(append(errs, sweepJournals(dir))...)
}

// ErrSkip tells [Sync] to leave the journals of a store alone.
var ErrSkip = errors.New("mlflow: skip this store")

func syncOne(ctx context.Context, dir, path string, open func(context.Context, string) (Store, error), logger *slog.Logger) (SyncedRun, error) {
	j, state, err := openJournal(path)
	if err != nil {
		return SyncedRun{}, err
	}
	store, err := open(ctx, state.run.URI)
	if err != nil {
		return SyncedRun{}, errors.Join(err, j.close())
	}
	r := &Recorder{store: store, journal: j, spec: state.run, opts: RecorderOptions{Dir: dir, Logger: logger}}
	if state.created != nil {
		r.run.Store(&Run{ID: state.created.ID, ArtifactURI: state.created.ArtifactURI})
	} else if run, err := store.FindRun(ctx, state.run.Spec); err == nil {
		r.run.Store(&run)
	} else if !errors.Is(err, ErrNotFound) {
		return SyncedRun{}, errors.Join(&SpooledError{Dir: dir, Err: err}, j.close(), store.Close())
	} else if j.end == j.base {
		// It never came to be, and there is nothing to say about it.
		return SyncedRun{}, errors.Join(ErrSkip, j.remove(), store.Close())
	}
	if !state.ended {
		err = j.append(record{End: &endRecord{Status: Killed, Time: restInt(millis(state.last))}})
	}
	var rejected RejectedError
	for ended := false; err == nil && !ended; {
		ended, err = r.sendPending(ctx, &rejected)
	}
	if err != nil {
		return SyncedRun{}, errors.Join(&SpooledError{Dir: dir, Err: err}, j.sync(), j.close(), store.Close())
	}
	out := SyncedRun{ID: r.RunID(), Name: state.run.Spec.Name, URI: store.URI(), Killed: !state.ended}
	if len(rejected.Errors) > 0 {
		err = &rejected
	}
	return out, errors.Join(err, j.remove(), store.Close())
}
