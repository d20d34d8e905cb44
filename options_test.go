package criteria_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
)

func TestOptionsSetTheConfig(t *testing.T) {
	base := criteria.DefaultConfig()
	base.Train.WeightDecay = 0.05
	head := criteria.HeadConfig{NumLayers: 2, HiddenDims: []int{512, 256}, Activation: "gelu", Dropout: 0.2, PoolingStrategy: "mean"}
	want := base
	want.Model.Checkpoint = "some/model"
	want.Model.Head = head
	want.Model.Tokenizer.MaxLength = 64
	want.Data.ReDSM5Dir, want.Data.DSM5CriteriaPath = "d", "c.json"
	want.Train.Seed, want.Train.Epochs, want.Train.LearningRate = 7, 9, 1e-4
	want.Train.EarlyStoppingPatience, want.Train.Threads = 0, 2
	want.Train.BatchSize, want.Train.EvalBatchSize = 4, 4
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint("first"), criteria.WithCheckpoint("some/model"), criteria.Configure(func(c *criteria.Config) { c.Model.Head, c.Model.Tokenizer.MaxLength = head, 64 }),
		criteria.WithData("d", "c.json"), criteria.WithSeed(7), criteria.Configure(func(c *criteria.Config) {
			c.Train.Epochs, c.Train.LearningRate, c.Train.EarlyStoppingPatience = 9, 1e-4, 0
		}), criteria.WithThreads(2), criteria.WithBatchSize(4),
		criteria.WithConfig(base), // last, and yet it takes nothing back
	)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, trainer.Config()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The trainer's configuration is its own.
	head.HiddenDims[0] = 1
	trainer.Config().Model.Head.HiddenDims[0] = 2
	if got := trainer.Config().Model.Head.HiddenDims[0]; got != 512 {
		t.Errorf("the configuration changed from outside: hidden_dims[0] is %d", got)
	}
}

func TestNewTrainerReportsEverything(t *testing.T) {
	_, err := criteria.NewTrainer(
		criteria.WithThreads(-1), criteria.WithTracker(nil), criteria.WithOutputDir(""), criteria.Configure(func(c *criteria.Config) { c.Train.Epochs, c.Train.LearningRate = 0, 2 }), nil,
	)
	if !errors.Is(err, criteria.ErrInvalidOption) || !errors.Is(err, criteria.ErrInvalidConfig) {
		t.Fatalf("error %v; want invalid options and an invalid configuration", err)
	}
	for _, part := range []string{"WithThreads(-1)", "WithTracker(<nil>)", "WithOutputDir", "train.epochs = 0", "train.learning_rate = 2", "want an option, not nil"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q:\n%v", part, err)
		}
	}
	var option *criteria.OptionError
	if !errors.As(err, &option) || option.Option != "WithThreads" || option.Value != -1 {
		t.Errorf("first option error %+v", option)
	}
}

func TestNewTrainerOpensNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := criteria.NewTrainer(criteria.WithOutputDir(dir), criteria.WithData("none", "none")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the output directory was made: %v", err)
	}
}
