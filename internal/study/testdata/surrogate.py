"""Optuna's TPE on the surrogate of surrogate_test.go: mean of the best of 30.

surrogate.py [SEEDS]
"""

import math
import statistics
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(t):
    layers = t.suggest_int("head_layers", 0, 3)
    dim = t.suggest_int("hidden_dim", 64, 1024, log=True)
    pooling = t.suggest_categorical("pooling_strategy", ["cls", "mean", "max"])
    activation = t.suggest_categorical("activation", ["relu", "gelu", "tanh"])
    dropout = t.suggest_float("dropout", 0.0, 0.5)
    rate = t.suggest_float("learning_rate", 1e-6, 1e-4, log=True)
    batch = t.suggest_categorical("batch_size", [4, 8, 16, 32, 64])
    warmup = t.suggest_float("warmup_ratio", 0.0, 0.3)
    decay = t.suggest_float("weight_decay", 0.0, 0.1)
    scheduler = t.suggest_categorical("scheduler", ["linear", "cosine", "constant"])

    f = 0.90
    f -= 0.18 * math.log10(rate / 2e-5) ** 2
    f -= {4: 0.02, 8: 0.006, 16: 0, 32: 0.008, 64: 0.025}[batch]
    f -= [0.020, 0, 0.004, 0.014][layers]
    if layers > 0:
        f -= 0.0025 * math.log2(dim / 384) ** 2 * (1 + 0.3 * (layers - 1))
        f -= {"relu": 0.003, "gelu": 0, "tanh": 0.008}[activation]
    f -= {"cls": 0.006, "mean": 0, "max": 0.015}[pooling]
    f -= 0.03 * ((dropout - 0.15) / 0.35) ** 2
    f -= 0.15 * (warmup - 0.1) ** 2
    f -= 0.8 * (decay - 0.02) ** 2
    f -= {"linear": 0.002, "cosine": 0, "constant": 0.009}[scheduler]
    if rate > 4e-5 and batch <= 8:
        f -= 0.02
    return max(0.0, f)


best = []
for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 100):
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=30)
    best.append(study.best_value)
print(f"Optuna {optuna.__version__}: {len(best)} seeds, mean best of 30 = {statistics.mean(best):.5f}, "
      f"standard error {statistics.stdev(best) / len(best) ** 0.5:.5f}")
