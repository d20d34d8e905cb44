package mlflow

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/criteria-go/criteria/internal/redact"
	"github.com/criteria-go/criteria/internal/sqldriver"
)

//go:embed schema.sql
var schemaSQL string

// sqliteColumns are the columns that this store reads and writes. They are the
// same in every MLflow from 2.4 on; which revision a file has is not asked.
var sqliteColumns = map[string][]string{
	"experiments":    {"experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time"},
	"runs":           {"run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time", "end_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id", "deleted_time"},
	"params":         {"key", "value", "run_uuid"},
	"tags":           {"key", "value", "run_uuid"},
	"metrics":        {"key", "value", "timestamp", "run_uuid", "step", "is_nan"},
	"latest_metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
	"datasets":       {"dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source", "dataset_schema", "dataset_profile"},
	"inputs":         {"input_uuid", "source_type", "source_id", "destination_type", "destination_id"},
	"input_tags":     {"input_uuid", "name", "value"},
}

type sqliteStore struct {
	uri          string
	path         string
	artifactRoot string // absolute
	db           *sql.DB
	workspaces   bool // experiments are unique per workspace (MLflow 3.x)
}

// openSQLite opens the database of sqlite:rest. MLflow keeps a relative path
// relative to the working directory, and so does this.
func openSQLite(ctx context.Context, rest string, opts Options) (Store, error) {
	path, ok := strings.CutPrefix(rest, "///")
	path, _, _ = strings.Cut(path, "?")
	if !ok || path == "" {
		return nil, fmt.Errorf("mlflow: tracking URI %q: write sqlite:///relative.db or sqlite:////absolute.db", redact.URL("sqlite:"+rest))
	}
	path, err := filepath.Abs(filepath.FromSlash(path))
	if err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	root := opts.ArtifactRoot
	if root == "" {
		root = "mlruns"
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, fmt.Errorf("mlflow: open sqlite:%s: %w", rest, err)
	}
	// As MLflow: wait 20 s for a lock, check foreign keys, leave the journal
	// mode alone. Transactions take the write lock when they begin, because
	// one that reads first and is then refused the lock cannot wait for it.
	query := url.Values{"_pragma": {"busy_timeout(20000)", "foreign_keys(1)"}, "_txlock": {"immediate"}}
	if err := sqldriver.Check("sqlite", "sqlite"); err != nil {
		return nil, fmt.Errorf("mlflow: open sqlite:%s: %w", rest, err)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath(), RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("mlflow: open sqlite:%s: %w", rest, err)
	}
	// One connection: writers of one process queue here, fairly, instead of
	// polling for the lock of the file.
	db.SetMaxOpenConns(1)
	s := &sqliteStore{uri: redact.URL("sqlite:" + rest), path: path, artifactRoot: root, db: db}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *sqliteStore) URI() string  { return s.uri }
func (s *sqliteStore) Close() error { return s.db.Close() }

// prepare creates the tables in an empty file and checks them in any other.
func (s *sqliteStore) prepare(ctx context.Context) error {
	tables, err := s.tables(ctx, s.db)
	if err == nil && len(tables) == 0 {
		err = s.write(ctx, "create the database", func(tx *sql.Tx) error {
			// Another process may have been faster.
			if tables, err := s.tables(ctx, tx); err != nil || len(tables) > 0 {
				return err
			}
			if _, err := tx.ExecContext(ctx, schemaSQL); err != nil {
				return err
			}
			now := time.Now().UnixMilli()
			_, err := tx.ExecContext(ctx, `INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time)
				VALUES (0, 'Default', ?, 'active', ?, ?)`, s.location(0), now, now)
			return err
		})
	}
	if err == nil {
		err = s.checkTables(ctx)
	}
	if err != nil {
		return fmt.Errorf("mlflow: open %s: %w", s.uri, err)
	}
	return nil
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (s *sqliteStore) tables(ctx context.Context, q querier) ([]string, error) {
	var names []string
	err := each(ctx, q, func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		names = append(names, name)
		return err
	}, "SELECT name FROM sqlite_master WHERE type = 'table'")
	return names, err
}

