package main

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const root = "../../.."

// TestReferenceIsCurrent: what the code says now is what the page says.
func TestReferenceIsCurrent(t *testing.T) {
	want, err := Generate(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(root + "/" + target)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s is not what the code says: run make docs (-code +page):\n%s", target, diff)
	}
}

func TestRows(t *testing.T) {
	page, err := Generate(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"| `train.learning_rate` | `2.0e-5` | number above 0, up to 1 | at the peak of the schedule |",
		"| `model.head.dropout` | `0.1` | number from 0 to 0.5 |",
		"| `model.head.activation` | `relu` | `relu`, `gelu`, `tanh` |",
		"| `model.head.hidden_dims` | `[256]` | list of integers from 1 to 65536 |",
		"| `train.seed` | `42` | integer from 0 |",
		"| `hpo.search_space.hidden_dim` | `{low: 64, high: 1024, log: true}` | `low`, `high`: integer from 1 to 65536; `log` |",
		"| `hpo.search_space.scheduler` | `{choices: [linear, cosine, constant]}` | `choices`: list of words: `linear`, `cosine`, `constant` |",
		"| `mlflow.run_name` | `\"\"` | text |",
		"| `data=redsm5` |",
	} {
		if !strings.Contains(string(page), "\n"+row) {
			t.Errorf("no row %s", row)
		}
	}
}

// TestCommentsMatter: a comment of conf/ is in the page, and a file that cannot
// be read is an error.
func TestCommentsMatter(t *testing.T) {
	small := fstest.MapFS{
		"config.go":                {Data: []byte("package criteria\n\n// TrainConfig says how.\ntype TrainConfig struct {\n\tEpochs int `yaml:\"epochs\"` // rounds; default 5\n}\n")},
		"conf/config.yaml":         {Data: []byte("defaults:\n  - train: default\n  - _self_\n")},
		"conf/train/default.yaml":  {Data: []byte("# The file.\n\n# Above\n# it.\nseed: 42 # Beside it.\n\nbatch_size: 16\n")},
		"conf/train/other.yaml":    {Data: []byte("# Another | one\n")},
		"conf/train/ignored.jsonx": {Data: []byte("{")},
	}
	page, err := Generate(small)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| Above it. Beside it |\n", "| `train.epochs` | `5` | integer from 1 to 1e5 | rounds |\n",
		"| `train.batch_size` | `16` | integer from 1 to 65536 |  |\n", "| `train=other` | Another \\| one. |\n", "| `train=default` | The file. The default. |\n",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	small["conf/train/default.yaml"].Data = []byte("a: [")
	if _, err := Generate(small); err == nil || !strings.Contains(err.Error(), "conf/train/default.yaml") {
		t.Errorf("error %v does not name the file", err)
	}
	if _, err := Generate(fstest.MapFS{}); err == nil {
		t.Error("no error without conf/")
	}
}
