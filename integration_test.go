package criteria_test

import (
	"os"
	"path/filepath"
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
			criteria.WithCheckpoint(checkpoint), criteria.WithDataset(fakes.Dataset(12, 6, 6, 1)), criteria.WithMaxLength(64),
			criteria.WithEpochs(2), criteria.WithLearningRate(1e-3), criteria.WithOutputDir(t.TempDir()), criteria.WithThreads(threads),
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
	t.Run("a trained model can be trained further", func(t *testing.T) {
		// At a rate of next to nothing the scores must stay what they were: encoder
		// and head were both taken over.
		again := train(t, 2, criteria.WithCheckpoint(first.ModelDir()), criteria.WithLearningRate(1e-12))
		if diff := cmp.Diff(first.Test, again.Test, cmpopts.EquateApprox(1e-5, 0)); diff != "" {
			t.Errorf("test scores (-first +again):\n%s", diff)
		}
	})
}
