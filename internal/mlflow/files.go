package mlflow

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria/internal/readfile"
)

// fileStore is the folder layout of MLflow's FileStore:
//
//	EXPERIMENT/meta.yaml
//	EXPERIMENT/RUN/meta.yaml
//	EXPERIMENT/RUN/{params,tags}/KEY      the bare value
//	EXPERIMENT/RUN/metrics/KEY            lines of "milliseconds value step"
//	EXPERIMENT/RUN/artifacts/…
//	EXPERIMENT/RUN/inputs/ID/meta.yaml
//	EXPERIMENT/datasets/ID/meta.yaml
type fileStore struct {
	uri  string
	base string // what locations begin with: an absolute path, or a file: URI if the tracking URI was one
	root *os.Root

	mu     sync.Mutex
	runs   map[string]string          // run ID → its folder
	points map[string]map[string]bool // metric file → its lines, so that none is written twice
}

const metaFile = "meta.yaml"

// maxMeta bounds files that are read whole: values and meta.yaml.
const maxMeta = 1 << 20

// maxMetricFile bounds the history of one metric (about 10 million points).
const maxMetricFile = 512 << 20

type experimentMeta struct {
	ArtifactLocation string `yaml:"artifact_location"`
	CreationTime     int64  `yaml:"creation_time"`
	ExperimentID     string `yaml:"experiment_id"`
	LastUpdateTime   int64  `yaml:"last_update_time"`
	LifecycleStage   string `yaml:"lifecycle_stage"`
	Name             string `yaml:"name"`
}

type runMeta struct {
	ArtifactURI    string   `yaml:"artifact_uri"`
	DeletedTime    *int64   `yaml:"deleted_time"`
	EndTime        *int64   `yaml:"end_time"`
	EntryPointName string   `yaml:"entry_point_name"`
	ExperimentID   string   `yaml:"experiment_id"`
	LifecycleStage string   `yaml:"lifecycle_stage"`
	RunID          string   `yaml:"run_id"`
	RunName        string   `yaml:"run_name"`
	RunUUID        string   `yaml:"run_uuid"` // MLflow 2.9 wants it
	SourceName     string   `yaml:"source_name"`
	SourceType     int      `yaml:"source_type"`
	SourceVersion  string   `yaml:"source_version"`
	StartTime      int64    `yaml:"start_time"`
	Status         int      `yaml:"status"`
	Tags           []string `yaml:"tags"`
	UserID         string   `yaml:"user_id"`
}

// fileStatus numbers the states as MLflow's protocol does.
var fileStatus = []Status{1: Running, 2: "SCHEDULED", 3: Finished, 4: Failed, 5: Killed}

func openFiles(dir string, asURI bool, opts Options) (Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(abs, ".trash"), 0o777); err != nil {
		return nil, fmt.Errorf("mlflow: open the file store %s: %w", dir, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("mlflow: open the file store %s: %w", dir, err)
	}
	s := &fileStore{uri: dir, base: filepath.ToSlash(abs), root: root, runs: map[string]string{}, points: map[string]map[string]bool{}}
	if asURI {
		s.uri = (&url.URL{Scheme: "file", Path: s.base}).String()
		s.base = s.uri
	}
	_, err = root.Stat("0/" + metaFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.createExperiment("0", "Default")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mlflow: open the file store %s: %w", dir, err), root.Close())
	}
	opts.Logger.Info("MLflow 3 opens a folder of runs only with MLFLOW_ALLOW_FILE_STORE=true; sqlite:///mlflow.db needs no switch", "tracking_uri", s.uri)
	return s, nil
}

func (s *fileStore) URI() string  { return s.uri }
func (s *fileStore) Close() error { return s.root.Close() }

func (s *fileStore) createExperiment(id, name string) error {
	now := time.Now().UnixMilli()
	return s.writeYAML(id+"/"+metaFile, experimentMeta{
		ArtifactLocation: s.base + "/" + id, CreationTime: now, ExperimentID: id, LastUpdateTime: now, LifecycleStage: "active", Name: name,
	})
}

