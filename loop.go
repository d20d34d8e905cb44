package criteria

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/criteria-go/criteria/internal/optim"
)

// trainState is where a training stands. Together with the weights and the
// optimizer state it is all that is needed to continue: the order of the pairs is
// a function of (seed, epoch) and the dropout masks are one of (seed, step).
type trainState struct {
	Epoch     int           `json:"epoch"`      // being trained, from 1
	Micro     int           `json:"micro"`      // micro-batches of it that are done
	Step      int           `json:"step"`       // updates done since the start
	Tally     tally         `json:"tally"`      // of the epoch so far
	Window    window        `json:"window"`     // since the last point that was logged
	History   []EpochScores `json:"history"`    // of the epochs that have ended
	BestEpoch int           `json:"best_epoch"` // 0 before the first
}

func (s *trainState) best() EpochScores { return s.History[s.BestEpoch-1] }

// progress is where a training stands, and from where it could be resumed.
type progress struct {
	state    trainState
	boundary trainState // after the last update, or after the epoch that it ended: what a resume point holds
	unsound  bool       // whether an update failed halfway, so that weights and state do not belong together
}

// lastUpdate is what the events of steps say of the last update.
type lastUpdate struct{ rate, norm float64 }

// saver saves what a training has come to while it is on its way.
type saver interface {
	// saveBest saves the model of the epoch that has just ended.
	saveBest(ctx context.Context) error
	// saveResumePoint saves where the training stood after its last update.
	saveResumePoint(ctx context.Context) error
	// resumePointDue reports whether it is time for that after so many updates.
	resumePointDue(step int) bool
}

// loop trains epoch by epoch.
type loop struct {
	*job
	session  Session // nil while no model is open for training
	splits   *splits
	record   *record
	saver    saver
	schedule optim.Schedule
	progress progress
	last     lastUpdate
	margins  margins // of the last evaluation of the validation split
	stop     StopReason
}

// closeSession closes the training session, once.
func (l *loop) closeSession() error {
	if l.session == nil {
		return nil
	}
	s := l.session
	l.session = nil
	return s.Close()
}

// planSchedule sets the learning rate of every update. It waits for the training
// split.
func (l *loop) planSchedule() error {
	if _, err := l.splits.wait(PhaseTrain); err != nil {
		return err
	}
	t := l.cfg.Train
	micro := l.microBatches()
	total := (micro + t.GradientAccumulationSteps - 1) / t.GradientAccumulationSteps * t.Epochs
	l.schedule = optim.Schedule{
		Kind: optim.ScheduleKind(t.Scheduler), Peak: t.LearningRate,
		Warmup: optim.WarmupSteps(t.WarmupRatio, total), Total: total,
	}
	return nil
}

// microBatches returns how many micro-batches an epoch has.
func (l *loop) microBatches() int { return len(l.plan1()) }

// plan1 is the plan of the batches of the first epoch.
func (l *loop) plan1() [][]int {
	return l.splits.get(PhaseTrain).trainingBatches(l.order, l.cfg.Train.BatchSize, l.cfg.Train.Seed, 1)
}

// dryRun sends the first batch through the model, so that what cannot work
// fails now and not after the first epoch.
func (l *loop) dryRun(ctx context.Context) error {
	train := l.splits.get(PhaseTrain)
	b := train.batch(l.plan1()[0])
	result, err := l.session.Evaluate(ctx, b)
	if err != nil {
		return fmt.Errorf("criteria: dry run: %w", err)
	}
	if len(result.Logits) != 2*b.Rows {
		return fmt.Errorf("criteria: dry run: the engine returned %d logits for %d pairs, want two for each",
			len(result.Logits), b.Rows)
	}
	if !finite(result.Loss) {
		return &DivergedError{Loss: result.Loss}
	}
	l.log.Info("dry run passed", "pairs", b.Rows, "tokens", b.Length, "loss", round(result.Loss))
	l.events.Start(StartEvent{
		RunID: l.record.tracked.ID(), Dir: l.outputDir,
		Train: train.len(), Val: len(l.splits.data.Val), Test: len(l.splits.data.Test),
		Epochs: l.cfg.Train.Epochs, Steps: l.schedule.Total, DryRunLoss: result.Loss,
	})
	return nil
}

// train trains epoch by epoch until all are done or patience is at an end.
func (l *loop) train(ctx context.Context) error {
	for !l.finished() {
		scores, err := l.trainAndScore(ctx)
		if err != nil {
			return err
		}
		if err := l.endEpoch(ctx, scores); err != nil {
			return err
		}
	}
	return nil
}

