#!/bin/sh
# demo.sh [OVERRIDES...]: train a tiny classifier on the fictional sample, then
# let it judge pairs that it has not seen.
set -eu
dir=outputs/$(date +%Y-%m-%d/%H-%M-%S)
go run ./examples/train model=tiny data=sample train=tiny "hydra.run.dir=$dir" "$@"

printf '\nPredictions:\n\n'
go run ./examples/predict "$dir/best_model" <examples/predict/sample.jsonl |
	paste - examples/predict/sample.jsonl

cat <<END

The model is in $dir/best_model, with a model card in README.md.
To judge pairs of your own, one JSON object per line as above:

  go run ./examples/predict $dir/best_model < pairs.jsonl

The run is recorded in mlflow.db. To look at it (pip install mlflow):

  mlflow ui --backend-store-uri sqlite:///mlflow.db
END
