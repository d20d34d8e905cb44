package criteria

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/mlflow"
)

// TestCheckFiles: a file that has changed is named, whoever recorded its hash
// and however MLflow made him write its name.
func TestCheckFiles(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for name, tc := range map[string]struct {
		tags    map[string]string
		changed string
		differs []string
	}{
		"as it was":              {map[string]string{"data.hash.posts _1_.csv": hash}, "", nil},
		"upper case and scheme":  {map[string]string{"data.hash.posts _1_.csv": "sha256:" + strings.ToUpper(hash)}, "", nil},
		"another":                {map[string]string{"data.hash.posts _1_.csv": strings.Repeat("cd", 32)}, "posts (1).csv", nil},
		"gone":                   {map[string]string{"data.hash.posts _1_.csv": hash, "data.hash.x.csv": hash}, "x.csv", nil},
		"no file of ours":        {map[string]string{"data.hash.posts _1_.csv": hash, "data.hash.train": hash}, "", []string{"data.hash.train: no file of that name is read, so that it is not known whether it has changed"}},
		"not recorded":           {map[string]string{"data.hash.y.csv": hash}, "y.csv", nil},
		"recorded, but not this": {map[string]string{"data.hash.train": hash}, "", []string{"data.hash.train: no file of that name is read, so that it is not known whether it has changed", "posts (1).csv: the run did not know this file"}},
		"nothing recorded":       {map[string]string{"stage": "train"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := &reproduction{settings: newSettings(), original: mlflow.Run{Tags: tc.tags}}
			err := p.checkFiles(dataHash, map[string]string{"posts (1).csv": hash}, func(file, _, _ string) error { return errors.New(file) })
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tc.changed {
				t.Errorf("changed %q, want %q", got, tc.changed)
			}
			if diff := cmp.Diff(tc.differs, p.out.Differences); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
		})
	}
}
