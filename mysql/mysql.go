// Package mysql lets a program that imports it use MySQL and MariaDB, for studies in
// mysql://user:password@host/database:
//
//	import _ "github.com/criteria-go/criteria/mysql"
//
// A program that only loads a model does without, and is smaller for it.
package mysql

import (
	"errors"

	"github.com/go-sql-driver/mysql" // registers the driver "mysql"

	"github.com/criteria-go/criteria/internal/sqldriver"
)

func init() {
	sqldriver.RegisterMySQL(sqldriver.MySQL{
		DSN: func(user, password, address, database, tls string) string {
			c := mysql.NewConfig()
			c.Net, c.Addr, c.DBName = "tcp", address, database
			c.User, c.Passwd, c.TLSConfig = user, password, tls
			return c.FormatDSN()
		},
		Number: func(err error) (uint16, bool) {
			var e *mysql.MySQLError
			if !errors.As(err, &e) {
				return 0, false
			}
			return e.Number, true
		},
		Invalid: mysql.ErrInvalidConn,
	})
}
