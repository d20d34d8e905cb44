package optunadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria/internal/study"
)

const maximize = study.Maximize

// exactly compares all that Optuna stores of a trial; NaN equals NaN.
var exactly = cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateEmpty()}

// eachStorage runs a test on all that keep studies.
func eachStorage(t *testing.T, test func(t *testing.T, s study.Storage)) {
	t.Run("Memory", func(t *testing.T) { test(t, &study.Memory{}) })
	eachDatabase(t, func(t *testing.T, url string) { test(t, mustOpen(t, url)) })
	t.Run("SQLite in memory", func(t *testing.T) { test(t, mustOpen(t, "sqlite://")) })
}

// TestStorage has every storage do the same and show the same.
func TestStorage(t *testing.T) {
	eachStorage(t, func(t *testing.T, s study.Storage) {
		ctx := t.Context()
		check := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		other, err := s.OpenStudy(ctx, "other", study.Minimize)
		check(err)
		_, _, err = s.Claim(ctx, other, 1)
		check(err)
		id, err := s.OpenStudy(ctx, "it's a \"study\" of ours?", maximize)
		check(err)
		again, err := s.OpenStudy(ctx, "it's a \"study\" of ours?", maximize)
		check(err)
		if again != id || id == other {
			t.Fatalf("the study has ids %d and %d, another one %d", id, again, other)
		}
		if _, err := s.OpenStudy(ctx, "other", maximize); !errors.Is(err, study.ErrOtherDirection) {
			t.Errorf("opened in another direction: %v", err)
		}

		for _, value := range []string{`"first"`, `"second"`} {
			kept, err := s.InitStudyAttr(ctx, id, "parent", value)
			check(err)
			if kept != `"first"` {
				t.Errorf("the attribute set to %s is %s", value, kept)
			}
		}

		before := time.Now().Add(-2 * time.Second)
		first, tally, err := s.Claim(ctx, id, 3)
		check(err)
		if diff := cmp.Diff(study.Tally{}, tally); diff != "" || first == nil || first.Number != 0 {
			t.Fatalf("the first trial: %+v, tally:\n%s", first, diff)
		}
		dists := map[string]study.Distribution{
			"rate": study.FloatDistribution{Low: 1e-6, High: 1e-4, Log: true},
			"step": study.FloatDistribution{Low: 0, High: 1, Step: 0.25},
			"dim":  study.IntDistribution{Low: 64, High: 1024, Step: 1, Log: true},
			"any":  study.CategoricalDistribution{Choices: []any{nil, true, 4, 4.5, "vier"}},
		}
		check(s.SetParam(ctx, first.ID, "rate", 5e-5, dists["rate"]))
		check(s.SetParam(ctx, first.ID, "rate", 2.0000000000000003e-5, dists["rate"])) // replaces it
		check(s.SetParam(ctx, first.ID, "step", 0.75, dists["step"]))
		check(s.SetParam(ctx, first.ID, "dim", 512, dists["dim"]))
		check(s.SetParam(ctx, first.ID, "any", 4, dists["any"]))
		for step, v := range []float64{0.1, math.NaN(), math.Inf(1), math.Inf(-1), 5e-324} {
			check(s.Report(ctx, first.ID, step*3, v))
		}
		check(s.SetUserAttr(ctx, first.ID, "key", `"ein Wert über alles"`))
		check(s.SetUserAttr(ctx, first.ID, "key", `{"a": [1, 2.5, null]}`))
		check(s.SetSystemAttr(ctx, first.ID, "key", `"`+strings.Repeat("x", 5000)+`"`))
		check(s.Beat(ctx, first.ID))
		check(s.Finish(ctx, first.ID, study.Complete, 0.1+0.2))

		second, _, err := s.Claim(ctx, id, 3)
		check(err)
		check(s.Finish(ctx, second.ID, study.Failed, math.NaN()))
		third, _, err := s.Claim(ctx, id, 3)
		check(err)
		check(s.Report(ctx, third.ID, 0, 0.5))
		check(s.Finish(ctx, third.ID, study.Pruned, math.Inf(-1)))
		queued := *first
		queued.SystemAttrs = map[string]string{"fixed_params": `{"dim": 64}`}
		queued.UserAttrs = nil
		queued.InternalParams, queued.Params = map[string]float64{"dim": 65}, map[string]any{"dim": 65}
		queued.Distributions = map[string]any{"dim": dists["dim"]}
		number, err := s.Enqueue(ctx, id, queued)
		check(err)
		if number != 3 {
			t.Errorf("the enqueued trial has number %d", number)
		}

		for name, err := range map[string]error{
			"Finish":        s.Finish(ctx, first.ID, study.Failed, 0),
			"Beat":          s.Beat(ctx, first.ID),
			"Report":        s.Report(ctx, first.ID, 99, 0),
			"SetParam":      s.SetParam(ctx, first.ID, "new", 0, dists["step"]),
			"SetUserAttr":   s.SetUserAttr(ctx, first.ID, "new", "1"),
			"SetSystemAttr": s.SetSystemAttr(ctx, first.ID, "new", "1"),
		} {
			if !errors.Is(err, study.ErrNotRunning) {
				t.Errorf("%s of an ended trial: %v", name, err)
			}
		}

		trials, err := s.Trials(ctx, id)
		check(err)
		want := []study.FrozenTrial{
			{
				Number: 0, State: study.Complete, Value: 0.1 + 0.2,
				InternalParams:     map[string]float64{"rate": 2.0000000000000003e-5, "step": 0.75, "dim": 512, "any": 4},
				Params:             map[string]any{"rate": 2.0000000000000003e-5, "step": 0.75, "dim": 512, "any": "vier"},
				Distributions:      map[string]any{"rate": dists["rate"], "step": dists["step"], "dim": dists["dim"], "any": dists["any"]},
				IntermediateValues: map[int]float64{0: 0.1, 3: math.NaN(), 6: math.Inf(1), 9: math.Inf(-1), 12: 5e-324},
				UserAttrs:          map[string]string{"key": `{"a": [1, 2.5, null]}`},
				SystemAttrs:        map[string]string{"key": `"` + strings.Repeat("x", 5000) + `"`},
			},
			{Number: 1, State: study.Failed, Value: math.NaN()},
			{Number: 2, State: study.Pruned, Value: math.Inf(-1), IntermediateValues: map[int]float64{0: 0.5}},
			{
				Number: 3, State: study.Waiting, Value: math.NaN(),
				InternalParams: map[string]float64{"dim": 65}, Params: map[string]any{"dim": 65},
				Distributions: map[string]any{"dim": dists["dim"]}, SystemAttrs: map[string]string{"fixed_params": `{"dim": 64}`},
			},
		}
		ids := cmpopts.IgnoreFields(study.FrozenTrial{}, "ID", "StudyID", "DatetimeStart", "DatetimeComplete")
		if diff := cmp.Diff(want, trials, exactly, ids); diff != "" {
			t.Errorf("trials (-want +got):\n%s", diff)
		}
		for _, trial := range trials[:3] {
			if trial.DatetimeStart.Before(before) || trial.DatetimeComplete.Before(trial.DatetimeStart.Add(-time.Second)) || trial.DatetimeComplete.After(time.Now().Add(2*time.Second)) {
				t.Errorf("trial %d ran from %v to %v", trial.Number, trial.DatetimeStart, trial.DatetimeComplete)
			}
		}

		// Two are finished, so of three one more may run: the one that waits.
		fourth, _, err := s.Claim(ctx, id, 3)
		check(err)
		if fourth == nil || fourth.Number != 3 || fourth.Params["dim"] != 65 || fourth.SystemAttrs["fixed_params"] != `{"dim": 64}` {
			t.Fatalf("claimed %+v, want the one that waited", fourth)
		}
		none, tally, err := s.Claim(ctx, id, 3)
		check(err)
		if diff := cmp.Diff(study.Tally{Finished: 2, Running: 1, Beating: 1, Failed: 1}, tally); none != nil || diff != "" {
			t.Errorf("claimed %v, tally (-want +got):\n%s", none, diff)
		}
		check(s.SetParam(ctx, fourth.ID, "dim", 66, dists["dim"]))
		if trials, err = s.Trials(ctx, id); err != nil || trials[3].Params["dim"] != 66 || trials[3].State != study.Running {
			t.Errorf("the running trial reads as %+v, %v", trials[3], err)
		}
	})
}

