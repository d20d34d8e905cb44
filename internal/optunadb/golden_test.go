package optunadb

import (
	"database/sql"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/study"
)

func TestGoldenOptunaSchema(t *testing.T) {
	for _, file := range golden.Glob(t, "optuna/optuna_sqlite_schema*.sql") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]bool{}
			for statement := range strings.SplitSeq(regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(string(text), ""), ";\n") {
				if statement = normal(statement); statement != "" {
					want[statement] = true
				}
			}
			if len(want) == 0 {
				t.Fatal("no statements")
			}
			d := mustOpen(t, databases["SQLite"](t))
			got := map[string]bool{}
			err = each(t.Context(), d.db, "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL", nil, func(rows *sql.Rows) error {
				var statement string
				err := rows.Scan(&statement)
				got[normal(statement)] = true
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("schema (-want +got):\n%s", diff)
			}
		})
	}
}

// normal returns a statement without what spaces do not say.
func normal(statement string) string {
	s := strings.Join(strings.Fields(statement), " ")
	for _, sign := range []string{"(", ")", ","} {
		s = strings.ReplaceAll(strings.ReplaceAll(s, " "+sign, sign), sign+" ", sign)
	}
	return s
}

// TestGoldenOptunaRows puts the rows of a database that Optuna wrote into tables
// made here, and compares what is read with the rows themselves.
func TestGoldenOptunaRows(t *testing.T) {
	for _, file := range golden.Glob(t, "optuna/optuna_sqlite_rows*.txt") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			tables := readRows(t, file)
			url := databases["SQLite"](t)
			d := mustOpen(t, url)
			for _, q := range []string{"PRAGMA foreign_keys = OFF", "DELETE FROM version_info", "DELETE FROM alembic_version"} {
				if _, err := d.db.Exec(q); err != nil {
					t.Fatal(err)
				}
			}
			for table, rows := range tables {
				for _, row := range rows {
					q := fmt.Sprintf("INSERT INTO %s VALUES (?%s)", table, strings.Repeat(", ?", len(row)-1))
					if _, err := d.db.Exec(q, row...); err != nil {
						t.Fatalf("%s: %v", table, err)
					}
				}
			}
			d = mustOpen(t, url) // checks the revision

			for _, row := range tables["studies"] {
				id, name := row[0].(int), row[1].(string)
				direction := strings.ToLower(first(t, tables["study_directions"], 2, id)[1].(string))
				opened, err := d.OpenStudy(t.Context(), name, study.Direction(direction))
				if err != nil || opened != id {
					t.Fatalf("study %q has id %d (%v), want %d", name, opened, err, id)
				}
				trials, err := d.Trials(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, row := range tables["trials"] {
					if row[2] != id {
						continue
					}
					trial := trials[row[1].(int)]
					n++
					if trial.ID != row[0] || stateNames[trial.State] != row[3] || encodeTime(trial.DatetimeStart) != row[4] ||
						(row[5] == nil) != trial.DatetimeComplete.IsZero() || row[5] != nil && encodeTime(trial.DatetimeComplete) != row[5] {
						t.Errorf("trial %d reads as id %d, %v from %v to %v, want %v", trial.Number, trial.ID, trial.State, trial.DatetimeStart, trial.DatetimeComplete, row)
					}
					params, reports, attrs, value := 0, 0, 0, math.NaN()
					for _, p := range tables["trial_params"] {
						if p[1] != trial.ID {
							continue
						}
						params++
						d, err := study.UnmarshalDistribution([]byte(p[4].(string)))
						if err != nil {
							t.Fatal(err)
						}
						name := p[2].(string)
						if trial.InternalParams[name] != p[3] || !cmp.Equal(trial.Distributions[name], any(d)) || !cmp.Equal(trial.Params[name], d.ToExternalRepr(p[3].(float64))) {
							t.Errorf("trial %d: %s is %v (%v) of %+v, want %v", trial.Number, name, trial.Params[name], trial.InternalParams[name], trial.Distributions[name], p)
						}
					}
					for _, v := range tables["trial_intermediate_values"] {
						if v[1] == trial.ID {
							reports++
							if got, want := trial.IntermediateValues[v[2].(int)], stored(v[3], v[4]); !cmp.Equal(got, want, exactly) {
								t.Errorf("trial %d: step %d has %v, want %v", trial.Number, v[2], got, want)
							}
						}
					}
					for _, v := range tables["trial_values"] {
						if v[1] == trial.ID {
							value = stored(v[3], v[4])
						}
					}
					for _, a := range tables["trial_user_attributes"] {
						if a[1] == trial.ID {
							attrs++
							if got := trial.UserAttrs[a[2].(string)]; got != a[3] {
								t.Errorf("trial %d: attribute %s is %s, want %s", trial.Number, a[2], got, a[3])
							}
						}
					}
					for _, a := range tables["trial_system_attributes"] {
						if a[1] == trial.ID {
							attrs++
							if got := trial.SystemAttrs[a[2].(string)]; got != a[3] {
								t.Errorf("trial %d: system attribute %s is %s, want %s", trial.Number, a[2], got, a[3])
							}
						}
					}
					if !cmp.Equal(trial.Value, value, exactly) {
						t.Errorf("trial %d has value %v, want %v", trial.Number, trial.Value, value)
					}
					if len(trial.Params) != params || len(trial.IntermediateValues) != reports || len(trial.UserAttrs)+len(trial.SystemAttrs) != attrs {
						t.Errorf("trial %d has %d parameters, %d reports and %d attributes, want %d, %d and %d", trial.Number,
							len(trial.Params), len(trial.IntermediateValues), len(trial.UserAttrs)+len(trial.SystemAttrs), params, reports, attrs)
					}
				}
				if n != len(trials) {
					t.Errorf("study %q has %d trials, want %d", name, len(trials), n)
				}
			}
		})
	}
}

