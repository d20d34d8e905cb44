"""Judge a training run with Python's own MLflow client and onnx.checker.

Prints one line per check and exits with 1 if one fails. The run judged is the
latest one that started after --since. Its artifacts are downloaded to --into.
"""

import argparse
import json
import math
import os
import pathlib
import re
import sys
import traceback

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow  # noqa: E402
import onnx  # noqa: E402
import yaml  # noqa: E402

EPOCH_METRICS = [f"{split}_{name}" for split in ("train", "val") for name in ("loss", "accuracy", "macro_f1", "weighted_f1")]
TEST_METRICS = [f"test_{name}" for name in ("loss", "accuracy", "macro_f1", "weighted_f1", "precision", "recall")]
PARAMS = ["model.checkpoint", "model.head.pooling_strategy", "model.tokenizer.max_length", "train.learning_rate", "train.batch_size", "train.seed"]
TAGS = ["git.commit", "git.branch", "git.dirty", "version.go", "version.criteria", "version.onnxruntime", "mlflow.user", "mlflow.source.name", "mlflow.source.type"]
ARTIFACTS = ["config/config.yaml", "confusion_matrix.png", "classification_report.json"]
GRAPHS = ["training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"]

failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{f': {detail}' if detail != '' else ''}", flush=True)


def latest_run(client, since):
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    if not runs or runs[0].info.start_time < since * 1000:
        sys.exit(f"FAIL no run has started since {since}")
    return runs[0]


def judge_record(client, run, minimum):
    info, data = run.info, run.data
    check("status", info.status == "FINISHED", info.status)
    check("end time", info.end_time is not None and info.start_time <= info.end_time, f"{info.start_time}..{info.end_time}")
    check("name", bool(info.run_name) and data.tags.get("mlflow.runName") == info.run_name, info.run_name)
    check("tag stage", data.tags.get("stage") == "train", data.tags.get("stage"))
    for tag in TAGS:
        check(f"tag {tag}", bool(data.tags.get(tag)), data.tags.get(tag))
    hashes = {k: v for k, v in data.tags.items() if k.startswith("data.hash.")}
    check("tags data.hash.*", bool(hashes) and all(re.fullmatch("[0-9a-f]{64}", v) for v in hashes.values()), ", ".join(hashes))
    for param in PARAMS:
        check(f"param {param}", bool(data.params.get(param)), data.params.get(param))
    for key in EPOCH_METRICS:
        history = client.get_metric_history(info.run_id, key)
        steps = [m.step for m in history]
        check(f"metric {key}", steps and steps == sorted(set(steps)) and all(math.isfinite(m.value) for m in history),
              " ".join(f"{m.value:.4g}" for m in history))
    for key in TEST_METRICS:
        check(f"metric {key}", math.isfinite(data.metrics.get(key, math.nan)), data.metrics.get(key))
    check(f"test_macro_f1 at least {minimum}", data.metrics.get("test_macro_f1", 0) >= minimum, data.metrics.get("test_macro_f1"))


def judge_artifacts(client, run, into):
    root = pathlib.Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, dst_path=into, tracking_uri=client.tracking_uri))
    for name in ARTIFACTS:
        check(f"artifact {name}", (root / name).is_file() and (root / name).stat().st_size > 0)
    check("config.yaml is a mapping", isinstance(yaml.safe_load((root / "config/config.yaml").read_text()), dict))
    check("confusion_matrix.png is a picture", (root / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n"))

    report = json.loads((root / "classification_report.json").read_text())
    rows = {name: row for name, row in report.items() if isinstance(row, dict)}
    check("classification_report.json has sklearn's keys", set(report) == {"0", "1", "accuracy", "macro avg", "weighted avg"}
          and all(set(row) == {"precision", "recall", "f1-score", "support"} for row in rows.values()), ", ".join(report))
    macro = (report["0"]["f1-score"] + report["1"]["f1-score"]) / 2
    check("its macro F1 is the metric", abs(macro - run.data.metrics["test_macro_f1"]) < 1e-6, macro)

    for name in GRAPHS:
        path = root / "model" / name
        check(f"artifact model/{name}", path.is_file())
        onnx.checker.check_model(str(path))
        graph = onnx.load(str(path), load_external_data=False).graph
        check(f"onnx.checker passes {name}", True, f"{len(graph.node)} operators")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md", "checkpoint"):
        check(f"artifact model/{name}", (root / "model" / name).exists())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri", help="tracking URI of the store")
    parser.add_argument("--since", type=float, default=0, help="Unix time")
    parser.add_argument("--into", required=True, help="folder for the artifacts")
    parser.add_argument("--min-macro-f1", type=float, default=0.0)
    args = parser.parse_args()

    client = mlflow.MlflowClient(args.uri)
    run = latest_run(client, args.since)
    print(f"run {run.info.run_id} in {args.uri}")
    for judge, argument in ((judge_record, args.min_macro_f1), (judge_artifacts, args.into)):
        try:
            judge(client, run, argument)
        except Exception:
            traceback.print_exc()
            check(judge.__name__, False)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
