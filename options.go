package criteria

import (
	"errors"
	"log/slog"
	"time"
)

// Options configure the constructors. Each sets one field of [Config] or
// replaces one port; their order does not matter, except that of two options
// for the same thing the later one wins. A value that cannot be right is an
// [*OptionError], which the constructor returns, together with all others.

// TrainerOption configures [NewTrainer], the training that [Reproduce] repeats
// and those of a [Study].
type TrainerOption interface {
	ReproduceOption
	StudyOption
	applyTrainer(*settings) error
}

// LoadOption configures [Load] and [LoadFS].
type LoadOption interface{ applyLoad(*settings) error }

// Option is valid wherever options are taken.
type Option interface {
	TrainerOption
	LoadOption
}

type trainerOption func(*settings) error

func (f trainerOption) applyTrainer(s *settings) error       { return f(s) }
func (f trainerOption) applyReproduce(p *reproduction) error { return f(p.settings) }
func (f trainerOption) applyStudy(s *studySettings) error    { return f(&s.settings) }

type option func(*settings) error

func (f option) applyTrainer(s *settings) error       { return f(s) }
func (f option) applyReproduce(p *reproduction) error { return f(p.settings) }
func (f option) applyStudy(s *studySettings) error    { return f(&s.settings) }
func (f option) applyLoad(s *settings) error          { return f(s) }

// settings is what options write to.
type settings struct {
	config Config            // of WithConfig, or the defaults
	edits  []func(c *Config) // of the options for single fields, applied to config last

	dataset   *Dataset
	outputDir string
	resumeDir string // output directory of the run to go on with; "" for a new one
	tracker   Tracker
	engine    Engine
	tokenizer Tokenizer
	log       *slog.Logger
	hooks     []Hooks
	now       func() time.Time

	device    string // of Load; a Trainer has it in its Config
	threads   int    // of Load; a Trainer has it in its Config
	batchSize int    // of Load
	serving   serving
}

func newSettings() *settings {
	return &settings{
		config:    DefaultConfig(),
		outputDir: "outputs",
		log:       slog.New(slog.DiscardHandler),
		now:       time.Now,
		batchSize: 32,
		serving:   serving{queue: defaultQueue, threshold: 0.5},
	}
}

// finish merges the single fields into the configuration and checks the whole.
func (s *settings) finish() error {
	if s.resumeDir != "" {
		s.outputDir = s.resumeDir
	}
	for _, edit := range s.edits {
		edit(&s.config)
	}
	return s.config.Validate()
}

func applyAll[O, S any](s S, opts []O, apply func(O, S) error) error {
	var errs []error
	for _, o := range opts {
		if any(o) == nil {
			errs = append(errs, &OptionError{Option: "option", Value: nil, Reason: "want an option, not nil"})
			continue
		}
		errs = append(errs, apply(o, s))
	}
	return errors.Join(errs...)
}

// field is an option for one field of the configuration; its value is checked
// with all others when the constructor has seen every option.
func field(set func(c *Config)) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.edits = append(s.edits, set)
		return nil
	})
}

func notNil(name string, isNil bool) error {
	if isNil {
		return &OptionError{Option: name, Value: nil, Reason: "want a value, not nil; leave the option out for the default"}
	}
	return nil
}

// WithConfig replaces the whole configuration, which is [DefaultConfig]
// otherwise. Options for single fields apply on top of it, wherever they stand.
func WithConfig(c Config) TrainerOption {
	c = c.clone()
	return trainerOption(func(s *settings) error {
		s.config = c.clone()
		return nil
	})
}

// WithCheckpoint sets model.checkpoint: the folder or hub id of the pretrained
// encoder. Default microsoft/deberta-v3-base.
func WithCheckpoint(dirOrID string) TrainerOption {
	return field(func(c *Config) { c.Model.Checkpoint = dirOrID })
}

// WithHead sets model.head. Default: one hidden layer of 256 units with relu,
// dropout 0.1, on the [CLS] token.
func WithHead(h HeadConfig) TrainerOption {
	return field(func(c *Config) { c.Model.Head = h; *c = c.clone() })
}

// WithMaxLength sets model.tokenizer.max_length: the number of tokens to which
// longer pairs are cut. Default 512.
func WithMaxLength(tokens int) TrainerOption {
	return field(func(c *Config) { c.Model.Tokenizer.MaxLength = tokens })
}

