package criteria

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria/internal/optunadb"
	"github.com/criteria-go/criteria/internal/redact"
)

// Config holds every setting of a run. [DefaultConfig] returns one with the
// defaults named at the fields; [ParseConfig] reads one from YAML, and
// [Config.YAML] writes it so that ParseConfig reads the same value again.
//
// The settings that only a GPU can follow (mixed precision, TF32, compilation,
// pinned memory; see docs/gpu.md) are accepted everywhere, so that one
// configuration serves all machines; on the CPU a run says in one log line that
// they are without effect.
type Config struct {
	Model  ModelConfig  `yaml:"model"`
	Data   DataConfig   `yaml:"data"`
	Train  TrainConfig  `yaml:"train"`
	HPO    HPOConfig    `yaml:"hpo"`
	MLflow MLflowConfig `yaml:"mlflow"`
	Device string       `yaml:"device"` // cpu, cuda or cuda:1 for the second GPU; default cpu
}

// ModelConfig says what is fine-tuned.
type ModelConfig struct {
	Checkpoint string          `yaml:"checkpoint"` // folder or hub id; default microsoft/deberta-v3-base
	Head       HeadConfig      `yaml:"head"`
	Tokenizer  TokenizerConfig `yaml:"tokenizer"`
}

// HeadConfig is the classification head on top of the encoder: NumLayers times
// linear layer, activation and dropout, then a linear layer to the two classes.
type HeadConfig struct {
	NumLayers       int     `yaml:"num_layers"`       // hidden layers, 0–3; default 1
	HiddenDims      []int   `yaml:"hidden_dims"`      // width of each hidden layer, at least NumLayers; default [256]
	Activation      string  `yaml:"activation"`       // relu, gelu or tanh; default relu
	Dropout         float64 `yaml:"dropout"`          // after each hidden layer, 0–0.5; default 0.1
	PoolingStrategy string  `yaml:"pooling_strategy"` // cls, mean or max; default cls
}

// TokenizerConfig says how pairs of texts become token ids.
type TokenizerConfig struct {
	MaxLength  int    `yaml:"max_length"` // of a pair with its special tokens, at least 8; default 512
	Truncation string `yaml:"truncation"` // longest_first, only_first, only_second or do_not_truncate; default longest_first
	Padding    string `yaml:"padding"`    // longest (of the batch), max_length or do_not_pad, which is longest; default longest. The scores are the same
}

// DataConfig says where the data are and how they are split.
type DataConfig struct {
	ReDSM5Dir        string           `yaml:"redsm5_dir"`         // folder of the CSV files; default data/redsm5
	DSM5CriteriaPath string           `yaml:"dsm5_criteria_path"` // JSON file of criteria; default data/redsm5/dsm5_criteria.json
	TrainRatio       float64          `yaml:"train_ratio"`        // share of the posts, above 0; default 0.8
	ValRatio         float64          `yaml:"val_ratio"`          // default 0.1
	TestRatio        float64          `yaml:"test_ratio"`         // default 0.1; the three sum to 1
	DataLoader       DataLoaderConfig `yaml:"dataloader"`
}

// DataLoaderConfig says how the data are prepared.
type DataLoaderConfig struct {
	NumWorkers        int  `yaml:"num_workers"`        // goroutines that tokenize the training split, one the others; 0: one per processor; default 4
	PinMemory         bool `yaml:"pin_memory"`         // GPU only; default true
	PersistentWorkers bool `yaml:"persistent_workers"` // without effect: texts are tokenized once per run; default true
	GroupByLength     bool `yaml:"group_by_length"`    // train on batches of pairs of alike length; default false, a random order. It changes the results; see docs/concepts.md
}

// TrainConfig says how the model is trained.
type TrainConfig struct {
	Seed                      uint64              `yaml:"seed"`                        // of split, order, head weights and dropout; default 42
	Epochs                    int                 `yaml:"epochs"`                      // default 5
	BatchSize                 int                 `yaml:"batch_size"`                  // pairs of a micro-batch; default 16
	EvalBatchSize             int                 `yaml:"eval_batch_size"`             // default 16
	LearningRate              float64             `yaml:"learning_rate"`               // peak, above 0 up to 1; default 2e-5
	WeightDecay               float64             `yaml:"weight_decay"`                // decoupled, 0–1, not on biases and LayerNorms; default 0.01
	WarmupRatio               float64             `yaml:"warmup_ratio"`                // share of the updates with rising rate, 0–1; default 0.1
	MaxGradNorm               float64             `yaml:"max_grad_norm"`               // gradients are clipped to this global norm; 0: never; default 1
	GradientAccumulationSteps int                 `yaml:"gradient_accumulation_steps"` // micro-batches of an update; default 1
	Scheduler                 string              `yaml:"scheduler"`                   // linear, cosine or constant; default linear
	OptimizerType             string              `yaml:"optimizer_type"`              // adamw, adamw_torch_fused or adamw_bnb_8bit; default adamw_torch_fused
	EarlyStoppingPatience     int                 `yaml:"early_stopping_patience"`     // epochs without a better val_macro_f1 before the run stops; 0: never; default 3
	Threads                   int                 `yaml:"threads"`                     // of the engine; 0: one per physical core; default 0. The results are the same
	CheckpointSteps           int                 `yaml:"checkpoint_steps"`            // updates from checkpoint to checkpoint, beside that of each epoch; 0: none; default 0
	CheckpointMinutes         float64             `yaml:"checkpoint_minutes"`          // the same in time; 0: none; default 10
	KeepCheckpoints           int                 `yaml:"keep_checkpoints"`            // the last ones are kept; 0: none is written; default 2. The results are the same
	Optimizations             OptimizationsConfig `yaml:"optimizations"`
}

