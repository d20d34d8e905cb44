package optunadb

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/criteria-go/criteria/internal/study"
)

// The environment variables that say where the tests find servers and Python.
const (
	envPostgres = "CRITERIA_POSTGRES_URI" // of a user who may create databases
	envMySQL    = "CRITERIA_MYSQL_URI"    // likewise
	envPython   = "CRITERIA_MLFLOW_PYTHON"
)

// missing skips a test that needs what this machine does not have. In continuous
// integration it has to be there.
func missing(t *testing.T, env, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not set: continuous integration needs %s", env, what)
	}
	t.Skipf("%s is not set; this tests with %s", env, what)
}

// databases are the kinds of database, each with a function that returns the URL
// of an empty one.
var databases = map[string]func(t *testing.T) string{
	"SQLite": func(t *testing.T) string {
		return "sqlite:///" + filepath.Join(t.TempDir(), "study.db")
	},
	"PostgreSQL": func(t *testing.T) string {
		base := os.Getenv(envPostgres)
		if base == "" {
			missing(t, envPostgres, "a PostgreSQL server")
		}
		return serverDatabase(t, base, "pgx", base)
	},
	"MySQL": func(t *testing.T) string {
		base := os.Getenv(envMySQL)
		if base == "" {
			missing(t, envMySQL, "a MySQL or MariaDB server")
		}
		to, err := parse(base)
		if err != nil {
			t.Fatal(err)
		}
		return serverDatabase(t, base, "mysql", to.dsn)
	},
}

// serverDatabase creates a database on a server and drops it after the test.
func serverDatabase(t *testing.T, base, driver, dsn string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("optunadb_test_%d_%d", os.Getpid(), rand.Uint32())
	admin, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer admin.Close()
		drop := "DROP DATABASE " + name
		if driver == "pgx" {
			drop += " WITH (FORCE)"
		}
		if _, err := admin.ExecContext(context.Background(), drop); err != nil {
			t.Errorf("%s: %v", drop, err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

// eachDatabase runs a test on every kind of database.
func eachDatabase(t *testing.T, test func(t *testing.T, url string)) {
	for name, empty := range databases {
		t.Run(name, func(t *testing.T) { test(t, empty(t)) })
	}
}

func mustOpen(t *testing.T, url string) *DB {
	t.Helper()
	d, err := Open(t.Context(), url, Options{RetryFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// python runs peer.py with the interpreter that has Optuna.
func python(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	interpreter := os.Getenv(envPython)
	if interpreter == "" {
		missing(t, envPython, "a Python with Optuna")
	}
	for i, a := range args { // SQLAlchemy's name of the driver
		if rest, ok := strings.CutPrefix(a, "mysql://"); ok {
			args[i] = "mysql+pymysql://" + rest
		}
		if rest, ok := strings.CutPrefix(a, "postgresql://"); ok {
			args[i] = "postgresql+psycopg2://" + rest
		}
	}
	cmd := exec.CommandContext(t.Context(), interpreter, append([]string{"-W", "ignore", filepath.Join("testdata", "peer.py")}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// envWorker makes the test binary a worker: URL, study, total, trials here,
// seconds per trial, grace in seconds.
const envWorker = "OPTUNADB_TEST_WORKER"

func TestMain(m *testing.M) {
	if line := os.Getenv(envWorker); line != "" {
		if err := worker(strings.Fields(line)); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m) // no test may leave a goroutine
}

// goWorker returns a process that works on a study.
func goWorker(t *testing.T, url, name string, total, here int, seconds, grace float64) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %g %g", envWorker, url, name, total, here, seconds, grace))
	cmd.Stderr = os.Stderr
	return cmd
}

func worker(args []string) error {
	var n [4]float64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseFloat(args[2+i], 64); err != nil {
			return err
		}
	}
	ctx := context.Background()
	db, err := Open(ctx, args[0], Options{RetryFor: time.Minute})
	if err != nil {
		return err
	}
	defer db.Close()
	grace := time.Duration(n[3] * float64(time.Second))
	s, err := study.New(study.Options{
		Name: args[1], Storage: db, Trials: int(n[0]), TrialsHere: int(n[1]), Retries: 1,
		Sampler: study.NewTPE(uint64(os.Getpid())), Pruner: study.NewMedianPruner(),
		Grace: grace, Heartbeat: grace / 4,
	})
	if err != nil {
		return err
	}
	return s.Run(ctx, 1, func(ctx context.Context, t *study.Trial) (float64, error) {
		return objective(ctx, t, time.Duration(n[2]*float64(time.Second)))
	})
}

// objective is that of peer.py.
func objective(ctx context.Context, t *study.Trial, duration time.Duration) (float64, error) {
	rate, err := t.SuggestFloat(ctx, "learning_rate", study.FloatDistribution{Low: 1e-6, High: 1e-4, Log: true})
	if err != nil {
		return 0, err
	}
	dim, err := t.SuggestInt(ctx, "hidden_dim", study.IntDistribution{Low: 64, High: 1024, Log: true})
	if err != nil {
		return 0, err
	}
	batch, err := study.SuggestChoice(ctx, t, "batch_size", 4, 8, 16, 32, 64)
	if err != nil {
		return 0, err
	}
	if _, err := t.SuggestFloat(ctx, "dropout", study.FloatDistribution{Low: 0, High: 0.5}); err != nil {
		return 0, err
	}
	if _, err := study.SuggestChoice(ctx, t, "pooling", "cls", "mean", "max"); err != nil {
		return 0, err
	}
	if err := t.SetAttr(ctx, "worker", "go"); err != nil {
		return 0, err
	}
	score := 0.9 - 0.1*math.Abs(math.Log10(rate/2e-5)) - 0.02*math.Abs(math.Log2(float64(dim)/384)) - 0.02*math.Abs(math.Log2(float64(batch)/16))
	for step := range 5 {
		select {
		case <-time.After(duration / 5):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if err := t.Report(ctx, step, score*(1-math.Pow(0.5, float64(step+1)))); err != nil {
			return 0, err
		}
		prune, err := t.ShouldPrune(ctx)
		if err != nil {
			return 0, err
		}
		if prune {
			return 0, study.ErrPruned
		}
	}
	return score, nil
}
