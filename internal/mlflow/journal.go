package mlflow

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/criteria-go/criteria/internal/readfile"
)

// journalDir is the folder in an output directory that holds the journals of
// its runs.
const journalDir = ".mlflow"

// A journal is the file in which a run waits to be sent: JSON lines, in order.
// Its first line counts how many bytes have arrived in the store and is
// overwritten in place; the second describes the run. The file is locked by
// the process that writes it and removed when all of it has arrived, so that a
// journal without a lock is what a crash or a store that was away left behind.
type journal struct {
	path string
	lock *flock.Flock

	mu   sync.Mutex
	file *os.File
	end  int64 // where the next record goes
	sent int64 // all records before have arrived
	base int64 // end of the records that say which run this is: they are kept
}

// counterForm is the first line: of fixed width, so that it can be overwritten.
const counterForm = "{\"sent\":\"%020d\"}\n"

var counterSize = int64(len(fmt.Sprintf(counterForm, 0)))

// record is one line of a journal; exactly one field is set.
type record struct {
	Run      *runRecord      `json:"run,omitempty"`
	Created  *createdRecord  `json:"created,omitempty"`
	Batch    *batchRecord    `json:"batch,omitempty"`
	Inputs   []DatasetInput  `json:"inputs,omitempty"`
	Artifact *artifactRecord `json:"artifact,omitempty"`
	End      *endRecord      `json:"end,omitempty"`
}

type runRecord struct {
	URI  string  `json:"uri"` // without credentials
	Spec RunSpec `json:"spec"`
}

type createdRecord struct {
	ID          string `json:"id"`
	ArtifactURI string `json:"artifact_uri"`
}

type batchRecord struct {
	Metrics []restMetric `json:"metrics,omitempty"`
	Params  []Param      `json:"params,omitempty"`
	Tags    []Tag        `json:"tags,omitempty"`
}

type artifactRecord struct {
	Path string `json:"path"`
	File string `json:"file"` // name in the journal's folder of files
}

type endRecord struct {
	Status Status  `json:"status"`
	Time   restInt `json:"time"`
}

func toBatchRecord(b Batch) *batchRecord {
	r := &batchRecord{Params: b.Params, Tags: b.Tags}
	for _, m := range b.Metrics {
		r.Metrics = append(r.Metrics, metricToREST(m))
	}
	return r
}

func (r *batchRecord) batch() Batch {
	b := Batch{Params: r.Params, Tags: r.Tags}
	for _, m := range r.Metrics {
		b.Metrics = append(b.Metrics, m.metric())
	}
	return b
}

// newSuffix ends the name of a journal that is not complete enough to be found.
const newSuffix = ".new"

// createJournal starts the journal of a run in the output directory dir.
func createJournal(dir string, run runRecord) (*journal, error) {
	folder := filepath.Join(dir, journalDir)
	var path, temp string
	var j *journal
	for attempt := 0; ; attempt++ {
		if err := os.MkdirAll(folder, 0o777); err != nil {
			return nil, fmt.Errorf("mlflow: %w", err)
		}
		path = filepath.Join(folder, newID()+".jsonl")
		// Locked before it has a name that others look for.
		temp = strings.TrimSuffix(path, ".jsonl") + newSuffix
		var err error
		if j, err = lockJournal(temp, os.O_CREATE|os.O_EXCL); err == nil {
			break
		}
		// Another process may just have removed the folder, which was empty, or
		// swept what it took for rubbish.
		if attempt == 9 || !errors.Is(err, errGone) && !errors.Is(err, errInUse) {
			return nil, err
		}
	}
	j.path = path
	_, err := j.file.WriteAt(fmt.Appendf(nil, counterForm, 0), 0)
	j.end, j.sent = counterSize, counterSize
	if err == nil {
		err = j.append(record{Run: &run})
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mlflow: %w", err), j.close(), os.Remove(temp))
	}
	j.base, j.sent = j.end, j.end
	return j, nil
}

var (
	// errInUse: another process, or another run of this one, writes the journal.
	errInUse = errors.New("mlflow: the journal is in use")
	// errGone: all of it has arrived meanwhile.
	errGone = errors.New("mlflow: the journal was removed")
)