// OptimizationsConfig holds the settings that trade memory or exactness for
// speed on a GPU. On the CPU only gradient checkpointing has an effect.
type OptimizationsConfig struct {
	UseAMP                  bool   `yaml:"use_amp"`                  // products in amp_dtype; GPU only; default true
	AMPDtype                string `yaml:"amp_dtype"`                // bf16 or fp16; default bf16
	EnableTF32              bool   `yaml:"enable_tf32"`              // float32 products with 10 bits of mantissa; GPU only; default true
	AttentionImplementation string `yaml:"attention_implementation"` // sdpa, eager (the same) or flash_attention_2 (fused, on a GPU; see docs/gpu.md); default sdpa
	GradientCheckpointing   bool   `yaml:"gradient_checkpointing"`   // compute activations twice instead of keeping them: slower, in less memory, with the same results; default false
	UseCompile              bool   `yaml:"use_compile"`              // GPU only; see docs/gpu.md; default false
	CompileMode             string `yaml:"compile_mode"`             // default, reduce-overhead or max-autotune; default default
}

// HPOConfig says how a study searches for hyperparameters.
type HPOConfig struct {
	StudyName         string        `yaml:"study_name"`         // a study of this name is continued; default debertav3-criteria-hpo
	Storage           string        `yaml:"storage"`            // sqlite:///file.db, postgresql://… or mysql://…, as Optuna has it; "": in memory; default sqlite:///optuna.db
	NTrials           int           `yaml:"n_trials"`           // complete and pruned, of all processes that share the study; default 30
	NJobs             int           `yaml:"n_jobs"`             // trials of this process that run at the same time; default 1
	Retries           int           `yaml:"retries"`            // how often a trial that was killed is tried again; default 0
	MaxFailures       int           `yaml:"max_failures"`       // failed trials of this process at which it gives up; default 10
	HeartbeatInterval float64       `yaml:"heartbeat_interval"` // seconds between the signs of life of a trial; default 15
	GracePeriod       float64       `yaml:"grace_period"`       // seconds of silence after which a trial is taken for dead, at least two heartbeats; default 120
	SaveModels        bool          `yaml:"save_models"`        // keep the best model of every trial; default false: scores only
	Importance        string        `yaml:"importance"`         // fanova or pedanova; default fanova
	Sampler           SamplerConfig `yaml:"sampler"`
	Pruner            PrunerConfig  `yaml:"pruner"`
	SearchSpace       SearchSpace   `yaml:"search_space"`
}

// SamplerConfig says how a study draws hyperparameters. What is drawn for a
// trial is a function of the seed, the number of the trial and the trials before
// it: workers that share a study never draw the same, and one that works alone
// draws the same again.
type SamplerConfig struct {
	Type           string  `yaml:"type"`             // TPESampler or RandomSampler; default TPESampler
	Seed           *uint64 `yaml:"seed"`             // nil, in YAML null: every process draws a seed of its own; default 42
	NStartupTrials int     `yaml:"n_startup_trials"` // trials drawn at random before TPE learns from them; default 10
}

// PrunerConfig says when a study gives a trial up.
type PrunerConfig struct {
	Type           string `yaml:"type"`             // MedianPruner or NopPruner; default MedianPruner
	NStartupTrials int    `yaml:"n_startup_trials"` // complete trials before any is pruned; default 5
	NWarmupSteps   int    `yaml:"n_warmup_steps"`   // a trial is not pruned before this epoch; default 0
	IntervalSteps  int    `yaml:"interval_steps"`   // epochs from judgement to judgement; default 1
}

// SearchSpace holds the range of every hyperparameter that a study varies.
type SearchSpace struct {
	HeadLayers      IntRange      `yaml:"head_layers"`      // default 0–3
	HiddenDim       IntRange      `yaml:"hidden_dim"`       // default 64–1024, log
	PoolingStrategy StringChoices `yaml:"pooling_strategy"` // default cls, mean, max
	Activation      StringChoices `yaml:"activation"`       // default relu, gelu, tanh
	Dropout         FloatRange    `yaml:"dropout"`          // default 0–0.5
	LearningRate    FloatRange    `yaml:"learning_rate"`    // default 1e-6–1e-4, log
	BatchSize       IntChoices    `yaml:"batch_size"`       // default 4, 8, 16, 32, 64
	WarmupRatio     FloatRange    `yaml:"warmup_ratio"`     // default 0–0.3
	WeightDecay     FloatRange    `yaml:"weight_decay"`     // default 0–0.1
	Scheduler       StringChoices `yaml:"scheduler"`        // default linear, cosine, constant
}

