"""Judge the latest training run of a store, and the model it recorded, with
MLflow's own client and onnx.checker. Exits with 1 if anything is wrong.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow  # noqa: E402
import onnx  # noqa: E402

JUDGE = pathlib.Path(__file__).parent.parent / "internal/mlflow/mlflowtest/judge.py"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "README.md"]
GRAPHS = ["training_model.onnx", "eval_model.onnx", "optimizer_model.onnx"]

failures = 0


def check(what, ok, detail):
    global failures
    failures += not ok
    print(f"{'PASS' if ok else 'FAIL'} {what}: {detail}", flush=True)


def latest_run(client, since):
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1)
    if not runs or runs[0].info.start_time < since * 1000:
        sys.exit(f"FAIL no run has started since {since}")
    return runs[0]


def judge_record(client, uri, run):
    epochs = len(client.get_metric_history(run.info.run_id, "val_loss"))
    check("more than one epoch", epochs > 1, epochs)
    question = [{"uri": uri, "run": run.info.run_id, "kind": "train", "epochs": epochs, "trials": 0}]
    answer = subprocess.run([sys.executable, JUDGE], input=json.dumps(question), capture_output=True, text=True)
    print(answer.stdout, end="")
    wrong = answer.stdout.count("FAIL ")
    ended = answer.returncode == 0 and answer.stdout.endswith("END\n")
    check("MLflow's client", ended and not wrong, f"{answer.stdout.count('PASS ')} passed, {wrong} failed{'' if ended else answer.stderr[-2000:]}")


def judge_model(client, run, into):
    root = pathlib.Path(client.download_artifacts(run.info.run_id, "model", into))
    for name in FILES + GRAPHS:
        path = root / name
        check(f"model/{name}", path.is_file() and path.stat().st_size > 0, f"{path.stat().st_size if path.is_file() else 'no'} bytes")
    for name in GRAPHS:
        try:
            onnx.checker.check_model(str(root / name))
            check(f"onnx.checker on {name}", True, f"{len(onnx.load(str(root / name), load_external_data=False).graph.node)} operators")
        except (onnx.checker.ValidationError, OSError) as e:
            check(f"onnx.checker on {name}", False, e)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri", help="tracking URI of the store")
    parser.add_argument("--since", type=float, default=0, help="Unix time before which no run counts")
    parser.add_argument("--into", required=True, help="folder for the model")
    parser.add_argument("--min-macro-f1", type=float, default=0.0, help="of the test split")
    args = parser.parse_args()

    client = mlflow.MlflowClient(args.uri)
    run = latest_run(client, args.since)
    print(f"run {run.info.run_id} in {args.uri}")
    judge_record(client, args.uri, run)
    score = run.data.metrics.get("test_macro_f1", 0.0)
    check(f"test_macro_f1 at least {args.min_macro_f1}", score >= args.min_macro_f1, score)
    judge_model(client, run, args.into)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
