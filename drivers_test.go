package criteria_test

import (
	_ "github.com/criteria-go/criteria/sqlite" // stores of MLflow and studies in files
)