// IntRange is Low ≤ n ≤ High, uniform in n or, if Log, in its logarithm.
type IntRange struct {
	Low  int  `yaml:"low"`
	High int  `yaml:"high"`
	Log  bool `yaml:"log"`
}

// FloatRange is Low ≤ x ≤ High, uniform in x or, if Log, in its logarithm.
type FloatRange struct {
	Low  float64 `yaml:"low"`
	High float64 `yaml:"high"`
	Log  bool    `yaml:"log"`
}

// StringChoices is one of several words.
type StringChoices struct {
	Choices []string `yaml:"choices"`
}

// IntChoices is one of several numbers.
type IntChoices struct {
	Choices []int `yaml:"choices"`
}

// MLflowConfig says where runs are recorded.
type MLflowConfig struct {
	TrackingURI    string `yaml:"tracking_uri"`    // sqlite:///file, http(s)://host or a folder; "": MLFLOW_TRACKING_URI; default sqlite:///mlflow.db
	ExperimentName string `yaml:"experiment_name"` // "": MLFLOW_EXPERIMENT_NAME; default debertav3-criteria
	RunName        string `yaml:"run_name"`        // "": MLflow makes one up; default ""
	LogEvery       int    `yaml:"log_every"`       // updates from one point of loss, learning_rate, grad_norm and pairs_per_second to the next; 0: none; default 500
}

// The words that the enumerated keys accept. The search space draws from the
// same ones.
var (
	activations       = []string{"relu", "gelu", "tanh"}
	poolingStrategies = []string{"cls", "mean", "max"}
	truncations       = []string{"longest_first", "only_first", "only_second", "do_not_truncate"}
	paddings          = []string{"longest", "max_length", "do_not_pad"}
	schedulers        = []string{"linear", "cosine", "constant"}
	optimizers        = []string{"adamw", "adamw_torch_fused", "adamw_bnb_8bit"}
	ampDtypes         = []string{"bf16", "fp16"}
	attentions        = []string{"sdpa", attentionFlash, "eager"}
	compileModes      = []string{"default", compileReduceOverhead, compileMaxAutotune}
	samplers          = []string{samplerTPE, samplerRandom}
	pruners           = []string{prunerMedian, prunerNop}
	importances       = []string{importanceFANOVA, importancePEDANOVA}
)

// Words that are looked at elsewhere, too.
const (
	samplerTPE         = "TPESampler"
	samplerRandom      = "RandomSampler"
	prunerMedian       = "MedianPruner"
	prunerNop          = "NopPruner"
	importanceFANOVA   = "fanova"
	importancePEDANOVA = "pedanova"

	attentionFlash = "flash_attention_2"

	compileReduceOverhead = "reduce-overhead"
	compileMaxAutotune    = "max-autotune"
)

// boolWords are the words that true and false stand for, as in transformers.
var boolWords = map[string]map[bool]string{
	"model.tokenizer.truncation": {true: "longest_first", false: "do_not_truncate"},
	"model.tokenizer.padding":    {true: "longest", false: "do_not_pad"},
}

// Bounds that no sensible run reaches. They turn a slip of the hand into an
// error message instead of an allocation that kills the process.
const (
	maxEpochs    = 100_000
	maxBatchSize = 1 << 16
	maxDim       = 1 << 16
	maxLength    = 1 << 16
	maxWorkers   = 1 << 10
	maxLogEvery  = 1 << 30
)

