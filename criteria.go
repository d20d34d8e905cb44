package criteria

import (
	"context"
	"io"
	"time"
)

// The ports: what a run needs from the outside. Each has a real default and is
// replaced by an option; they are small so that a test can fake them.

// Tokenizer turns pairs of texts into token ids.
// Implementations must be safe for concurrent use.
type Tokenizer interface {
	// EncodePairs returns one encoding per pair, in order: [CLS] post [SEP]
	// criterion [SEP], cut to at most maxLength ids and not padded.
	EncodePairs(ctx context.Context, pairs []Pair, maxLength int) (Encodings, error)
	// SaveTo writes the files from which the same tokenizer can be opened
	// again (tokenizer.json, tokenizer_config.json) into dir.
	SaveTo(dir string) error
	Close() error
}

// Encodings holds the token ids of many pairs in one array.
type Encodings struct {
	IDs       []int32 // ids of all pairs, one after another
	Offsets   []int   // pair i is IDs[Offsets[i]:Offsets[i+1]]; len = pairs+1
	Truncated []bool  // whether pair i had to be cut; len = pairs
}

// Len returns the number of pairs.
func (e Encodings) Len() int { return len(e.Truncated) }

// At returns the ids of pair i, a view.
func (e Encodings) At(i int) []int32 { return e.IDs[e.Offsets[i]:e.Offsets[i+1]] }

// Engine builds models and runs them. The default computes with ONNX Runtime.
type Engine interface {
	// Open loads the checkpoint that spec names and prepares for training (if
	// spec.Training is set) or for inference only.
	Open(ctx context.Context, spec ModelSpec) (Session, error)
}

// ModelSpec says which model an [Engine] opens.
type ModelSpec struct {
	Dir      string        // folder with config.json and weights (never a hub id)
	Head     HeadConfig    // to train; for inference it is the one in Dir that counts
	Training *TrainingSpec // nil: inference only
	Threads  int           // 0: one per physical core
	Device   string        // cpu, cuda or cuda:1 for the second GPU; "" is cpu

	// Optimizations trade memory or exactness for speed. The zero value is plain
	// float32. The CPU follows GradientCheckpointing alone.
	Optimizations OptimizationsConfig
	PinMemory     bool // of what is copied to a GPU
}

// TrainingSpec is what a [Session] needs in addition in order to train.
type TrainingSpec struct {
	Seed         uint64  // initial head weights and dropout masks
	Optimizer    string  // adamw, adamw_torch_fused or adamw_bnb_8bit
	WeightDecay  float64 // not applied to biases and LayerNorm parameters
	MaxGradNorm  float64 // global gradient norm is clipped to it; 0: no clipping
	Accumulation int     // micro-batches per update: gradients are averaged over them
}

// Evaluator is a model in memory that can be asked: all that a [Classifier] needs.
type Evaluator interface {
	// Evaluate runs forward without dropout. It must be safe for concurrent use,
	// except on a [Session] that was opened for training.
	Evaluate(ctx context.Context, b Batch) (BatchResult, error)
	Close() error
}

// Session is one model in memory. Its methods are not safe for concurrent use,
// except Evaluate on a session opened for inference only.
type Session interface {
	Evaluator
	// Accumulate runs forward and backward over one micro-batch with dropout
	// and adds the gradients. step counts updates from 0, micro the
	// micro-batches within it; together with the seed they decide the dropout
	// masks, so that a resumed run draws the same ones. The logits are read
	// before the next call: their memory may be used again.
	Accumulate(ctx context.Context, b Batch, step, micro int) (BatchResult, error)
	// Update clips the accumulated gradients, takes one optimizer step at the
	// given learning rate and clears them. It returns the gradient norm
	// before clipping.
	Update(ctx context.Context, learningRate float64) (gradNorm float64, err error)
	// SaveModel writes config.json, model.safetensors, the head and the ONNX
	// artifacts of the current weights into dir, which exists.
	SaveModel(ctx context.Context, dir string) error
	// SaveState and LoadState write and read weights and optimizer state, for
	// resuming a run bit by bit.
	SaveState(ctx context.Context, dir string) error
	LoadState(ctx context.Context, dir string) error
}