func lockJournal(path string, flag int) (*journal, error) {
	lock := flock.New(path, flock.SetFlag(os.O_RDWR|flag), flock.SetPermissions(0o600))
	if ok, err := lock.TryLock(); err != nil || !ok {
		if err == nil {
			err = errInUse
		} else if errors.Is(err, fs.ErrNotExist) {
			err = errGone
		}
		return nil, errors.Join(err, lock.Close())
	}
	// Opened after it was locked: if its owner removed it meanwhile, it is not
	// there any more.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(errGone, lock.Close())
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("mlflow: %w", err), lock.Close())
	}
	return &journal{path: path, lock: lock, file: f}, nil
}

// journalState is what a journal says about its run.
type journalState struct {
	run     runRecord
	created *createdRecord
	ended   bool
	last    time.Time // of the last record that has a time
}

// openJournal opens what another process left behind.
func openJournal(path string) (*journal, journalState, error) {
	j, err := lockJournal(path, 0)
	if err != nil {
		return nil, journalState{}, err
	}
	info, err := j.file.Stat()
	var state journalState
	if err == nil {
		state, err = j.load(info.Size())
	}
	if err != nil {
		return nil, state, errors.Join(fmt.Errorf("mlflow: journal %s: %w", path, err), j.close())
	}
	if state.last.IsZero() {
		state.last = info.ModTime()
	}
	return j, state, nil
}

// load finds the end of the last complete record. What follows it was being
// written when the machine stopped.
func (j *journal) load(size int64) (journalState, error) {
	var state journalState
	head := make([]byte, counterSize)
	if _, err := j.file.ReadAt(head, 0); err != nil {
		return state, errors.New("it is too short")
	}
	var sent int64
	if _, err := fmt.Sscanf(string(head), counterForm, &sent); err != nil || sent < counterSize {
		sent = counterSize // sending again does no harm
	}
	state, complete, base, err := readJournal(io.NewSectionReader(j.file, counterSize, size-counterSize))
	if err != nil {
		return state, err
	}
	j.end = counterSize + complete
	j.base = counterSize + base
	j.sent = min(max(sent, j.base), j.end)
	return state, nil
}

// readJournal reads the records after the first line. complete counts the
// bytes of whole records, base those that say which run this is.
func readJournal(r io.Reader) (state journalState, complete, base int64, err error) {
	for lines := newLineReader(r); ; {
		rec, size, err := lines.next()
		if err != nil {
			if complete == 0 {
				return state, 0, 0, errors.New("it does not say which run it is of")
			}
			return state, complete, base, nil
		}
		switch {
		case complete == 0 && rec.Run == nil:
			return state, 0, 0, errors.New("it does not say which run it is of")
		case complete == 0:
			state.run, base = *rec.Run, size
		case rec.Created != nil:
			state.created = rec.Created
			if complete == base {
				base += size
			}
		case rec.End != nil:
			state.ended = true
			state.last = fromMillis(int64(rec.End.Time))
		case rec.Batch != nil:
			for _, m := range rec.Batch.Metrics {
				if t := m.metric().Time; t.After(state.last) {
					state.last = t
				}
			}
		}
		complete += size
	}
}

// lineReader reads records, one per line.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) lineReader { return lineReader{bufio.NewReaderSize(r, 1<<16)} }

// maxRecord bounds a line that is believed, in bytes.
const maxRecord = 16 << 20

// next returns the next record and its size; io.EOF if no whole one is left.
// A line that a broken disk has spoilt is an empty record, and so is one that is
// too long to be a record.
func (l lineReader) next() (record, int64, error) {
	var line []byte
	size := int64(0)
	for {
		part, err := l.r.ReadSlice('\n')
		if size += int64(len(part)); size <= maxRecord {
			line = append(line, part...)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return record{}, 0, err
		}
	}
	var rec record
	if size > maxRecord || json.Unmarshal(line, &rec) != nil {
		rec = record{}
	}
	return rec, size, nil
}

// append adds records. They survive the end of the process at once, and that
// of the machine after sync.
func (j *journal) append(records ...record) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf) // ends each value with a newline
	enc.SetEscapeHTML(false)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return fmt.Errorf("mlflow: %w", err)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.WriteAt(buf.Bytes(), j.end); err != nil {
		return fmt.Errorf("mlflow: keep a record for the store: %w", err)
	}
	j.end += int64(buf.Len())
	return nil
}

// appendCreated adds the record that the run was created. It is kept when the
// journal is emptied if it stands right behind the description of the run.
func (j *journal) appendCreated(run Run) error {
	j.mu.Lock()
	first := j.end == j.base
	j.mu.Unlock()
	if err := j.append(record{Created: &createdRecord{ID: run.ID, ArtifactURI: run.ArtifactURI}}); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if first {
		j.base, j.sent = j.end, j.end
	}
	return nil
}