// DefaultConfig returns the configuration that a run has if nothing is said.
func DefaultConfig() Config {
	return Config{
		Model: ModelConfig{
			Checkpoint: "microsoft/deberta-v3-base",
			Head: HeadConfig{
				NumLayers: 1, HiddenDims: []int{256}, Activation: "relu", Dropout: 0.1, PoolingStrategy: "cls",
			},
			Tokenizer: TokenizerConfig{MaxLength: 512, Truncation: "longest_first", Padding: "longest"},
		},
		Data: DataConfig{
			ReDSM5Dir:        "data/redsm5",
			DSM5CriteriaPath: "data/redsm5/dsm5_criteria.json",
			TrainRatio:       0.8,
			ValRatio:         0.1,
			TestRatio:        0.1,
			DataLoader:       DataLoaderConfig{NumWorkers: 4, PinMemory: true, PersistentWorkers: true},
		},
		Train: TrainConfig{
			Seed:                      42,
			Epochs:                    5,
			BatchSize:                 16,
			EvalBatchSize:             16,
			LearningRate:              2e-5,
			WeightDecay:               0.01,
			WarmupRatio:               0.1,
			MaxGradNorm:               1,
			GradientAccumulationSteps: 1,
			Scheduler:                 "linear",
			OptimizerType:             "adamw_torch_fused",
			EarlyStoppingPatience:     3,
			CheckpointMinutes:         10,
			KeepCheckpoints:           2,
			Optimizations: OptimizationsConfig{
				UseAMP: true, AMPDtype: "bf16", EnableTF32: true, AttentionImplementation: "sdpa", CompileMode: "default",
			},
		},
		HPO: HPOConfig{
			StudyName:         "debertav3-criteria-hpo",
			Storage:           "sqlite:///optuna.db",
			NTrials:           30,
			NJobs:             1,
			MaxFailures:       10,
			HeartbeatInterval: 15,
			GracePeriod:       120,
			Importance:        importanceFANOVA,
			Sampler:           SamplerConfig{Type: samplerTPE, Seed: new(uint64(42)), NStartupTrials: 10},
			Pruner:            PrunerConfig{Type: prunerMedian, NStartupTrials: 5, IntervalSteps: 1},
			SearchSpace: SearchSpace{
				HeadLayers:      IntRange{Low: 0, High: 3},
				HiddenDim:       IntRange{Low: 64, High: 1024, Log: true},
				PoolingStrategy: StringChoices{slices.Clone(poolingStrategies)},
				Activation:      StringChoices{slices.Clone(activations)},
				Dropout:         FloatRange{Low: 0, High: 0.5},
				LearningRate:    FloatRange{Low: 1e-6, High: 1e-4, Log: true},
				BatchSize:       IntChoices{[]int{4, 8, 16, 32, 64}},
				WarmupRatio:     FloatRange{Low: 0, High: 0.3},
				WeightDecay:     FloatRange{Low: 0, High: 0.1},
				Scheduler:       StringChoices{slices.Clone(schedulers)},
			},
		},
		MLflow: MLflowConfig{TrackingURI: "sqlite:///mlflow.db", ExperimentName: "debertav3-criteria", LogEvery: 500},
		Device: deviceCPU,
	}
}

