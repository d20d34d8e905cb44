#!/usr/bin/env bash
# judge_demo.sh DIR: run the demo as a newcomer does and judge what it left by
# tools that share no code with it. The artifacts of the run's record are
# downloaded to DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
into=$1
mkdir -p "$into"
started=$(date +%s)

make --no-print-directory demo | tee "$into/demo.log"
echo "demo: $(($(date +%s) - started)) s"

pairs=$(wc -l <examples/predict/sample.jsonl)
answers=$(grep -c '^{"probability":' "$into/demo.log" || true)
[ "$answers" -eq "$pairs" ] || { echo "demo: $answers predictions for $pairs pairs" >&2; exit 1; }

python=$(go run ./internal/cmd/deps venv mlflow)
"$python" scripts/judge_run.py sqlite:///mlflow.db --since "$started" --into "$into" --min-macro-f1 0.90
go run ./internal/cmd/graphaudit "$into"/model/*.onnx

# What is exported answers as the model does.
model=$(sed -n 's/^The model is in \(.*best_model\),.*/\1/p' "$into/demo.log")
env=$(go run ./internal/cmd/deps env)
eval "$env"
go run ./internal/cmd/exportjudge "$model"

# A newcomer's own program has it answer, too.
scripts/new_user.sh "$model"
