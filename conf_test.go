package criteria_test

import (
	"io/fs"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/conf"
	"github.com/criteria-go/criteria/internal/hydra"
)

// compose reads conf/ as the example programs do, in an empty environment.
func compose(t *testing.T, overrides ...string) criteria.Config {
	t.Helper()
	app := hydra.App{Name: "train", ConfigFS: conf.FS, ConfigName: "config", LookupEnv: func(string) (string, bool) { return "", false }}
	composed, err := app.Compose(overrides...)
	if err != nil {
		t.Fatal(err)
	}
	text, err := composed.ResolvedYAML()
	if err != nil {
		t.Fatal(err)
	}
	c, err := criteria.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What conf/ says and what DefaultConfig says is one thing.
func TestConfHoldsTheDefaults(t *testing.T) {
	if diff := cmp.Diff(criteria.DefaultConfig(), compose(t)); diff != "" {
		t.Errorf("(-DefaultConfig +conf):\n%s", diff)
	}
}

func TestConfGroups(t *testing.T) {
	n := 0
	err := fs.WalkDir(conf.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Dir(name) == "." {
			return err
		}
		n++
		override := path.Dir(name) + "=" + strings.TrimSuffix(path.Base(name), ".yaml")
		t.Run(override, func(t *testing.T) { compose(t, override) })
		return nil
	})
	if err != nil || n < 12 {
		t.Errorf("%d options, %v", n, err)
	}
	if got := compose(t, "model=deberta_v3_large").Model.Checkpoint; got != "microsoft/deberta-v3-large" {
		t.Errorf("model=deberta_v3_large has checkpoint %q", got)
	}
	if got := compose(t, "data.redsm5_dir=x/y").Data.DSM5CriteriaPath; got != "x/y/dsm5_criteria.json" {
		t.Errorf("criteria of data.redsm5_dir=x/y: %q", got)
	}
}

func TestConfReadsMLflowsEnvironment(t *testing.T) {
	app := hydra.App{Name: "train", ConfigFS: conf.FS, ConfigName: "config", LookupEnv: func(name string) (string, bool) {
		return "value of " + name, true
	}}
	composed, err := app.Compose()
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"mlflow.tracking_uri": "value of MLFLOW_TRACKING_URI", "mlflow.experiment_name": "value of MLFLOW_EXPERIMENT_NAME",
	} {
		if got, err := composed.Get(key); err != nil || got != want {
			t.Errorf("%s = %v, %v; want %q", key, got, err, want)
		}
	}
}