// Validate checks every value and the values against each other. The error is
// a [*ConfigError] that names all problems, not just the first.
func (c Config) Validate() error {
	var v checker
	v.notEmpty("model.checkpoint", c.Model.Checkpoint)
	h := c.Model.Head
	v.between("model.head.num_layers", float64(h.NumLayers), 0, 3)
	for i, dim := range h.HiddenDims {
		v.between(fmt.Sprintf("model.head.hidden_dims[%d]", i), float64(dim), 1, maxDim)
	}
	if len(h.HiddenDims) < h.NumLayers && h.NumLayers <= 3 {
		v.fail("model.head.hidden_dims", formatValue(h.HiddenDims),
			fmt.Sprintf("one width for each of the %d hidden layers of model.head.num_layers", h.NumLayers))
	}
	v.oneOf("model.head.activation", h.Activation, activations)
	v.between("model.head.dropout", h.Dropout, 0, 0.5)
	v.oneOf("model.head.pooling_strategy", h.PoolingStrategy, poolingStrategies)
	v.between("model.tokenizer.max_length", float64(c.Model.Tokenizer.MaxLength), 8, maxLength)
	v.oneOf("model.tokenizer.truncation", c.Model.Tokenizer.Truncation, truncations)
	v.oneOf("model.tokenizer.padding", c.Model.Tokenizer.Padding, paddings)

	d := c.Data
	v.notEmpty("data.redsm5_dir", d.ReDSM5Dir)
	v.notEmpty("data.dsm5_criteria_path", d.DSM5CriteriaPath)
	ratios := v.share("data.train_ratio", d.TrainRatio)
	ratios = v.share("data.val_ratio", d.ValRatio) && ratios
	ratios = v.share("data.test_ratio", d.TestRatio) && ratios
	if sum := d.TrainRatio + d.ValRatio + d.TestRatio; ratios && math.Abs(sum-1) > 1e-6 {
		v.fail("data.train_ratio + data.val_ratio + data.test_ratio", formatFloat(sum), "1")
	}
	v.between("data.dataloader.num_workers", float64(d.DataLoader.NumWorkers), 0, maxWorkers)

	t := c.Train
	v.between("train.epochs", float64(t.Epochs), 1, maxEpochs)
	v.between("train.batch_size", float64(t.BatchSize), 1, maxBatchSize)
	v.between("train.eval_batch_size", float64(t.EvalBatchSize), 1, maxBatchSize)
	if !(t.LearningRate > 0 && t.LearningRate <= 1) {
		v.fail("train.learning_rate", formatFloat(t.LearningRate), "a number above 0, up to 1")
	}
	v.between("train.weight_decay", t.WeightDecay, 0, 1)
	v.between("train.warmup_ratio", t.WarmupRatio, 0, 1)
	v.between("train.max_grad_norm", t.MaxGradNorm, 0, 1e6)
	v.between("train.gradient_accumulation_steps", float64(t.GradientAccumulationSteps), 1, maxBatchSize)
	v.oneOf("train.scheduler", t.Scheduler, schedulers)
	v.oneOf("train.optimizer_type", t.OptimizerType, optimizers)
	v.between("train.early_stopping_patience", float64(t.EarlyStoppingPatience), 0, maxEpochs)
	v.between("mlflow.log_every", float64(c.MLflow.LogEvery), 0, maxLogEvery)
	v.between("train.threads", float64(t.Threads), 0, maxWorkers)
	v.between("train.checkpoint_steps", float64(t.CheckpointSteps), 0, 1e9)
	v.between("train.checkpoint_minutes", t.CheckpointMinutes, 0, 1e6)
	v.between("train.keep_checkpoints", float64(t.KeepCheckpoints), 0, 1e3)
	v.oneOf("train.optimizations.amp_dtype", t.Optimizations.AMPDtype, ampDtypes)
	v.oneOf("train.optimizations.attention_implementation", t.Optimizations.AttentionImplementation, attentions)
	v.oneOf("train.optimizations.compile_mode", t.Optimizations.CompileMode, compileModes)

	v.device(c.Device)

	o := c.HPO
	v.notEmpty("hpo.study_name", o.StudyName)
	if o.Storage != "" {
		if err := optunadb.Check(o.Storage); err != nil {
			want := "sqlite:///file.db, postgresql://user@host/database or mysql://user@host/database"
			if cause := errors.Unwrap(err).Error(); !strings.HasPrefix(cause, "want sqlite") {
				want += " (" + cause + ")"
			}
			v.fail("hpo.storage", redact.URL(o.Storage), want)
		}
	}
	v.between("hpo.n_trials", float64(o.NTrials), 1, 1e6)
	v.between("hpo.n_jobs", float64(o.NJobs), 1, maxWorkers)
	v.between("hpo.retries", float64(o.Retries), 0, 1e3)
	v.between("hpo.max_failures", float64(o.MaxFailures), 1, 1e6)
	if v.between("hpo.heartbeat_interval", o.HeartbeatInterval, 0.1, 3600) {
		v.between("hpo.grace_period", o.GracePeriod, 2*o.HeartbeatInterval, 1e6)
	}
	v.oneOf("hpo.importance", o.Importance, importances)
	v.oneOf("hpo.sampler.type", o.Sampler.Type, samplers)
	v.between("hpo.sampler.n_startup_trials", float64(o.Sampler.NStartupTrials), 0, 1e6)
	v.oneOf("hpo.pruner.type", o.Pruner.Type, pruners)
	v.between("hpo.pruner.n_startup_trials", float64(o.Pruner.NStartupTrials), 0, 1e6)
	v.between("hpo.pruner.n_warmup_steps", float64(o.Pruner.NWarmupSteps), 0, maxEpochs)
	v.between("hpo.pruner.interval_steps", float64(o.Pruner.IntervalSteps), 1, maxEpochs)
	s := o.SearchSpace
	v.span("hpo.search_space.head_layers", float64(s.HeadLayers.Low), float64(s.HeadLayers.High), 0, 3, s.HeadLayers.Log)
	v.span("hpo.search_space.hidden_dim", float64(s.HiddenDim.Low), float64(s.HiddenDim.High), 1, maxDim, s.HiddenDim.Log)
	v.eachOf("hpo.search_space.pooling_strategy.choices", s.PoolingStrategy.Choices, poolingStrategies)
	v.eachOf("hpo.search_space.activation.choices", s.Activation.Choices, activations)
	v.span("hpo.search_space.dropout", s.Dropout.Low, s.Dropout.High, 0, 0.5, s.Dropout.Log)
	v.span("hpo.search_space.learning_rate", s.LearningRate.Low, s.LearningRate.High, 0, 1, s.LearningRate.Log)
	if len(s.BatchSize.Choices) == 0 {
		v.fail("hpo.search_space.batch_size.choices", "[]", "at least one choice")
	}
	for i, n := range s.BatchSize.Choices {
		v.between(fmt.Sprintf("hpo.search_space.batch_size.choices[%d]", i), float64(n), 1, maxBatchSize)
	}
	distinct(&v, "hpo.search_space.batch_size.choices", s.BatchSize.Choices)
	v.span("hpo.search_space.warmup_ratio", s.WarmupRatio.Low, s.WarmupRatio.High, 0, 1, s.WarmupRatio.Log)
	v.span("hpo.search_space.weight_decay", s.WeightDecay.Low, s.WeightDecay.High, 0, 1, s.WeightDecay.Log)
	v.eachOf("hpo.search_space.scheduler.choices", s.Scheduler.Choices, schedulers)

	return v.err()
}

