package criteria

import (
	"context"
	"fmt"
	"sync"

	"github.com/criteria-go/criteria/internal/data"
)

// splits are the data of a run: pairs and, as soon as they are tokenized, token ids.
type splits struct {
	job       *job
	data      *Dataset
	weights   [2]float32 // of the classes in the loss
	tokenizer Tokenizer  // nil until tokenize
	queue     map[Phase]*queuedSplit
}

// A queuedSplit is a split that is being tokenized, or waits for it.
type queuedSplit struct {
	done    chan struct{} // closed when split or err is there
	split   *encodedSplit
	err     error
	noticed sync.Once // that pairs of it were cut
}

// readSplits reads and checks the data.
func readSplits(ctx context.Context, j *job) (*splits, error) {
	var err error
	d := j.dataset
	if d == nil {
		d, err = ReadDataset(ctx, j.cfg.Data, j.cfg.Train.Seed)
	} else {
		err = d.check()
	}
	if err != nil {
		return nil, err
	}
	for _, note := range d.Notes {
		j.log.Info(note)
	}
	if note := d.sharedTexts(); note != "" {
		j.log.Warn(note)
	}
	for _, s := range d.splits() {
		n := s.counts()
		j.log.Info("split "+string(s.phase), "pairs", len(s.examples), "class_0", n[0], "class_1", n[1])
	}
	return &splits{job: j, data: d, weights: data.ClassWeights(d.splits()[0].counts())}, nil
}

// tokenize begins to turn splits into token ids, with the tokenizer in dir unless
// one was injected: one after another, in the order in which they are needed, while
// the run does what does not need them.
func (s *splits) tokenize(ctx context.Context, dir string, list []namedSplit, closers *closers) (err error) {
	if s.tokenizer = s.job.tokenizer; s.tokenizer == nil {
		s.tokenizer, err = openTokenizer(dir, s.job.cfg.Model.Tokenizer, s.job.cfg.Data.DataLoader.NumWorkers)
		if err != nil {
			return err
		}
		closers.add(s.tokenizer.Close)
	}
	s.queue = make(map[Phase]*queuedSplit)
	for _, named := range list {
		s.queue[named.phase] = &queuedSplit{done: make(chan struct{})}
	}
	ctx, cancel := context.WithCancel(ctx)
	var worker sync.WaitGroup
	worker.Go(func() { s.encodeAll(ctx, list) })
	closers.add(func() error {
		cancel()
		worker.Wait()
		return nil
	})
	return nil
}

// encodeAll tokenizes the queue.
func (s *splits) encodeAll(ctx context.Context, list []namedSplit) {
	tokenizer := s.tokenizer
	var err error
	for _, named := range list {
		q := s.queue[named.phase]
		if err == nil {
			q.split, err = s.encode(ctx, tokenizer, named)
		}
		q.err = err // the run fails without any of them
		close(q.done)
		tokenizer = inBackground(tokenizer) // the run continues, and needs the cores
	}
}

// encode turns the pairs of a split into token ids.
func (s *splits) encode(ctx context.Context, tokenizer Tokenizer, named namedSplit) (*encodedSplit, error) {
	encodings, err := tokenizer.EncodePairs(ctx, named.pairs(), s.job.cfg.Model.Tokenizer.MaxLength)
	if err != nil {
		return nil, fmt.Errorf("criteria: tokenize the %s split: %w", named.phase, err)
	}
	return newEncodedSplit(named, encodings, s.weights, s.job.cfg.Model.Tokenizer)
}

// wait waits until a split is tokenized.
func (s *splits) wait(phase Phase) (*encodedSplit, error) {
	q := s.queue[phase]
	<-q.done
	if q.err != nil {
		return nil, q.err
	}
	q.noticed.Do(func() {
		if n := q.split.truncated(); n > 0 {
			s.job.log.Info(fmt.Sprintf("%d of %d pairs of %s are cut to model.tokenizer.max_length=%d tokens",
				n, q.split.len(), phase, s.job.cfg.Model.Tokenizer.MaxLength))
		}
	})
	return q.split, nil
}

// get returns a split that has been waited for.
func (s *splits) get(phase Phase) *encodedSplit { return s.queue[phase].split }

// failed returns why a split cannot be tokenized, as soon as that is known.
func (s *splits) failed() error {
	for _, q := range s.queue {
		select {
		case <-q.done:
			if q.err != nil {
				return q.err
			}
		default:
		}
	}
	return nil
}

// saveTokenizer writes the tokenizer's files, when it has nothing else to do: it does
// one thing at a time.
func (s *splits) saveTokenizer(dir string) error {
	for _, q := range s.queue {
		<-q.done
	}
	return s.tokenizer.SaveTo(dir)
}

// encodedSplit is a split as token ids, from which batches are made.
type encodedSplit struct {
	encodings Encodings
	labels    []int64
	weights   [2]float32 // of the classes in the loss
	lengths   []int      // of the encodings
	posts     []int      // a number for the post of each pair
	padTo     int        // length of every batch; 0: that of its longest row
}

