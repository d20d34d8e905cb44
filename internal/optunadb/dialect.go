package optunadb

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/criteria-go/criteria/internal/sqldriver"
)

// dialect is what differs between the databases.
type dialect struct {
	driver string
	// needs is the package whose import registers the driver.
	needs string
	// conns limits the connections of a process. One for SQLite: its writers then
	// queue here, fairly, instead of polling for the lock of the file.
	conns int

	forUpdate string // locks the rows read
	silence   string // seconds since the column h.heartbeat
	tables    string // query for the names of all tables
	// lock keeps others from creating tables at the same time; unlock ends that
	// where the end of the transaction does not.
	lock, unlock string
	schema       *strings.Replacer // for schema.sql
	transient    func(error) bool  // the same again may succeed
	duplicate    func(error) bool  // another was faster to insert the same
}

var sqliteDialect = &dialect{
	driver: "sqlite",
	needs:  "sqlite",
	conns:  1,
	// Every transaction has the lock of the file from its beginning.
	silence: "(julianday('now') - julianday(h.heartbeat)) * 86400",
	tables:  "SELECT name FROM sqlite_master WHERE type = 'table'",
	schema: strings.NewReplacer("{types}", "", "{serial}", "INTEGER NOT NULL", "{float}", "FLOAT", "{datetime}", "DATETIME",
		"{direction}", "VARCHAR(8)", "{state}", "VARCHAR(8)", "{value_type}", "VARCHAR(7)", "{intermediate_value_type}", "VARCHAR(7)"),
	transient: func(err error) bool {
		const busy, locked = 5, 6
		code := sqliteCode(err) & 0xff
		return code == busy || code == locked
	},
	duplicate: func(err error) bool {
		const constraintUnique = 2067
		return sqliteCode(err) == constraintUnique
	},
}

var postgresDialect = &dialect{
	driver:    "pgx",
	needs:     "postgres",
	conns:     8,
	forUpdate: " FOR UPDATE",
	silence:   "CAST(EXTRACT(EPOCH FROM (CAST(CURRENT_TIMESTAMP AS TIMESTAMP) - h.heartbeat)) AS DOUBLE PRECISION)",
	tables:    "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()",
	lock:      "SELECT pg_advisory_xact_lock(" + strconv.Itoa(lockNumber) + ")",
	schema: strings.NewReplacer("{types}", `CREATE TYPE studydirection AS ENUM ('NOT_SET', 'MINIMIZE', 'MAXIMIZE');
CREATE TYPE trialstate AS ENUM ('RUNNING', 'COMPLETE', 'PRUNED', 'FAIL', 'WAITING');
CREATE TYPE trialvaluetype AS ENUM ('FINITE', 'INF_POS', 'INF_NEG');
CREATE TYPE trialintermediatevaluetype AS ENUM ('FINITE', 'INF_POS', 'INF_NEG', 'NAN');`,
		"{serial}", "SERIAL NOT NULL", "{float}", "FLOAT(53)", "{datetime}", "TIMESTAMP WITHOUT TIME ZONE",
		"{direction}", "studydirection", "{state}", "trialstate", "{value_type}", "trialvaluetype", "{intermediate_value_type}", "trialintermediatevaluetype"),
	transient: func(err error) bool {
		code := sqlState(err)
		if code == "" {
			var safe interface{ SafeToRetry() bool }
			return disconnected(err) || errors.As(err, &safe) && safe.SafeToRetry()
		}
		switch code {
		case "40001", "40P01", // serialization failure, deadlock
			"53300", "55P03", // too many connections, lock not available
			"57P01", "57P02", "57P03": // shutting down, crashed, starting up
			return true
		}
		return strings.HasPrefix(code, "08") // connection exceptions
	},
	duplicate: func(err error) bool {
		return sqlState(err) == "23505"
	},
}

var mysqlDialect = &dialect{
	driver:    "mysql",
	needs:     "mysql",
	conns:     8,
	forUpdate: " FOR UPDATE",
	silence:   "TIMESTAMPDIFF(SECOND, h.heartbeat, CURRENT_TIMESTAMP)",
	tables:    "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
	// Each CREATE TABLE ends the transaction, so that the lock is the session's.
	lock:   "SELECT GET_LOCK('optunadb', 60)",
	unlock: "SELECT RELEASE_LOCK('optunadb')",
	schema: strings.NewReplacer("{types}", "", `"`, "`",
		"{serial}", "INTEGER NOT NULL AUTO_INCREMENT", "{float}", "FLOAT(53)", "{datetime}", "DATETIME",
		"{direction}", "ENUM('NOT_SET','MINIMIZE','MAXIMIZE')", "{state}", "ENUM('RUNNING','COMPLETE','PRUNED','FAIL','WAITING')",
		"{value_type}", "ENUM('FINITE','INF_POS','INF_NEG')", "{intermediate_value_type}", "ENUM('FINITE','INF_POS','INF_NEG','NAN')"),
	transient: func(err error) bool {
		number, ok := sqldriver.ForMySQL().Number(err)
		if !ok {
			return disconnected(err) || errors.Is(err, sqldriver.ForMySQL().Invalid)
		}
		switch number {
		case 1040, 1053, 1205, 1213: // too many connections, shutting down, lock timeout, deadlock
			return true
		}
		return false
	},
	duplicate: func(err error) bool {
		number, ok := sqldriver.ForMySQL().Number(err)
		return ok && number == 1062
	},
}

