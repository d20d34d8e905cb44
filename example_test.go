package criteria_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// A training from options alone. It computes with a stand-in for ONNX Runtime,
// so that this example runs in a moment; leave WithEngine and WithTokenizer out
// for the real thing.
func Example() {
	checkpoint, output := exampleDirs()
	defer os.RemoveAll(checkpoint)
	defer os.RemoveAll(output)

	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint(checkpoint),
		criteria.WithDataset(fakes.Dataset(30, 8, 8, 1)),
		criteria.WithOutputDir(output),
		criteria.Configure(func(c *criteria.Config) { c.Train.Epochs = 3 }),
		criteria.WithEngine(&fakes.Engine{}),
		criteria.WithTokenizer(&fakes.Tokenizer{}),
		criteria.WithHooks(criteria.Hooks{Epoch: func(e criteria.EpochEvent) { fmt.Println("epoch", e.Epoch, "of", e.Epochs) }}),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	result, err := trainer.Run(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Stop)

	classifier, err := result.Classifier(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer classifier.Close()
	predictions, err := classifier.Predict(ctx, []criteria.Pair{
		{Post: "word1 word2 word3 sign word5", Criterion: "criterion1"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(predictions), "prediction")
	// Output:
	// epoch 1 of 3
	// epoch 2 of 3
	// epoch 3 of 3
	// completed
	// 1 prediction
}

// A search from options alone, with the stand-ins of the example above. Its
// result is what a training of the best values takes.
func ExampleNewStudy() {
	checkpoint, output := exampleDirs()
	defer os.RemoveAll(checkpoint)
	defer os.RemoveAll(output)

	ports := []criteria.TrainerOption{
		criteria.WithDataset(fakes.Dataset(30, 8, 8, 1)), criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}),
	}
	study, err := criteria.NewStudy(append([]criteria.StudyOption{
		criteria.WithCheckpoint(checkpoint),
		criteria.WithOutputDir(output),
		criteria.Configure(func(c *criteria.Config) {
			c.HPO.Storage = "" // in memory; sqlite:///optuna.db or postgresql://… can be continued and shared
			c.HPO.NTrials, c.Train.Epochs = 3, 3
		}),
		criteria.WithHooks(criteria.Hooks{Trial: func(e criteria.TrialEvent) {
			fmt.Println("trial", e.Trial.Number, e.Trial.State, "after", len(e.Trial.Scores), "epochs")
		}}),
	}, studyOptions(ports)...)...)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	result, err := study.Run(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}

	trainer, err := criteria.NewTrainer(append(ports, criteria.WithConfig(*result.Config), criteria.WithOutputDir(output))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	best, err := trainer.Run(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("trained again, the same:", best.Best.Val.MacroF1 == result.Best.Value)
	// Output:
	// trial 0 completed after 3 epochs
	// trial 1 completed after 3 epochs
	// trial 2 completed after 3 epochs
	// trained again, the same: true
}

// studyOptions turns options of trainers into those of studies, which they are too.
func studyOptions(from []criteria.TrainerOption) []criteria.StudyOption {
	to := make([]criteria.StudyOption, len(from))
	for i, o := range from {
		to[i] = o
	}
	return to
}

func exampleDirs() (checkpoint, output string) {
	checkpoint, err := os.MkdirTemp("", "checkpoint")
	if err == nil {
		err = os.WriteFile(checkpoint+"/config.json", []byte("{}"), 0o644)
	}
	if err == nil {
		output, err = os.MkdirTemp("", "output")
	}
	if err != nil {
		panic(err)
	}
	return checkpoint, output
}

// What is wrong is reported all at once.
func ExampleParseConfig() {
	_, err := criteria.ParseConfig([]byte(`
train:
  learning_rte: 3e-5
  scheduler: linaer
  epochs: 0
`))
	fmt.Println(err)
	// Output:
	// criteria: configuration: 3 problems
	//   line 3: train.learning_rte: unknown key, did you mean train.learning_rate?
	//   line 4: train.scheduler = linaer: want linear, cosine, constant; did you mean linear?
	//   line 5: train.epochs = 0: want a number from 1 to 100000
}

// Options are checked when a Trainer is made, before anything is opened.
func ExampleNewTrainer() {
	_, err := criteria.NewTrainer(criteria.WithThreads(-1), criteria.Configure(func(c *criteria.Config) { c.Train.LearningRate = 3 }))
	fmt.Println(errors.Is(err, criteria.ErrInvalidOption), errors.Is(err, criteria.ErrInvalidConfig))
	fmt.Println(err)
	// Output:
	// true true
	// criteria: WithThreads(-1): want a number from 0 to 1024
	// criteria: configuration: 2 problems
	//   train.learning_rate = 3.0: want a number above 0, up to 1
	//   train.threads = -1: want a number from 0 to 1024
}

// Pairs of concurrent calls are computed together; a call that comes when too
// much is waiting is refused.
func ExampleLoad() {
	dir, remove := exampleModel()
	defer remove()
	ctx := context.Background()
	classifier, err := criteria.Load(ctx, dir, // or "runs:/RUN_ID/model"
		criteria.WithMaxDelay(2*time.Millisecond), criteria.WithMaxQueue(100), criteria.WithWarmup(),
		criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}), // leave these two out
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer classifier.Close()
	answers, err := classifier.Predict(ctx, []criteria.Pair{
		{Post: "word1 word2 sign word3", Criterion: "criterion1"},
		{Post: "word4 word5 word6", Criterion: "criterion1"},
	})
	switch {
	case errors.Is(err, criteria.ErrOverloaded):
		fmt.Println("try again later")
	case err != nil:
		fmt.Println(err)
	}
	fmt.Println(answers[0].Probability > answers[1].Probability)
	// Output: true
}

// A program may carry its model inside of itself.
func ExampleLoadFS() {
	dir, remove := exampleModel()
	defer remove()
	ctx := context.Background()
	model := os.DirFS(dir) // or an embed.FS
	classifier, err := criteria.LoadFS(ctx, model,
		criteria.WithCalibration(), criteria.WithTunedThreshold(),
		criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}), // leave these two out
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer classifier.Close()
	fmt.Println(classifier.Threshold() > 0)
	// Output: true
}

// A stream of any length needs the memory of eight batches.
func ExampleClassifier_PredictSeq() {
	dir, remove := exampleModel()
	defer remove()
	ctx := context.Background()
	classifier, err := criteria.Load(ctx, dir, criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer classifier.Close()
	pairs := func(yield func(criteria.Pair) bool) {
		for i := range 1000 {
			if !yield(criteria.Pair{Post: fmt.Sprint("word", i), Criterion: "criterion1"}) {
				return
			}
		}
	}
	n := 0
	for _, err := range classifier.PredictSeq(ctx, pairs) {
		if err != nil {
			fmt.Println(err)
			return
		}
		n++
	}
	fmt.Println(n, "predictions")
	// Output: 1000 predictions
}

// Which words of a post speak for a criterion.
func ExampleClassifier_Explain() {
	dir, remove := exampleModel()
	defer remove()
	ctx := context.Background()
	classifier, err := criteria.Load(ctx, dir, criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer classifier.Close()
	explanation, err := classifier.Explain(ctx, criteria.Pair{Post: "word1 sign word2", Criterion: "criterion1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	most := explanation.Tokens[0]
	for _, token := range explanation.Tokens {
		if token.Score > most.Score {
			most = token
		}
	}
	fmt.Printf("%q, from byte %d to %d of the post\n", most.Text, most.Start, most.End)
	// Output: "sign", from byte 6 to 10 of the post
}

// exampleModel trains a model with the stand-ins.
func exampleModel() (dir string, remove func()) {
	checkpoint, output := exampleDirs()
	defer os.RemoveAll(checkpoint)
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint(checkpoint), criteria.WithDataset(fakes.Dataset(30, 8, 8, 1)), criteria.WithOutputDir(output),
		criteria.Configure(func(c *criteria.Config) { c.Train.Epochs = 3 }), criteria.WithEngine(&fakes.Engine{}), criteria.WithTokenizer(&fakes.Tokenizer{}),
	)
	if err != nil {
		panic(err)
	}
	result, err := trainer.Run(context.Background())
	if err != nil {
		panic(err)
	}
	return result.ModelDir(), func() { os.RemoveAll(output) }
}
