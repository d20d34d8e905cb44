package criteria_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria"

	"github.com/criteria-go/criteria/internal/memwatch"
)

func TestDefaultConfigIsValid(t *testing.T) {
	if err := criteria.DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestConfigRoundTrip(t *testing.T) {
	changed := criteria.DefaultConfig()
	changed.Model.Checkpoint = `C:\models\tiny: "the first"`
	changed.Model.Head.NumLayers, changed.Model.Head.HiddenDims = 3, []int{768, 384, 192}
	changed.Train.Seed = math.MaxUint64
	changed.Train.LearningRate = 1.5e-7
	changed.Train.WeightDecay = 0
	changed.MLflow.RunName = "on"
	seedless := criteria.DefaultConfig()
	seedless.HPO.Sampler.Seed, seedless.HPO.Storage = nil, ""
	headless := criteria.DefaultConfig()
	headless.Model.Head.NumLayers, headless.Model.Head.HiddenDims = 0, []int{}
	for name, want := range map[string]criteria.Config{
		"defaults": criteria.DefaultConfig(), "changed": changed, "headless": headless, "seedless": seedless,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := criteria.ParseConfig(want.YAML())
			if err != nil {
				t.Fatalf("%v\n%s", err, want.YAML())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("after a round trip (-want +got):\n%s", diff)
			}
		})
	}
}

// Python's YAML reader takes 2e-05 for a string: it wants a point.
func TestConfigYAMLReadsInPython(t *testing.T) {
	got := string(criteria.DefaultConfig().YAML())
	for _, want := range []string{"learning_rate: 2.0e-05\n", "weight_decay: 0.01\n", "max_grad_norm: 1.0\n", "low: 1.0e-06\n", "hidden_dims: [256]\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("YAML lacks %q:\n%s", want, got)
		}
	}
}

