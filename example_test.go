package criteria_test

import (
	"context"
	"errors"
	"fmt"
	"os"

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
		criteria.WithEpochs(3),
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
		criteria.WithStorage(""), // in memory; sqlite:///optuna.db or postgresql://… can be continued and shared
		criteria.WithTrials(3),
		criteria.WithEpochs(3),
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
	_, err := criteria.NewTrainer(criteria.WithThreads(-1), criteria.WithLearningRate(3))
	fmt.Println(errors.Is(err, criteria.ErrInvalidOption), errors.Is(err, criteria.ErrInvalidConfig))
	fmt.Println(err)
	// Output:
	// true true
	// criteria: WithThreads(-1): want a number from 0 to 1024
	// criteria: configuration: 2 problems
	//   train.learning_rate = 3.0: want a number above 0, up to 1
	//   train.threads = -1: want a number from 0 to 1024
}

// Hooks see every step, so a service can export what it likes to.
func ExampleJoinHooks() {
	speed := criteria.Hooks{Step: func(e criteria.StepEvent) { fmt.Println(e.Phase, e.Pairs, "of", e.Total) }}
	rate := criteria.Hooks{Step: func(e criteria.StepEvent) { fmt.Println("learning rate", e.LearningRate) }}
	hooks := criteria.JoinHooks(speed, rate)
	hooks.Step(criteria.StepEvent{Phase: criteria.PhaseTrain, Pairs: 16, Total: 1000, LearningRate: 1e-5})
	// Output:
	// train 16 of 1000
	// learning rate 1e-05
}
