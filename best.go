package criteria

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// saveBest implements saver: it replaces best_model/ by the current model, in one
// piece.
func (r *run) saveBest(ctx context.Context) error {
	dir := filepath.Join(r.outputDir, bestModelDir)
	decision, err := r.loop.margins.decide(PhaseVal)
	if err != nil {
		return fmt.Errorf("criteria: choose the threshold: %w", err)
	}
	err = atomicfile.ReplaceDir(dir, func(tmp string) error {
		return r.fillBest(context.WithoutCancel(ctx), tmp, decision)
	})
	if err != nil {
		return fmt.Errorf("criteria: save the best model to %s: %w", dir, err)
	}
	s := &r.loop.progress.state
	r.log.Info("new best model saved", "epoch", s.BestEpoch, "val_macro_f1", round(s.best().Val.MacroF1), "dir", dir)
	r.events.Checkpoint(CheckpointEvent{Dir: dir, Epoch: s.BestEpoch})
	return nil
}

// fillBest writes the current model into dir.
func (r *run) fillBest(ctx context.Context, dir string, d decision) error {
	if err := r.loop.session.SaveModel(ctx, dir); err != nil {
		return err
	}
	if err := r.splits.saveTokenizer(dir); err != nil {
		return err
	}
	if err := d.write(dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), r.cfg.Redacted().YAML(), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, cardFile), r.card(), 0o644); err != nil {
		return err
	}
	return sumfile.Write(dir)
}

// testBest tests what lies on the disk, not what is in memory: the scores are
// those of the model that a user will load.
func (r *run) testBest(ctx context.Context, closers *closers) error {
	if err := r.loop.closeSession(); err != nil { // the memory of gradients and optimizer is free now
		return fmt.Errorf("criteria: close the training session: %w", err)
	}
	dir := filepath.Join(r.outputDir, bestModelDir)
	session, err := r.backend().Open(ctx, ModelSpec{Dir: dir, Device: r.cfg.Device, Threads: r.cfg.Train.Threads,
		Optimizations: r.cfg.Train.Optimizations, PinMemory: r.cfg.Data.DataLoader.PinMemory})
	if err != nil {
		return openError(dir, err)
	}
	closers.add(session.Close)
	if r.record.versions == nil {
		if err := r.record.session(ctx, describe(session), r.base.Hashes); err != nil {
			return err
		}
	}
	test, err := r.splits.wait(PhaseTest)
	if err != nil {
		return err
	}
	if r.tested, err = r.loop.evaluate(ctx, session, PhaseTest, test); err != nil {
		return err
	}
	scores := r.tested.scores()
	if err := r.record.test(ctx, r.loop.progress.state.Epoch, scores); err != nil {
		return err
	}
	r.log.Info("test", "loss", round(scores.Loss), "accuracy", round(scores.Accuracy),
		"macro_f1", round(scores.MacroF1), "weighted_f1", round(scores.WeightedF1),
		"precision", round(scores.Precision), "recall", round(scores.Recall))
	return nil
}
