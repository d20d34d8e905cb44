package criteria_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// The default engine and tokenizer, on the sample's tiny checkpoint.
func TestDefaultEngine(t *testing.T) {
	const checkpoint = "testdata/sample/tiny-deberta"
	train := func(t *testing.T, threads int, opts ...criteria.TrainerOption) *criteria.Result {
		t.Helper()
		trainer, err := criteria.NewTrainer(append([]criteria.TrainerOption{
			criteria.WithCheckpoint(checkpoint), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)), criteria.Configure(func(c *criteria.Config) {
				c.Model.Tokenizer.MaxLength, c.Train.Epochs, c.Train.LearningRate = 64, 2, 1e-3
			}), criteria.WithOutputDir(t.TempDir()), criteria.WithThreads(threads),
		}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		result, err := trainer.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	weights := func(r *criteria.Result) string {
		text, err := os.ReadFile(filepath.Join(r.ModelDir(), "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	first := train(t, 1)
	t.Run("any number of threads gives the same bits", func(t *testing.T) {
		for _, threads := range []int{2, 3} {
			other := train(t, threads)
			if diff := cmp.Diff(first.History, other.History); diff != "" {
				t.Errorf("scores with 1 and with %d threads differ (-1 +%d):\n%s", threads, threads, diff)
			}
			if first.Test != other.Test || weights(first) != weights(other) {
				t.Errorf("1 and %d threads give other weights or test scores", threads)
			}
		}
	})
	for _, optimizer := range []string{"adamw", "adamw_bnb_8bit"} {
		t.Run("resumed is as never interrupted, with "+optimizer, func(t *testing.T) {
			config := criteria.DefaultConfig()
			config.Train.OptimizerType, config.Train.BatchSize, config.Train.GradientAccumulationSteps = optimizer, 8, 2
			whole, dir := train(t, 2, criteria.WithConfig(config)), t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			options := func(place criteria.TrainerOption, threads int) []criteria.TrainerOption {
				return []criteria.TrainerOption{
					criteria.WithConfig(config), criteria.WithCheckpoint(checkpoint), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)),
					criteria.Configure(func(c *criteria.Config) {
						c.Model.Tokenizer.MaxLength, c.Train.Epochs, c.Train.LearningRate = 64, 2, 1e-3
					}), criteria.WithThreads(threads), place,
					criteria.WithHooks(criteria.Hooks{Step: func(e criteria.StepEvent) {
						if e.Phase == criteria.PhaseTrain && e.Step == 4 {
							cancel()
						}
					}}),
				}
			}
			first, err := criteria.NewTrainer(options(criteria.WithOutputDir(dir), 1)...)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := first.Run(ctx); !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v; want an interruption", err)
			}
			second, err := criteria.NewTrainer(options(criteria.WithResume(dir), 3)...)
			if err != nil {
				t.Fatal(err)
			}
			resumed, err := second.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(whole.History, resumed.History); diff != "" {
				t.Errorf("scores (-uninterrupted +resumed):\n%s", diff)
			}
			if whole.Test != resumed.Test || weights(whole) != weights(resumed) {
				t.Error("the resumed run has other weights or test scores")
			}
		})
	}
	t.Run("another seed gives another run", func(t *testing.T) {
		if weights(train(t, 2, criteria.WithSeed(43))) == weights(first) {
			t.Error("the weights are the same")
		}
	})
	t.Run("the classifier agrees with the test", func(t *testing.T) {
		classifier, err := first.Classifier(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer classifier.Close()
		test := fakes.Dataset(12, 6, 6, 1).Test
		pairs, right := make([]criteria.Pair, len(test)), 0
		for i, e := range test {
			pairs[i] = e.Pair
		}
		predictions, err := classifier.Predict(t.Context(), pairs)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range predictions {
			if p.Label == (test[i].Label == 1) {
				right++
			}
		}
		if got := float64(right) / float64(len(test)); got != first.Test.Accuracy {
			t.Errorf("accuracy of the predictions %v, of the test %v", got, first.Test.Accuracy)
		}
	})
	t.Run("it can be carried in the program, and explained", func(t *testing.T) {
		classifier, err := criteria.LoadFS(t.Context(), os.DirFS(first.ModelDir()), criteria.WithWarmup(), criteria.WithBatchSize(4))
		if err != nil {
			t.Fatal(err)
		}
		defer classifier.Close()
		pair := criteria.Pair{Post: "I cannot sleep lately. 日本", Criterion: "Insomnia or hypersomnia."}
		predictions, err := classifier.Predict(t.Context(), []criteria.Pair{pair})
		if err != nil {
			t.Fatal(err)
		}
		e, err := classifier.Explain(t.Context(), pair)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(predictions[0], e.Prediction, cmpopts.EquateApprox(0, 1e-5)); diff != "" {
			t.Errorf("prediction (-Predict +Explain):\n%s", diff)
		}
		var post, criterion strings.Builder
		some := false
		for _, token := range e.Tokens {
			some = some || token.Score != 0
			if token.InCriterion {
				criterion.WriteString(token.Text)
			} else {
				post.WriteString(token.Text)
			}
		}
		if !some || !strings.HasPrefix(post.String(), "Icannotsleeplately.") || criterion.String() != "Insomniaorhypersomnia." {
			t.Errorf("tokens %+v", e.Tokens)
		}
	})
	t.Run("a trained model can be trained further", func(t *testing.T) {
		// At a rate of next to nothing the scores must stay what they were: encoder
		// and head were both taken over.
		again := train(t, 2, criteria.WithCheckpoint(first.ModelDir()), criteria.Configure(func(c *criteria.Config) { c.Train.LearningRate = 1e-12 }))
		if diff := cmp.Diff(first.Test, again.Test, cmpopts.EquateApprox(1e-5, 0)); diff != "" {
			t.Errorf("test scores (-first +again):\n%s", diff)
		}
	})
}
