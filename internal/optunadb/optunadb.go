// Package optunadb keeps studies in a database with the tables of Optuna's own
// RDBStorage, so that workers in Go and in Python, optuna-dashboard and the optuna
// command line share them. It is a [study.Storage] for SQLite, PostgreSQL and
// MySQL.
//
// SQLite serves the workers of one machine. Its file must lie on a local disk:
// network file systems do not keep its locks.
package optunadb

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/criteria-go/criteria/internal/redact"
	"github.com/criteria-go/criteria/internal/study"
)

// schemaVersion is the revision of Optuna's tables that this package knows:
// Optuna's since 3.2.
const schemaVersion = "v3.2.0.a"

// schemaSQL has Optuna's tables of that revision, with {braces} around what each
// database calls differently.
//
//go:embed schema.sql
var schemaSQL string

// Options configure a DB.
type Options struct {
	// RetryFor is how long an operation is tried again while the database is
	// away or busy. Default 5 min, which survives its restart.
	RetryFor time.Duration
	// Logger defaults to none.
	Logger *slog.Logger
}

// DB is a database of studies. It is safe for concurrent use.
type DB struct {
	*dialect
	url      string // without password
	db       *sql.DB
	retryFor time.Duration
	log      *slog.Logger

	mu    sync.Mutex
	ended map[int]map[int]study.FrozenTrial // study → trial: those that change no more
}

var _ study.Storage = (*DB)(nil)

// SchemaError says that a database holds other tables than this package knows.
type SchemaError struct {
	URL         string
	Found, Want string // revisions of Optuna's tables
}

// Error implements error.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("optunadb: %s: the tables have revision %q, want %q: give the study a database of its own, or run "+
		"`optuna storage upgrade` with an Optuna of version 3.2 or later", e.URL, e.Found, e.Want)
}

// Check reports what is wrong with the URL of a storage. It opens nothing.
func Check(rawURL string) error {
	if _, err := parse(rawURL); err != nil {
		return fmt.Errorf("optunadb: storage %q: %w", redact.URL(rawURL), err)
	}
	return nil
}

// Open opens the database of a URL as Optuna takes it, such as
// sqlite:///optuna.db, sqlite:////absolute/optuna.db, sqlite:// (in memory),
// postgresql://user:password@host/database or mysql://user:password@host/database.
// It creates the tables if there are none; others than Optuna's are a
// *SchemaError.
func Open(ctx context.Context, rawURL string, o Options) (*DB, error) {
	to, err := parse(rawURL)
	if err != nil {
		return nil, Check(rawURL)
	}
	if err := to.available(); err != nil {
		return nil, fmt.Errorf("optunadb: storage %q: %w", redact.URL(rawURL), err)
	}
	if to.file != "" {
		if err := os.MkdirAll(filepath.Dir(to.file), 0o777); err != nil {
			return nil, fmt.Errorf("optunadb: %w", err)
		}
	}
	db, err := sql.Open(to.driver, to.dsn)
	if err != nil && to.dialect == postgresDialect {
		err = errPostgres // the driver's own may show what is secret
	}
	if err != nil {
		return nil, fmt.Errorf("optunadb: %s: %w", redact.URL(rawURL), err)
	}
	db.SetMaxOpenConns(to.conns)
	db.SetMaxIdleConns(to.conns)
	if o.RetryFor == 0 {
		o.RetryFor = 5 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d := &DB{dialect: to.dialect, url: redact.URL(rawURL), db: db, log: o.Logger, ended: map[int]map[int]study.FrozenTrial{}}
	// A wrong address looks like a database that is away. It should be told soon.
	d.retryFor = min(o.RetryFor, 20*time.Second)
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	d.retryFor = o.RetryFor
	return d, nil
}

// Close closes the connections. Operations that run end with an error.
func (d *DB) Close() error { return d.db.Close() }

// tx runs f in a transaction, again and again while the database is away or
// busy. So f must not keep anything of an attempt that failed. The answer to a
// commit may get lost; f then runs once more after it has succeeded.
func (d *DB) tx(ctx context.Context, what string, f func(*tx) error) error {
	return d.retry(ctx, what, func() error {
		t, err := d.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if err := f(&tx{t, d.dialect}); err != nil {
			t.Rollback() //nolint:errcheck // the error of f says more
			return err
		}
		return t.Commit()
	})
}

// retry calls f until it succeeds, fails for good, or has been tried for long
// enough. Pauses double, up to 5 s, and differ from worker to worker.
func (d *DB) retry(ctx context.Context, what string, f func() error) error {
	deadline := time.Now().Add(d.retryFor)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("optunadb: %s: %w", what, context.Cause(ctx))
		case !d.transient(err):
			return fmt.Errorf("optunadb: %s in %s: %w", what, d.url, err)
		case time.Now().After(deadline):
			return fmt.Errorf("optunadb: %s in %s: given up after %v: %w", what, d.url, d.retryFor, err)
		}
		d.log.Warn("the storage is away or busy", "what", what, "pause", pause, "err", err)
		select {
		case <-time.After(time.Duration((0.5 + rand.Float64()) * float64(pause))):
		case <-ctx.Done():
		}
	}
}

