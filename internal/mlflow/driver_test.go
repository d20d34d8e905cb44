package mlflow

import _ "github.com/criteria-go/criteria/sqlite"
