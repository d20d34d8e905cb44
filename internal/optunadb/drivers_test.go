package optunadb

import (
	_ "github.com/criteria-go/criteria/mysql"
	_ "github.com/criteria-go/criteria/postgres"
	_ "github.com/criteria-go/criteria/sqlite"
)