// clone returns a copy that shares no memory with c.
func (c Config) clone() Config {
	c.Model.Head.HiddenDims = slices.Clone(c.Model.Head.HiddenDims)
	if seed := c.HPO.Sampler.Seed; seed != nil {
		c.HPO.Sampler.Seed = new(*seed)
	}
	s := &c.HPO.SearchSpace
	s.PoolingStrategy.Choices = slices.Clone(s.PoolingStrategy.Choices)
	s.Activation.Choices = slices.Clone(s.Activation.Choices)
	s.BatchSize.Choices = slices.Clone(s.BatchSize.Choices)
	s.Scheduler.Choices = slices.Clone(s.Scheduler.Choices)
	return c
}

// Redacted returns the configuration without secrets (user, password and tokens
// in mlflow.tracking_uri and hpo.storage): what may be logged and stored with the
// run and the model.
func (c Config) Redacted() Config {
	c.MLflow.TrackingURI = redact.URL(c.MLflow.TrackingURI)
	c.HPO.Storage = redact.URL(c.HPO.Storage)
	return c
}

// withoutEffectOnCPU lists the settings that were asked for and that a CPU
// cannot follow, as key=value.
func (c Config) withoutEffectOnCPU() []string {
	var keys []string
	asked := func(key, value string, on bool) {
		if on {
			keys = append(keys, key+"="+value)
		}
	}
	o := c.Train.Optimizations
	asked("train.optimizations.use_amp", "true", o.UseAMP)
	asked("train.optimizations.amp_dtype", o.AMPDtype, o.UseAMP)
	asked("train.optimizations.enable_tf32", "true", o.EnableTF32)
	asked("train.optimizations.attention_implementation", o.AttentionImplementation, o.AttentionImplementation != "eager")
	asked("train.optimizations.use_compile", "true", o.UseCompile)
	asked("train.optimizations.compile_mode", o.CompileMode, o.UseCompile)
	asked("data.dataloader.pin_memory", "true", c.Data.DataLoader.PinMemory)
	return keys
}

// checker collects what is wrong with a configuration.
type checker struct{ problems []ConfigProblem }

func (v *checker) fail(key, value, want string) {
	v.problems = append(v.problems, ConfigProblem{Key: key, Value: value, Want: want})
}

func (v *checker) notEmpty(key, value string) {
	if strings.TrimSpace(value) == "" {
		v.fail(key, strconv.Quote(value), "some text")
	}
}

// device reports a device that is none.
func (v *checker) device(device string) {
	if !isDevice(device) {
		v.fail("device", strconv.Quote(device), strings.TrimPrefix(wantDevice, "want "))
	}
}

// between reports low ≤ x ≤ high; NaN is outside of every range.
func (v *checker) between(key string, x, low, high float64) bool {
	if x >= low && x <= high {
		return true
	}
	v.fail(key, formatNumber(x), "a number from "+formatNumber(low)+" to "+formatNumber(high))
	return false
}

// share reports 0 < x < 1.
func (v *checker) share(key string, x float64) bool {
	if x > 0 && x < 1 {
		return true
	}
	v.fail(key, formatNumber(x), "a number above 0 and below 1")
	return false
}

func (v *checker) oneOf(key, value string, words []string) {
	if slices.Contains(words, value) {
		return
	}
	p := ConfigProblem{Key: key, Value: value, Want: strings.Join(words, ", ")}
	if value == "" {
		p.Value = `""`
	}
	p.DidYouMean = nearest(value, words)
	v.problems = append(v.problems, p)
}

func (v *checker) eachOf(key string, values, words []string) {
	if len(values) == 0 {
		v.fail(key, "[]", "at least one of "+strings.Join(words, ", "))
	}
	for i, value := range values {
		v.oneOf(fmt.Sprintf("%s[%d]", key, i), value, words)
	}
	distinct(v, key, values)
}

// distinct reports a value that is there twice.
func distinct[T comparable](v *checker, key string, values []T) {
	for i, value := range values {
		if slices.Contains(values[:i], value) {
			v.fail(fmt.Sprintf("%s[%d]", key, i), fmt.Sprint(value), "each choice once")
		}
	}
}

func (v *checker) span(key string, low, high, min, max float64, log bool) {
	ok := v.between(key+".low", low, min, max)
	ok = v.between(key+".high", high, min, max) && ok
	if !ok {
		return
	}
	if low > high {
		v.fail(key+".low", formatNumber(low), "at most "+key+".high, which is "+formatNumber(high))
	}
	if log && low <= 0 {
		v.fail(key+".low", formatNumber(low), "a number above 0, because "+key+".log is true")
	}
}

func (v *checker) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return &ConfigError{Problems: v.problems}
}

