package criteria

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/modelstore"
	"github.com/criteria-go/criteria/internal/optim"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// Names in the output directory.
const (
	bestModelDir   = "best_model"
	configFile     = "training_config.yaml" // in best_model: how it was trained
	confusionFile  = "confusion_matrix.png"
	curvesFile     = "training_curves.png"
	reportFile     = "classification_report.json"
	configArtifact = "config/config.yaml"
	modelArtifact  = "model"
)

// endTimeout is what a tracker gets to close a run whose context has ended.
const endTimeout = 10 * time.Second

// trainState is where a training stands. Together with the weights and the
// optimizer state it is all that is needed to go on: the order of the pairs is
// a function of (seed, epoch) and the dropout masks are one of (seed, step).
type trainState struct {
	Epoch     int           `json:"epoch"`      // being trained, from 1
	Micro     int           `json:"micro"`      // micro-batches of it that are done
	Step      int           `json:"step"`       // updates done since the start
	Tally     tally         `json:"tally"`      // of the epoch so far
	History   []EpochScores `json:"history"`    // of the epochs that have ended
	BestEpoch int           `json:"best_epoch"` // 0 before the first
}

func (s *trainState) best() EpochScores { return s.History[s.BestEpoch-1] }

// run is one training, from reading the data to the reports.
type run struct {
	*settings
	cfg   Config
	hooks Hooks
	began time.Time

	replays *reproduction  // nil unless the run repeats another one
	trial   *trial         // nil unless the run is one of a study
	info    func(*RunInfo) // completes what the tracker is told of the run, by its kind
	// parentID is the tracked run of the study: of trials, and of the study's own run.
	parentID string

	data         *Dataset
	classWeights [2]float32
	tracked      TrackedRun

	base      modelstore.Base // the base checkpoint
	engine    Engine
	tokenizer Tokenizer
	session   Session
	pending   map[Phase]*pendingSplit // the splits, from when they begin to be tokenized
	train     *encodedSplit
	val, test *encodedSplit // nil until they are needed

	state     trainState
	boundary  trainState // after the last update, or after the epoch that it ended: what a checkpoint holds
	unsound   bool       // whether an update failed halfway, so that weights and state do not belong together
	resume    *resume    // nil if the run begins at the start
	savedStep int        // of the last checkpoint
	savedAt   time.Time
	savedDir  string            // "" before the first
	versions  map[string]string // of what computes
	tags      map[string]string // of the tracked run
	schedule  optim.Schedule
	lastRate  float64
	lastNorm  float64
	stop      StopReason
	testTally tally
	valMargin margins // of the last evaluation of the validation split
}

func newRun(s *settings) *run {
	r := &run{
		settings: s, cfg: s.config.clone(), hooks: JoinHooks(s.hooks...), began: s.now(),
		engine: s.engine, tokenizer: s.tokenizer, tracked: untracked{},
	}
	r.info = r.trainingInfo
	return r
}

// run is the order of work. Whatever it opened it closes before it returns.
func (r *run) run(ctx context.Context) (err error) {
	closers := closers{}
	defer func() { err = errors.Join(err, closers.close()) }()

	if err := os.MkdirAll(r.outputDir, 0o755); err != nil {
		return fmt.Errorf("criteria: output directory: %w", err)
	}
	if err := r.findCheckpoint(); err != nil {
		return err
	}
	if err := r.readData(ctx); err != nil {
		return err
	}
	if err := r.checkData(); err != nil {
		return err
	}
	if err := r.startTracking(ctx); err != nil {
		return err
	}
	if err := r.startCheckpoints(ctx); err != nil {
		return err
	}
	if err := r.findModel(ctx); err != nil {
		return err
	}
	if err := r.tokenize(ctx, r.base.Dir, r.data.splits(), &closers); err != nil {
		return err
	}
	if err := r.openModel(ctx, &closers); err != nil {
		return err
	}
	if err := r.loadCheckpoint(ctx); err != nil {
		return err
	}
	if r.train, err = r.tokenized(PhaseTrain); err != nil {
		return err
	}
	if err := r.planSchedule(); err != nil {
		return err
	}
	if err := r.dryRun(ctx); err != nil {
		return err
	}
	err = r.trainAll(ctx)
	r.saveAfter(ctx, err)
	if err != nil {
		return err
	}
	if err := r.testBest(ctx, &closers); err != nil {
		return err
	}
	return r.report(ctx)
}