// lockNumber is that of PostgreSQL's advisory lock on the creation of tables:
// "optuna" in ASCII.
const lockNumber = 0x6f7074756e61

// available reports what to import if the program lacks the driver.
func (d *dialect) available() error { return sqldriver.Check(d.driver, d.needs) }

// sqliteCode returns the code of an error of the driver of SQLite, or 0.
func sqliteCode(err error) int {
	var e interface {
		error
		Code() int
	}
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// sqlState returns the code of an error of the driver of PostgreSQL, or "".
func sqlState(err error) string {
	var e interface {
		error
		SQLState() string
	}
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// disconnected reports whether the server could not be asked.
func disconnected(err error) bool {
	var e net.Error
	return errors.As(err, &e) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// query rewrites a query, with ? for values and "key" in double quotes, for the
// database.
func (d *dialect) query(q string) string {
	switch d {
	case mysqlDialect:
		return strings.ReplaceAll(q, `"`, "`")
	case postgresDialect:
		var b strings.Builder
		n := 0
		for _, part := range strings.SplitAfter(q, "?") {
			head, found := strings.CutSuffix(part, "?")
			b.WriteString(head)
			if found {
				n++
				b.WriteString("$" + strconv.Itoa(n))
			}
		}
		return b.String()
	}
	return q
}

// upsert returns a query that inserts a row, or changes the one with the same
// keys.
func (d *dialect) upsert(table string, keys, values []string) string {
	columns := append(append([]string{}, keys...), values...)
	q := fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", table, strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1))
	set := make([]string, len(values))
	for i, v := range values {
		if d == mysqlDialect {
			set[i] = fmt.Sprintf("%s = VALUES(%s)", v, v)
		} else {
			set[i] = fmt.Sprintf("%s = excluded.%s", v, v)
		}
	}
	if d == mysqlDialect {
		return d.query(q + " ON DUPLICATE KEY UPDATE " + strings.Join(set, ", "))
	}
	return d.query(fmt.Sprintf("%s ON CONFLICT (%s) DO UPDATE SET %s", q, strings.Join(keys, ", "), strings.Join(set, ", ")))
}

// target is a database.
type target struct {
	*dialect
	dsn  string // for the driver
	file string // of SQLite
}

var errPostgres = errors.New("want postgresql://user:password@host:5432/database?sslmode=…, as libpq has it")

// parse reads a URL as Optuna takes it.
func parse(rawURL string) (target, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	if !ok {
		return target{}, errors.New("want sqlite:///file.db, postgresql://user@host/database or mysql://user@host/database")
	}
	scheme, _, _ = strings.Cut(scheme, "+") // Python's driver
	switch scheme {
	case "sqlite":
		return parseSQLite(rest)
	case "postgresql", "postgres":
		dsn := "postgres://" + rest
		if _, err := url.Parse(dsn); err != nil {
			return target{}, errPostgres
		}
		return target{dialect: postgresDialect, dsn: dsn}, nil
	case "mysql":
		return parseMySQL(rest)
	}
	return target{}, fmt.Errorf("database %q: want sqlite, postgresql or mysql", scheme)
}

func parseSQLite(rest string) (target, error) {
	path, _, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "?")
	if rest != "" && !strings.HasPrefix(rest, "/") {
		return target{}, errors.New("want three slashes before a relative path, sqlite:///file.db, four before an absolute one")
	}
	// Transactions take the lock of the file when they begin: one that reads first
	// and is then refused the lock cannot wait for it. The journal mode is left
	// alone.
	query := url.Values{"_pragma": {"busy_timeout(20000)", "foreign_keys(1)"}, "_txlock": {"immediate"}}.Encode()
	if path == "" || path == ":memory:" {
		return target{dialect: sqliteDialect, dsn: "file::memory:?" + query}, nil
	}
	path, err := filepath.Abs(filepath.FromSlash(path))
	if err != nil {
		return target{}, err
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return target{}, fmt.Errorf("%s is a folder, want a file", path)
	}
	escaped := (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()
	return target{dialect: sqliteDialect, dsn: "file:" + escaped + "?" + query, file: path}, nil
}

func parseMySQL(rest string) (target, error) {
	u, err := url.Parse("mysql://" + rest)
	name := ""
	if err == nil {
		name = strings.TrimPrefix(u.Path, "/")
	}
	if err != nil || u.Host == "" || name == "" {
		return target{}, errors.New("want mysql://user:password@host:3306/database")
	}
	address, tls := u.Host, ""
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), "3306")
	}
	for key, values := range u.Query() {
		switch key {
		case "charset": // always utf8mb4 here
		case "tls":
			tls = values[0]
		default:
			// Perhaps it asks for a secure connection; better none than another.
			return target{}, fmt.Errorf("the option %q is not known here: want tls or charset", key)
		}
	}
	password, _ := u.User.Password()
	dsn := sqldriver.ForMySQL().DSN(u.User.Username(), password, address, name, tls)
	return target{dialect: mysqlDialect, dsn: dsn}, nil
}