// trainAndScore trains one epoch, whose scores become part of the state.
func (l *loop) trainAndScore(ctx context.Context) (EpochScores, error) {
	s := &l.progress.state
	started := l.now()
	s.Epoch = len(s.History) + 1
	if err := l.trainEpoch(ctx); err != nil {
		return EpochScores{}, err
	}
	val, err := l.splits.wait(PhaseVal)
	if err != nil {
		return EpochScores{}, err
	}
	judged, err := l.evaluate(ctx, l.session, PhaseVal, val)
	if err != nil {
		return EpochScores{}, err
	}
	scores := EpochScores{Epoch: s.Epoch, Train: s.Tally.scores(), Val: judged.scores()}
	s.History = append(s.History, scores)
	s.Micro, s.Tally = 0, tally{}
	if err := l.record.epoch(ctx, scores); err != nil {
		return EpochScores{}, err
	}
	l.events.Epoch(EpochEvent{EpochScores: scores, Epochs: l.cfg.Train.Epochs, Best: s.improvedBy(scores)})
	l.log.Info(fmt.Sprintf("epoch %d/%d", s.Epoch, l.cfg.Train.Epochs),
		"train_loss", round(scores.Train.Loss), "train_macro_f1", round(scores.Train.MacroF1),
		"val_loss", round(scores.Val.Loss), "val_accuracy", round(scores.Val.Accuracy),
		"val_macro_f1", round(scores.Val.MacroF1),
		"seconds", math.Round(l.now().Sub(started).Seconds()*10)/10)
	return scores, nil
}

// improvedBy reports whether an epoch is better than all before it.
func (s *trainState) improvedBy(e EpochScores) bool {
	return s.BestEpoch == 0 || e.Val.MacroF1 > s.best().Val.MacroF1
}

// endEpoch saves what the epoch came to and lets the plan judge it.
func (l *loop) endEpoch(ctx context.Context, scores EpochScores) error {
	s := &l.progress.state
	if s.improvedBy(scores) {
		s.BestEpoch = s.Epoch
		if l.plan.keepsModel() {
			if err := l.saver.saveBest(ctx); err != nil {
				return err
			}
		}
	}
	// Only now may a resume point say that this epoch is done: a run resumed
	// from it finds its scores recorded and the best model on the disk.
	l.progress.boundary = *s
	if err := l.saver.saveResumePoint(ctx); err != nil {
		return err
	}
	return l.plan.afterEpoch(ctx, scores)
}

// finished reports whether there is no epoch left to train.
func (l *loop) finished() bool {
	t, s := l.cfg.Train, &l.progress.state
	done := len(s.History)
	if done == t.Epochs {
		return true
	}
	if t.EarlyStoppingPatience == 0 || done-s.BestEpoch < t.EarlyStoppingPatience {
		return false
	}
	l.stop = EarlyStopped
	l.log.Info("stopping early", "epoch", done, "best_epoch", s.BestEpoch, "patience", t.EarlyStoppingPatience)
	return true
}

// trainEpoch goes once through the training split, from where the state says.
func (l *loop) trainEpoch(ctx context.Context) error {
	e := l.newEpoch()
	defer e.feed.stop()
	err := e.begin(ctx)
	if settleErr := e.settle(0); settleErr != nil {
		err = settleErr // it happened before whatever else did
	}
	err = cmp.Or(err, e.logPoints(context.WithoutCancel(ctx)))
	// After an error of one step, the weights may have what later ones did to them.
	l.progress.unsound = l.progress.unsound || e.flight.updating()
	return err
}

// epoch is one pass through the training split. What comes of its micro-batches
// becomes part of the state when it is there, in the same order.
type epoch struct {
	*loop
	feed   *feed
	flight flight
	all    int // micro-batches
	pairs  int // of the micro-batches that have begun
	step   int // updates that have begun; the state counts what is done
	pace   pace
	points []*stepPoint // to be logged
	err    error        // of the first part of a step that failed; those after it are not looked at
}

func (l *loop) newEpoch() *epoch {
	t, s := l.cfg.Train, &l.progress.state
	train := l.splits.get(PhaseTrain)
	batches := train.trainingBatches(l.order, t.BatchSize, t.Seed, s.Epoch)
	e := &epoch{loop: l, flight: newFlight(l.session), all: len(batches), step: s.Step}
	for _, rows := range batches[:s.Micro] {
		e.pairs += len(rows)
	}
	e.feed = train.feed(batches[s.Micro:], e.flight.depth+1)
	return e
}

