package criteria

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria/internal/data"
)

// Classifier judges pairs with a trained model. It is safe for concurrent use.
type Classifier struct {
	session   Session
	tokenizer Tokenizer
	config    TokenizerConfig
	batchSize int
	closers   closers

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup // Predict calls
	once    sync.Once
	err     error // of closing
}

// Prediction is the answer for a [Pair].
type Prediction struct {
	Probability float64 // that the post shows the criterion
	Label       bool    // whether that is the more probable answer
	Truncated   bool    // whether the pair was longer than the model reads, and was cut
}

// Load opens the model in dir, a best_model folder. Close the classifier when
// it is no longer needed.
func Load(ctx context.Context, dir string, opts ...LoadOption) (_ *Classifier, err error) {
	s := newSettings()
	if err := applyAll(s, opts, LoadOption.applyLoad); err != nil {
		return nil, err
	}
	c := &Classifier{tokenizer: s.tokenizer, batchSize: s.batchSize}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.closers.close())
		}
	}()
	if c.config, err = readTokenizerConfig(dir); err != nil {
		return nil, err
	}
	if c.tokenizer == nil {
		if c.tokenizer, err = openTokenizer(dir, c.config, 0); err != nil {
			return nil, err
		}
		c.closers.add(c.tokenizer.Close)
	}
	engine := s.engine
	if engine == nil {
		engine = ONNXRuntime("")
	}
	if c.session, err = engine.Open(ctx, ModelSpec{Dir: dir, Threads: s.threads}); err != nil {
		return nil, openError(dir, err)
	}
	c.closers.add(c.session.Close)
	s.log.Info("model loaded", "dir", dir, "device", describe(c.session).Device)
	return c, nil
}

// readTokenizerConfig finds out how the texts were cut in training. A folder
// that another program made has no record of it; then the defaults hold.
func readTokenizerConfig(dir string) (TokenizerConfig, error) {
	c := DefaultConfig()
	path := filepath.Join(dir, configFile)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(dir); err != nil {
			return TokenizerConfig{}, fmt.Errorf("criteria: load: %w; give the best_model folder of a training", err)
		}
		return c.Model.Tokenizer, nil
	case err != nil:
		return TokenizerConfig{}, fmt.Errorf("criteria: load: %w", err)
	}
	// Not ParseConfig: keys that a newer version added do not matter here.
	if err := yaml.Unmarshal(text, &c); err != nil {
		return TokenizerConfig{}, fmt.Errorf("criteria: load %s: %w", path, err)
	}
	if err := c.Validate(); err != nil {
		return TokenizerConfig{}, fmt.Errorf("criteria: load %s: %w", path, err)
	}
	return c.Model.Tokenizer, nil
}

// Predict judges the pairs, in order. Pairs of alike length are computed
// together, so one call with many pairs is faster than many with one. When ctx
// ends, it returns its cause after the batch at hand.
func (c *Classifier) Predict(ctx context.Context, pairs []Pair) ([]Prediction, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.running.Add(1)
	c.mu.Unlock()
	defer c.running.Done()

	if len(pairs) == 0 {
		return nil, nil
	}
	encodings, err := c.tokenizer.EncodePairs(ctx, pairs, c.config.MaxLength)
	if err != nil {
		return nil, fmt.Errorf("criteria: tokenize: %w", err)
	}
	if encodings.Len() != len(pairs) {
		return nil, fmt.Errorf("criteria: the tokenizer returned %d encodings for %d pairs", encodings.Len(), len(pairs))
	}
	predictions := make([]Prediction, len(pairs))
	for _, plan := range data.EvalBatches(lengths(encodings), c.batchSize, 1) {
		rows := plan.Indices
		if ctx.Err() != nil {
			return nil, fmt.Errorf("criteria: predict: %w", context.Cause(ctx))
		}
		b := padded(encodings, rows, 0)
		result, err := c.session.Evaluate(ctx, b)
		if err != nil {
			return nil, fmt.Errorf("criteria: predict: %w", err)
		}
		if len(result.Logits) != 2*len(rows) {
			return nil, fmt.Errorf("criteria: the engine returned %d logits for %d pairs, want two for each", len(result.Logits), len(rows))
		}
		for i, row := range rows {
			logits := result.Logits[2*i : 2*i+2]
			predictions[row] = Prediction{
				Probability: softmax1(logits), Label: argmax(logits) == 1, Truncated: encodings.Truncated[row],
			}
		}
	}
	return predictions, nil
}

// chunksOfSeq is how many batches PredictSeq reads ahead, so that pairs of alike
// length can be found among them.
const chunksOfSeq = 8

// PredictSeq judges a stream of pairs and yields the predictions in order. It
// reads ahead as many pairs as make eight batches. The first error ends it.
func (c *Classifier) PredictSeq(ctx context.Context, pairs iter.Seq[Pair]) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		chunk := make([]Pair, 0, chunksOfSeq*c.batchSize)
		flush := func() bool {
			predictions, err := c.Predict(ctx, chunk)
			if err != nil {
				yield(Prediction{}, err)
				return false
			}
			chunk = chunk[:0]
			for _, p := range predictions {
				if !yield(p, nil) {
					return false
				}
			}
			return true
		}
		for pair := range pairs {
			chunk = append(chunk, pair)
			if len(chunk) == cap(chunk) && !flush() {
				return
			}
		}
		if len(chunk) > 0 {
			flush()
		}
	}
}

// Close waits for the calls of Predict that are running and frees the model.
// After it Predict returns [ErrClosed]. It can be called more than once.
func (c *Classifier) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
	c.once.Do(func() { c.err = c.closers.close() })
	return c.err
}
