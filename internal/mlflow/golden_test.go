package mlflow

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
)

// TestGoldenMLflow replays the schemas that MLflow itself made: each takes our
// runs, and the one of the revision that we create is the same as ours.
func TestGoldenMLflow(t *testing.T) {
	for _, file := range golden.Glob(t, "mlflow/*.sql") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ddl, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "golden.db")
			theirs := openRaw(t, path)
			if _, err := theirs.ExecContext(t.Context(), string(ddl)); err != nil {
				t.Fatal(err)
			}
			s := mustOpen(t, "sqlite:///"+path, Options{ArtifactRoot: filepath.Join(dir, "mlruns")})
			testStore(t, s)

			fresh := filepath.Join(dir, "ours.db")
			mustOpen(t, "sqlite:///"+fresh, Options{ArtifactRoot: dir})
			ours := openRaw(t, fresh)
			var revision string
			if err := ours.QueryRowContext(t.Context(), "SELECT version_num FROM alembic_version").Scan(&revision); err != nil || revision != "acf3f17fdcc7" {
				t.Errorf("revision %q, %v", revision, err)
			}
			if !strings.Contains(filepath.Base(file), "_2.9") {
				return // of another revision
			}
			if diff := cmp.Diff(describeSchema(t, theirs), describeSchema(t, ours)); diff != "" {
				t.Errorf("our schema differs (-want +got)\n%s", diff)
			}
		})
	}
}

func openRaw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// describeSchema says all that SQLite knows of tables and indices, and their
// text without the layout: the names of constraints are only there.
func describeSchema(t *testing.T, db *sql.DB) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	strs := func(query string, args ...any) []string {
		var out []string
		err := each(ctx, db, func(scan func(...any) error) error {
			var s string
			err := scan(&s)
			out = append(out, s)
			return err
		}, query, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	out := map[string][]string{}
	for _, table := range strs("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") {
		out[table+": columns"] = strs("SELECT printf('%s %s notnull=%d default=%s pk=%d', name, type, \"notnull\", dflt_value, pk) FROM pragma_table_info(?) ORDER BY name", table)
		out[table+": foreign keys"] = strs("SELECT printf('%s.%s -> %s update=%s delete=%s', \"table\", \"from\", \"to\", on_update, on_delete) FROM pragma_foreign_key_list(?) ORDER BY 1", table)
		text := strings.Join(strs("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", table), "")
		var constraints []string
		for _, part := range strings.Split(strings.Join(strings.Fields(text), " "), "CONSTRAINT ")[1:] {
			name, _, _ := strings.Cut(part, " ")
			constraints = append(constraints, name)
		}
		checks := strings.Count(text, "CHECK")
		out[table+": constraints"] = append(constraints, fmt.Sprint("checks: ", checks))
	}
	out["indices"] = strs("SELECT replace(replace(sql, ' ', ''), '\"', '') FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name")
	return out
}