// WithData sets data.redsm5_dir and data.dsm5_criteria_path: the folder of CSV
// files and the JSON file of criteria. See [ReadDataset].
func WithData(dir, criteriaPath string) TrainerOption {
	return field(func(c *Config) { c.Data.ReDSM5Dir, c.Data.DSM5CriteriaPath = dir, criteriaPath })
}

// WithSeed sets train.seed, on which the split, the order of the pairs, the
// first weights of the head and the dropout depend. Default 42.
func WithSeed(seed uint64) TrainerOption {
	return field(func(c *Config) { c.Train.Seed = seed })
}

// WithEpochs sets train.epochs. Default 5.
func WithEpochs(n int) TrainerOption {
	return field(func(c *Config) { c.Train.Epochs = n })
}

// WithLearningRate sets train.learning_rate, the peak of the schedule.
// Default 2e-5.
func WithLearningRate(rate float64) TrainerOption {
	return field(func(c *Config) { c.Train.LearningRate = rate })
}

// WithEarlyStopping sets train.early_stopping_patience: the number of epochs
// without a better val_macro_f1 after which the run stops; 0 never stops.
// Default 3.
func WithEarlyStopping(patience int) TrainerOption {
	return field(func(c *Config) { c.Train.EarlyStoppingPatience = patience })
}

// WithDataset trains on d instead of reading the files that the configuration
// names. It is checked as files are when the run starts, and not changed.
func WithDataset(d *Dataset) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.dataset = d
		return notNil("WithDataset", d == nil)
	})
}

// WithOutputDir sets the folder that receives best_model/ and the reports. It
// is made if it does not exist. Default "outputs".
func WithOutputDir(dir string) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.outputDir = dir
		if dir == "" {
			return &OptionError{Option: "WithOutputDir", Value: `""`, Reason: "want a folder"}
		}
		return nil
	})
}

// WithTracker records the run. Default: nothing is recorded.
func WithTracker(t Tracker) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.tracker = t
		return notNil("WithTracker", t == nil)
	})
}

// WithHooks adds functions that are told of the run's progress. Several
// options add up; they are called in the order given.
func WithHooks(h Hooks) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.hooks = append(s.hooks, h)
		return nil
	})
}

// WithClock replaces time.Now. The time is used for timestamps and speeds
// only: no result depends on it.
func WithClock(now func() time.Time) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.now = now
		return notNil("WithClock", now == nil)
	})
}

// WithLogger receives what the run or the classifier has to say. Default: it
// is discarded.
func WithLogger(l *slog.Logger) Option {
	return option(func(s *settings) error {
		s.log = l
		return notNil("WithLogger", l == nil)
	})
}

// WithEngine replaces ONNX Runtime as what computes.
func WithEngine(e Engine) Option {
	return option(func(s *settings) error {
		s.engine = e
		return notNil("WithEngine", e == nil)
	})
}

// WithTokenizer replaces the tokenizer that comes with the checkpoint. The
// caller closes it, after the run or the classifier has ended.
func WithTokenizer(t Tokenizer) Option {
	return option(func(s *settings) error {
		s.tokenizer = t
		return notNil("WithTokenizer", t == nil)
	})
}

// WithThreads sets the number of threads that compute (train.threads for a
// trainer). 0, the default, means one per physical core. The results do not
// depend on it.
func WithThreads(n int) Option {
	return option(func(s *settings) error {
		s.threads = n
		s.edits = append(s.edits, func(c *Config) { c.Train.Threads = n })
		if n < 0 || n > maxWorkers {
			return &OptionError{Option: "WithThreads", Value: n, Reason: "want a number from 0 to 1024"}
		}
		return nil
	})
}

// WithBatchSize sets the number of pairs that are computed at once
// (train.batch_size and train.eval_batch_size for a trainer). Default 16 in
// training and 32 for a classifier.
func WithBatchSize(n int) Option {
	return option(func(s *settings) error {
		s.batchSize = n
		s.edits = append(s.edits, func(c *Config) { c.Train.BatchSize, c.Train.EvalBatchSize = n, n })
		if n < 1 || n > maxBatchSize {
			return &OptionError{Option: "WithBatchSize", Value: n, Reason: "want a number from 1 to 65536"}
		}
		return nil
	})
}
