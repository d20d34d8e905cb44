// Package sqlite lets a program that imports it use SQLite, for
// MLflow's file sqlite:///mlflow.db and studies in sqlite:///optuna.db:
//
//	import _ "github.com/criteria-go/criteria/sqlite"
//
// A program that only loads a model does without, and is smaller for it.
package sqlite

import (
	_ "modernc.org/sqlite" // registers the driver "sqlite"
)
