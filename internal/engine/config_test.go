package engine

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConfigLargerThanWeights: a config.json that describes more than there is is
// refused before anything is built.
func TestConfigLargerThanWeights(t *testing.T) {
	const tiny = "../../testdata/sample/tiny-deberta"
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(tiny)); err != nil {
		t.Fatal(err)
	}
	config, raw, err := readConfig(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkWeights(config, dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, configFile)
	for key, n := range map[string]string{"num_hidden_layers": "1000", "vocab_size": "16000000", "position_buckets": "1000000"} {
		changed := regexp.MustCompile(`"`+key+`": *\d+`).ReplaceAll(raw, []byte(`"`+key+`": `+n))
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), Spec{Dir: dir}, "none")
		if err == nil || !strings.Contains(err.Error(), "describes an encoder of") {
			t.Errorf("%s: %v", key, err)
		}
	}
	if err := os.Truncate(path, 12<<30); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("this disk has no sparse files: ", err)
	}
	if _, err := Open(t.Context(), Spec{Dir: dir}, "none"); err == nil || !strings.Contains(err.Error(), "12884901888 bytes") {
		t.Errorf("sparse: %v", err)
	}
}