// each runs a query and calls row for every row of the answer.
func each(ctx context.Context, q querier, row func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// checkTables compares the tables of the file with what this store needs. It
// never migrates: that is MLflow's business.
func (s *sqliteStore) checkTables(ctx context.Context) error {
	var problems []string
	found := map[string]bool{}
	for table, want := range sqliteColumns {
		have := map[string]bool{}
		err := each(ctx, s.db, func(scan func(...any) error) error {
			var name string
			var notNull, pk int
			var dflt sql.NullString
			if err := scan(&name, &notNull, &dflt, &pk); err != nil {
				return err
			}
			have[name], found[table+"."+name] = true, true
			if notNull == 1 && !dflt.Valid && pk == 0 && !slices.Contains(want, name) {
				problems = append(problems, fmt.Sprintf("column %s.%s is unknown and must be set", table, name))
			}
			return nil
		}, `SELECT name, "notnull", dflt_value, pk FROM pragma_table_info(?)`, table)
		if err != nil {
			return err
		}
		for _, name := range want {
			if len(have) == 0 {
				problems = append(problems, fmt.Sprintf("table %s is missing", table))
				break
			} else if !have[name] {
				problems = append(problems, fmt.Sprintf("column %s.%s is missing", table, name))
			}
		}
	}
	s.workspaces = found["experiments.workspace"]
	if len(problems) == 0 {
		return nil
	}
	slices.Sort(problems)
	revision := "none"
	_ = s.db.QueryRowContext(ctx, "SELECT version_num FROM alembic_version").Scan(&revision) // the table may be missing
	return &APIError{Op: "check the database", Code: codeState, Message: fmt.Sprintf(
		"%s (schema revision %s): make a backup and run `mlflow db upgrade %s`, or choose another file",
		strings.Join(problems[:min(len(problems), 3)], ", "), revision, s.uri)}
}

// write runs fn in one transaction. It begins again when another process held
// the lock for longer than the timeout of SQLite.
func (s *sqliteStore) write(ctx context.Context, op string, fn func(*sql.Tx) error) error {
	for attempt := 0; ; attempt++ {
		err := s.writeOnce(ctx, fn)
		var api *APIError
		var lite interface {
			error
			Code() int
		}
		switch {
		case err == nil || errors.As(err, &api):
			return err
		case errors.As(err, &lite) && isBusy(lite.Code()) && attempt < 2 && ctx.Err() == nil:
			continue
		case errors.As(err, &lite) && isBusy(lite.Code()):
			return fmt.Errorf("mlflow: %s: another process has held %s locked for a minute: %w", op, s.path, err)
		}
		return fmt.Errorf("mlflow: %s in %s: %w", op, s.path, err)
	}
}

func (s *sqliteStore) writeOnce(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		_ = tx.Rollback() // the first error counts
		return err
	}
	return tx.Commit()
}

// isBusy reports SQLITE_BUSY (5) and SQLITE_LOCKED (6), extended or not.
func isBusy(code int) bool { return code&0xff == 5 || code&0xff == 6 }

func (s *sqliteStore) location(experiment int64) string {
	return filepath.ToSlash(s.artifactRoot) + fmt.Sprintf("/%d", experiment)
}

func (s *sqliteStore) EnsureExperiment(ctx context.Context, name string) (string, error) {
	if err := checkExperimentName(name); err != nil {
		return "", err
	}
	var id int64
	find := func(q interface {
		QueryRowContext(context.Context, string, ...any) *sql.Row
	}) error {
		query := "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?"
		if s.workspaces {
			query += " AND workspace = 'default'"
		}
		var stage sql.NullString
		if err := q.QueryRowContext(ctx, query, name).Scan(&id, &stage); err != nil {
			return err
		}
		if stage.String == "deleted" {
			return deletedExperiment(name, fmt.Sprint(id))
		}
		return nil
	}
	err := find(s.db)
	if errors.Is(err, sql.ErrNoRows) {
		err = s.write(ctx, "create experiment", func(tx *sql.Tx) error {
			if err := find(tx); !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			now := time.Now().UnixMilli()
			res, err := tx.ExecContext(ctx, `INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)
				VALUES (?, '', 'active', ?, ?)`, name, now, now)
			if err != nil {
				return err
			}
			if id, err = res.LastInsertId(); err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", s.location(id), id)
			return err
		})
	}
	var api *APIError
	if err != nil && !errors.As(err, &api) {
		return "", fmt.Errorf("mlflow: experiment %q: %w", name, err)
	}
	return fmt.Sprint(id), err
}

func checkExperimentName(name string) error {
	if name == "" || len([]rune(name)) > maxExperimentName {
		return invalid("find experiment", fmt.Sprintf("the name %q must have 1 to %d characters", truncate(name, 40), maxExperimentName))
	}
	return nil
}

func deletedExperiment(name, id string) error {
	return &APIError{Op: "find experiment", Code: codeState, Message: fmt.Sprintf(
		"experiment %q was deleted: bring it back with `mlflow experiments restore --experiment-id %s`, or choose another name", name, id)}
}

