"""Judge runs with MLflow's own client.

Reads a JSON list of checks from standard input:

    [{"uri": "sqlite:///x.db", "run": "ID", "kind": "train", "epochs": 3, "trials": 2}]

and prints one line "PASS what" or "FAIL what: why" per question, then "END".
"""

import json
import math
import os
import re
import sys
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow
import yaml
from mlflow import MlflowClient


class Judge:
    def __init__(self, uri, run_id, kind):
        mlflow.set_tracking_uri(uri)
        self.client = MlflowClient(uri)
        self.label = f"{kind} {uri.partition(':')[0]} {run_id[:6]}"
        self.run = self.client.get_run(run_id)
        self.info, self.data = self.run.info, self.run.data

    def ask(self, what, answer):
        """answer: what is wrong, or something false if all is well."""
        try:
            wrong = answer()
        except Exception as e:
            wrong = f"{type(e).__name__}: {str(e)[:300]}"
        line = f"{self.label}: {what}"
        print(f"FAIL {line}: {wrong}" if wrong else f"PASS {line}", flush=True)

    def expect(self, what, got, want):
        self.ask(what, lambda: got != want and f"got {got!r}, want {want!r}")

    def matches(self, what, got, pattern):
        self.ask(what, lambda: not re.fullmatch(pattern, str(got)) and f"{got!r} is not like {pattern}")

    # What every run has.

    def common(self):
        i, tags = self.info, self.data.tags
        self.expect("status", i.status, "FINISHED")
        self.expect("lifecycle stage", i.lifecycle_stage, "active")
        self.matches("run id", i.run_id, "[0-9a-f]{32}")
        self.ask("name and its tag agree", lambda: (not i.run_name or tags.get("mlflow.runName") != i.run_name) and (i.run_name, tags.get("mlflow.runName")))
        self.ask("times are milliseconds in order", lambda: not (1.5e12 < i.start_time <= i.end_time < 4e12) and (i.start_time, i.end_time))
        self.expect("user and its tag agree", tags.get("mlflow.user"), i.user_id)
        self.expect("source type", tags.get("mlflow.source.type"), "LOCAL")
        self.ask("source name", lambda: not tags.get("mlflow.source.name") and "missing")
        self.expect("experiment", self.client.get_experiment(i.experiment_id).lifecycle_stage, "active")
        found = self.client.search_runs([i.experiment_id], f"attributes.run_id = '{i.run_id}'")
        self.expect("found by its id", [r.info.run_id for r in found], [i.run_id])

    def lineage(self, stage):
        tags = self.data.tags
        self.expect("tag stage", tags.get("stage"), stage)
        self.matches("tag git.commit", tags.get("git.commit"), "[0-9a-f]{40}|unknown")
        self.matches("tag git.branch", tags.get("git.branch"), ".+")
        self.matches("tag git.dirty", tags.get("git.dirty"), "true|false|unknown")
        for prefix in ("version.", "data.hash."):
            self.ask(f"tags {prefix}*", lambda: not [k for k, v in tags.items() if k.startswith(prefix) and v] and "none")

    def series(self, key, epochs):
        def answer():
            points = self.client.get_metric_history(self.info.run_id, key)
            points.sort(key=lambda p: (p.timestamp, p.step))
            steps = [p.step for p in points]
            if steps != list(range(1, epochs + 1)):
                return f"steps {steps[:20]}"
            if not all(math.isfinite(p.value) for p in points):
                return "not finite"
            if self.data.metrics.get(key) != points[-1].value:
                return f"last value {self.data.metrics.get(key)}, history ends with {points[-1].value}"
        self.ask(f"metric {key} per epoch", answer)

    def finite(self, *keys):
        for key in keys:
            self.ask(f"metric {key}", lambda: not math.isfinite(self.data.metrics.get(key, math.nan)) and self.data.metrics.get(key))

    # Artifacts.

    def download(self, path):
        return self.client.download_artifacts(self.info.run_id, path, tempfile.mkdtemp(dir=scratch))

    def yaml_artifact(self, path):
        def answer():
            with open(self.download(path)) as f:
                content = yaml.safe_load(f)
            return not (isinstance(content, dict) and content) and f"holds {content!r}"
        self.ask(f"artifact {path}", answer)

    def png_artifact(self, path):
        def answer():
            with open(self.download(path), "rb") as f:
                content = f.read()
            good = content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
            return not good and "is no whole PNG"
        self.ask(f"artifact {path}", answer)

    def report_artifact(self, path):
        def answer():
            with open(self.download(path)) as f:
                report = json.load(f)
            rows = {k: v for k, v in report.items() if isinstance(v, dict)}
            classes = [k for k in rows if not k.endswith(" avg")]
            if len(classes) != 2 or not {"macro avg", "weighted avg"} <= set(rows) or not isinstance(report.get("accuracy"), float):
                return f"rows {sorted(report)}"
            for name, row in rows.items():
                if set(row) != {"precision", "recall", "f1-score", "support"}:
                    return f"row {name}: {sorted(row)}"
            mean = sum(rows[c]["f1-score"] for c in classes) / 2
            if abs(mean - rows["macro avg"]["f1-score"]) > 2e-3:
                return f"macro f1-score {rows['macro avg']['f1-score']}, mean of the classes {mean}"
        self.ask(f"artifact {path}", answer)

    def model_artifact(self, path):
        def answer():
            top = {f.path: f.is_dir for f in self.client.list_artifacts(self.info.run_id)}
            if not top.get(path):
                return f"no such folder among {sorted(top)}"
            folder = self.download(path)
            sizes = {f: os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(folder) for f in files}
            return not any(sizes.values()) and f"files {sizes}"
        self.ask(f"artifact {path}/", answer)

    # The three kinds of run.

    def train(self, check):
        self.lineage("train")
        self.ask("params", lambda: len(self.data.params) < 5 and sorted(self.data.params))
        for key in ("train.seed", "train.learning_rate", "model.checkpoint"):
            self.ask(f"param {key}", lambda: not self.data.params.get(key) and "missing")
        for split in ("train", "val"):
            for score in ("loss", "accuracy", "macro_f1", "weighted_f1"):
                self.series(f"{split}_{score}", check["epochs"])
        self.finite(*(f"test_{score}" for score in ("loss", "accuracy", "macro_f1", "weighted_f1", "precision", "recall")))
        contexts = sorted(t.value for d in self.run.inputs.dataset_inputs for t in d.tags if t.key == "mlflow.data.context")
        self.expect("datasets", contexts, ["test", "train", "val"])
        self.ask("description", lambda: not self.data.tags.get("mlflow.note.content") and "missing")
        self.yaml_artifact("config/config.yaml")
        self.model_artifact("model")
        self.png_artifact("confusion_matrix.png")
        self.report_artifact("classification_report.json")

    def hpo(self, check):
        self.ask("is not nested itself", lambda: self.data.tags.get("mlflow.parentRunId"))
        self.expect("tag stage", self.data.tags.get("stage"), "hpo")
        for key in ("n_trials", "pruner", "sampler"):
            self.ask(f"param {key}", lambda: not [p for p in self.data.params if key in p] and sorted(self.data.params))
        self.finite("best_trial_number", "best_trial_value")
        self.yaml_artifact("best_trial_config.yaml")
        self.png_artifact("optimization_history.png")
        self.png_artifact("param_importances.png")
        trials = self.client.search_runs([self.info.experiment_id], f"tags.`mlflow.parentRunId` = '{self.info.run_id}'")
        numbers = sorted(int(t.data.tags.get("trial_number", -1)) for t in trials)
        self.expect("trials", numbers, list(range(check["trials"])))
        for t in trials:
            tags, metrics = t.data.tags, t.data.metrics
            name = f"trial {tags.get('trial_number')}"
            self.matches(f"{name}: tag trial_status", tags.get("trial_status"), "completed|pruned|failed")
            ends = ["FAILED", "KILLED"] if tags.get("trial_status") == "failed" else ["FINISHED"]
            self.ask(f"{name}: has ended", lambda: not (t.info.status in ends and t.info.end_time) and t.info.status)
            self.ask(f"{name}: params", lambda: not t.data.params and "none")
            if tags.get("trial_status") == "completed":
                wanted = ("train_loss", "val_loss", "val_macro_f1", "val_accuracy", "best_val_macro_f1")
                self.ask(f"{name}: metrics", lambda: [k for k in wanted if not math.isfinite(metrics.get(k, math.nan))])

    def reproduce(self, check):
        tags, params = self.data.tags, self.data.params
        self.expect("tag stage", tags.get("stage"), "reproducibility")
        self.matches("tag reproducibility_status", tags.get("reproducibility_status"), "passed|failed")
        original = tags.get("original_run_id", "")
        self.ask("the original run exists", lambda: self.client.get_run(original).info.run_id != original and "another run")
        self.expect("param original_run_id", params.get("original_run_id"), original)
        for key in ("mode", "tolerance"):
            self.ask(f"param {key}", lambda: not params.get(key) and "missing")
        for score in ("accuracy", "macro_f1", "weighted_f1", "precision", "recall"):
            self.finite(*(f"{prefix}_test_{score}" for prefix in ("replayed", "original", "delta")))


with tempfile.TemporaryDirectory() as scratch:
    for check in json.load(sys.stdin):
        try:
            judge = Judge(check["uri"], check["run"], check["kind"])
        except Exception as e:
            print(f"FAIL {check['kind']} {check['uri']} {check['run']}: open: {type(e).__name__}: {str(e)[:300]}", flush=True)
            continue
        judge.common()
        getattr(judge, check["kind"])(check)
print("END")