// tx is a transaction with queries in the form of dialect.query.
type tx struct {
	*sql.Tx
	*dialect
}

func (t *tx) exec(ctx context.Context, query string, args ...any) (changed int64, err error) {
	result, err := t.ExecContext(ctx, t.query(query), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// insert inserts a row and returns the id that it gets.
func (t *tx) insert(ctx context.Context, query, column string, args ...any) (id int, err error) {
	if t.dialect == mysqlDialect {
		result, err := t.ExecContext(ctx, t.query(query), args...)
		if err != nil {
			return 0, err
		}
		n, err := result.LastInsertId()
		return int(n), err
	}
	err = t.QueryRowContext(ctx, t.query(query+" RETURNING "+column), args...).Scan(&id)
	return id, err
}

// get reads one row. If there is none, it reports so.
func (t *tx) get(ctx context.Context, query string, args []any, into ...any) (found bool, err error) {
	err = t.QueryRowContext(ctx, t.query(query), args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls f for every row.
func each(ctx context.Context, q querier, query string, args []any, f func(*sql.Rows) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// errUnstamped is a database whose tables Optuna is just creating.
var errUnstamped = errors.New("the tables have no revision (yet)")

// prepare creates the tables in an empty database and checks those in another.
func (d *DB) prepare(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := d.prepareOnce(ctx)
		if !errors.Is(err, errUnstamped) {
			return err
		}
		if time.Now().After(deadline) {
			return &SchemaError{URL: d.url, Found: "none", Want: schemaVersion}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *DB) prepareOnce(ctx context.Context) error {
	return d.tx(ctx, "open", func(t *tx) error {
		if d.lock != "" {
			if _, err := t.ExecContext(ctx, d.lock); err != nil {
				return err
			}
		}
		err := d.createOrCheck(ctx, t)
		if d.unlock != "" {
			_, e := t.ExecContext(ctx, d.unlock)
			err = errors.Join(err, e)
		}
		return err
	})
}

func (d *DB) createOrCheck(ctx context.Context, t *tx) error {
	has := map[string]bool{}
	err := each(ctx, t, d.tables, nil, func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		has[name] = true
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case has["alembic_version"]: // MLflow also has a table of this name
		var found string
		ok, err := t.get(ctx, "SELECT version_num FROM alembic_version", nil, &found)
		switch {
		case err != nil:
			return err
		case !ok:
			return errUnstamped
		case found != schemaVersion || !has["trials"]:
			return &SchemaError{URL: d.url, Found: found, Want: schemaVersion}
		}
		return nil
	case has["version_info"]:
		return errUnstamped
	case has["studies"] || has["trials"]: // goptuna's, or a very old Optuna's
		return &SchemaError{URL: d.url, Found: "unknown", Want: schemaVersion}
	}
	for statement := range strings.SplitSeq(d.schema.Replace(schemaSQL), ";\n") {
		if statement = strings.TrimSpace(statement); statement == "" {
			continue
		}
		if _, err := t.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create the tables: %w", err)
		}
	}
	return nil
}

// encodeFloat returns how a number is stored: databases do not agree on what is
// not finite.
func encodeFloat(x float64) (value any, kind string) {
	switch {
	case math.IsNaN(x):
		return nil, "NAN"
	case math.IsInf(x, 1):
		return nil, "INF_POS"
	case math.IsInf(x, -1):
		return nil, "INF_NEG"
	}
	return x, "FINITE"
}

func decodeFloat(value sql.NullFloat64, kind string) (float64, error) {
	switch kind {
	case "NAN":
		return math.NaN(), nil
	case "INF_POS":
		return math.Inf(1), nil
	case "INF_NEG":
		return math.Inf(-1), nil
	case "FINITE":
		return value.Float64, nil
	}
	return 0, fmt.Errorf("a number of kind %q", kind)
}

const timeLayout = "2006-01-02 15:04:05.000000"

// encodeTime returns a time as Optuna 5 stores it: UTC, without saying so.
func encodeTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// nullTime reads a time from whatever the driver makes of it.
type nullTime struct{ time.Time }

// Scan implements sql.Scanner.
func (t *nullTime) Scan(value any) (err error) {
	switch v := value.(type) {
	case nil:
		t.Time = time.Time{}
	case time.Time:
		t.Time = v.UTC()
	case []byte:
		t.Time, err = time.Parse("2006-01-02 15:04:05", string(v)) // and any fraction
	case string:
		t.Time, err = time.Parse("2006-01-02 15:04:05", v)
	default:
		err = fmt.Errorf("a time of type %T", v)
	}
	return err
}

var stateNames = map[study.State]string{
	study.Running:  "RUNNING",
	study.Complete: "COMPLETE",
	study.Pruned:   "PRUNED",
	study.Failed:   "FAIL",
	study.Waiting:  "WAITING",
}

func parseState(name string) (study.State, error) {
	for state, n := range stateNames {
		if n == name {
			return state, nil
		}
	}
	return 0, fmt.Errorf("unknown state %q", name)
}
