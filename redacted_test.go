package criteria_test

import (
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
)

// TestRedacted: what is logged and stored names the server, not its password.
func TestRedacted(t *testing.T) {
	c := criteria.DefaultConfig()
	for _, uri := range []string{
		"http://u:sec/ret@track", "http://u:sec@ret@track", "http://track?password=secret", "http://track/#ret",
	} {
		c.MLflow.TrackingURI = uri
		text := string(c.Redacted().YAML())
		if strings.Contains(text, "sec") || strings.Contains(text, "ret@") || strings.Contains(text, "#") {
			t.Errorf("%s: the redacted configuration says\n%s", uri, text)
		}
	}
	c.MLflow.TrackingURI = "https://me:secret@tracking.example/prefix"
	if text := string(c.Redacted().YAML()); strings.Contains(text, "secret") || !strings.Contains(text, "https://tracking.example/prefix") {
		t.Errorf("the redacted configuration says\n%s", text)
	}
	for storage, want := range map[string]string{
		"postgresql://ann:secret@db/optuna?sslmode=require": "postgresql://db/optuna?sslmode=require",
		"postgresql://db/optuna?password=secret&user=ann":   "postgresql://db/optuna",
		"sqlite:////data/optuna.db":                         "sqlite:////data/optuna.db",
		"mysql://ann:sec%ret@db/optuna":                     "mysql://db/optuna",
		"mysql://ann:sec/ret@db/optuna":                     "mysql://db/optuna",
	} {
		c.HPO.Storage = storage
		if got := c.Redacted().HPO.Storage; got != want {
			t.Errorf("the storage %s is redacted to %s, want %s", storage, got, want)
		}
	}
	if c.MLflow.TrackingURI != "https://me:secret@tracking.example/prefix" {
		t.Error("Redacted has changed its receiver")
	}
}
