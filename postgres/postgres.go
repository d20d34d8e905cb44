// Package postgres lets a program that imports it use PostgreSQL, for
// studies in postgresql://user:password@host/database:
//
//	import _ "github.com/criteria-go/criteria/postgres"
//
// A program that only loads a model does without, and is smaller for it.
package postgres

import (
	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"
)
