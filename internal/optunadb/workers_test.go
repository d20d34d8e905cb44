package optunadb

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/study"
)

// envRestart holds a shell command that restarts the PostgreSQL server. Without
// it, the tests cut all connections instead.
const envRestart = "CRITERIA_POSTGRES_RESTART"

// waitFor polls a study until ready says so.
func waitFor(t *testing.T, d *DB, name string, ready func([]study.FrozenTrial) bool) []study.FrozenTrial {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		id, err := d.OpenStudy(t.Context(), name, maximize)
		if err != nil {
			t.Fatal(err)
		}
		trials, err := d.Trials(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if ready(trials) {
			return trials
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain; the study has %v", count(trials))
		}
	}
}

func count(trials []study.FrozenTrial) map[string]int {
	n := map[string]int{}
	for _, t := range trials {
		n[stateNames[t.State]]++
	}
	return n
}

func finished(trials []study.FrozenTrial) int {
	n := count(trials)
	return n["COMPLETE"] + n["PRUNED"]
}

func start(t *testing.T, cmds ...*exec.Cmd) {
	t.Helper()
	for _, cmd := range cmds {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

func wait(t *testing.T, cmds ...*exec.Cmd) {
	t.Helper()
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", cmd.Args, err)
		}
	}
}

// checkNumbers checks that the trials have the numbers from 0, each once.
func checkNumbers(t *testing.T, trials []study.FrozenTrial) {
	t.Helper()
	for i, trial := range trials {
		if trial.Number != i {
			t.Fatalf("trial %d in order has number %d", i, trial.Number)
		}
	}
}

// TestWorkerProcesses has four processes share a study of 100 trials. A fifth is
// killed in the middle of the first trial, and a server is restarted.
func TestWorkerProcesses(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		const name, total, grace = "many", 100, 6
		d := mustOpen(t, url)
		victim := goWorker(t, url, name, total, 0, 3600, grace)
		start(t, victim)
		params := waitFor(t, d, name, func(trials []study.FrozenTrial) bool {
			return len(trials) == 1 && len(trials[0].IntermediateValues) == 0 && len(trials[0].Params) == 5
		})[0].Params

		var workers []*exec.Cmd
		for range 4 {
			workers = append(workers, goWorker(t, url, name, total, 0, 0.05, grace))
		}
		start(t, workers...)
		waitFor(t, d, name, func(trials []study.FrozenTrial) bool { return finished(trials) >= 10 })
		if err := victim.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		victim.Wait() //nolint:errcheck // it was killed
		if d.dialect == postgresDialect {
			waitFor(t, d, name, func(trials []study.FrozenTrial) bool { return finished(trials) >= 40 })
			restart(t, d)
		}
		wait(t, workers...)

		id, err := d.OpenStudy(t.Context(), name, maximize)
		if err != nil {
			t.Fatal(err)
		}
		trials, err := d.Trials(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		checkNumbers(t, trials)
		n := count(trials)
		if finished(trials) != total || n["RUNNING"] != 0 || n["WAITING"] != 0 {
			t.Errorf("the study ends with %v, want %d finished", n, total)
		}
		if n["PRUNED"] == 0 || n["COMPLETE"] == 0 {
			t.Errorf("the study ends with %v, want some pruned and some complete", n)
		}
		// A restart may also cost a trial, whose claim was lost on the way back.
		if n["FAIL"] < 1 || n["FAIL"] > 5 {
			t.Errorf("%d trials failed, want the victim's", n["FAIL"])
		}
		if trials[0].State != study.Failed || !strings.Contains(trials[0].UserAttrs[study.AttrFailReason], "no sign of life") {
			t.Errorf("the victim's trial ended as %v because %s", trials[0].State, trials[0].UserAttrs[study.AttrFailReason])
		}
		retried := false
		for _, trial := range trials {
			if trial.SystemAttrs["failed_trial"] == "0" {
				retried = true
				if diff := cmp.Diff(params, trial.Params); diff != "" || trial.State == study.Failed {
					t.Errorf("the victim's trial was retried as %v with other parameters:\n%s", trial.State, diff)
				}
			}
		}
		if !retried {
			t.Error("the victim's trial was not retried")
		}
	})
}

