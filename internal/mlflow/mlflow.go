// Package mlflow writes and reads runs in MLflow's own stores, so that a real
// MLflow cannot tell them from the ones it wrote itself: an SQLite file
// ([Open] with sqlite:///mlflow.db), a tracking server (http://host:5000) or
// the older folder of files (./mlruns).
//
// A [Store] talks to one of them and fails when it is away. A [Recorder]
// stands in front of a store for the length of one run: it accepts everything
// at once, keeps what cannot be sent in the run's output directory, and sends
// it, in order, when the store answers again; [Sync] does so after the process
// has ended.
package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/criteria-go/criteria/internal/redact"
)

// Store is one place where MLflow keeps runs. Methods are safe for concurrent
// use. Logging is idempotent: sending the same points, parameters, tags,
// inputs or artifacts again changes nothing.
type Store interface {
	// URI returns the tracking URI without credentials.
	URI() string

	// EnsureExperiment returns the ID of the experiment of that name and
	// creates it if there is none. A deleted experiment keeps its name: that
	// is an error.
	EnsureExperiment(ctx context.Context, name string) (id string, err error)
	// CreateRun starts a run, in status RUNNING.
	CreateRun(ctx context.Context, spec RunSpec) (Run, error)
	// FindRun returns the running run that CreateRun made of spec, for when
	// its answer was lost; ErrNotFound if there is none. What identifies the
	// run is its start time together with name, user and tags.
	FindRun(ctx context.Context, spec RunSpec) (Run, error)
	// LogBatch records any number of points, parameters and tags. It cuts the
	// batch into requests that MLflow accepts, and long values as MLflow does.
	// A parameter that has another value already is an error.
	LogBatch(ctx context.Context, runID string, b Batch) error
	// LogInputs records the datasets that the run used.
	LogInputs(ctx context.Context, runID string, inputs []DatasetInput) error
	// UpdateRun sets the status and, if it is not zero, the end time.
	UpdateRun(ctx context.Context, runID string, status Status, end time.Time) error

	// Run returns a run with its parameters, tags, inputs and the last value
	// of each metric; ErrNotFound if there is none.
	Run(ctx context.Context, runID string) (Run, error)
	// MetricHistory returns all points of a metric, ordered by step and time.
	MetricHistory(ctx context.Context, runID, key string) ([]Metric, error)
	// SearchRuns returns the active runs of an experiment that carry the tag,
	// oldest first.
	SearchRuns(ctx context.Context, experimentID string, tag Tag) ([]Run, error)

	// PutArtifact stores content under a slash-separated path. It may read the
	// content several times, but not after it returned.
	PutArtifact(ctx context.Context, run Run, path string, content *io.SectionReader) error
	// ListArtifacts returns the files and folders directly below path; ""
	// means the top.
	ListArtifacts(ctx context.Context, run Run, path string) ([]FileInfo, error)
	// OpenArtifact reads one artifact; ErrNotFound if there is none.
	OpenArtifact(ctx context.Context, run Run, path string) (io.ReadCloser, error)

	Close() error
}

// Status is the state of a run, in MLflow's words.
type Status string

// The states of a run that this package writes.
const (
	Running  Status = "RUNNING"
	Finished Status = "FINISHED"
	Failed   Status = "FAILED"
	Killed   Status = "KILLED"
)

// Tag keys that MLflow gives a meaning.
const (
	TagRunName    = "mlflow.runName"
	TagNote       = "mlflow.note.content"
	TagUser       = "mlflow.user"
	TagSourceName = "mlflow.source.name"
	TagSourceType = "mlflow.source.type"
	TagParentRun  = "mlflow.parentRunId"
	TagGitCommit  = "mlflow.source.git.commit"
	TagGitBranch  = "mlflow.source.git.branch"
)

// TagDataContext is the tag of a dataset input that says what it was used for.
const TagDataContext = "mlflow.data.context"

