// Package criteria fine-tunes DeBERTaV3 classifiers that decide whether a text
// shows a criterion, and serves them, without Python. ONNX Runtime computes; the
// training graph, gradients included, is written by this module as standard
// ONNX operators.
//
// # Basics
//
// A [Trainer] does the whole job: it reads and splits the data, fine-tunes the
// checkpoint, keeps the best model of all epochs and tests it.
//
//	trainer, err := criteria.NewTrainer(
//		criteria.WithCheckpoint("microsoft/deberta-v3-small"),
//		criteria.WithData("data/redsm5", "data/redsm5/dsm5_criteria.json"),
//		criteria.WithHooks(criteria.ProgressBar(os.Stderr)),
//	)
//	if err != nil {
//		return err
//	}
//	result, err := trainer.Run(ctx)
//
// A [Classifier] answers:
//
//	classifier, err := result.Classifier(ctx) // or criteria.Load(ctx, "outputs/best_model")
//	if err != nil {
//		return err
//	}
//	defer classifier.Close()
//	predictions, err := classifier.Predict(ctx, []criteria.Pair{{Post: post, Criterion: criterion}})
//
// Constructors check everything and open nothing. Run opens what it needs and
// has closed it when it returns, so a Trainer needs no Close. What you inject,
// you close.
//
// # Configuring
//
// [Config] holds every setting, [DefaultConfig] the defaults. [Configure] changes
// them, [WithConfig] sets them as a whole. Options set what every first program
// needs, or replace what a run works with.
// [ParseConfig] and [Config.YAML] read and write it as YAML. Mistakes are
// reported all at once, each with its key, what would be right and, for a slip of
// the hand, what was probably meant.
//
// The programs in examples/ put a command line before this that Hydra users know
// (groups, overrides, output directories); conf/ holds their defaults. A program
// of yours needs none of it.
//
// # Data
//
// [ReadDataset] describes the files that are understood. Data from elsewhere
// come as a [Dataset]. Every pair of a post and a criterion is an example, and
// all pairs of a post are in one split.
//
// # Tracking
//
// With [WithMLflow] a run is recorded as MLflow's own are, in the store that
// mlflow.tracking_uri or [WithTrackingURI] names:
// parameters, scores of every epoch, tags that say from which code and data it
// comes, the model and the pictures. A store that is away at the start is an
// error at once; one that goes away later costs nothing.
//
// # Reproducibility
//
// Two runs of one configuration on one data set and one kind of machine give
// the same weights and scores, bit for bit, with any number of threads. The split
// is a function of the data and train.seed, the order of the pairs one of seed
// and epoch, and the dropout masks are one of seed and update.
//
// A run leaves checkpoints in its output directory, and [WithResume] goes on from
// the last one that is intact, whatever ended the process. The resumed run ends
// with the weights and scores of one that was never interrupted, bit for bit.
//
// [Reproduce] repeats a run from what MLflow has of it, by testing its model or by
// training it again, and says by how much each metric differs.
//
// # Searching
//
// A [Study] searches for the hyperparameters of the best model: each of its trials
// is a training with values drawn from [SearchSpace], by TPE unless [WithSampler]
// says otherwise, and given up early if it falls behind.
//
//	study, err := criteria.NewStudy(
//		criteria.WithData("data/redsm5", "data/redsm5/dsm5_criteria.json"),
//		criteria.Configure(func(c *criteria.Config) {
//			c.HPO.Storage, c.HPO.NTrials = "postgresql://optuna@db/optuna", 100
//		}),
//	)
//	if err != nil {
//		return err
//	}
//	result, err := study.Run(ctx) // result.Config is what NewTrainer takes
//
// Whoever gives the same name and storage works on the same study, at the same
// time or later: on another machine, in Python with Optuna itself, or this program
// after it was interrupted.
//
// # Exporting
//
// [ExportONNX] writes a trained model as one file that ONNX Runtime runs in any
// language, [ExportTransformers] in the layout of Hugging Face transformers.
//
// # Errors
//
// Errors say what was found, what was wanted and what to do. What a program can
// act on has a type: [*OptionError], [*ConfigError], [*DataError], [*RuntimeError],
// [*DivergedError], [*InterruptedError], [*CheckpointError], [*StudyError]. That a training stopped early is no
// error but a [StopReason].
//
// When the context of Run ends, the update at hand is finished, a checkpoint is
// written, the tracked run is ended as KILLED, and an [*InterruptedError] is returned, which is
// [context.Canceled] too. The best model so far stays in the output directory.
//
// # Extending
//
// [Engine], [Tokenizer] and [Tracker] are small interfaces with a real default
// each; [WithEngine], [WithTokenizer] and [WithTracker] replace them. [Hooks] are
// told of every step, epoch and checkpoint; [ProgressBar] is made of them, and
// your metrics exporter can be.
//
// # Caveats
//
// The default engine needs the shared library of ONNX Runtime 1.24 or newer,
// which [CheckRuntime] looks for. The default tokenizer is written in Go.
//
// A model judges texts as it has learned to from its data. It does not diagnose,
// and no decision about a person must rest on it alone.
package criteria