// ParseConfig reads a configuration from YAML. Keys that it leaves out keep
// their defaults. It is strict: an unknown key, a value of another type or one
// out of range is an error, a [*ConfigError] that names all problems at once.
func ParseConfig(data []byte) (Config, error) {
	c := DefaultConfig()
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return Config{}, &ConfigError{Err: err}
	}
	if len(doc.Content) == 0 { // an empty document
		return c, nil
	}
	var d decoder
	d.decode("", doc.Content[0], reflect.ValueOf(&c).Elem())
	// A value that could not be read keeps its default, so the checks below
	// speak only about values that the document really has.
	if err := c.Validate(); err != nil {
		var invalid *ConfigError
		if errors.As(err, &invalid) {
			for _, p := range invalid.Problems {
				p.Line = d.lines[p.Key]
				d.problems = append(d.problems, p)
			}
		}
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b ConfigProblem) int {
			return cmp.Compare(uint(a.Line-1), uint(b.Line-1)) // those without a line last
		})
		return Config{}, &ConfigError{Problems: d.problems}
	}
	return c, nil
}

// decoder walks a YAML document along the fields of a struct. Unlike the YAML
// library it goes on after a problem and knows the full key of each.
type decoder struct {
	problems []ConfigProblem
	lines    map[string]int // key → line
}

func (d *decoder) fail(key string, n *yaml.Node, want string) {
	d.problems = append(d.problems, ConfigProblem{Key: key, Value: nodeText(n), Want: want, Line: n.Line})
}

func (d *decoder) decode(key string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if d.lines == nil {
		d.lines = make(map[string]int)
	}
	d.lines[key] = n.Line
	switch v.Kind() {
	case reflect.Pointer: // of a scalar that may be left open
		if n.ShortTag() == "!!null" {
			v.SetZero()
			return
		}
		value, before := reflect.New(v.Type().Elem()), len(d.problems)
		d.decode(key, n, value.Elem())
		if len(d.problems) == before {
			v.Set(value)
		}
	case reflect.Struct:
		d.decodeStruct(key, n, v)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(key, n, "a list like [1, 2]")
			return
		}
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		before := len(d.problems)
		for i, item := range n.Content {
			d.decode(fmt.Sprintf("%s[%d]", key, i), item, list.Index(i))
		}
		if len(d.problems) == before {
			v.Set(list)
		}
	default:
		d.decodeScalar(key, n, v)
	}
}

func (d *decoder) decodeStruct(key string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		if key == "" {
			d.fail("the document", n, "a mapping with the keys "+strings.Join(fieldNames(v.Type()), ", "))
		} else {
			d.fail(key, n, "a mapping with the keys "+strings.Join(fieldNames(v.Type()), ", "))
		}
		return
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		full := joinKey(key, name.Value)
		field := fieldByName(v, name.Value)
		switch {
		case !field.IsValid():
			d.problems = append(d.problems, ConfigProblem{
				Key: full, Unknown: true, Value: nodeText(value), Line: name.Line, DidYouMean: suggestKey(full),
				Want: "one of " + strings.Join(fieldNames(v.Type()), ", "),
			})
		case seen[name.Value]:
			d.fail(full, value, "the key once")
		default:
			seen[name.Value] = true
			d.decode(full, value, field)
		}
	}
}

// decodeScalar follows OmegaConf's typed nodes: an integer is a float too, any
// scalar is a string, but 1.0 is no integer and a number no boolean except 0 and 1.
func (d *decoder) decodeScalar(key string, n *yaml.Node, v reflect.Value) {
	tag := n.ShortTag()
	if n.Kind != yaml.ScalarNode {
		tag = "no scalar"
	} else if tag == "!!str" && n.Value == "???" {
		d.fail(key, n, "a value: ??? stands for one that must be given")
		return
	}
	switch v.Kind() {
	case reflect.String:
		words, hasBool := boolWords[key]
		switch tag {
		case "!!bool":
			var b bool
			if hasBool && n.Decode(&b) == nil {
				v.SetString(words[b])
				return
			}
			v.SetString(n.Value)
		case "!!str", "!!int", "!!float":
			v.SetString(n.Value)
		default:
			d.fail(key, n, "a string")
		}
	case reflect.Bool:
		var b bool
		switch {
		case tag == "!!bool" && n.Decode(&b) == nil:
			v.SetBool(b)
		case tag == "!!int" && (n.Value == "0" || n.Value == "1"):
			v.SetBool(n.Value == "1")
		default:
			d.fail(key, n, "true or false")
		}
	case reflect.Int:
		var i int
		if tag != "!!int" || n.Decode(&i) != nil {
			d.fail(key, n, "an integer")
			return
		}
		v.SetInt(int64(i))
	case reflect.Uint64:
		var u uint64
		if tag != "!!int" || n.Decode(&u) != nil {
			d.fail(key, n, "an integer from 0 to 18446744073709551615")
			return
		}
		v.SetUint(u)
	case reflect.Float64:
		var f float64
		if tag != "!!int" && tag != "!!float" || n.Decode(&f) != nil {
			d.fail(key, n, "a number")
			return
		}
		v.SetFloat(f)
	}
}

