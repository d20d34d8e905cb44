#!/usr/bin/env bash
# demo.sh DIR: run the demo as a newcomer does and judge what it left, with
# tools that share no code with it. DIR is a new folder for what is downloaded
# from the run's record.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
into=$1
mkdir -p "$into"
started=$(date +%s)

make --no-print-directory demo | tee "$into/demo.log"
echo "demo: $(($(date +%s) - started)) s"

python=$(go run ./internal/cmd/deps venv mlflow)
"$python" scripts/judge_run.py sqlite:///mlflow.db --since "$started" --into "$into" --min-macro-f1 0.90
go run ./internal/cmd/graphaudit "$into"/model/*.onnx
