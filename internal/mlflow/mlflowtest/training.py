"""Record a training with MLflow's own client, as a Python program does that
keeps to the same layout, for us to reproduce.

Reads a JSON object from standard input and prints the ID of the run.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

import mlflow
import yaml


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, prefix + key + ".")
        else:
            yield prefix + key, value


def main():
    told = json.load(sys.stdin)
    with open(told["config"]) as f:
        config = yaml.safe_load(f)
    mlflow.set_tracking_uri(told["uri"])
    if told.get("artifacts") and mlflow.get_experiment_by_name(told["experiment"]) is None:
        mlflow.create_experiment(told["experiment"], artifact_location=told["artifacts"])
    mlflow.set_experiment(told["experiment"])
    with mlflow.start_run(run_name="from Python") as run, tempfile.TemporaryDirectory() as d:
        mlflow.set_tags({"stage": "train", "git.commit": "0" * 40, "git.branch": "main", "git.dirty": False, "version.python": sys.version.split()[0]})
        for path in told["data"]:
            with open(path, "rb") as f:
                mlflow.set_tag("data.hash." + os.path.basename(path), hashlib.sha256(f.read()).hexdigest())
        mlflow.log_params({key: value for key, value in flat(config) if key.startswith(("model.", "train."))})
        mlflow.log_param("seed", config["train"]["seed"])
        for epoch, metrics in enumerate(told["history"], start=1):
            mlflow.log_metrics(metrics, step=epoch)
        mlflow.log_metrics(told["test"], step=len(told["history"]))
        os.mkdir(os.path.join(d, "config"))
        with open(os.path.join(d, "config", "config.yaml"), "w") as f:
            yaml.safe_dump(config, f)  # in its own order and words
        shutil.copytree(told["model"], os.path.join(d, "model"), ignore=shutil.ignore_patterns("SHA256SUMS"))
        mlflow.log_artifacts(d)
        mlflow.log_dict(told["test"], "classification_report.json")
    print(run.info.run_id)


main()