func (s *fileStore) writeYAML(p string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return err
	}
	return writeAtomic(s.root, p, bytes.NewReader(b))
}

// readFile reads a small file; its size is bounded, as others write it too.
func (s *fileStore) readFile(p string, limit int64) ([]byte, error) {
	f, err := readfile.OpenIn(s.root, filepath.FromSlash(p))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", p, limit)
	}
	return b, err
}

func (s *fileStore) readYAML(p string, v any) error {
	b, err := s.readFile(p, maxMeta)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

// folders returns the names of the folders in p that hold a meta.yaml.
func (s *fileStore) folders(p string) ([]string, error) {
	f, err := s.root.Open(filepath.FromSlash(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if _, err := s.root.Stat(filepath.FromSlash(path.Join(p, e.Name(), metaFile))); err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s *fileStore) EnsureExperiment(_ context.Context, name string) (string, error) {
	if err := checkExperimentName(name); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ids, err := s.folders(".")
	if err != nil {
		return "", fmt.Errorf("mlflow: experiment %q: %w", name, err)
	}
	deleted, err := s.folders(".trash")
	if err != nil {
		return "", fmt.Errorf("mlflow: experiment %q: %w", name, err)
	}
	for i, dir := range append(ids, deleted...) {
		if i >= len(ids) {
			dir = ".trash/" + dir
		}
		var meta experimentMeta
		if err := s.readYAML(dir+"/"+metaFile, &meta); err != nil {
			return "", fmt.Errorf("mlflow: experiment %q: %w", name, err)
		}
		if meta.Name != name {
			continue
		}
		if meta.LifecycleStage == "deleted" || i >= len(ids) {
			return "", deletedExperiment(name, path.Base(dir))
		}
		return path.Base(dir), nil
	}
	id := strconv.FormatInt(100_000_000_000_000_000+randomInt(900_000_000_000_000_000), 10)
	if err := s.createExperiment(id, name); err != nil {
		return "", fmt.Errorf("mlflow: create experiment %q: %w", name, err)
	}
	return id, nil
}

func (s *fileStore) CreateRun(ctx context.Context, spec RunSpec) (Run, error) {
	spec, err := spec.prepare()
	if err != nil {
		return Run{}, err
	}
	var exp experimentMeta
	if !idForm.MatchString(spec.ExperimentID) {
		return Run{}, &APIError{Op: "create run", Code: codeInvalid, Message: fmt.Sprintf("%q is no experiment ID", spec.ExperimentID)}
	}
	if err := s.readYAML(spec.ExperimentID+"/"+metaFile, &exp); errors.Is(err, fs.ErrNotExist) {
		return Run{}, &APIError{Op: "create run", Code: codeNotFound, Message: fmt.Sprintf("there is no experiment %q", spec.ExperimentID)}
	} else if err != nil {
		return Run{}, fmt.Errorf("mlflow: create run: %w", err)
	}
	id := newID()
	meta := runMeta{
		ArtifactURI:  strings.TrimSuffix(exp.ArtifactLocation, "/") + "/" + id + "/artifacts",
		ExperimentID: spec.ExperimentID, LifecycleStage: "active", RunID: id, RunUUID: id, RunName: spec.Name,
		SourceType: 4, StartTime: millis(spec.Start), Status: slices.Index(fileStatus, Running), Tags: []string{}, UserID: spec.User,
	}
	if _, err := localFolder(meta.ArtifactURI); err != nil {
		return Run{}, err
	}
	dir := spec.ExperimentID + "/" + id
	for _, sub := range []string{"metrics", "params", "tags", "artifacts"} {
		if err := s.root.MkdirAll(filepath.FromSlash(dir+"/"+sub), 0o777); err != nil {
			return Run{}, fmt.Errorf("mlflow: create run: %w", err)
		}
	}
	if err := s.writeYAML(dir+"/"+metaFile, meta); err != nil {
		return Run{}, fmt.Errorf("mlflow: create run: %w", err)
	}
	if err := s.LogBatch(ctx, id, Batch{Tags: spec.Tags}); err != nil {
		return Run{}, err
	}
	return s.Run(ctx, id)
}

// idForm is what MLflow accepts as the ID of a run or an experiment.
var idForm = regexp.MustCompile(`^[a-zA-Z0-9][\w\-]{0,255}$`)

// find returns the folder of a run and its meta.yaml.
func (s *fileStore) find(op, runID string) (string, runMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var meta runMeta
	dir, ok := s.runs[runID]
	if !ok {
		experiments, err := s.folders(".")
		if err != nil {
			return "", meta, fmt.Errorf("mlflow: %s: %w", op, err)
		}
		for _, exp := range experiments {
			if !idForm.MatchString(runID) {
				break
			}
			if _, err := s.root.Stat(filepath.Join(exp, runID, metaFile)); err == nil {
				dir = exp + "/" + runID
			}
		}
		if dir == "" {
			return "", meta, &APIError{Op: op, Code: codeNotFound, Message: fmt.Sprintf("there is no run %q in %s", runID, s.uri)}
		}
		s.runs[runID] = dir
	}
	if err := s.readYAML(dir+"/"+metaFile, &meta); err != nil {
		return "", meta, fmt.Errorf("mlflow: %s: run %s: %w", op, runID, err)
	}
	return dir, meta, nil
}

// active is find for those who are going to write.
func (s *fileStore) active(op, runID string) (string, runMeta, error) {
	dir, meta, err := s.find(op, runID)
	if err == nil && meta.LifecycleStage == "deleted" {
		err = &APIError{Op: op, Code: codeInvalid, Message: fmt.Sprintf("run %s is deleted (`mlflow runs restore --run-id %s` brings it back)", runID, runID)}
	}
	return dir, meta, err
}

func (s *fileStore) LogBatch(_ context.Context, runID string, b Batch) error {
	b, err := b.prepare()
	if err != nil {
		return err
	}
	dir, _, err := s.active("log batch", runID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range b.Params {
		old, err := s.readFile(dir+"/params/"+p.Key, maxMeta)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = writeAtomic(s.root, dir+"/params/"+p.Key, strings.NewReader(p.Value))
		case err == nil && string(old) != p.Value:
			return paramConflict(p.Key, string(old), p.Value)
		}
		if err != nil {
			return fmt.Errorf("mlflow: log parameter %s: %w", p.Key, err)
		}
	}
	for _, t := range b.Tags {
		err := writeAtomic(s.root, dir+"/tags/"+t.Key, strings.NewReader(t.Value))
		if err == nil && t.Key == TagRunName {
			err = s.updateMeta(dir, map[string]any{"run_name": t.Value})
		}
		if err != nil {
			return fmt.Errorf("mlflow: set tag %s: %w", t.Key, err)
		}
	}
	lines := map[string][]string{}
	var keys []string
	for _, m := range b.Metrics {
		if lines[m.Key] == nil {
			keys = append(keys, m.Key)
		}
		lines[m.Key] = append(lines[m.Key], metricLine(m))
	}
	for _, key := range keys {
		if err := s.appendPoints(dir+"/metrics/"+key, lines[key]); err != nil {
			return fmt.Errorf("mlflow: log metric %s: %w", key, err)
		}
	}
	return nil
}

// metricLine is a point as MLflow writes it, without the newline.
func metricLine(m Metric) string {
	value := strconv.FormatFloat(m.Value, 'g', -1, 64)
	switch {
	case math.IsNaN(m.Value):
		value = "nan"
	case math.IsInf(m.Value, 0):
		value = strings.ToLower(strings.TrimPrefix(value, "+"))
	}
	return fmt.Sprintf("%d %s %d", millis(m.Time), value, m.Step)
}

// parseMetricLine reads "milliseconds value [step]"; very old stores have no step.
func parseMetricLine(key, line string) (Metric, error) {
	f := strings.Fields(line)
	if len(f) != 2 && len(f) != 3 {
		return Metric{}, fmt.Errorf("metric %s: line %q: want \"milliseconds value step\"", key, truncate(line, 60))
	}
	ms, err := strconv.ParseInt(f[0], 10, 64)
	m := Metric{Key: key, Time: fromMillis(ms)}
	if err == nil {
		m.Value, err = strconv.ParseFloat(f[1], 64)
	}
	if err == nil && len(f) == 3 {
		m.Step, err = strconv.ParseInt(f[2], 10, 64)
	}
	if err != nil {
		return Metric{}, fmt.Errorf("metric %s: line %q: %w", key, truncate(line, 60), err)
	}
	return m, nil
}

// appendPoints appends the lines that the file does not have yet. A half line
// that a crash left at its end is dropped.
func (s *fileStore) appendPoints(p string, lines []string) error {
	known := s.points[p]
	if known == nil {
		known = map[string]bool{}
		old, err := s.readFile(p, maxMetricFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if end := bytes.LastIndexByte(old, '\n') + 1; end < len(old) {
			if err := s.truncate(p, int64(end)); err != nil {
				return err
			}
			old = old[:end]
		}
		for line := range strings.Lines(string(old)) {
			known[strings.TrimRight(line, "\r\n")] = true
		}
	}
	var buf bytes.Buffer
	for _, line := range lines {
		if !known[line] {
			known[line] = true
			buf.WriteString(line + "\n")
		}
	}
	// If writing fails, what is in the file has to be looked at again.
	delete(s.points, p)
	if dir := path.Dir(p); strings.Count(dir, "/") > 2 {
		if err := s.root.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
			return err
		}
	}
	f, err := s.root.OpenFile(filepath.FromSlash(p), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(buf.Bytes())
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.points[p] = known
	return nil
}

func (s *fileStore) truncate(p string, size int64) error {
	f, err := s.root.OpenFile(filepath.FromSlash(p), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// updateMeta changes keys of a run's meta.yaml and keeps those it does not know.
func (s *fileStore) updateMeta(dir string, values map[string]any) error {
	meta := map[string]any{}
	if err := s.readYAML(dir+"/"+metaFile, &meta); err != nil {
		return err
	}
	for k, v := range values {
		meta[k] = v
	}
	return s.writeYAML(dir+"/"+metaFile, meta)
}

func (s *fileStore) LogInputs(_ context.Context, runID string, inputs []DatasetInput) error {
	inputs, err := prepareInputs(inputs)
	if err != nil || len(inputs) == 0 {
		return err
	}
	dir, meta, err := s.active("log inputs", runID)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range inputs {
		// The names of the folders are MLflow's: hashes, not secrets.
		dataset := hexMD5(in.Name + in.Digest)
		input := hexMD5(dataset + runID)
		datasetFile := meta.ExperimentID + "/datasets/" + dataset + "/" + metaFile
		inputFile := dir + "/inputs/" + input + "/" + metaFile
		tags := map[string]string{}
		for _, t := range in.Tags {
			tags[t.Key] = t.Value
		}
		err := s.writeNew(datasetFile, fileDataset{in.Digest, in.Name, in.Profile, in.Schema, in.Source, in.SourceType})
		if err == nil {
			err = s.writeNew(inputFile, fileInput{dataset, "RUN", dataset, "DATASET", tags})
		}
		if err != nil {
			return fmt.Errorf("mlflow: log input %s: %w", in.Name, err)
		}
	}
	return nil
}

type fileDataset struct {
	Digest     string `yaml:"digest"`
	Name       string `yaml:"name"`
	Profile    string `yaml:"profile"`
	Schema     string `yaml:"schema"`
	Source     string `yaml:"source"`
	SourceType string `yaml:"source_type"`
}

type fileInput struct {
	DestinationID   string            `yaml:"destination_id"` // MLflow writes the source's ID here
	DestinationType string            `yaml:"destination_type"`
	SourceID        string            `yaml:"source_id"`
	SourceType      string            `yaml:"source_type"`
	Tags            map[string]string `yaml:"tags"`
}

func (s *fileStore) writeNew(p string, v any) error {
	if _, err := s.root.Stat(filepath.FromSlash(p)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.writeYAML(p, v)
}

func hexMD5(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (s *fileStore) UpdateRun(_ context.Context, runID string, status Status, end time.Time) error {
	dir, _, err := s.active("update run", runID)
	if err != nil {
		return err
	}
	values := map[string]any{"status": slices.Index(fileStatus, status), "end_time": nil}
	if !end.IsZero() {
		values["end_time"] = millis(end)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.updateMeta(dir, values); err != nil {
		return fmt.Errorf("mlflow: update run %s: %w", runID, err)
	}
	if !end.IsZero() { // nothing more will come, most likely
		maps.DeleteFunc(s.points, func(p string, _ map[string]bool) bool { return strings.HasPrefix(p, dir+"/") })
	}
	return nil
}

func (s *fileStore) Run(_ context.Context, runID string) (Run, error) {
	dir, meta, err := s.find("read run", runID)
	if err != nil {
		return Run{}, err
	}
	run := Run{
		ID: runID, ExperimentID: meta.ExperimentID, Name: meta.RunName, User: meta.UserID, ArtifactURI: meta.ArtifactURI,
		Start: fromMillis(meta.StartTime), Params: map[string]string{}, Tags: map[string]string{}, Metrics: map[string]Metric{},
	}
	if meta.Status > 0 && meta.Status < len(fileStatus) {
		run.Status = fileStatus[meta.Status]
	}
	if meta.EndTime != nil {
		run.End = fromMillis(*meta.EndTime)
	}
	read := func(folder string, into map[string]string) error {
		return s.keys(dir+"/"+folder, func(key string) error {
			b, err := s.readFile(dir+"/"+folder+"/"+key, maxMeta)
			into[key] = string(b)
			return err
		})
	}
	err = errors.Join(read("params", run.Params), read("tags", run.Tags))
	if err == nil {
		err = s.keys(dir+"/metrics", func(key string) error {
			points, err := s.history(dir, key)
			if len(points) > 0 {
				run.Metrics[key] = slices.MaxFunc(points, compareMetrics)
			}
			return err
		})
	}
	if err == nil {
		run.Inputs, err = s.inputs(dir, meta.ExperimentID)
	}
	if err != nil {
		return Run{}, fmt.Errorf("mlflow: read run %s: %w", runID, err)
	}
	run.Name = cmp.Or(run.Name, run.Tags[TagRunName])
	return run, nil
}

// compareMetrics orders points as MLflow does to find the last one.
func compareMetrics(a, b Metric) int {
	return cmp.Or(cmp.Compare(a.Step, b.Step), a.Time.Compare(b.Time), cmp.Compare(a.Value, b.Value))
}

// keys calls visit for every file below dir; a key may contain slashes.
func (s *fileStore) keys(dir string, visit func(key string) error) error {
	return fs.WalkDir(s.root.FS(), dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), tempPrefix) {
			return err
		}
		return visit(strings.TrimPrefix(p, dir+"/"))
	})
}

func (s *fileStore) history(dir, key string) ([]Metric, error) {
	b, err := s.readFile(dir+"/metrics/"+key, maxMetricFile)
	if err != nil {
		return nil, err
	}
	return parseMetrics(key, b)
}

func parseMetrics(key string, b []byte) ([]Metric, error) {
	var out []Metric
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		m, err := parseMetricLine(key, strings.TrimRight(line, "\r\n"))
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func (s *fileStore) inputs(dir, experiment string) ([]DatasetInput, error) {
	ids, err := s.folders(dir + "/inputs")
	if err != nil {
		return nil, err
	}
	var out []DatasetInput
	for _, id := range ids {
		var in fileInput
		if err := s.readYAML(dir+"/inputs/"+id+"/"+metaFile, &in); err != nil {
			return nil, err
		}
		if in.SourceType != "DATASET" || !idForm.MatchString(in.SourceID) || !idForm.MatchString(experiment) {
			continue
		}
		var d fileDataset
		if err := s.readYAML(experiment+"/datasets/"+in.SourceID+"/"+metaFile, &d); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		input := DatasetInput{Name: d.Name, Digest: d.Digest, SourceType: d.SourceType, Source: d.Source, Schema: d.Schema, Profile: d.Profile}
		for k, v := range in.Tags {
			input.Tags = append(input.Tags, Tag{k, v})
		}
		slices.SortFunc(input.Tags, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
		out = append(out, input)
	}
	return out, nil
}

func (s *fileStore) MetricHistory(_ context.Context, runID, key string) ([]Metric, error) {
	if err := ValidKey(key); err != nil {
		return nil, err
	}
	dir, _, err := s.find("read metric", runID)
	if err != nil {
		return nil, err
	}
	points, err := s.history(dir, key)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("mlflow: read metric %s of run %s: %w", key, runID, err)
	}
	slices.SortStableFunc(points, compareMetrics)
	return points, nil
}

func (s *fileStore) SearchRuns(ctx context.Context, experimentID string, tag Tag) ([]Run, error) {
	if ValidKey(tag.Key) != nil {
		return nil, invalid("search runs", fmt.Sprintf("tag %q", tag.Key))
	}
	return s.runsWhere(ctx, experimentID, func(meta runMeta) bool {
		value, err := s.readFile(experimentID+"/"+meta.RunID+"/tags/"+tag.Key, maxMeta)
		return err == nil && string(value) == tag.Value
	})
}

func (s *fileStore) FindRun(ctx context.Context, spec RunSpec) (Run, error) {
	spec, err := spec.prepare()
	if err != nil {
		return Run{}, err
	}
	runs, err := s.runsWhere(ctx, spec.ExperimentID, func(meta runMeta) bool { return meta.StartTime == millis(spec.Start) })
	if err != nil {
		return Run{}, err
	}
	if i := slices.IndexFunc(runs, spec.made); i >= 0 {
		return runs[i], nil
	}
	return Run{}, noSuchRun(spec)
}

// runsWhere returns the active runs that fit, oldest first.
func (s *fileStore) runsWhere(ctx context.Context, experimentID string, fits func(runMeta) bool) ([]Run, error) {
	if !idForm.MatchString(experimentID) {
		return nil, invalid("search runs", fmt.Sprintf("%q is no experiment ID", experimentID))
	}
	ids, err := s.folders(experimentID)
	if err != nil {
		return nil, fmt.Errorf("mlflow: search runs: %w", err)
	}
	var out []Run
	for _, id := range ids {
		var meta runMeta
		if err := s.readYAML(experimentID+"/"+id+"/"+metaFile, &meta); err != nil {
			return nil, fmt.Errorf("mlflow: search runs: %w", err)
		}
		if meta.RunID != id || meta.LifecycleStage == "deleted" || !fits(meta) {
			continue
		}
		run, err := s.Run(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, run)
	}
	slices.SortFunc(out, func(a, b Run) int { return cmp.Or(a.Start.Compare(b.Start), strings.Compare(a.ID, b.ID)) })
	return out, nil
}

func (s *fileStore) PutArtifact(ctx context.Context, run Run, path string, content *io.SectionReader) error {
	return putLocal(ctx, run.ArtifactURI, path, content)
}

func (s *fileStore) ListArtifacts(_ context.Context, run Run, path string) ([]FileInfo, error) {
	return listLocal(run.ArtifactURI, path)
}

func (s *fileStore) OpenArtifact(_ context.Context, run Run, path string) (io.ReadCloser, error) {
	return openLocal(run.ArtifactURI, path)
}
