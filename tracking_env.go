package criteria

import (
	"context"
	"fmt"

	"github.com/criteria-go/criteria/internal/mlflow"
)

// MLflow's own variables that name a run and an experiment by their IDs, as
// `mlflow run` sets them for what it starts.
const (
	runIDVariable          = "MLFLOW_RUN_ID"
	experimentIDVariable   = "MLFLOW_EXPERIMENT_ID"
	experimentNameVariable = "MLFLOW_EXPERIMENT_NAME"
)

// isNamed reports whether the caller has named the experiment, so that what the
// environment says of it does not count.
func (t *MLflowTracker) isNamed() bool {
	return t.experiment != defaultExperiment && t.experiment != t.getenv(experimentNameVariable)
}

// findExperiment returns the ID of the experiment to record in, as MLflow's client
// finds it: that of the run in MLFLOW_RUN_ID, if there is one, or else the one that
// is named; MLFLOW_EXPERIMENT_ID counts if none is, and must not contradict
// MLFLOW_EXPERIMENT_NAME.
func (t *MLflowTracker) findExperiment(ctx context.Context, store mlflow.Store) (string, error) {
	if t.isNamed() {
		return store.EnsureExperiment(ctx, t.experiment)
	}
	if id := t.getenv(runIDVariable); id != "" {
		run, err := store.Run(ctx, id)
		if err != nil {
			return "", fmt.Errorf("criteria: %s=%s: %w", runIDVariable, id, err)
		}
		return run.ExperimentID, nil
	}
	id, name := t.getenv(experimentIDVariable), t.getenv(experimentNameVariable)
	if id != "" && name == "" {
		return id, nil
	}
	found, err := store.EnsureExperiment(ctx, t.experiment)
	if err == nil && id != "" && id != found {
		err = fmt.Errorf("criteria: %s=%s is not the experiment %s that %s=%s names: unset one of the two",
			experimentIDVariable, id, found, experimentNameVariable, name)
	}
	return found, err
}

// takeRunID returns the run in MLFLOW_RUN_ID for the first run that is not nested
// in another one, as MLflow's client does, and "" for all others.
func (t *MLflowTracker) takeRunID(ctx context.Context, store mlflow.Store, experiment string) (string, error) {
	id := t.getenv(runIDVariable)
	t.mu.Lock()
	taken := t.runIDTaken
	t.runIDTaken = true
	t.mu.Unlock()
	if id == "" || taken {
		return "", nil
	}
	run, err := store.Run(ctx, id)
	if err != nil {
		return "", fmt.Errorf("criteria: %s=%s: %w", runIDVariable, id, err)
	}
	if run.ExperimentID != experiment {
		return "", fmt.Errorf("criteria: the run that %s=%s names is in experiment %s, not in %s (%s): "+
			"unset the variable, or give the name of its experiment", runIDVariable, id, run.ExperimentID, experiment, t.experiment)
	}
	return id, nil
}