// Batch is a micro-batch of token ids, padded to one length, row by row.
// A session may round Rows and Length up to a shape it has compiled.
type Batch struct {
	Rows, Length  int
	InputIDs      []int64   // [Rows × Length], padding is 0
	AttentionMask []int64   // [Rows × Length], 1 for tokens, 0 for padding
	Labels        []int64   // [Rows], 0 or 1; nil when predicting
	SampleWeights []float32 // [Rows], class weight of each row's label; nil when predicting
}

// BatchResult is what a session computed for a [Batch].
type BatchResult struct {
	// Loss is the weighted mean cross-entropy Σ wᵢ·nllᵢ / Σ wᵢ; 0 without labels.
	Loss float64
	// Logits are [Rows × 2], row by row.
	Logits []float32
}

// Tracker records runs, as MLflow does. The default records nothing.
type Tracker interface {
	// Start creates a run, or fails at once with the remedy if the store
	// cannot be reached: no epoch is spent on a run that cannot be recorded.
	Start(ctx context.Context, info RunInfo) (TrackedRun, error)
}

// RunInfo describes a run at its start.
type RunInfo struct {
	Name        string            // shown in lists; empty: the tracker makes one up
	Description string            // markdown
	Parent      string            // run ID of the parent, for nested runs
	Tags        map[string]string // stage, version.*, data.hash.* …
	Params      map[string]string
	Datasets    []DatasetInfo
	Started     time.Time
	Dir         string // output directory of the run: what cannot be sent waits here
	// ResumeRunID is the run to go on with, if it is not empty, instead of
	// creating one. What it has been told before is told again where it might
	// have been lost: a metric that it has at a step is not to be recorded
	// twice. A tracker that cannot go on with a run creates a new one.
	ResumeRunID string
}

// DatasetInfo names one split of the data, as MLflow's dataset inputs.
type DatasetInfo struct {
	Name    string // e.g. "redsm5"
	Context string // train, val or test
	Digest  string // of the content
	Source  string // where it was read
	Rows    int
}

// RunStatus is how a run ended.
type RunStatus string

// The ways in which a run ends, in MLflow's words.
const (
	RunRunning  RunStatus = "RUNNING" // it goes on elsewhere: other processes work on the same study
	RunFinished RunStatus = "FINISHED"
	RunFailed   RunStatus = "FAILED"
	RunKilled   RunStatus = "KILLED"
)

// TrackedRun is a run that was started. A network that goes away later does
// not make these methods fail: what cannot be sent is kept and sent later.
type TrackedRun interface {
	ID() string
	LogParams(ctx context.Context, params map[string]string) error
	SetTags(ctx context.Context, tags map[string]string) error
	LogMetrics(ctx context.Context, step int, metrics map[string]float64) error
	// LogArtifact stores what r yields under path (slash separated).
	LogArtifact(ctx context.Context, path string, r io.Reader) error
	// LogArtifacts stores all files below dir under path.
	LogArtifacts(ctx context.Context, dir, path string) error
	// End closes the run. It is called with a context that is not cancelled,
	// also after Ctrl-C.
	End(ctx context.Context, status RunStatus) error
}

// Describer may be implemented by a [Session] that can say what it runs on.
type Describer interface {
	Describe() SessionInfo
}

// SessionInfo says what a [Session] runs on.
type SessionInfo struct {
	Device     string            // for people, e.g. "CPU, 4 threads"
	GPU        bool              // whether mixed precision and the like have an effect
	Parameters int               // number of trainable parameters
	Versions   map[string]string // recorded as tags version.<name>, e.g. onnxruntime
}
