"""Write runs with MLflow's own client, for our reader.

Reads a JSON list of tracking URIs from standard input and prints a JSON list of
what was written to each.
"""

import json
import os
import sys
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"

import mlflow
from mlflow import MlflowClient
from mlflow.data.dataset import Dataset
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.entities import Metric

PARAMS = {"train.learning_rate": 2e-05, "train.epochs": 3, "flag": True, "nothing": None, "text": "first\nsecond é", "path/with slash": "x"}
FILES = {"config/config.yaml": "seed: 42\n", "model/weights 100%.bin": "w" * 200_000, "model/deep/er/é.json": "{}", "top.txt": "top"}


class Posts(Dataset):
    def to_dict(self):
        return {**super().to_dict(), "profile": json.dumps({"num_rows": 7})}

    @property
    def profile(self):
        return {"num_rows": 7}

    def _compute_digest(self):
        return "d1ge57"


def write(uri, artifacts):
    mlflow.set_tracking_uri(uri)
    if artifacts and MlflowClient(uri).get_experiment_by_name("written by Python") is None:
        mlflow.create_experiment("written by Python", artifact_location=artifacts)
    mlflow.set_experiment("written by Python")
    history = {}
    with mlflow.start_run(run_name="from Python", description="a *note*") as run:
        mlflow.log_params(PARAMS)
        mlflow.set_tags({"stage": "train", "with space": "a 'b' \"c\""})
        mlflow.log_input(Posts(HTTPDatasetSource("https://example.org/posts.csv"), name="posts"), context="train")
        points = []
        for step in range(1, 31):
            for key, value in (("train_loss", 1 / step), ("val/f1", step / 100), ("sometimes", float("nan") if step % 10 == 0 else step)):
                at = 1_700_000_000_000 + step * 1000
                points.append(Metric(key, value, at, step))
                history.setdefault(key, []).append([None if value != value else value, at, step])
        MlflowClient().log_batch(run.info.run_id, metrics=points)
        with tempfile.TemporaryDirectory() as d:
            for path, content in FILES.items():
                file = os.path.join(d, path)
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with open(file, "w") as f:
                    f.write(content)
            mlflow.log_artifacts(d)
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.set_tag("trial_number", 0)
    run = MlflowClient(uri).get_run(run.info.run_id)
    return {
        "uri": uri, "run": run.info.run_id, "experiment": run.info.experiment_id, "child": child.info.run_id,
        "params": run.data.params, "tags": run.data.tags, "history": history, "files": FILES,
        "start": run.info.start_time, "end": run.info.end_time,
    }


print(json.dumps([write(target["uri"], target.get("artifacts")) for target in json.load(sys.stdin)]))