func TestParseConfigKeepsDefaults(t *testing.T) {
	want := criteria.DefaultConfig()
	want.Train.LearningRate = 5e-5
	want.Train.BatchSize = 32
	want.Train.Optimizations.UseAMP = false
	want.HPO.StudyName = "1"
	want.Model.Tokenizer.Truncation, want.Model.Tokenizer.Padding = "do_not_truncate", "longest"
	for name, text := range map[string]string{
		"block": "train:\n  learning_rate: 5e-5\n  batch_size: 32\n  optimizations:\n    use_amp: false\nhpo:\n  study_name: 1\nmodel:\n  tokenizer: {truncation: false, padding: true}\n",
		"flow":  "{train: {learning_rate: 0.00005, batch_size: 32, optimizations: {use_amp: 0}}, hpo: {study_name: '1'}, model: {tokenizer: {truncation: do_not_truncate}}}",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := criteria.ParseConfig([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got, err := criteria.ParseConfig(nil); err != nil || cmp.Diff(criteria.DefaultConfig(), got) != "" {
		t.Errorf("an empty document: %v, %+v; want the defaults", err, got)
	}
}

func TestParseConfigReportsEveryProblem(t *testing.T) {
	const text = `
train:
  learning_rte: 1e-5
  epochs: 0
  batch_size: 16.5
  scheduler: linaer
  seed: -1
  dropout: 0.2
  optimizations: fast
model:
  head:
    num_layers: 4
    dropout: 0.9
    hidden_dims: 256
  tokenizer:
    max_length: "512"
data:
  train_ratio: 0.5
  redsm5_dir: ???
hpo:
  search_space:
    learning_rate: {low: 0, high: 1e-4, log: true}
    batch_size: {choices: []}
mlflow:
  tracking_uri: null
trian: {}
`
	_, err := criteria.ParseConfig([]byte(text))
	if !errors.Is(err, criteria.ErrInvalidConfig) {
		t.Fatalf("error %v; want ErrInvalidConfig", err)
	}
	var invalid *criteria.ConfigError
	if !errors.As(err, &invalid) {
		t.Fatalf("error %T; want a *ConfigError", err)
	}
	got := make([]string, len(invalid.Problems))
	for i, p := range invalid.Problems {
		got[i] = p.String()
	}
	want := []string{
		"line 3: train.learning_rte: unknown key, did you mean train.learning_rate?",
		"line 4: train.epochs = 0: want a number from 1 to 100000",
		"line 5: train.batch_size = 16.5: want an integer",
		"line 6: train.scheduler = linaer: want linear, cosine, constant; did you mean linear?",
		"line 7: train.seed = -1: want an integer from 0 to 18446744073709551615",
		"line 8: train.dropout: unknown key, did you mean model.head.dropout?",
		"line 9: train.optimizations = fast: want a mapping with the keys use_amp, amp_dtype, enable_tf32, attention_implementation, gradient_checkpointing, use_compile, compile_mode",
		"line 12: model.head.num_layers = 4: want a number from 0 to 3",
		"line 13: model.head.dropout = 0.9: want a number from 0 to 0.5",
		"line 14: model.head.hidden_dims = 256: want a list like [1, 2]",
		`line 16: model.tokenizer.max_length = "512": want an integer`,
		"line 19: data.redsm5_dir = ???: want a value: ??? stands for one that must be given",
		"line 22: hpo.search_space.learning_rate.low = 0: want a number above 0, because hpo.search_space.learning_rate.log is true",
		"line 23: hpo.search_space.batch_size.choices = []: want at least one choice",
		"line 25: mlflow.tracking_uri = null: want a string",
		"line 26: trian: unknown key, did you mean train?",
		"data.train_ratio + data.val_ratio + data.test_ratio = 0.7: want 1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestParseConfigRefusesBrokenYAML(t *testing.T) {
	for _, text := range []string{"train: [", "train: {epochs: 1}\ntrain: {epochs: 2}\n", "- 1\n", "&a [*a]\n", "train: &a\n  optimizations: *a\n"} {
		if _, err := criteria.ParseConfig([]byte(text)); !errors.Is(err, criteria.ErrInvalidConfig) {
			t.Errorf("ParseConfig(%q) = %v; want ErrInvalidConfig", text, err)
		}
	}
}

func TestValidateRejectsNaN(t *testing.T) {
	c := criteria.DefaultConfig()
	c.Train.LearningRate, c.Train.WarmupRatio, c.Data.ValRatio = math.NaN(), math.NaN(), math.Inf(1)
	var invalid *criteria.ConfigError
	if err := c.Validate(); !errors.As(err, &invalid) || len(invalid.Problems) != 3 {
		t.Errorf("Validate() = %v; want three problems", err)
	}
}

// More widths than layers are no error: model.head.num_layers=0 alone must do,
// as must model.head.hidden_dims=[768,384,192] alone.
func TestHiddenDims(t *testing.T) {
	for _, tc := range []struct {
		layers int
		dims   []int
		ok     bool
	}{
		{0, nil, true}, {0, []int{256}, true}, {1, []int{768, 384, 192}, true},
		{2, []int{512, 256}, true}, {2, []int{512}, false}, {1, []int{0}, false},
	} {
		c := criteria.DefaultConfig()
		c.Model.Head.NumLayers, c.Model.Head.HiddenDims = tc.layers, tc.dims
		if err := c.Validate(); (err == nil) != tc.ok {
			t.Errorf("num_layers %d with hidden_dims %v: %v; want ok %v", tc.layers, tc.dims, err, tc.ok)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(criteria.DefaultConfig().YAML())
	f.Add([]byte("train:\n  learning_rate: 5e-5\n  seed: 0x10\n  epochs: 1_000\n"))
	f.Add([]byte("a: &a {b: *a}\ntrain: *a\n"))
	f.Add([]byte("mlflow: {run_name: \"\\x00\\u2028 \\t\"}\n"))
	f.Add([]byte("{train: {<<: {epochs: 3}}, model: {head: {hidden_dims: [1, 2, 3]}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		memwatch.Start(t, len(text))
		c, err := criteria.ParseConfig(text)
		if err != nil {
			if !errors.Is(err, criteria.ErrInvalidConfig) || err.Error() == "" {
				t.Fatalf("error %v; want ErrInvalidConfig", err)
			}
			return
		}
		again, err := criteria.ParseConfig(c.YAML())
		if err != nil {
			t.Fatalf("the YAML of a valid configuration does not parse: %v\n%s", err, c.YAML())
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Fatalf("round trip (-want +got):\n%s", diff)
		}
		var any map[string]any
		if err := yaml.Unmarshal(c.YAML(), &any); err != nil {
			t.Fatal(err)
		}
	})
}

func TestParseConfigOfSearch(t *testing.T) {
	_, err := criteria.ParseConfig([]byte(`
hpo:
  storage: postgresql://ann:secret@db:port/optuna
  n_jobs: 0
  heartbeat_interval: 30
  grace_period: 10
  importance: fanove
  sampler: {type: TPE, seed: -1}
  pruner: {interval_steps: 0}
  search_space:
    scheduler: {choices: [linear, linear]}
    batch_size: {choices: [4, 8, 4]}
`))
	if err == nil {
		t.Fatal("no error")
	}
	want := `criteria: configuration: 9 problems
  line 3: hpo.storage = postgresql://…: want sqlite:///file.db, postgresql://user@host/database or mysql://user@host/database (want postgresql://user:password@host:5432/database?sslmode=…, as libpq has it)
  line 4: hpo.n_jobs = 0: want a number from 1 to 1024
  line 6: hpo.grace_period = 10: want a number from 60 to 1000000
  line 7: hpo.importance = fanove: want fanova, pedanova; did you mean fanova?
  line 8: hpo.sampler.seed = -1: want an integer from 0 to 18446744073709551615
  line 8: hpo.sampler.type = TPE: want TPESampler, RandomSampler
  line 9: hpo.pruner.interval_steps = 0: want a number from 1 to 100000
  line 11: hpo.search_space.scheduler.choices[1] = linear: want each choice once
  line 12: hpo.search_space.batch_size.choices[2] = 4: want each choice once`
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
