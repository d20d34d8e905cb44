"""Optuna itself, as a worker beside ours and as a reader of what ours wrote.

peer.py work URL STUDY N [SECONDS]  run N trials, each of at least so many seconds
peer.py total URL STUDY N           run trials until the study has N finished ones
peer.py dump URL STUDY              print all trials as JSON
peer.py create URL STUDY            create a study with a trial of each kind
peer.py importances URL STUDY       print the importances that Optuna computes
"""

import json
import math
import sys
import time

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial, seconds=0.0):
    rate = trial.suggest_float("learning_rate", 1e-6, 1e-4, log=True)
    dim = trial.suggest_int("hidden_dim", 64, 1024, log=True)
    batch = trial.suggest_categorical("batch_size", [4, 8, 16, 32, 64])
    trial.suggest_float("dropout", 0.0, 0.5)
    trial.suggest_categorical("pooling", ["cls", "mean", "max"])
    trial.set_user_attr("worker", "python")
    score = 0.9 - 0.1 * abs(math.log10(rate / 2e-5)) - 0.02 * abs(math.log2(dim / 384)) - 0.02 * abs(math.log2(batch / 16))
    for step in range(5):
        time.sleep(seconds / 5)
        trial.report(score * (1 - 0.5 ** (step + 1)), step)
        if trial.should_prune():
            raise optuna.TrialPruned()
    return score


def number(x):
    return x if x is None or math.isfinite(x) else str(x)


def load(url, name):
    storage = optuna.storages.RDBStorage(url, heartbeat_interval=60, grace_period=120)
    return optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.TPESampler(), pruner=optuna.pruners.MedianPruner(),
    )


def dump(study):
    print(json.dumps({
        "attrs": study.user_attrs,
        "trials": [{
            "number": t.number,
            "state": t.state.name,
            "value": number(t.values[0]) if t.values else None,
            "params": t.params,
            "distributions": {k: json.loads(optuna.distributions.distribution_to_json(d)) for k, d in t.distributions.items()},
            "reports": [[step, number(v)] for step, v in sorted(t.intermediate_values.items())],
            "user_attrs": t.user_attrs,
            "system_attrs": t.system_attrs,
            "started": t.datetime_start is not None,
            "ended": t.datetime_complete is not None,
        } for t in study.trials],
    }))


def create(study):
    study.set_user_attr("mlflow_run_id", "run of python")
    study.enqueue_trial({"learning_rate": 2e-5, "batch_size": 16})
    study.optimize(objective, n_trials=2)

    def fails(trial):
        trial.suggest_int("hidden_dim", 64, 1024, log=True)
        raise ValueError("boom")

    def infinite(trial):
        objective(trial)
        trial.report(float("nan"), 7)
        trial.report(float("-inf"), 8)
        return float("inf")

    def pruned(trial):
        trial.report(0.25, 0)
        raise optuna.TrialPruned()

    study.optimize(fails, n_trials=1, catch=(ValueError,))
    study.optimize(infinite, n_trials=1)
    study.optimize(pruned, n_trials=1)
    study.ask()  # runs
    study.enqueue_trial({"learning_rate": 3e-5, "batch_size": 8, "pooling": "max"})  # waits


def main(command, url, name, *rest):
    study = load(url, name)
    if command == "work":
        seconds = float(rest[1]) if len(rest) > 1 else 0.0
        study.optimize(lambda t: objective(t, seconds), n_trials=int(rest[0]))
    elif command == "total":
        finished = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(int(rest[0]), states=finished)])
    elif command == "create":
        create(study)
        dump(study)
    elif command == "dump":
        dump(study)
    elif command == "importances":
        print(json.dumps(optuna.importance.get_param_importances(study)))
    else:
        sys.exit(f"unknown command {command}")


main(*sys.argv[1:])
