package criteria

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/criteria-go/criteria/internal/mlflow"
)

// TestRunOfTheEnvironment: MLFLOW_RUN_ID and MLFLOW_EXPERIMENT_ID count as with
// MLflow's own client.
func TestRunOfTheEnvironment(t *testing.T) {
	t.Chdir(t.TempDir())
	const uri = "sqlite:///runs.db"
	store, err := mlflow.Open(t.Context(), uri, mlflow.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	create := func(experiment string) (id string, run mlflow.Run) {
		id, err := store.EnsureExperiment(t.Context(), experiment)
		if err == nil {
			run, err = store.CreateRun(t.Context(), mlflow.RunSpec{ExperimentID: id, Name: "given", Start: time.Now()})
		}
		if err != nil {
			t.Fatal(err)
		}
		return id, run
	}
	mine, given := create("mine")
	other, _ := create("other")
	for _, c := range []struct {
		name                    string
		env                     map[string]string
		experiment              string // of the caller
		wantExperiment, wantRun string // "": a new one
		fail                    string
	}{
		{name: "run", env: map[string]string{"MLFLOW_RUN_ID": given.ID}, wantExperiment: mine, wantRun: given.ID},
		{name: "run and its experiment", env: map[string]string{"MLFLOW_RUN_ID": given.ID}, experiment: "mine", wantExperiment: mine, wantRun: given.ID},
		{name: "run and another experiment", env: map[string]string{"MLFLOW_RUN_ID": given.ID}, experiment: "other", fail: "MLFLOW_RUN_ID"},
		{name: "no such run", env: map[string]string{"MLFLOW_RUN_ID": strings.Repeat("ab", 16)}, fail: "MLFLOW_RUN_ID"},
		{name: "experiment", env: map[string]string{"MLFLOW_EXPERIMENT_ID": other}, wantExperiment: other},
		{name: "the caller's experiment", env: map[string]string{"MLFLOW_EXPERIMENT_ID": other}, experiment: "mine", wantExperiment: mine},
		{name: "experiment twice", env: map[string]string{"MLFLOW_EXPERIMENT_ID": other, "MLFLOW_EXPERIMENT_NAME": "other"}, wantExperiment: other},
		{name: "two experiments", env: map[string]string{"MLFLOW_EXPERIMENT_ID": other, "MLFLOW_EXPERIMENT_NAME": "mine"}, fail: "MLFLOW_EXPERIMENT_ID"},
		{name: "no such experiment", env: map[string]string{"MLFLOW_EXPERIMENT_ID": "4711"}, fail: "4711"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"} {
				t.Setenv(name, c.env[name])
			}
			tracker, err := NewMLflowTracker(WithTrackingURI(uri), WithExperiment(c.experiment), WithSystemMetrics(0))
			if err != nil {
				t.Fatal(err)
			}
			start := func() (id string, err error) {
				run, err := tracker.Start(t.Context(), RunInfo{Name: "ours", Dir: t.TempDir(), Params: map[string]string{"a": "1"}})
				if err != nil {
					return "", err
				}
				return run.ID(), run.End(context.WithoutCancel(t.Context()), RunFinished)
			}
			id, err := start()
			if c.fail != "" {
				if err == nil || !strings.Contains(err.Error(), c.fail) {
					t.Errorf("got %q, %v", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			run, err := store.Run(t.Context(), id)
			if err != nil || run.ExperimentID != c.wantExperiment || c.wantRun != "" && id != c.wantRun || run.Status != mlflow.Finished || run.Params["a"] != "1" {
				t.Errorf("got %+v, %v", run, err)
			}
			if again, err := start(); err != nil || again == id {
				t.Errorf("the second run is %q, %v", again, err) // the variable is for the first
			}
		})
	}
	if _, err := store.EnsureExperiment(t.Context(), "mine"); err != nil {
		t.Error(err)
	}
}
