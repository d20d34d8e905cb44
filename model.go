package criteria

import (
	"context"
	"fmt"
	"iter"
	"math"
	"sync"
)

// Classifier judges pairs with a trained model. It is safe for concurrent use:
// pairs of concurrent calls are computed together, so that many small calls cost
// little more than a large one.
type Classifier struct {
	session   Evaluator
	tokenizer Tokenizer
	config    TokenizerConfig
	batchSize int
	batcher   *batcher
	rule      rule
	closers   closers

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup // calls
	once    sync.Once
	err     error // of closing
}

// Prediction is the answer for a [Pair].
type Prediction struct {
	Probability float64 // that the post shows the criterion
	Label       bool    // whether that is above the threshold, which is 0.5 unless an option says otherwise
	Truncated   bool    // whether the pair was longer than the model reads, and was cut
}

// begin counts a call in. Unless it returns an error, the caller must call
// running.Done.
func (c *Classifier) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.running.Add(1)
	return nil
}

// Predict judges the pairs, in order. Pairs of alike length are computed
// together, those of concurrent calls included.
//
// When ctx ends, Predict returns an error that is ctx.Err() and its cause at once, and other calls are not
// disturbed. A call that finds too many pairs waiting is refused with an
// [*OverloadError]; see [WithMaxQueue].
func (c *Classifier) Predict(ctx context.Context, pairs []Pair) ([]Prediction, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.running.Done()
	predictions, err := c.predict(ctx, pairs, false)
	return predictions, withCause(ctx, err)
}

// predict judges pairs. If it is patient, it waits for room in the queue.
func (c *Classifier) predict(ctx context.Context, pairs []Pair, patient bool) ([]Prediction, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	if !patient {
		if err := c.batcher.admit(); err != nil {
			return nil, err
		}
	}
	encodings, err := c.encode(ctx, pairs)
	if err != nil {
		return nil, err
	}
	logits, err := c.batcher.evaluate(ctx, encodings, patient)
	if err != nil {
		return nil, predictError(err)
	}
	predictions := make([]Prediction, len(pairs))
	for i := range predictions {
		predictions[i] = c.rule.predict(logits[2*i:2*i+2], encodings.Truncated[i])
	}
	return predictions, nil
}

func (c *Classifier) encode(ctx context.Context, pairs []Pair) (Encodings, error) {
	encodings, err := c.tokenizer.EncodePairs(ctx, pairs, c.config.MaxLength)
	if err != nil {
		return Encodings{}, fmt.Errorf("criteria: tokenize: %w", err)
	}
	if encodings.Len() != len(pairs) {
		return Encodings{}, fmt.Errorf("criteria: the tokenizer returned %d encodings for %d pairs", encodings.Len(), len(pairs))
	}
	return encodings, nil
}

func predictError(err error) error {
	if _, ok := err.(*OverloadError); ok {
		return err
	}
	return fmt.Errorf("criteria: predict: %w", err)
}

// PredictSeq judges a stream of pairs and yields the predictions in order. It
// reads ahead as many pairs as make eight batches, so that pairs of alike length
// can be found among them. Where Predict would refuse a call, it waits. The
// first error ends it.
func (c *Classifier) PredictSeq(ctx context.Context, pairs iter.Seq[Pair]) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		chunk := make([]Pair, 0, windowBatches*c.batchSize)
		flush := func() bool {
			predictions, err := c.predictChunk(ctx, chunk)
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

func (c *Classifier) predictChunk(ctx context.Context, pairs []Pair) ([]Prediction, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	defer c.running.Done()
	predictions, err := c.predict(ctx, pairs, true)
	return predictions, withCause(ctx, err)
}

// Warmup computes made-up pairs, so that the first calls do not wait for
// libraries to be loaded, graphs to be compiled and memory to be found: a single
// pair of 32, 64 … tokens up to the longest that the model reads, and short pairs
// in batches of all sizes. A graph for another shape is compiled when the shape
// is first met, which takes a moment once. See [WithWarmup].
func (c *Classifier) Warmup(ctx context.Context) error {
	if err := c.begin(); err != nil {
		return err
	}
	defer c.running.Done()
	warm := func(rows, length int) error {
		e := Encodings{Offsets: []int{0}}
		all := make([]int, rows)
		for row := range rows {
			all[row] = row
			for range length {
				e.IDs = append(e.IDs, 1)
			}
			e.Offsets = append(e.Offsets, len(e.IDs))
		}
		if err := ctx.Err(); err != nil {
			return withCause(ctx, fmt.Errorf("criteria: warm up: %w", err))
		}
		if _, err := c.session.Evaluate(ctx, padded(e, all, 0)); err != nil {
			return withCause(ctx, fmt.Errorf("criteria: warm up with %d pairs of %d tokens: %w", rows, length, err))
		}
		return nil
	}
	// All shapes would take minutes on a large model.
	longest := c.config.MaxLength
	short := min(lengthStep, longest)
	for length := short; ; length = min(2*length, longest) {
		if err := warm(1, length); err != nil {
			return err
		}
		if length == longest {
			break
		}
	}
	for rows := 1; rows < c.batchSize; {
		rows = min(2*rows, c.batchSize)
		if err := warm(rows, short); err != nil {
			return err
		}
	}
	return nil
}

// Stats counts what a [Classifier] has done since it was loaded.
type Stats struct {
	Waiting int    // pairs in the queue now
	Pairs   uint64 // that were computed
	Batches uint64 // in which they were: Pairs/Batches is the mean size
	Refused uint64 // calls, with an [*OverloadError]
}

// Stats returns the counters, for example for a metrics exporter.
func (c *Classifier) Stats() Stats { return c.batcher.snapshot() }

// Threshold returns the probability above which a pair is labelled true.
func (c *Classifier) Threshold() float64 { return c.rule.probability(c.rule.margin) }

// Close waits for the calls that are running and frees the model. After it
// every call returns [ErrClosed]. It can be called more than once.
func (c *Classifier) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
	c.once.Do(func() {
		c.batcher.worker.Wait()
		c.err = c.closers.close()
	})
	return c.err
}

// rule turns logits into an answer. The difference of the two logits, the
// margin, is all that matters.
type rule struct {
	margin      float64 // above which the label is true
	temperature float64 // by which margins are divided; 1 changes nothing
}

func (r rule) predict(logits []float32, truncated bool) Prediction {
	margin := float64(logits[1]) - float64(logits[0])
	return Prediction{Probability: r.probability(margin), Label: margin > r.margin, Truncated: truncated}
}

func (r rule) probability(margin float64) float64 { return 1 / (1 + math.Exp(-margin/r.temperature)) }