// restart restarts the server, or does to its clients what that does.
func restart(t *testing.T, d *DB) {
	t.Helper()
	if command := os.Getenv(envRestart); command != "" {
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return
	}
	for range 5 {
		if _, err := d.db.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// peerDump is what peer.py prints of a study.
type peerDump struct {
	Attrs  map[string]any
	Trials []peerTrial
}

type peerTrial struct {
	Number        int
	State         string
	Value         any // a number, "inf", "-inf" or nil
	Params        map[string]any
	Distributions map[string]any
	Reports       [][2]any
	UserAttrs     map[string]any `json:"user_attrs"`
	SystemAttrs   map[string]any `json:"system_attrs"`
	Started       bool
	Ended         bool
}

// asPeer returns a trial in the form of peer.py.
func asPeer(t *testing.T, trial study.FrozenTrial) peerTrial {
	t.Helper()
	number := func(x float64) any {
		switch {
		case math.IsNaN(x):
			return "nan"
		case math.IsInf(x, 0):
			return strings.ToLower(strings.TrimPrefix(strconv.FormatFloat(x, 'g', -1, 64), "+"))
		}
		return x
	}
	decode := func(text []byte) (v any) {
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	p := peerTrial{
		Number: trial.Number, State: stateNames[trial.State],
		Params: map[string]any{}, Distributions: map[string]any{}, UserAttrs: map[string]any{}, SystemAttrs: map[string]any{},
		Started: !trial.DatetimeStart.IsZero(), Ended: !trial.DatetimeComplete.IsZero(),
	}
	if !math.IsNaN(trial.Value) {
		p.Value = number(trial.Value)
	}
	for name, value := range trial.Params {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		p.Params[name] = decode(text)
		if text, err = study.MarshalDistribution(trial.Distributions[name].(study.Distribution)); err != nil {
			t.Fatal(err)
		}
		p.Distributions[name] = decode(text)
	}
	for key, text := range trial.UserAttrs {
		p.UserAttrs[key] = decode([]byte(text))
	}
	for key, text := range trial.SystemAttrs {
		p.SystemAttrs[key] = decode([]byte(text))
	}
	for step := range 10 {
		if v, ok := trial.IntermediateValues[step]; ok {
			p.Reports = append(p.Reports, [2]any{float64(step), number(v)})
		}
	}
	return p
}

// checkDump compares what Optuna reads with what this package reads.
func checkDump(t *testing.T, d *DB, name string, out []byte) (peerDump, []study.FrozenTrial) {
	t.Helper()
	var dump peerDump
	if err := json.Unmarshal(out, &dump); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	id, err := d.OpenStudy(t.Context(), name, maximize)
	if err != nil {
		t.Fatal(err)
	}
	trials, err := d.Trials(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var got []peerTrial
	for _, trial := range trials {
		got = append(got, asPeer(t, trial))
	}
	if diff := cmp.Diff(dump.Trials, got, exactly); diff != "" {
		t.Errorf("trials (-Optuna +here):\n%s", diff)
	}
	return dump, trials
}

// TestContinuesPython reads a study that Optuna has made, with a trial of each
// kind, and goes on with it; then Optuna reads it again.
func TestContinuesPython(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		const name = "from python"
		out, err := python(t, "create", url, name).Output()
		if err != nil {
			t.Fatal(err)
		}
		d := mustOpen(t, url)
		_, trials := checkDump(t, d, name, out)
		want := map[string]int{"COMPLETE": 3, "FAIL": 1, "PRUNED": 1, "RUNNING": 1, "WAITING": 1}
		if diff := cmp.Diff(want, count(trials)); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}

		s, err := study.New(study.Options{Name: name, Storage: d, Trials: 16, Pruner: study.NewMedianPruner()})
		if err != nil {
			t.Fatal(err)
		}
		var parent string
		if err := s.InitAttr(t.Context(), "mlflow_run_id", "run of go", &parent); err != nil || parent != "run of python" {
			t.Errorf("the study's run is %q, %v", parent, err)
		}
		if err := s.Run(t.Context(), 1, func(ctx context.Context, trial *study.Trial) (float64, error) { return objective(ctx, trial, 0) }); err != nil {
			t.Fatal(err)
		}
		if out, err = python(t, "dump", url, name).Output(); err != nil {
			t.Fatal(err)
		}
		_, trials = checkDump(t, d, name, out)
		checkNumbers(t, trials)
		// Python's running trial has no heartbeat: it counts, but is not waited for.
		if n := count(trials); finished(trials) != 15 || n["RUNNING"] != 1 || n["WAITING"] != 0 {
			t.Errorf("the study ends with %v, want 15 finished and one running", n)
		}
		if p := trials[6].Params; p["learning_rate"] != 3e-5 || p["batch_size"] != 8 || p["pooling"] != "max" {
			t.Errorf("the trial that Python enqueued ran with %v", p)
		}
	})
}

// TestTogetherWithPython has two processes here and two of Optuna share a study.
func TestTogetherWithPython(t *testing.T) {
	eachDatabase(t, func(t *testing.T, url string) {
		const name = "mixed"
		d := mustOpen(t, url) // so that the tables are ours
		workers := []*exec.Cmd{
			python(t, "work", url, name, "25", "0.1"), python(t, "work", url, name, "25", "0.1"),
			goWorker(t, url, name, 100, 25, 0.1, 60), goWorker(t, url, name, 100, 25, 0.1, 60),
		}
		start(t, workers...)
		wait(t, workers...)
		out, err := python(t, "dump", url, name).Output()
		if err != nil {
			t.Fatal(err)
		}
		_, trials := checkDump(t, d, name, out)
		checkNumbers(t, trials)
		by := map[string]int{}
		for _, trial := range trials {
			by[trial.UserAttrs["worker"]]++
		}
		if diff := cmp.Diff(map[string]int{`"go"`: 50, `"python"`: 50}, by); diff != "" || finished(trials) != 100 {
			t.Errorf("%d finished, by (-want +got):\n%s", finished(trials), diff)
		}

		if out, err = python(t, "importances", url, name).Output(); err != nil {
			t.Fatal(err)
		}
		var want map[string]float64
		if err := json.Unmarshal(out, &want); err != nil {
			t.Fatal(err)
		}
		shares, err := study.PEDANOVA(trials, maximize)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range shares {
			if math.Abs(i.Share-want[i.Name]) > 1e-9 {
				t.Errorf("importance of %s: %v, Optuna says %v", i.Name, i.Share, want[i.Name])
			}
		}
		if len(shares) != len(want) {
			t.Errorf("importances of %d parameters, Optuna has %d", len(shares), len(want))
		}
	})
}