func stored(value, kind any) float64 {
	switch kind {
	case "NAN":
		return math.NaN()
	case "INF_POS":
		return math.Inf(1)
	case "INF_NEG":
		return math.Inf(-1)
	}
	return value.(float64)
}

// first returns the first row that has a value in a column.
func first(t *testing.T, rows [][]any, column int, value any) []any {
	t.Helper()
	for _, row := range rows {
		if row[column] == value {
			return row
		}
	}
	t.Fatalf("no row has %v in column %d", value, column)
	return nil
}

// readRows reads tuples in Python's notation under headings "## table: [columns]".
func readRows(t *testing.T, file string) map[string][][]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string][][]any{}
	table := ""
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			table, _, _ = strings.Cut(heading, ":")
			continue
		}
		row, err := pythonTuple(line)
		if err != nil {
			t.Fatalf("%s: %q: %v", file, line, err)
		}
		tables[table] = append(tables[table], row)
	}
	if len(tables["trials"]) == 0 {
		t.Fatalf("%s has no trials", file)
	}
	return tables
}

var pythonValue = regexp.MustCompile(`^(None|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+0-9.e]+)(?:, ?|$)`)

func pythonTuple(line string) (row []any, err error) {
	rest := strings.TrimSuffix(strings.TrimPrefix(line, "("), ")")
	for rest != "" {
		m := pythonValue.FindStringSubmatch(rest)
		if m == nil {
			return nil, fmt.Errorf("cannot read %q", rest)
		}
		rest = rest[len(m[0]):]
		switch v := m[1]; {
		case v == "None":
			row = append(row, nil)
		case v[0] == '\'' || v[0] == '"':
			row = append(row, strings.NewReplacer(`\\`, `\`, `\'`, `'`, `\"`, `"`, `\n`, "\n").Replace(v[1:len(v)-1]))
		case strings.ContainsAny(v, ".e"):
			x, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return nil, err
			}
			row = append(row, x)
		default:
			n, err := strconv.Atoi(v)
			if err != nil {
				return nil, err
			}
			row = append(row, n)
		}
	}
	return row, nil
}