// RunSpec describes a run to create.
type RunSpec struct {
	ExperimentID string    `json:"experiment_id"`
	Name         string    `json:"name"` // empty: one is made up
	User         string    `json:"user"`
	Start        time.Time `json:"start"`
	Tags         []Tag     `json:"tags,omitempty"`
}

// made reports whether run looks like what CreateRun makes of spec.
func (s RunSpec) made(run Run) bool {
	same := run.ExperimentID == s.ExperimentID && run.Name == s.Name && run.User == s.User && run.Status == Running && run.Start.UnixMilli() == millis(s.Start)
	for _, t := range s.Tags {
		same = same && run.Tags[t.Key] == t.Value
	}
	return same
}

func noSuchRun(spec RunSpec) error {
	return &APIError{Op: "find run", Code: codeNotFound, Message: fmt.Sprintf("no run %q started at %s", spec.Name, spec.Start)}
}

// Run is a run as the store knows it.
type Run struct {
	ID           string
	ExperimentID string
	Name         string
	User         string
	Status       Status
	Start, End   time.Time // End is zero while the run is running
	ArtifactURI  string
	Params       map[string]string
	Tags         map[string]string
	Metrics      map[string]Metric // the point with the highest step, time and value of each key
	Inputs       []DatasetInput
}

// Metric is one point of a metric. Times have millisecond resolution. A
// database or a server stores an infinite value as the largest float64.
type Metric struct {
	Key   string
	Value float64
	Time  time.Time
	Step  int64
}

// Param is a parameter. It can be written once.
type Param struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Tag is a tag. A later value replaces an earlier one.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Batch is what LogBatch records in one go.
type Batch struct {
	Metrics []Metric
	Params  []Param
	Tags    []Tag
}

// Empty reports whether there is nothing to record.
func (b Batch) Empty() bool { return len(b.Metrics)+len(b.Params)+len(b.Tags) == 0 }

// DatasetInput names a dataset and what it was used for.
type DatasetInput struct {
	Name       string `json:"name"`
	Digest     string `json:"digest"` // of the content; at most 36 characters are kept
	SourceType string `json:"source_type"`
	Source     string `json:"source"`            // JSON by convention, e.g. {"uri": "data/posts.csv"}
	Schema     string `json:"schema,omitempty"`  // JSON
	Profile    string `json:"profile,omitempty"` // JSON, e.g. {"num_rows": 42}
	Tags       []Tag  `json:"tags,omitempty"`    // TagDataContext: train, val or test
}

// FileInfo is an entry of an artifact folder.
type FileInfo struct {
	Path  string // from the top of the run's artifacts
	IsDir bool
	Size  int64 // bytes; 0 for folders
}

// Errors that a caller can act on. Test with errors.Is.
var (
	// ErrNotFound: the store has no such run, experiment or artifact.
	ErrNotFound = errors.New("mlflow: not found")
	// ErrRejected: the store understood the request and will never accept it,
	// so that sending it again is pointless. All other errors are worth
	// another try.
	ErrRejected = errors.New("mlflow: rejected")
	// ErrUnsafe: a server answered something that a reader must not follow: a
	// path out of the folder, a redirect to another host, too many bytes.
	ErrUnsafe = errors.New("mlflow: unsafe answer")
)

// Codes of MLflow that [APIError] carries.
const (
	codeNotFound = "RESOURCE_DOES_NOT_EXIST"
	codeExists   = "RESOURCE_ALREADY_EXISTS"
	codeInvalid  = "INVALID_PARAMETER_VALUE"
	codeState    = "INVALID_STATE"
)

// APIError is a request that a store refused.
type APIError struct {
	Op      string // what was asked for, e.g. "log batch"
	Status  int    // HTTP status; 0 if the store is not a server
	Code    string // MLflow's code; "" if the answer was not MLflow's
	Message string // what was wrong, and the remedy
}

