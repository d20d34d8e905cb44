package criteria_test

import (
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
)

// TestRedacted: what is logged and stored names the server, not its password.
func TestRedacted(t *testing.T) {
	c := criteria.DefaultConfig()
	c.MLflow.TrackingURI = "https://me:secret@tracking.example/prefix"
	if text := string(c.Redacted().YAML()); strings.Contains(text, "secret") || !strings.Contains(text, "https://tracking.example/prefix") {
		t.Errorf("the redacted configuration says\n%s", text)
	}
	if c.MLflow.TrackingURI != "https://me:secret@tracking.example/prefix" {
		t.Error("Redacted has changed its receiver")
	}
}