func newEncodedSplit(s namedSplit, e Encodings, weights [2]float32, c TokenizerConfig) (*encodedSplit, error) {
	if e.Len() != len(s.examples) || len(e.Offsets) != e.Len()+1 {
		return nil, fmt.Errorf("criteria: the tokenizer returned %d encodings for the %d pairs of the %s split",
			e.Len(), len(s.examples), s.phase)
	}
	split := &encodedSplit{encodings: e, labels: s.labels(), weights: weights, lengths: lengths(e), posts: s.posts()}
	if c.Padding == "max_length" {
		split.padTo = c.MaxLength
	}
	return split, nil
}

func lengths(e Encodings) []int {
	n := make([]int, e.Len())
	for i := range n {
		n[i] = e.Offsets[i+1] - e.Offsets[i]
	}
	return n
}

func (s *encodedSplit) len() int { return len(s.labels) }

func (s *encodedSplit) truncated() int {
	n := 0
	for _, t := range s.encodings.Truncated {
		if t {
			n++
		}
	}
	return n
}

// trainingBatches plans an epoch of training, in an order that is a function of
// seed and epoch.
func (s *encodedSplit) trainingBatches(o data.Order, size int, seed uint64, epoch int) [][]int {
	return o.Batches(data.Rows{Lengths: s.lengths, Posts: s.posts}, size, seed, epoch)
}

// evaluationBatches plans batches by length, the longest first.
func (s *encodedSplit) evaluationBatches(size int) [][]int {
	return rowsOf(data.EvalBatches(s.lengths, size, 1))
}

func rowsOf(plans []data.BatchPlan) [][]int {
	rows := make([][]int, len(plans))
	for i, p := range plans {
		rows[i] = p.Indices
	}
	return rows
}

// batch puts rows together, with their labels and the weights of their classes.
func (s *encodedSplit) batch(rows []int) Batch {
	var b Batch
	s.fill(&b, rows)
	return b
}

// fill is batch in the memory of an earlier one.
func (s *encodedSplit) fill(b *Batch, rows []int) {
	pad(b, s.encodings, rows, s.padTo)
	b.Labels, b.SampleWeights = b.Labels[:0], b.SampleWeights[:0]
	for _, row := range rows {
		b.Labels = append(b.Labels, s.labels[row])
		b.SampleWeights = append(b.SampleWeights, s.weights[s.labels[row]])
	}
}

// padded lays rows of e side by side, each filled up with padding to the length
// of the longest or, if that is more, to padTo.
func padded(e Encodings, rows []int, padTo int) Batch {
	var b Batch
	pad(&b, e, rows, padTo)
	return b
}

// pad is padded in the memory of an earlier batch.
func pad(b *Batch, e Encodings, rows []int, padTo int) {
	length := padTo
	for _, row := range rows {
		length = max(length, len(e.At(row)))
	}
	b.Rows, b.Length = len(rows), length
	b.InputIDs, b.AttentionMask = b.InputIDs[:0], b.AttentionMask[:0]
	for _, row := range rows {
		ids := e.At(row)
		for _, id := range ids {
			b.InputIDs = append(b.InputIDs, int64(id))
			b.AttentionMask = append(b.AttentionMask, 1)
		}
		for range length - len(ids) {
			b.InputIDs = append(b.InputIDs, 0)
			b.AttentionMask = append(b.AttentionMask, 0)
		}
	}
}

// largest returns the most rows and the most tokens of the batches of a plan.
func (s *encodedSplit) largest(plan [][]int) (rows, tokens int) {
	for _, batch := range plan {
		length := s.padTo
		for _, row := range batch {
			length = max(length, s.lengths[row])
		}
		rows, tokens = max(rows, len(batch)), max(tokens, len(batch)*length)
	}
	return rows, tokens
}

// microBatch is a batch on its way through a session. Its labels are wanted again
// when its result arrives.
type microBatch struct {
	Batch
	pairs   int     // of the epoch, up to its end
	updates bool    // whether an update follows it
	loss    float64 // once it is known
}

// A feed builds the batches of a plan, in order, while those before them are
// computed. It makes do with the memory of few.
type feed struct {
	built, empty chan *microBatch
	builder      sync.WaitGroup
}

// feed starts to build the batches of a plan, of which at most held have been
// taken and not given back at any time. It must be stopped.
func (s *encodedSplit) feed(plan [][]int, held int) *feed {
	f := &feed{built: make(chan *microBatch, held+1), empty: make(chan *microBatch, held+1)}
	rows, tokens := s.largest(plan)
	for range cap(f.empty) {
		f.empty <- &microBatch{Batch: Batch{
			InputIDs: make([]int64, 0, tokens), AttentionMask: make([]int64, 0, tokens),
			Labels: make([]int64, 0, rows), SampleWeights: make([]float32, 0, rows),
		}}
	}
	f.builder.Go(func() {
		for _, rows := range plan {
			b, ok := <-f.empty
			if !ok {
				return
			}
			s.fill(&b.Batch, rows)
			f.built <- b // there is room for all of them
		}
	})
	return f
}

// take returns the next batch of the plan. It is the caller's until it is given
// back.
func (f *feed) take() *microBatch { return <-f.built }

// giveBack lets another batch be built in the memory of b.
func (f *feed) giveBack(b *microBatch) { f.empty <- b }

// stop ends the feed, wherever in the plan it is. No batch may be taken or given
// back any more.
func (f *feed) stop() {
	close(f.empty)
	f.builder.Wait()
}