func (e *APIError) Error() string {
	var b strings.Builder
	b.WriteString("mlflow: " + e.Op + ": ")
	if e.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d ", e.Status)
	}
	if e.Code != "" {
		b.WriteString(e.Code + " ")
	}
	return strings.TrimRight(b.String(), " ") + ": " + e.Message
}

// Is makes [ErrNotFound] and [ErrRejected] match.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Code == codeNotFound
	case ErrRejected:
		// A refusal is final if MLflow itself made it. 401 and 403 are not:
		// with the right credentials the same request will pass.
		return e.Code != "" && (e.Status == 0 || e.Status == 400 || e.Status == 404)
	}
	return false
}

// Options changes how [Open] opens a store. The zero value is ready to use.
type Options struct {
	// Getenv looks up MLFLOW_… variables; default os.Getenv.
	Getenv func(string) string
	// ArtifactRoot is where an SQLite store keeps the artifacts of experiments
	// that it creates; default ./mlruns, as MLflow. For a server it is the folder
	// on this machine below which the server may keep artifacts; default
	// MLFLOW_DEFAULT_ARTIFACT_ROOT or none.
	ArtifactRoot string
	// MaxRetries lowers how often a server is asked again; 0 means
	// MLFLOW_HTTP_REQUEST_MAX_RETRIES or 7, less than 0 never.
	MaxRetries int
	// Logger receives hints for the user; default: none.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Open opens the store that a tracking URI names and makes sure that it
// answers: sqlite:///relative.db or sqlite:////absolute.db (created with its
// tables if there is none), http://… or https://…, file:… or a plain folder.
func Open(ctx context.Context, uri string, opts Options) (Store, error) {
	opts = opts.withDefaults()
	scheme, rest, hasScheme := strings.Cut(uri, ":")
	switch {
	case uri == "":
		return nil, errors.New("mlflow: the tracking URI is empty (try sqlite:///mlflow.db)")
	case scheme == "databricks" || scheme == "databricks-uc" || scheme == "uc":
		return nil, fmt.Errorf("mlflow: tracking URI %q: Databricks is not supported (use sqlite:///mlflow.db or http://HOST:PORT; "+
			"for a folder of that name write ./%s)", redact.URL(uri), scheme)
	case !hasScheme || len(scheme) == 1: // a single letter is a Windows drive
		if looksLikeDatabase(uri) {
			return nil, fmt.Errorf("mlflow: tracking URI %q is a file: did you mean sqlite:///%s?",
				redact.URL(uri), filepath.ToSlash(redact.URL(uri)))
		}
		return openFiles(uri, false, opts)
	case scheme == "sqlite":
		return openSQLite(ctx, rest, opts)
	case scheme == "http", scheme == "https":
		return openREST(ctx, uri, opts)
	case scheme == "file":
		dir, err := pathOfFileURI(uri)
		if err != nil {
			return nil, err
		}
		return openFiles(dir, true, opts)
	}
	return nil, fmt.Errorf("mlflow: tracking URI %q: its scheme is not supported (use sqlite:///mlflow.db, "+
		"http://HOST:PORT or a folder; for another database start `mlflow server --backend-store-uri …` and give its address)",
		redact.URL(uri))
}

func looksLikeDatabase(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".db", ".sqlite", ".sqlite3":
		return true
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// pathOfFileURI returns the path that file:///abs, file:/abs or file:rel names.
func pathOfFileURI(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" {
		return "", fmt.Errorf("mlflow: %q is not a file: URI", redact.URL(uri))
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", fmt.Errorf("mlflow: %q names a host; a file: URI must be local (file:///absolute/path)", redact.URL(uri))
	}
	p := u.Path
	if u.Opaque != "" {
		if p, err = url.PathUnescape(u.Opaque); err != nil {
			return "", fmt.Errorf("mlflow: %q: %w", redact.URL(uri), err)
		}
	}
	if p == "" {
		return "", fmt.Errorf("mlflow: %q names no folder", redact.URL(uri))
	}
	return filepath.FromSlash(p), nil
}

// millis is a time as MLflow stores it; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
