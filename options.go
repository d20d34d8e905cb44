package criteria

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// Options configure the constructors. A program sets the few that it needs by
// name and everything else with [Configure]. Their order does not matter, except
// that of two options for the same thing the later one wins. A value that cannot
// be right is an [*OptionError], which the constructor returns, together with all
// others.

// TrainerOption configures [NewTrainer], the training that [Reproduce] repeats
// and those of a [Study].
type TrainerOption interface {
	ReproduceOption
	StudyOption
	applyTrainer(*settings) error
}

// LoadOption configures [Load] and [LoadFS].
type LoadOption interface{ applyLoad(*settings) error }

// ModelOption is valid wherever a model is opened: for training and for prediction.
type ModelOption interface {
	TrainerOption
	LoadOption
}

// Option is valid wherever options are taken, [NewMLflowTracker] and
// [SyncTracking] included.
type Option interface {
	ModelOption
	TrackerOption
}

type trainerOption func(*settings) error

func (f trainerOption) applyTrainer(s *settings) error       { return f(s) }
func (f trainerOption) applyReproduce(p *reproduction) error { return f(p.settings) }
func (f trainerOption) applyStudy(s *studySettings) error    { return f(&s.settings) }

type modelOption struct{ trainerOption }

func (f modelOption) applyLoad(s *settings) error { return f.trainerOption(s) }

type option struct {
	modelOption
	tracker func(*MLflowTracker) error
}

func (f option) applyTracker(t *MLflowTracker) error { return f.tracker(t) }

// settings is what options write to.
type settings struct {
	config    Config            // of WithConfig, or the defaults
	edits     []func(c *Config) // of Configure and the options for single fields, applied to config last
	outputDir string
	resumeDir string // output directory of the run to resume; "" for a new one
	store     store
	ports
	loading
}

// ports are what a run works with.
type ports struct {
	dataset   *Dataset
	tracker   Tracker
	engine    Engine
	tokenizer Tokenizer
	log       *slog.Logger
	hooks     []Hooks
	now       func() time.Time
}

// store names a store of MLflow.
type store struct {
	uri, experiment string
	record          bool // whether the run is recorded there
	opts            []TrackerOption
}

// loading is what a classifier has options for and a Trainer has in its Config.
type loading struct {
	device    string
	threads   int
	batchSize int
	evaluator func(ctx context.Context, spec ModelSpec) (Evaluator, error) // nil: a session of the engine
	serving   serving
}

func newSettings() *settings {
	return &settings{
		config:    DefaultConfig(),
		outputDir: "outputs",
		ports:     ports{log: slog.New(slog.DiscardHandler), now: time.Now},
		loading:   loading{device: deviceCPU, batchSize: 32, serving: serving{queue: defaultQueue, threshold: 0.5}},
	}
}

// finish merges the edits into the configuration, checks the whole and makes the
// tracker that it names.
func (s *settings) finish() error {
	if s.resumeDir != "" {
		s.outputDir = s.resumeDir
	}
	for _, edit := range s.edits {
		edit(&s.config)
	}
	s.config = s.config.clone() // what an edit assigned may be shared with its caller
	if err := s.config.Validate(); err != nil {
		return err
	}
	if !s.store.record || s.tracker != nil {
		return nil
	}
	c := s.config.MLflow
	opts := []TrackerOption{WithTrackingURI(c.TrackingURI), WithExperiment(c.ExperimentName), WithLogger(s.log)}
	tracker, err := NewMLflowTracker(append(opts, s.store.opts...)...)
	if err != nil {
		return err
	}
	s.tracker = tracker
	return nil
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

// Configure changes the configuration: change is called once, by the constructor,
// with the defaults or what [WithConfig] set, and what it leaves is then checked
// as a whole.
//
//	criteria.Configure(func(c *criteria.Config) {
//		c.Train.Epochs, c.Train.LearningRate = 3, 1e-5
//		c.HPO.NTrials = 100
//	})
func Configure(change func(c *Config)) TrainerOption {
	return trainerOption(func(s *settings) error {
		if change != nil {
			s.edits = append(s.edits, change)
		}
		return notNil("Configure", change == nil)
	})
}

func notNil(name string, isNil bool) error {
	if isNil {
		return &OptionError{Option: name, Value: nil, Reason: "want a value, not nil; leave the option out for the default"}
	}
	return nil
}

// WithConfig replaces the whole configuration, which is [DefaultConfig]
// otherwise. [Configure] and the options for single fields apply on top of it,
// wherever they stand.
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
	return Configure(func(c *Config) { c.Model.Checkpoint = dirOrID })
}