// begin lets the session compute one micro-batch after the other. The last window
// of accumulation may be incomplete; it still makes an update.
func (e *epoch) begin(ctx context.Context) error {
	window := e.cfg.Train.GradientAccumulationSteps
	// The engine does not see the end of ctx: an update once begun is finished, so that
	// the resume point of an interrupted run wastes nothing.
	work := context.WithoutCancel(ctx)
	for micro := e.progress.state.Micro; micro < e.all; micro++ {
		inWindow := micro % window
		if inWindow == 0 {
			if err := cmp.Or(ctx.Err(), e.splits.failed()); err != nil {
				return err
			}
		}
		m := e.feed.take()
		e.pairs += m.Rows
		m.pairs, m.updates = e.pairs, inWindow == window-1 || micro == e.all-1
		if err := e.accumulate(work, m, inWindow); err != nil {
			return err
		}
		if !m.updates {
			continue
		}
		if err := e.update(work, m); err != nil {
			return err
		}
		if err := e.logPoints(work); err != nil {
			return err
		}
		if micro < e.all-1 && e.saver.resumePointDue(e.step) {
			if err := cmp.Or(e.settle(0), e.logPoints(work)); err != nil {
				return err
			}
			if err := e.saver.saveResumePoint(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// accumulate begins with a micro-batch.
func (e *epoch) accumulate(ctx context.Context, m *microBatch, inWindow int) error {
	if err := e.flight.accumulate(ctx, m, e.step, inWindow); err != nil {
		return e.stepError(e.step, err)
	}
	return e.settle(e.flight.depth)
}

// update begins with the update that follows a micro-batch.
func (e *epoch) update(ctx context.Context, m *microBatch) error {
	if err := e.flight.update(ctx, m, e.schedule.LR(e.step)); err != nil {
		e.progress.unsound = true
		return e.stepError(e.step, err)
	}
	if err := e.settle(e.flight.depth); err != nil {
		return err
	}
	e.step++
	return nil
}

// settle makes the results of the oldest parts of steps ones of the state, until only
// so many are under way.
func (e *epoch) settle(left int) error {
	for e.err == nil && len(e.flight.parts) > left {
		e.err = e.settleOne(e.flight.oldest())
	}
	return e.err
}

func (e *epoch) settleOne(p stepPart) error {
	var err error
	if p.update {
		err = e.updated(p)
	} else {
		err = e.accumulated(p)
	}
	if last := p.update == p.updates; last && err == nil {
		e.feed.giveBack(p.microBatch)
	}
	return err
}

// accumulated waits for the result of a micro-batch.
func (e *epoch) accumulated(p stepPart) error {
	s := &e.progress.state
	result, err := p.result.get()
	if err != nil {
		return e.stepError(s.Step, err)
	}
	if !finite(result.Loss) {
		return &DivergedError{Epoch: s.Epoch, Step: s.Step, Loss: result.Loss, LearningRate: e.schedule.LR(s.Step)}
	}
	s.Tally.add(p.Batch, result)
	s.Micro++
	s.Window.add(result.Loss)
	p.loss = result.Loss
	if !p.updates {
		e.trainEvent(p)
	}
	return nil
}

// updated waits for the gradient norm of the update that followed a micro-batch.
func (e *epoch) updated(p stepPart) error {
	s := &e.progress.state
	norm, err := p.norm.get()
	if err != nil {
		e.progress.unsound = true
		return e.stepError(s.Step, err)
	}
	e.last = lastUpdate{p.rate, norm}
	if !finite(norm) {
		return &DivergedError{Epoch: s.Epoch, Step: s.Step, Loss: p.loss, GradNorm: norm, LearningRate: p.rate}
	}
	s.Step++
	point := e.logDue()
	e.progress.boundary = *s
	e.trainEvent(p)
	if point != nil {
		if perSecond, ok := e.pace.take(); ok {
			point.metrics["pairs_per_second"] = perSecond
		}
		e.points = append(e.points, point)
	}
	return nil
}

// trainEvent reports a micro-batch that is done.
func (e *epoch) trainEvent(p stepPart) {
	at := e.stepEvent(PhaseTrain, p.pairs, e.splits.get(PhaseTrain).len(), p.loss)
	e.pace.add(p.Rows, at)
}

func (l *loop) stepError(step int, err error) error {
	return fmt.Errorf("criteria: epoch %d, step %d: %w", l.progress.state.Epoch, step, err)
}

// stepEvent reports a micro-batch that is done, and returns when that was.
func (l *loop) stepEvent(phase Phase, pairs, total int, loss float64) time.Time {
	s, now := &l.progress.state, l.now()
	l.events.Step(StepEvent{
		Phase: phase, Epoch: s.Epoch, Epochs: l.cfg.Train.Epochs, Pairs: pairs, Total: total,
		Step: s.Step, Steps: l.schedule.Total, Loss: loss, LearningRate: l.last.rate, GradNorm: l.last.norm,
		Time: now,
	})
	return now
}

// evaluate scores a split without dropout.
func (l *loop) evaluate(ctx context.Context, session Session, phase Phase, split *encodedSplit) (tally, error) {
	var sum tally
	if phase == PhaseVal {
		l.margins = margins{}
	}
	work := context.WithoutCancel(ctx)
	plan := split.evaluationBatches(l.cfg.Train.EvalBatchSize)
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
			s := &l.progress.state
			return tally{}, &DivergedError{Epoch: s.Epoch, Step: s.Step, Loss: result.Loss, LearningRate: l.last.rate}
		}
		sum.add(b.Batch, result)
		if phase == PhaseVal {
			l.margins.add(b.Batch, result)
		}
		pairs += b.Rows
		feed.giveBack(b)
		l.stepEvent(phase, pairs, split.len(), result.Loss)
	}
	return sum, nil
}
