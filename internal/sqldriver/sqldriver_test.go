package sqldriver

import (
	"strings"
	"testing"
)

// TestCheck: an address whose driver nobody has imported says what to import.
func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, in string }{{"sqlite", "sqlite"}, {"pgx", "postgres"}, {"mysql", "mysql"}} {
		err := Check(c.name, c.in)
		if want := `import _ "github.com/criteria-go/criteria/` + c.in + `"`; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %s", c.name, err, want)
		}
	}
	if _, ok := ForMySQL().Number(nil); ok || ForMySQL().DSN("", "", "", "", "") != "" {
		t.Error("without the driver of MySQL an error has a number")
	}
}