// WithData sets data.redsm5_dir and data.dsm5_criteria_path: the folder of CSV
// files and the JSON file of criteria. See [ReadDataset].
func WithData(dir, criteriaPath string) TrainerOption {
	return Configure(func(c *Config) { c.Data.ReDSM5Dir, c.Data.DSM5CriteriaPath = dir, criteriaPath })
}

// WithSeed sets train.seed, on which the split, the order of the pairs, the
// first weights of the head and the dropout depend. Default 42.
func WithSeed(seed uint64) TrainerOption {
	return Configure(func(c *Config) { c.Train.Seed = seed })
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

// WithTracker records the run with t, in place of [WithMLflow]. Default: nothing
// is recorded.
func WithTracker(t Tracker) TrainerOption {
	return trainerOption(func(s *settings) error {
		s.tracker = t
		return notNil("WithTracker", t == nil)
	})
}

// WithMLflow records the run in the store of MLflow that mlflow.tracking_uri and
// mlflow.experiment_name of the configuration name. What [NewMLflowTracker] says
// about stores holds; opts configure its tracker.
func WithMLflow(opts ...TrackerOption) TrainerOption {
	opts = slices.Clone(opts)
	return trainerOption(func(s *settings) error {
		s.store.record, s.store.opts = true, opts
		return nil
	})
}

// WithTrackingURI names the store of MLflow: where a trainer or a study records
// (mlflow.tracking_uri), where [Reproduce] and [Load] look runs up, and where
// [SyncTracking] delivers to. See [NewMLflowTracker] for what uri may be.
func WithTrackingURI(uri string) Option {
	return option{modelOption{func(s *settings) error {
		s.store.uri = uri
		s.edits = append(s.edits, func(c *Config) { c.MLflow.TrackingURI = uri })
		return nil
	}}, func(t *MLflowTracker) error {
		t.uri = uri
		return nil
	}}
}

// WithExperiment names the experiment of MLflow in which runs are recorded
// (mlflow.experiment_name). It has no effect on [Load] and [SyncTracking].
func WithExperiment(name string) Option {
	return option{modelOption{func(s *settings) error {
		s.store.experiment = name
		s.edits = append(s.edits, func(c *Config) { c.MLflow.ExperimentName = name })
		return nil
	}}, func(t *MLflowTracker) error {
		t.experiment = name
		return nil
	}}
}

// WithHooks adds functions that are told of the run's progress. Several
// options add up; they are called in the order given.
func WithHooks(hooks ...Hooks) TrainerOption {
	hooks = slices.Clone(hooks)
	return trainerOption(func(s *settings) error {
		s.hooks = append(s.hooks, hooks...)
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

// WithLogger sets the logger of a run, a classifier or a tracker. Default:
// messages are discarded.
func WithLogger(l *slog.Logger) Option {
	return option{modelOption{func(s *settings) error {
		s.log = l
		return notNil("WithLogger", l == nil)
	}}, func(t *MLflowTracker) error {
		t.log = l
		return notNil("WithLogger", l == nil)
	}}
}

// WithEngine replaces ONNX Runtime as what computes.
func WithEngine(e Engine) ModelOption {
	return modelOption{func(s *settings) error {
		s.engine = e
		return notNil("WithEngine", e == nil)
	}}
}

// WithTokenizer replaces the tokenizer that comes with the checkpoint. The
// caller closes it, after the run or the classifier has ended.
func WithTokenizer(t Tokenizer) ModelOption {
	return modelOption{func(s *settings) error {
		s.tokenizer = t
		return notNil("WithTokenizer", t == nil)
	}}
}

// WithThreads sets the number of threads that compute (train.threads for a
// trainer). 0, the default, means one per physical core. The results do not
// depend on it.
func WithThreads(n int) ModelOption {
	return modelOption{func(s *settings) error {
		s.threads = n
		s.edits = append(s.edits, func(c *Config) { c.Train.Threads = n })
		if n < 0 || n > maxWorkers {
			return &OptionError{Option: "WithThreads", Value: n, Reason: "want a number from 0 to 1024"}
		}
		return nil
	}}
}

// WithBatchSize sets the number of pairs that are computed at once
// (train.batch_size and train.eval_batch_size for a trainer). Default 16 in
// training and 32 for a classifier.
func WithBatchSize(n int) ModelOption {
	return modelOption{func(s *settings) error {
		s.batchSize = n
		s.edits = append(s.edits, func(c *Config) { c.Train.BatchSize, c.Train.EvalBatchSize = n, n })
		if n < 1 || n > maxBatchSize {
			return &OptionError{Option: "WithBatchSize", Value: n, Reason: "want a number from 1 to 65536"}
		}
		return nil
	}}
}