// YAML returns the configuration in block style, keys in the order of the
// fields. Numbers are written so that a YAML 1.1 reader, as Python's is, reads
// numbers too (2.0e-05, not 2e-05).
func (c Config) YAML() []byte {
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	// Neither can fail: the node is well-formed and the builder takes everything.
	_ = enc.Encode(encode(reflect.ValueOf(c)))
	_ = enc.Close()
	return []byte(b.String())
}

func encode(v reflect.Value) *yaml.Node {
	switch v.Kind() {
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("yaml")
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, encode(v.Field(i)))
		}
		return n
	case reflect.Pointer:
		if v.IsNil() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
		}
		return encode(v.Elem())
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i)))
		}
		return n
	case reflect.String:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v.String()}
	case reflect.Float64:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: formatFloat(v.Float())}
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}
	}
}

// params flattens the configuration into the parameters that a run records:
// all of model and train under their keys, train.optimizations as opt, and the
// seed once more under its bare name, where people look for it. Values are
// written as Python's str writes them, as in everybody's other MLflow runs.
func (c Config) params() map[string]string {
	out := map[string]string{"seed": strconv.FormatUint(c.Train.Seed, 10)}
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			key := joinKey(prefix, v.Type().Field(i).Tag.Get("yaml"))
			switch field := v.Field(i); {
			case key == "train.optimizations":
				walk("opt", field)
			case field.Kind() == reflect.Struct:
				walk(key, field)
			default:
				out[key] = formatValue(field.Interface())
			}
		}
	}
	walk("model", reflect.ValueOf(c.Model))
	walk("train", reflect.ValueOf(c.Train))
	return out
}

// formatValue writes a value of a Config as Python's str does.
func formatValue(x any) string {
	switch x := x.(type) {
	case bool:
		if x {
			return "True"
		}
		return "False"
	case float64:
		return pythonFloat(x)
	case []int:
		return strings.ReplaceAll(fmt.Sprint(x), " ", ", ")
	}
	return fmt.Sprint(x)
}

// pythonFloat is Python's repr: the fewest digits that read back as x, with an
// exponent below 1e-4 and from 1e16 on.
func pythonFloat(x float64) string {
	format := byte('f')
	if abs := math.Abs(x); abs != 0 && abs < 1e-4 || abs >= 1e16 {
		format = 'e'
	}
	s := strconv.FormatFloat(x, format, -1, 64)
	if format == 'f' && !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// formatFloat is pythonFloat with the point that YAML 1.1 wants in a number.
func formatFloat(x float64) string {
	switch {
	case math.IsNaN(x):
		return ".nan"
	case math.IsInf(x, 0):
		return strings.ReplaceAll(strconv.FormatFloat(x, 'f', -1, 64), "Inf", ".inf")
	}
	s := pythonFloat(x)
	if mantissa, exponent, ok := strings.Cut(s, "e"); ok && !strings.Contains(mantissa, ".") {
		return mantissa + ".0e" + exponent
	}
	return s
}

// formatNumber writes integers as such.
func formatNumber(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1e15 {
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return formatFloat(x)
}

func nodeText(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return "null"
		}
		if n.ShortTag() == "!!str" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 || n.Value == "" {
			return strconv.Quote(n.Value)
		}
		return n.Value
	}
	return "something else"
}

func joinKey(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

func fieldByName(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		if v.Type().Field(i).Tag.Get("yaml") == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("yaml")
	}
	return names
}

// allKeys lists the full key of every field below t.
func allKeys(prefix string, t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		key := joinKey(prefix, t.Field(i).Tag.Get("yaml"))
		keys = append(keys, key)
		if t.Field(i).Type.Kind() == reflect.Struct {
			keys = append(keys, allKeys(key, t.Field(i).Type)...)
		}
	}
	return keys
}

// suggestKey returns the key that the author of an unknown one may have meant:
// one spelled alike, or one of the same name elsewhere. "" if there is none.
func suggestKey(unknown string) string {
	keys := allKeys("", reflect.TypeFor[Config]())
	if near := nearest(unknown, keys); near != "" {
		return near
	}
	leaf := unknown[strings.LastIndex(unknown, ".")+1:]
	best := ""
	for _, key := range keys {
		name := key[strings.LastIndex(key, ".")+1:]
		if name == leaf && !strings.HasPrefix(key, "hpo.") {
			return key
		}
		if best == "" && nearest(leaf, []string{name}) != "" && !strings.HasPrefix(key, "hpo.") {
			best = key
		}
	}
	return best
}

// nearest returns the word that takes the fewest edits to reach, about one for
// every three letters at most; "" if none is that near.
func nearest(s string, words []string) string {
	if len(s) > 200 { // no key is: do not spend time on it
		return ""
	}
	best, least := "", max(1, (len(s)+1)/3)+1
	for _, w := range words {
		if n := editDistance(strings.ToLower(s), strings.ToLower(w)); n < least {
			best, least = w, n
		}
	}
	return best
}

// editDistance counts the insertions, deletions and substitutions between two
// strings (Levenshtein, 1965).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