// end closes the tracked run with the status that err calls for, even though
// ctx may be over, and turns the end of ctx into an [*InterruptedError].
func (r *run) end(ctx context.Context, err error) error {
	status := RunFinished
	if err != nil {
		status = RunFailed
	}
	if interrupted(ctx, err) {
		status = RunKilled
		err = &InterruptedError{
			Dir: r.outputDir, Checkpoint: r.savedDir, Epoch: r.state.Epoch, Step: r.state.Step, Cause: context.Cause(ctx),
		}
	}
	return r.endAs(ctx, status, err)
}

// interrupted reports whether it is the end of ctx that err speaks of.
func interrupted(ctx context.Context, err error) bool {
	ended := ctx.Err()
	return err != nil && ended != nil && (errors.Is(err, ended) || errors.Is(err, context.Cause(ctx)))
}

// endAs closes the tracked run with a status.
func (r *run) endAs(ctx context.Context, status RunStatus, err error) error {
	ctx, cancel := endContext(ctx)
	defer cancel()
	err = r.withRemedy(err)
	switch endErr := r.tracked.End(ctx, status); {
	case endErr != nil && err == nil:
		err = trackingError("end the run", endErr)
	case endErr != nil: // what went wrong before is what counts, and the cause of this as a rule
		r.log.Warn("the tracked run could not be ended", "status", status, "error", endErr)
	}
	r.hooks.End(EndEvent{Status: status, Err: err})
	return err
}

// endContext returns the context in which a run is closed, for a while if ctx is
// over. A run that was not interrupted may take its time: a large model is still
// on its way to the store, which the tracker watches over.
func endContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// withRemedy says what to do when the output directory cannot be written to.
func (r *run) withRemedy(err error) error {
	var remedy string
	var path *fs.PathError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		remedy = "make room on the disk or lower train.keep_checkpoints"
	case errors.Is(err, syscall.EROFS), errors.As(err, &path) && errors.Is(path, fs.ErrPermission) && strings.HasPrefix(path.Path, r.outputDir):
		remedy = "give an output directory that can be written to"
	default:
		return err
	}
	if r.savedDir != "" {
		remedy += "; the run can be resumed from " + r.savedDir
	}
	return fmt.Errorf("%w (output directory %s: %s)", err, r.outputDir, remedy)
}

func (r *run) result() *Result {
	s := &r.state
	return &Result{
		RunID: r.tracked.ID(), Dir: r.outputDir,
		Best: s.best(), Test: r.testTally.scores(), History: s.History,
		Stop: r.stop, Epochs: len(s.History), Steps: s.Step, Elapsed: r.now().Sub(r.began),
		settings: r.settings,
	}
}

func (r *run) readData(ctx context.Context) error {
	r.data = r.dataset
	if r.data == nil {
		d, err := ReadDataset(ctx, r.cfg.Data, r.cfg.Train.Seed)
		if err != nil {
			return err
		}
		r.data = d
	} else if err := r.data.check(); err != nil {
		return err
	}
	for _, note := range r.data.Notes {
		r.log.Info(note)
	}
	for _, s := range r.data.splits() {
		n := s.counts()
		r.log.Info("split "+string(s.phase), "pairs", len(s.examples), "class_0", n[0], "class_1", n[1])
	}
	r.classWeights = data.ClassWeights(r.data.splits()[0].counts())
	return nil
}

// trainingInfo describes a training to the tracker.
func (r *run) trainingInfo(info *RunInfo) {
	info.Description = fmt.Sprintf("Fine-tuning of %s on %s.", r.cfg.Model.Checkpoint, r.data.Name)
	info.Tags["stage"] = "train"
	info.Params = r.cfg.params()
	if r.resume != nil {
		info.ResumeRunID = r.resume.state.RunID
	}
	if r.replays != nil {
		r.replays.describe(info)
	}
}