// TestStale checks that only trials that have been silent are failed, once, and
// retried as often as asked. It waits for seconds, because that is the resolution
// of the databases' clocks.
func TestStale(t *testing.T) {
	eachStorage(t, func(t *testing.T, s study.Storage) {
		t.Parallel()
		ctx := t.Context()
		id, err := s.OpenStudy(ctx, "stale", maximize)
		if err != nil {
			t.Fatal(err)
		}
		claim := func() *study.FrozenTrial {
			t.Helper()
			trial, _, err := s.Claim(ctx, id, 100)
			if err != nil || trial == nil {
				t.Fatalf("claimed %v, %v", trial, err)
			}
			return trial
		}
		dead, alive := claim(), claim()
		dist := study.IntDistribution{Low: 0, High: 9, Step: 1}
		if err := s.SetParam(ctx, dead.ID, "n", 7, dist); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			time.Sleep(time.Second)
			if err := s.Beat(ctx, alive.ID); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		var failed []int
		for range 4 { // workers that notice at the same time
			wg.Go(func() {
				stale, err := s.FailStale(ctx, id, 2500*time.Millisecond, 1)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, f := range stale {
					failed = append(failed, f.Number)
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff([]int{dead.Number}, failed); diff != "" {
			t.Errorf("failed (-want +got):\n%s", diff)
		}
		if err := s.Finish(ctx, dead.ID, study.Complete, 1); !errors.Is(err, study.ErrNotRunning) {
			t.Errorf("the dead worker's trial ends: %v", err)
		}
		again := claim()
		if again.Number != 2 || again.Params["n"] != 7 || again.SystemAttrs["failed_trial"] != "0" || again.SystemAttrs["retry_history"] != "[0]" {
			t.Errorf("retried as %+v", again)
		}
		time.Sleep(4 * time.Second)
		if _, err := s.FailStale(ctx, id, 2500*time.Millisecond, 1); err != nil {
			t.Fatal(err)
		}
		trials, err := s.Trials(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		// The retry of the first has been used up, that of the second is to come.
		var states []study.State
		for _, trial := range trials {
			states = append(states, trial.State)
		}
		want := []study.State{study.Failed, study.Failed, study.Failed, study.Waiting}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
	})
}

// TestClaimIsAtomic has many workers claim at the same time, over two
// connections, from a study with trials that wait.
func TestClaimIsAtomic(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		ctx := t.Context()
		dbs := []*DB{mustOpen(t, url), mustOpen(t, url)}
		id, err := dbs[0].OpenStudy(ctx, "race", maximize)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if _, err := dbs[0].Enqueue(ctx, id, study.FrozenTrial{}); err != nil {
				t.Fatal(err)
			}
		}
		const budget, workers = 40, 8
		var mu sync.Mutex
		var numbers []int
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				for {
					trial, _, err := dbs[i%2].Claim(ctx, id, budget)
					if err != nil {
						t.Error(err)
						return
					}
					if trial == nil {
						return
					}
					mu.Lock()
					numbers = append(numbers, trial.Number)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slices.Sort(numbers)
		want := make([]int, budget)
		for i := range want {
			want[i] = i
		}
		if diff := cmp.Diff(want, numbers); diff != "" {
			t.Errorf("claimed numbers (-want +got):\n%s", diff)
		}
	})
}

// TestOpenTogether has many workers create the tables and the study at once.
func TestOpenTogether(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		ids := make([]int, 6)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				d, err := Open(t.Context(), url, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				defer d.Close()
				if ids[i], err = d.OpenStudy(t.Context(), "one", maximize); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if slices.Min(ids) != slices.Max(ids) || ids[0] == 0 {
			t.Errorf("one study has the ids %v", ids)
		}
	})
}

func TestOtherTablesAreRefused(t *testing.T) {
	tests := map[string]struct{ statements, found string }{
		"newer Optuna": {"CREATE TABLE trials (x int); CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('v9.0.0.a')", "v9.0.0.a"},
		"MLflow":       {"CREATE TABLE runs (x int); CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('1bd49d398cd23')", "1bd49d398cd23"},
		"goptuna":      {"CREATE TABLE studies (x int); CREATE TABLE trials (x int)", "unknown"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			url := databases["SQLite"](t)
			to, err := parse(url)
			if err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open(to.driver, to.dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec(test.statements); err != nil {
				t.Fatal(err)
			}
			_, err = Open(t.Context(), url, Options{})
			var schema *SchemaError
			if !errors.As(err, &schema) || schema.Found != test.found {
				t.Errorf("%v, want a *SchemaError that found %q", err, test.found)
			}
			tables := 0
			if err := db.QueryRow("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'").Scan(&tables); err != nil || tables != 2 {
				t.Errorf("there are %d tables afterwards (%v), want the two there were", tables, err)
			}
		})
	}
}

// TestWaitsForHalfCreatedTables checks that tables which Optuna is just creating
// are waited for.
func TestWaitsForHalfCreatedTables(t *testing.T) {
	url := databases["SQLite"](t)
	d := mustOpen(t, url)
	if _, err := d.db.Exec("DELETE FROM alembic_version"); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() {
		if _, err := d.db.Exec("INSERT INTO alembic_version VALUES (?)", schemaVersion); err != nil {
			t.Error(err)
		}
	})
	mustOpen(t, url)
}

func TestCheck(t *testing.T) {
	for _, good := range []string{
		"sqlite:///optuna.db", "sqlite:////tmp/optuna.db", "sqlite://", "sqlite:///:memory:",
		"postgresql://u:p@host/db", "postgresql+psycopg2://u@host:5433/db?sslmode=require", "postgres://host/db",
		"mysql://u:p@host/db", "mysql+pymysql://u@host:3307/db?charset=utf8mb4",
	} {
		if err := Check(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "optuna.db", "sqlite://optuna.db", "redis://host", "mysql://u:secret@host", "mysql://u:secret@host/db?ssl_ca=x",
		"postgresql://u:secret@host:port/db", "sqlite:////",
	} {
		err := Check(bad)
		if err == nil {
			t.Errorf("%q is taken", bad)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", bad, err)
		}
	}
}

// TestAway checks that a server that is not there is an error, soon.
func TestAway(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := Open(ctx, "postgresql://nobody:secret@127.0.0.1:1/db", Options{RetryFor: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "given up") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, want that it has given up, without the password", err)
	}
	file := filepath.Join(t.TempDir(), "text.db")
	if err := os.WriteFile(file, []byte(strings.Repeat("no database\n", 100)), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, "sqlite:///"+file, Options{}); err == nil || ctx.Err() != nil {
		t.Errorf("a text file as database: %v", err)
	}
}

// TestBusy checks that a write waits for another process's lock.
func TestBusy(t *testing.T) {
	url := databases["SQLite"](t)
	d, holder := mustOpen(t, url), mustOpen(t, url)
	id, err := d.OpenStudy(t.Context(), "busy", maximize)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := holder.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { lock.Rollback() })
	if _, _, err := d.Claim(t.Context(), id, 1); err != nil {
		t.Errorf("while another has the lock: %v", err)
	}
}

func TestRetryEnds(t *testing.T) {
	d := mustOpen(t, "sqlite://")
	d.retryFor = 50 * time.Millisecond
	boom := errors.New("boom")
	d.dialect = &dialect{transient: func(err error) bool { return errors.Is(err, boom) }}
	calls := 0
	err := d.retry(t.Context(), "try", func() error { calls++; return boom })
	if !errors.Is(err, boom) || calls < 2 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	calls = 0
	err = d.retry(t.Context(), "try", func() error {
		if calls++; calls < 3 {
			return fmt.Errorf("wrapped: %w", boom)
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	d.retryFor = time.Hour
	err = d.retry(ctx, "try", func() error { cancel(stop); return boom })
	if !errors.Is(err, stop) {
		t.Errorf("canceled: %v", err)
	}
}
