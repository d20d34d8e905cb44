// Package sqldriver is where packages that register drivers of databases meet those
// that use them, without either linking the other: a program has the drivers whose
// packages it imports (sqlite, postgres, mysql), as with database/sql.
package sqldriver

import (
	"database/sql"
	"fmt"
	"slices"
)

// MySQL is what is asked of the driver of MySQL beyond database/sql: unlike those of
// the others, its errors have no methods for it.
type MySQL struct {
	DSN     func(user, password, address, database, tls string) string
	Number  func(error) (uint16, bool) // of an error of the server
	Invalid error                      // a connection that was lost
}

var mysql MySQL

// RegisterMySQL makes the driver of MySQL known. Package mysql calls it once, before
// main.
func RegisterMySQL(m MySQL) { mysql = m }

// ForMySQL returns what was registered, or functions that know nothing.
func ForMySQL() MySQL {
	if mysql.DSN != nil {
		return mysql
	}
	return MySQL{
		DSN:     func(_, _, _, _, _ string) string { return "" },
		Number:  func(error) (uint16, bool) { return 0, false },
		Invalid: sql.ErrConnDone,
	}
}

// Check reports what to import if the program lacks a driver: name is that of
// database/sql, in the package of this module that registers it.
func Check(name, in string) error {
	if slices.Contains(sql.Drivers(), name) && (name != "mysql" || mysql.DSN != nil) {
		return nil
	}
	return fmt.Errorf("this program has no driver for that database: import _ %q", "github.com/criteria-go/criteria/"+in)
}