// startTracking comes before anything that takes long: a store that cannot be
// reached must not cost an epoch.
func (r *run) startTracking(ctx context.Context) error {
	if r.tracker == nil {
		return nil
	}
	info := RunInfo{Name: r.cfg.MLflow.RunName, Tags: lineageTags(ctx, r.data), Started: r.began, Dir: r.outputDir}
	r.info(&info)
	r.tags = info.Tags
	for _, s := range r.data.splits() {
		info.Datasets = append(info.Datasets, DatasetInfo{
			Name: r.data.Name, Context: string(s.phase), Digest: s.digest(), Source: r.data.Source, Rows: len(s.examples),
		})
	}
	tracked, err := r.tracker.Start(ctx, info)
	if err != nil {
		return trackingError("start the run", err)
	}
	r.tracked = tracked
	if err := tracked.LogArtifact(ctx, configArtifact, bytes.NewReader(r.cfg.Redacted().YAML())); err != nil {
		return trackingError("store "+configArtifact, err)
	}
	if r.trial == nil {
		r.log.Info("tracking", "run_id", tracked.ID())
	}
	if r.resume == nil {
		return nil
	}
	if was := info.ResumeRunID; was != "" && was != tracked.ID() {
		r.log.Info("the tracker cannot go on with the run: this is a new one", "resumed_from", was)
		if err := tracked.SetTags(ctx, map[string]string{"resumed_from": was}); err != nil {
			return trackingError("set the tag resumed_from", err)
		}
	}
	// Whatever of it the tracker has received before, afterwards it has all.
	for _, e := range r.state.History {
		if err := r.logEpoch(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// logEpoch records the scores of an epoch.
func (r *run) logEpoch(ctx context.Context, e EpochScores) error {
	metrics := make(map[string]float64)
	e.Train.addTo(metrics, "train_", false)
	e.Val.addTo(metrics, "val_", false)
	if err := r.tracked.LogMetrics(ctx, e.Epoch, metrics); err != nil {
		return trackingError(fmt.Sprintf("log the metrics of epoch %d", e.Epoch), err)
	}
	return nil
}

func trackingError(what string, err error) error {
	return fmt.Errorf("criteria: tracking: %s: %w", what, err)
}

// findModel finds the base checkpoint, downloading it if need be, and what is
// in it. A reproduction has looked at it before.
func (r *run) findModel(ctx context.Context) (err error) {
	if r.base.Dir == "" {
		r.base, err = modelstore.FindBase(ctx, r.cfg.Model.Checkpoint, func(file string, done, total int64) {
			r.hooks.Download(DownloadEvent{File: file, Done: done, Total: total})
		})
		if err != nil {
			return fmt.Errorf("criteria: %w", err)
		}
	}
	return r.checkModel()
}

// openModel opens a session that trains the checkpoint.
func (r *run) openModel(ctx context.Context, closers *closers) error {
	if r.engine == nil {
		r.engine = engineOn(r.cfg.Device)
	}
	head := r.cfg.Model.Head
	if len(head.HiddenDims) > head.NumLayers {
		r.log.Warn(fmt.Sprintf("model.head.hidden_dims has %d widths, but model.head.num_layers is %d: the rest is not used",
			len(head.HiddenDims), head.NumLayers))
	}
	info, err := r.openSession(ctx, closers)
	if err != nil {
		return err
	}
	r.log.Info("model", "checkpoint", r.cfg.Model.Checkpoint, "device", info.Device, "parameters", info.Parameters)
	if keys := r.cfg.withoutEffectOnCPU(); len(keys) > 0 && !info.GPU {
		r.log.Info("without effect on this device: " + strings.Join(keys, " "))
	}
	return nil
}

// modelSpec is the model that a configuration trains.
func (r *run) modelSpec(c Config) ModelSpec {
	t, head := c.Train, c.Model.Head
	head.HiddenDims = head.HiddenDims[:head.NumLayers]
	return ModelSpec{
		Dir:     r.base.Dir,
		Head:    head,
		Threads: t.Threads,
		Training: &TrainingSpec{
			Seed: t.Seed, Optimizer: t.OptimizerType, WeightDecay: t.WeightDecay,
			MaxGradNorm: t.MaxGradNorm, Accumulation: t.GradientAccumulationSteps,
		},
		Optimizations: t.Optimizations,
		PinMemory:     c.Data.DataLoader.PinMemory,
	}
}

// openSession opens the session that trains.
func (r *run) openSession(ctx context.Context, closers *closers) (info SessionInfo, err error) {
	r.session, err = r.engine.Open(ctx, r.modelSpec(r.cfg))
	if err != nil {
		return info, openError(r.base.Dir, err)
	}
	closers.add(func() error { return r.closeSession() })
	info = describe(r.session)
	return info, r.recordSession(ctx, info)
}

// recordSession records on what, with which versions and, if it trains, from
// which checkpoint the run computes.
func (r *run) recordSession(ctx context.Context, info SessionInfo) error {
	r.versions = info.Versions
	tags := map[string]string{"device": info.Device}
	for name, version := range info.Versions {
		tags["version."+name] = version
	}
	for file, hash := range r.base.Hashes {
		tags[modelHash+file] = hash
	}
	if err := r.tracked.SetTags(ctx, tags); err != nil {
		return trackingError("set the tags of model and versions", err)
	}
	if r.tags == nil {
		r.tags = make(map[string]string)
	}
	maps.Copy(r.tags, tags)
	return nil
}

// closeSession closes the training session, once.
func (r *run) closeSession() error {
	if r.session == nil {
		return nil
	}
	s := r.session
	r.session = nil
	return s.Close()
}

// tokenize begins to turn splits into token ids, with the tokenizer in dir unless
// one was injected: one after another, in the order in which they are needed, while
// the run does what does not need them.
func (r *run) tokenize(ctx context.Context, dir string, splits []namedSplit, closers *closers) (err error) {
	if r.tokenizer == nil {
		if r.tokenizer, err = openTokenizer(dir, r.cfg.Model.Tokenizer, r.cfg.Data.DataLoader.NumWorkers); err != nil {
			return err
		}
		closers.add(r.tokenizer.Close)
	}
	r.pending = make(map[Phase]*pendingSplit)
	for _, s := range splits {
		r.pending[s.phase] = &pendingSplit{done: make(chan struct{})}
	}
	ctx, cancel := context.WithCancel(ctx)
	var worker sync.WaitGroup
	worker.Go(func() {
		tokenizer := r.tokenizer
		var err error
		for _, s := range splits {
			p := r.pending[s.phase]
			if err == nil {
				p.split, err = r.encode(ctx, tokenizer, s)
			}
			p.err = err // the run fails without any of them
			close(p.done)
			tokenizer = inBackground(tokenizer) // the run goes on, and needs the cores
		}
	})
	closers.add(func() error {
		cancel()
		worker.Wait()
		return nil
	})
	return nil
}

// tokenized waits until a split is tokenized.
func (r *run) tokenized(phase Phase) (*encodedSplit, error) {
	p := r.pending[phase]
	<-p.done
	if p.err != nil {
		return nil, p.err
	}
	if n := p.split.truncated(); n > 0 {
		r.log.Info(fmt.Sprintf("%d of %d pairs of %s are cut to model.tokenizer.max_length=%d tokens",
			n, p.split.len(), phase, r.cfg.Model.Tokenizer.MaxLength))
	}
	return p.split, nil
}

// tokenizingFailed returns why a split cannot be tokenized, as soon as that is known.
func (r *run) tokenizingFailed() error {
	for _, p := range r.pending {
		select {
		case <-p.done:
			if p.err != nil {
				return p.err
			}
		default:
		}
	}
	return nil
}

// encode turns the pairs of a split into token ids.
func (r *run) encode(ctx context.Context, tokenizer Tokenizer, s namedSplit) (*encodedSplit, error) {
	encodings, err := tokenizer.EncodePairs(ctx, s.pairs(), r.cfg.Model.Tokenizer.MaxLength)
	if err != nil {
		return nil, fmt.Errorf("criteria: tokenize the %s split: %w", s.phase, err)
	}
	return newEncodedSplit(s, encodings, r.classWeights, r.cfg.Model.Tokenizer)
}

// planSchedule sets the learning rate of every update.
func (r *run) planSchedule() error {
	t := r.cfg.Train
	micro := len(r.train.trainingBatches(t.BatchSize, t.Seed, 1))
	if r.state.Micro > micro {
		return &CheckpointError{Dir: r.resume.dir, Err: fmt.Errorf("micro-batch %d of an epoch that has %d", r.state.Micro, micro)}
	}
	total := (micro + t.GradientAccumulationSteps - 1) / t.GradientAccumulationSteps * t.Epochs
	r.schedule = optim.Schedule{
		Kind: optim.ScheduleKind(t.Scheduler), Peak: t.LearningRate,
		Warmup: optim.WarmupSteps(t.WarmupRatio, total), Total: total,
	}
	return nil
}

// dryRun sends the first batch through the model, so that what cannot work
// fails now and not after the first epoch.
func (r *run) dryRun(ctx context.Context) error {
	t := r.cfg.Train
	b := r.train.batch(r.train.trainingBatches(t.BatchSize, t.Seed, 1)[0])
	result, err := r.session.Evaluate(ctx, b)
	if err != nil {
		return fmt.Errorf("criteria: dry run: %w", err)
	}
	if len(result.Logits) != 2*b.Rows {
		return fmt.Errorf("criteria: dry run: the engine returned %d logits for %d pairs, want two for each", len(result.Logits), b.Rows)
	}
	if !finite(result.Loss) {
		return &DivergedError{Loss: result.Loss}
	}
	r.log.Info("dry run passed", "pairs", b.Rows, "tokens", b.Length, "loss", round(result.Loss))
	r.hooks.Start(StartEvent{
		RunID: r.tracked.ID(), Dir: r.outputDir,
		Train: r.train.len(), Val: len(r.data.Val), Test: len(r.data.Test),
		Epochs: t.Epochs, Steps: r.schedule.Total, DryRunLoss: result.Loss,
	})
	return nil
}

// trainAll trains epoch by epoch until all are done or patience is at an end.
func (r *run) trainAll(ctx context.Context) error {
	s := &r.state
	for !r.finished() {
		started := r.now()
		s.Epoch = len(s.History) + 1
		if err := r.trainEpoch(ctx); err != nil {
			return err
		}
		if r.val == nil { // trials have it from their study
			var err error
			if r.val, err = r.tokenized(PhaseVal); err != nil {
				return err
			}
		}
		val, err := r.evaluate(ctx, r.session, PhaseVal, r.val)
		if err != nil {
			return err
		}
		scores := EpochScores{Epoch: s.Epoch, Train: s.Tally.scores(), Val: val.scores()}
		s.History = append(s.History, scores)
		s.Micro, s.Tally = 0, tally{}
		better := s.BestEpoch == 0 || scores.Val.MacroF1 > s.best().Val.MacroF1

		if err := r.logEpoch(ctx, scores); err != nil {
			return err
		}
		r.hooks.Epoch(EpochEvent{Trial: r.trialNumber(), EpochScores: scores, Epochs: r.cfg.Train.Epochs, Best: better})
		r.log.Info(fmt.Sprintf("epoch %d/%d", s.Epoch, r.cfg.Train.Epochs),
			"train_loss", round(scores.Train.Loss), "train_macro_f1", round(scores.Train.MacroF1),
			"val_loss", round(scores.Val.Loss), "val_accuracy", round(scores.Val.Accuracy), "val_macro_f1", round(scores.Val.MacroF1),
			"seconds", math.Round(r.now().Sub(started).Seconds()*10)/10)

		if better {
			s.BestEpoch = s.Epoch
			if r.trial == nil || r.trial.keepsModel {
				if err := r.saveBest(ctx); err != nil {
					return err
				}
			}
		}
		// Only now may a checkpoint say that this epoch is done: a run resumed
		// from it finds its scores recorded and the best model on the disk.
		r.boundary = *s
		if err := r.saveCheckpoint(ctx); err != nil {
			return err
		}
		if r.trial != nil {
			if err := r.trial.judge(ctx, scores); err != nil {
				return err
			}
		}
	}
	return nil
}

// finished reports whether there is no epoch left to train.
func (r *run) finished() bool {
	t, s := r.cfg.Train, &r.state
	done := len(s.History)
	if done == t.Epochs {
		return true
	}
	if t.EarlyStoppingPatience == 0 || done-s.BestEpoch < t.EarlyStoppingPatience {
		return false
	}
	r.stop = EarlyStopped
	r.log.Info("stopping early", "epoch", done, "best_epoch", s.BestEpoch, "patience", t.EarlyStoppingPatience)
	return true
}

// trainEpoch goes once through the training split. The last window of
// accumulation may be incomplete; it still makes an update.
func (r *run) trainEpoch(ctx context.Context) error {
	t := r.cfg.Train
	batches := r.train.trainingBatches(t.BatchSize, t.Seed, r.state.Epoch)
	done := 0
	for _, rows := range batches[:r.state.Micro] {
		done += len(rows)
	}
	var feed *feed
	flight := newInFlight(r.session, func(p part) error {
		err := r.settled(p)
		if last := p.update == p.updates; last && err == nil {
			feed.giveBack(p.microBatch)
		}
		return err
	})
	feed = r.train.feed(batches[r.state.Micro:], flight.depth+1)
	defer feed.stop()
	err := r.beginSteps(ctx, flight, feed, len(batches), done)
	if settleErr := flight.settle(0); settleErr != nil {
		err = settleErr // it happened before whatever else did
	}
	// After an error of one step, the weights may have what later ones did to them.
	r.unsound = r.unsound || flight.updating()
	return err
}

// beginSteps lets the session compute one micro-batch after the other, of all
// there are in an epoch. What comes of them becomes part of the state when it is
// there, in the same order. done counts the pairs of micro-batches before them.
func (r *run) beginSteps(ctx context.Context, flight *inFlight, feed *feed, all, done int) error {
	window := r.cfg.Train.GradientAccumulationSteps
	// The engine does not see the end of ctx: an update once begun is finished,
	// so that the checkpoint of an interrupted run wastes nothing.
	work := context.WithoutCancel(ctx)
	step := r.state.Step // begun; the state counts what is done
	for micro := r.state.Micro; micro < all; micro++ {
		inWindow := micro % window
		if inWindow == 0 {
			if err := cmp.Or(ctx.Err(), r.tokenizingFailed()); err != nil {
				return err
			}
		}
		m := feed.take()
		done += m.Rows
		m.pairs, m.updates = done, inWindow == window-1 || micro == all-1
		if began, err := flight.accumulate(work, m, step, inWindow); !began {
			return r.stepError(step, err)
		} else if err != nil {
			return err
		}
		if !m.updates {
			continue
		}
		if began, err := flight.update(work, m, r.schedule.LR(step)); !began {
			r.unsound = true
			return r.stepError(step, err)
		} else if err != nil {
			return err
		}
		step++
		if micro < all-1 && r.checkpointDue(step) {
			if err := flight.settle(0); err != nil {
				return err
			}
			if err := r.saveCheckpoint(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// settled makes the result of a part of a step one of the state.
func (r *run) settled(p part) error {
	if p.update {
		return r.updated(p)
	}
	return r.accumulated(p)
}

// accumulated waits for the result of a micro-batch.
func (r *run) accumulated(p part) error {
	s := &r.state
	result, err := p.result.get()
	if err != nil {
		return r.stepError(s.Step, err)
	}
	if !finite(result.Loss) {
		return &DivergedError{Epoch: s.Epoch, Step: s.Step, Loss: result.Loss, LearningRate: r.schedule.LR(s.Step)}
	}
	s.Tally.add(p.Batch, result)
	s.Micro++
	p.loss = result.Loss
	if !p.updates {
		r.hookStep(PhaseTrain, p.pairs, r.train.len(), p.loss)
	}
	return nil
}

// updated waits for the gradient norm of the update that followed a micro-batch.
func (r *run) updated(p part) error {
	s := &r.state
	norm, err := p.norm.get()
	if err != nil {
		r.unsound = true
		return r.stepError(s.Step, err)
	}
	r.lastRate, r.lastNorm = p.rate, norm
	if !finite(norm) {
		return &DivergedError{Epoch: s.Epoch, Step: s.Step, Loss: p.loss, GradNorm: norm, LearningRate: p.rate}
	}
	s.Step++
	r.boundary = *s
	r.hookStep(PhaseTrain, p.pairs, r.train.len(), p.loss)
	return nil
}

// trialNumber is the number of the trial of a study; 0 for other runs.
func (r *run) trialNumber() int {
	if r.trial == nil {
		return 0
	}
	return r.trial.number
}

func (r *run) stepError(step int, err error) error {
	return fmt.Errorf("criteria: epoch %d, step %d: %w", r.state.Epoch, step, err)
}

func (r *run) hookStep(phase Phase, pairs, total int, loss float64) {
	r.hooks.Step(StepEvent{
		Trial: r.trialNumber(), Phase: phase, Epoch: r.state.Epoch, Epochs: r.cfg.Train.Epochs, Pairs: pairs, Total: total,
		Step: r.state.Step, Steps: r.schedule.Total, Loss: loss, LearningRate: r.lastRate, GradNorm: r.lastNorm,
		Time: r.now(),
	})
}

// evaluate scores a split without dropout.
func (r *run) evaluate(ctx context.Context, session Session, phase Phase, split *encodedSplit) (tally, error) {
	var sum tally
	if phase == PhaseVal {
		r.valMargin = margins{}
	}
	work := context.WithoutCancel(ctx)
	plan := split.evaluationBatches(r.cfg.Train.EvalBatchSize)
	feed := split.feed(plan, 1)
	defer feed.stop()
	pairs := 0
	for range plan {
		if err := ctx.Err(); err != nil {
			return tally{}, err
		}
		b := feed.take()
		result, err := session.Evaluate(work, b.Batch)
		if err != nil {
			return tally{}, fmt.Errorf("criteria: evaluate the %s split: %w", phase, err)
		}
		if !finite(result.Loss) {
			return tally{}, &DivergedError{Epoch: r.state.Epoch, Step: r.state.Step, Loss: result.Loss, LearningRate: r.lastRate}
		}
		sum.add(b.Batch, result)
		if phase == PhaseVal {
			r.valMargin.add(b.Batch, result)
		}
		pairs += b.Rows
		feed.giveBack(b)
		r.hookStep(phase, pairs, split.len(), result.Loss)
	}
	return sum, nil
}

// saveBest replaces best_model/ by the current model, in one piece.
func (r *run) saveBest(ctx context.Context) error {
	dir := filepath.Join(r.outputDir, bestModelDir)
	decision, err := r.valMargin.decide(PhaseVal)
	if err != nil {
		return fmt.Errorf("criteria: choose the threshold: %w", err)
	}
	for _, p := range r.pending {
		<-p.done // a tokenizer does one thing at a time
	}
	err = atomicfile.ReplaceDir(dir, func(tmp string) error {
		if err := r.session.SaveModel(context.WithoutCancel(ctx), tmp); err != nil {
			return err
		}
		if err := r.tokenizer.SaveTo(tmp); err != nil {
			return err
		}
		if err := decision.write(tmp); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, configFile), r.cfg.Redacted().YAML(), 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, "README.md"), r.card(), 0o644); err != nil {
			return err
		}
		return sumfile.Write(tmp)
	})
	if err != nil {
		return fmt.Errorf("criteria: save the best model to %s: %w", dir, err)
	}
	r.log.Info("new best model saved", "epoch", r.state.BestEpoch, "val_macro_f1", round(r.state.best().Val.MacroF1), "dir", dir)
	r.hooks.Checkpoint(CheckpointEvent{Trial: r.trialNumber(), Dir: dir, Epoch: r.state.BestEpoch})
	return nil
}

// testBest tests what lies on the disk, not what is in memory: the scores are
// those of the model that a user will load.
func (r *run) testBest(ctx context.Context, closers *closers) error {
	if err := r.closeSession(); err != nil { // the memory of gradients and optimizer is free now
		return fmt.Errorf("criteria: close the training session: %w", err)
	}
	dir := filepath.Join(r.outputDir, bestModelDir)
	session, err := r.engine.Open(ctx, ModelSpec{Dir: dir, Threads: r.cfg.Train.Threads,
		Optimizations: r.cfg.Train.Optimizations, PinMemory: r.cfg.Data.DataLoader.PinMemory})
	if err != nil {
		return openError(dir, err)
	}
	closers.add(session.Close)
	if r.versions == nil {
		if err := r.recordSession(ctx, describe(session)); err != nil {
			return err
		}
	}
	if r.test, err = r.tokenized(PhaseTest); err != nil {
		return err
	}
	if r.testTally, err = r.evaluate(ctx, session, PhaseTest, r.test); err != nil {
		return err
	}
	scores := r.testTally.scores()
	metrics := make(map[string]float64)
	scores.addTo(metrics, "test_", true)
	if err := r.tracked.LogMetrics(ctx, r.state.Epoch, metrics); err != nil {
		return trackingError("log the test metrics", err)
	}
	r.log.Info("test", "loss", round(scores.Loss), "accuracy", round(scores.Accuracy), "macro_f1", round(scores.MacroF1),
		"weighted_f1", round(scores.WeightedF1), "precision", round(scores.Precision), "recall", round(scores.Recall))
	return nil
}

// reportPart is a file of the report.
type reportPart struct {
	name string
	make func() ([]byte, error)
}

// reportFile writes a file of the report and stores it as an artifact.
func (r *run) reportFile(ctx context.Context, f reportPart) error {
	content, err := f.make()
	if err != nil {
		return fmt.Errorf("criteria: make %s: %w", f.name, err)
	}
	if err := atomicfile.WriteFile(filepath.Join(r.outputDir, f.name), content); err != nil {
		return fmt.Errorf("criteria: write %s: %w", f.name, err)
	}
	if err := r.tracked.LogArtifact(ctx, f.name, bytes.NewReader(content)); err != nil {
		return trackingError("store "+f.name, err)
	}
	return nil
}

// report writes pictures and tables beside the model and stores all artifacts.
func (r *run) report(ctx context.Context) error {
	files := []reportPart{
		{confusionFile, r.confusionPicture},
		{reportFile, func() ([]byte, error) { return json.MarshalIndent(r.testTally.Confusion.Report(), "", "  ") }},
	}
	trained := r.state.BestEpoch > 0 // and not only tested
	if trained {
		files = append(files, reportPart{curvesFile, r.curvesPicture})
	}
	for _, f := range files {
		if err := r.reportFile(ctx, f); err != nil {
			return err
		}
	}
	dir := filepath.Join(r.outputDir, bestModelDir)
	if trained {
		// Only now are the test scores known, which belong on the model card.
		if err := errors.Join(atomicfile.WriteFile(filepath.Join(dir, "README.md"), r.card()), sumfile.Write(dir)); err != nil {
			return fmt.Errorf("criteria: write the model card: %w", err)
		}
	}
	if err := r.tracked.LogArtifacts(ctx, dir, modelArtifact); err != nil {
		return trackingError("store the model", err)
	}
	return nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// round keeps four decimals, for the log.
func round(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// closers closes in reverse order what was opened.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() error {
	var errs []error
	for i := len(*c) - 1; i >= 0; i-- {
		errs = append(errs, (*c)[i]())
	}
	*c = nil
	return errors.Join(errs...)
}