func (s *sqliteStore) CreateRun(ctx context.Context, spec RunSpec) (Run, error) {
	spec, err := spec.prepare()
	if err != nil {
		return Run{}, err
	}
	run := Run{ID: newID(), ExperimentID: spec.ExperimentID, Name: spec.Name, User: spec.User, Status: Running, Start: fromMillis(millis(spec.Start)), Tags: tagMap(spec.Tags)}
	err = s.write(ctx, "create run", func(tx *sql.Tx) error {
		var location, stage string
		err := tx.QueryRowContext(ctx, "SELECT COALESCE(artifact_location, ''), lifecycle_stage FROM experiments WHERE experiment_id = ?", spec.ExperimentID).Scan(&location, &stage)
		if errors.Is(err, sql.ErrNoRows) {
			return &APIError{Op: "create run", Code: codeNotFound, Message: fmt.Sprintf("there is no experiment %q", spec.ExperimentID)}
		} else if err != nil {
			return err
		}
		if stage != "active" {
			return &APIError{Op: "create run", Code: codeState, Message: fmt.Sprintf("experiment %s is %s", spec.ExperimentID, stage)}
		}
		run.ArtifactURI = strings.TrimSuffix(location, "/") + "/" + run.ID + "/artifacts"
		if _, err := localFolder(run.ArtifactURI); err != nil {
			return err // now, not when the first artifact has been paid for
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
				start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id, deleted_time)
			VALUES (?, ?, 'UNKNOWN', '', '', ?, ?, ?, NULL, '', 'active', ?, ?, NULL)`,
			run.ID, run.Name, run.User, string(run.Status), millis(spec.Start), run.ArtifactURI, spec.ExperimentID)
		if err != nil {
			return err
		}
		return s.setTags(ctx, tx, run.ID, spec.Tags)
	})
	if err != nil {
		return Run{}, err
	}
	return run, nil
}

func (s *sqliteStore) FindRun(ctx context.Context, spec RunSpec) (Run, error) {
	spec, err := spec.prepare()
	if err != nil {
		return Run{}, err
	}
	runs, err := s.runs(ctx, "SELECT run_uuid FROM runs WHERE experiment_id = ? AND start_time = ? AND lifecycle_stage = 'active'", spec.ExperimentID, millis(spec.Start))
	if err != nil {
		return Run{}, err
	}
	if i := slices.IndexFunc(runs, spec.made); i >= 0 {
		return runs[i], nil
	}
	return Run{}, noSuchRun(spec)
}

func (s *sqliteStore) setTags(ctx context.Context, tx *sql.Tx, runID string, tags []Tag) error {
	for _, t := range tags {
		if _, err := tx.ExecContext(ctx, `INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)
			ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value`, t.Key, t.Value, runID); err != nil {
			return err
		}
		if t.Key == TagRunName { // the two must not part
			if _, err := tx.ExecContext(ctx, "UPDATE runs SET name = ? WHERE run_uuid = ?", t.Value, runID); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkActive returns an error unless the run exists and is not deleted.
func (s *sqliteStore) checkActive(ctx context.Context, tx *sql.Tx, op, runID string) error {
	var stage string
	err := tx.QueryRowContext(ctx, "SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", runID).Scan(&stage)
	if errors.Is(err, sql.ErrNoRows) {
		return s.noRun(op, runID)
	}
	if err == nil && stage != "active" {
		return &APIError{Op: op, Code: codeInvalid, Message: fmt.Sprintf("run %s is %s (`mlflow runs restore --run-id %s` brings it back)", runID, stage, runID)}
	}
	return err
}

func (s *sqliteStore) noRun(op, runID string) error {
	return &APIError{Op: op, Code: codeNotFound, Message: fmt.Sprintf("there is no run %q in %s", runID, s.uri)}
}

func (s *sqliteStore) LogBatch(ctx context.Context, runID string, b Batch) error {
	b, err := b.prepare()
	if err != nil {
		return err
	}
	for _, part := range b.split() {
		err := s.write(ctx, "log batch", func(tx *sql.Tx) error {
			if err := s.checkActive(ctx, tx, "log batch", runID); err != nil {
				return err
			}
			for _, p := range part.Params {
				if err := s.logParam(ctx, tx, runID, p); err != nil {
					return err
				}
			}
			if err := s.setTags(ctx, tx, runID, part.Tags); err != nil {
				return err
			}
			return s.logMetrics(ctx, tx, runID, part.Metrics)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *sqliteStore) logParam(ctx context.Context, tx *sql.Tx, runID string, p Param) error {
	res, err := tx.ExecContext(ctx, "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?) ON CONFLICT (key, run_uuid) DO NOTHING", p.Key, p.Value, runID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	var old string
	if err := tx.QueryRowContext(ctx, "SELECT value FROM params WHERE key = ? AND run_uuid = ?", p.Key, runID).Scan(&old); err != nil {
		return err
	}
	if old != p.Value {
		return paramConflict(p.Key, old, p.Value)
	}
	return nil
}

func (s *sqliteStore) logMetrics(ctx context.Context, tx *sql.Tx, runID string, metrics []Metric) error {
	if len(metrics) == 0 {
		return nil
	}
	point, err := tx.PrepareContext(ctx, `INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`)
	if err != nil {
		return err
	}
	defer point.Close()
	// MLflow's clients and pages read the last value from its own table only.
	latest, err := tx.PrepareContext(ctx, `INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
		WHERE (excluded.step, excluded.timestamp, excluded.value) > (latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)`)
	if err != nil {
		return err
	}
	defer latest.Close()
	for _, m := range metrics {
		value, isNaN := sqlValue(m.Value)
		for _, stmt := range []*sql.Stmt{point, latest} {
			if _, err := stmt.ExecContext(ctx, m.Key, value, millis(m.Time), runID, m.Step, isNaN); err != nil {
				return err
			}
		}
	}
	return nil
}

// sqlValue is a metric value as MLflow's tables hold it.
func sqlValue(v float64) (value float64, isNaN int) {
	switch {
	case math.IsNaN(v):
		return 0, 1
	case math.IsInf(v, 0):
		return math.Copysign(math.MaxFloat64, v), 0
	}
	return v, 0
}

func (s *sqliteStore) LogInputs(ctx context.Context, runID string, inputs []DatasetInput) error {
	inputs, err := prepareInputs(inputs)
	if err != nil || len(inputs) == 0 {
		return err
	}
	return s.write(ctx, "log inputs", func(tx *sql.Tx) error {
		if err := s.checkActive(ctx, tx, "log inputs", runID); err != nil {
			return err
		}
		var experiment int64
		if err := tx.QueryRowContext(ctx, "SELECT experiment_id FROM runs WHERE run_uuid = ?", runID).Scan(&experiment); err != nil {
			return err
		}
		for _, in := range inputs {
			if err := s.logInput(ctx, tx, runID, experiment, in); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *sqliteStore) logInput(ctx context.Context, tx *sql.Tx, runID string, experiment int64, in DatasetInput) error {
	dataset, input := newID(), newID()
	if _, err := tx.ExecContext(ctx, `INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (experiment_id, name, digest) DO NOTHING`,
		dataset, experiment, in.Name, in.Digest, in.SourceType, in.Source, orNull(in.Schema), orNull(in.Profile)); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?", experiment, in.Name, in.Digest).Scan(&dataset); err != nil {
		return err
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)
		VALUES (?, 'DATASET', ?, 'RUN', ?) ON CONFLICT (source_type, source_id, destination_type, destination_id) DO NOTHING`, input, dataset, runID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err // known already, with its tags
	}
	for _, t := range in.Tags {
		if _, err := tx.ExecContext(ctx, "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?)", input, truncate(t.Key, 255), truncate(t.Value, 500)); err != nil {
			return err
		}
	}
	return nil
}