// pending returns a reader of what has not arrived yet.
func (j *journal) pending() (r lineReader, from, to int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return newLineReader(io.NewSectionReader(j.file, j.sent, j.end-j.sent)), j.sent, j.end
}

// advance notes that everything before offset has arrived. When nothing is
// left and the file has become large, it is emptied.
func (j *journal) advance(offset int64) error {
	const large = 4 << 20
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sent = offset
	if offset == j.end && offset > large && j.base > counterSize {
		if err := j.file.Truncate(j.base); err != nil {
			return fmt.Errorf("mlflow: %w", err)
		}
		j.sent, j.end = j.base, j.base
	}
	if _, err := j.file.WriteAt(fmt.Appendf(nil, counterForm, j.sent), 0); err != nil {
		return fmt.Errorf("mlflow: %w", err)
	}
	return nil
}

func (j *journal) sync() error { return j.file.Sync() }

// files is the folder of the artifacts that wait with the journal.
func (j *journal) files() string { return strings.TrimSuffix(j.path, ".jsonl") }

// addFile keeps the content of src, or of r if it is not nil, until it is
// sent. A file is linked if possible: models are large, and whoever writes
// them anew does so under another name first.
func (j *journal) addFile(src string, r io.Reader) (name string, err error) {
	if err := os.MkdirAll(j.files(), 0o777); err != nil {
		return "", fmt.Errorf("mlflow: %w", err)
	}
	name = newID()
	target := filepath.Join(j.files(), name)
	if r == nil {
		if os.Link(src, target) == nil {
			return name, nil
		}
		f, err := readfile.Open(src)
		if err != nil {
			return "", fmt.Errorf("mlflow: %w", err)
		}
		defer f.Close()
		r = f
	}
	root, err := os.OpenRoot(j.files())
	if err != nil {
		return "", fmt.Errorf("mlflow: %w", err)
	}
	defer root.Close()
	if err := writeAtomic(root, name, r); err != nil {
		return "", fmt.Errorf("mlflow: keep an artifact for the store: %w", err)
	}
	return name, nil
}

// openFile opens what addFile keeps. A link that a stranger put there leads to
// nothing outside of the folder.
func (j *journal) openFile(name string) (*os.File, error) {
	root, err := os.OpenRoot(j.files())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readfile.OpenIn(root, filepath.Base(name))
}

func (j *journal) close() error { return errors.Join(j.file.Close(), j.lock.Close()) }

// remove ends a journal all of which has arrived.
func (j *journal) remove() error {
	err := errors.Join(j.file.Close(), os.Remove(j.path), os.RemoveAll(j.files()), j.lock.Close())
	return errors.Join(err, removeIfEmpty(filepath.Dir(j.path)))
}

// removeIfEmpty removes the folder of journals with the last one of them.
func removeIfEmpty(folder string) error {
	if err := os.Remove(folder); err != nil && errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // it is gone, or there are others in it
}

// sweepJournals removes what processes left in an output directory that were
// killed while they made or removed a journal.
func sweepJournals(dir string) error {
	folder := filepath.Join(dir, journalDir)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch {
		case e.IsDir(): // the artifacts of a journal
			if _, err := os.Stat(path + ".jsonl"); errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, os.RemoveAll(path))
			}
		case strings.HasSuffix(path, newSuffix):
			if j, err := lockJournal(path, 0); err == nil { // nobody is making it
				errs = append(errs, os.Remove(path), j.close())
			}
		}
	}
	if err := errors.Join(append(errs, removeIfEmpty(folder))...); err != nil {
		return fmt.Errorf("mlflow: tidy up: %w", err)
	}
	return nil
}

// journals lists the journals in an output directory.
func journals(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, journalDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".jsonl") && !strings.HasSuffix(e.Name(), rejectedSuffix) && e.Type().IsRegular() {
			out = append(out, filepath.Join(dir, journalDir, e.Name()))
		}
	}
	return out, nil
}

// rejectedSuffix names the file beside a journal that keeps what the store
// refused for good.
const rejectedSuffix = ".rejected.jsonl"

// reject keeps a record that the store refused, for the user to look at.
func (j *journal) reject(rec record) error {
	line, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("mlflow: %w", err)
	}
	f, err := os.OpenFile(strings.TrimSuffix(j.path, ".jsonl")+rejectedSuffix, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("mlflow: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