func orNull(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

func (s *sqliteStore) UpdateRun(ctx context.Context, runID string, status Status, end time.Time) error {
	return s.write(ctx, "update run", func(tx *sql.Tx) error {
		if err := s.checkActive(ctx, tx, "update run", runID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", string(status), sql.NullInt64{Int64: millis(end), Valid: !end.IsZero()}, runID)
		return err
	})
}

func (s *sqliteStore) Run(ctx context.Context, runID string) (Run, error) {
	run, err := s.readRun(ctx, runID)
	var api *APIError
	if err != nil && !errors.As(err, &api) {
		return Run{}, fmt.Errorf("mlflow: read run %s from %s: %w", runID, s.path, err)
	}
	return run, err
}

func (s *sqliteStore) readRun(ctx context.Context, runID string) (Run, error) {
	run := Run{ID: runID, Params: map[string]string{}, Tags: map[string]string{}, Metrics: map[string]Metric{}}
	var start, end sql.NullInt64
	var name, user, status, uri sql.NullString
	err := s.db.QueryRowContext(ctx, "SELECT experiment_id, name, user_id, status, start_time, end_time, artifact_uri FROM runs WHERE run_uuid = ?", runID).
		Scan(&run.ExperimentID, &name, &user, &status, &start, &end, &uri)
	if errors.Is(err, sql.ErrNoRows) {
		return Run{}, s.noRun("read run", runID)
	} else if err != nil {
		return Run{}, err
	}
	run.Name, run.User, run.Status, run.ArtifactURI = name.String, user.String, Status(status.String), uri.String
	run.Start, run.End = fromMillis(start.Int64), fromMillis(end.Int64)
	pairs := func(into map[string]string, table string) error {
		return each(ctx, s.db, func(scan func(...any) error) error {
			var key string
			var value sql.NullString
			err := scan(&key, &value)
			into[key] = value.String
			return err
		}, "SELECT key, value FROM "+table+" WHERE run_uuid = ?", runID)
	}
	if err := errors.Join(pairs(run.Params, "params"), pairs(run.Tags, "tags")); err != nil {
		return Run{}, err
	}
	err = each(ctx, s.db, func(scan func(...any) error) error {
		m, err := scanMetric(scan)
		run.Metrics[m.Key] = m
		return err
	}, "SELECT key, value, timestamp, step, is_nan FROM latest_metrics WHERE run_uuid = ?", runID)
	if err != nil {
		return Run{}, err
	}
	index := map[string]int{}
	err = each(ctx, s.db, func(scan func(...any) error) error {
		var in DatasetInput
		var id string
		var schema, profile, key, value sql.NullString
		if err := scan(&id, &in.Name, &in.Digest, &in.SourceType, &in.Source, &schema, &profile, &key, &value); err != nil {
			return err
		}
		i, ok := index[id]
		if !ok {
			i = len(run.Inputs)
			index[id] = i
			in.Schema, in.Profile = schema.String, profile.String
			run.Inputs = append(run.Inputs, in)
		}
		if key.Valid {
			run.Inputs[i].Tags = append(run.Inputs[i].Tags, Tag{key.String, value.String})
		}
		return nil
	}, `SELECT i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, d.dataset_schema, d.dataset_profile, t.name, t.value
		FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid
		WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = ? ORDER BY i.rowid, t.rowid`, runID)
	return run, err
}

func scanMetric(scan func(...any) error) (Metric, error) {
	var m Metric
	var ms sql.NullInt64
	var isNaN bool
	err := scan(&m.Key, &m.Value, &ms, &m.Step, &isNaN)
	if isNaN {
		m.Value = math.NaN()
	}
	m.Time = fromMillis(ms.Int64)
	return m, err
}

func (s *sqliteStore) MetricHistory(ctx context.Context, runID, key string) ([]Metric, error) {
	var out []Metric
	err := each(ctx, s.db, func(scan func(...any) error) error {
		m, err := scanMetric(scan)
		out = append(out, m)
		return err
	}, "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step, timestamp, value", runID, key)
	if err != nil {
		return nil, fmt.Errorf("mlflow: read metric %s of run %s: %w", key, runID, err)
	}
	return out, nil
}

func (s *sqliteStore) SearchRuns(ctx context.Context, experimentID string, tag Tag) ([]Run, error) {
	return s.runs(ctx, `SELECT r.run_uuid FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
		WHERE r.experiment_id = ? AND r.lifecycle_stage = 'active' AND t.key = ? AND t.value = ? ORDER BY r.start_time, r.run_uuid`,
		experimentID, tag.Key, tag.Value)
}

// runs reads the runs whose IDs a query selects.
func (s *sqliteStore) runs(ctx context.Context, query string, args ...any) ([]Run, error) {
	var ids []string
	err := each(ctx, s.db, func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("mlflow: search runs in %s: %w", s.path, err)
	}
	var out []Run
	for _, id := range ids {
		run, err := s.Run(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, run)
	}
	return out, nil
}

func (s *sqliteStore) PutArtifact(ctx context.Context, run Run, path string, content *io.SectionReader) error {
	return putLocal(ctx, run.ArtifactURI, path, content)
}

func (s *sqliteStore) ListArtifacts(_ context.Context, run Run, path string) ([]FileInfo, error) {
	return listLocal(run.ArtifactURI, path)
}

func (s *sqliteStore) OpenArtifact(_ context.Context, run Run, path string) (io.ReadCloser, error) {
	return openLocal(run.ArtifactURI, path)
}

func tagMap(tags []Tag) map[string]string {
	out := make(map[string]string, len(tags))
	for _, t := range tags {
		out[t.Key] = t.Value
	}
	return out
}
