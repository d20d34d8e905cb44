package criteria_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// gatedTokenizer asks before it encodes a split, and does one thing at a time.
type gatedTokenizer struct {
	fakes.Tokenizer
	gate  func(ctx context.Context, split criteria.Phase) error // nil: all may pass
	loses criteria.Phase                                        // the split of which an encoding is missing

	splits int // that it was given
	busy   atomic.Bool
}

func (t *gatedTokenizer) EncodePairs(ctx context.Context, pairs []criteria.Pair, maxLength int) (criteria.Encodings, error) {
	if t.busy.Swap(true) {
		return criteria.Encodings{}, errors.New("the tokenizer is busy")
	}
	defer t.busy.Store(false)
	split := []criteria.Phase{criteria.PhaseTrain, criteria.PhaseVal, criteria.PhaseTest}[t.splits]
	t.splits++
	if t.gate != nil {
		if err := t.gate(ctx, split); err != nil {
			return criteria.Encodings{}, err
		}
	}
	if split == t.loses {
		pairs = pairs[1:]
	}
	return t.Tokenizer.EncodePairs(ctx, pairs, maxLength)
}

func (t *gatedTokenizer) SaveTo(dir string) error {
	if t.busy.Swap(true) {
		return errors.New("the tokenizer is busy")
	}
	defer t.busy.Store(false)
	return t.Tokenizer.SaveTo(dir)
}

// calls returns how many micro-batches and updates the engine was given.
func calls(e *fakes.Engine) string {
	n := map[string]int{}
	for _, s := range e.Steps() {
		n[s.Op]++
	}
	return fmt.Sprintf("%d accumulations, %d updates", n["accumulate"], n["update"])
}

// TestTokenizingOverlaps: the training split is tokenized while the engine opens,
// the others while it trains, one at a time, and what is not there yet when it is
// needed is waited for. Nothing of it shows in what comes out.
func TestTokenizingOverlaps(t *testing.T) {
	run := func(t *testing.T, tokenizer criteria.Tokenizer, b *bench) (log string, o outcome) {
		b.config.Model.Tokenizer.MaxLength = 12 // some pairs are cut, which is logged
		var text bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		result := b.run(t, criteria.WithTokenizer(tokenizer), criteria.WithLogger(logger))
		return strings.ReplaceAll(text.String(), b.dir, "DIR"), b.outcome(t, result)
	}
	first := newBench(t)
	wantLog, want := run(t, &fakes.Tokenizer{}, first)
	for _, split := range []string{"train", "val", "test"} {
		if !strings.Contains(wantLog, "pairs of "+split+" are cut") {
			t.Fatalf("no pair of %s is cut:\n%s", split, wantLog)
		}
	}

	synctest.Test(t, func(t *testing.T) {
		b := first.again(t)
		opening, encoding := make(chan struct{}), make(chan struct{})
		release := map[criteria.Phase]chan struct{}{criteria.PhaseVal: make(chan struct{}), criteria.PhaseTest: make(chan struct{})}
		tokenizer := &gatedTokenizer{gate: func(_ context.Context, split criteria.Phase) error {
			if split == criteria.PhaseTrain {
				close(encoding)
				<-opening
				return nil
			}
			<-release[split]
			return nil
		}}
		evaluations, opens := 0, 0
		b.engine.Before = func(op string) error {
			switch op {
			case "open":
				if opens++; opens == 1 {
					close(opening)
					<-encoding
				}
			case "evaluate":
				evaluations++
			}
			return nil
		}
		var log string
		var got outcome
		done := make(chan struct{})
		go func() {
			defer close(done)
			log, got = run(t, tokenizer, b)
		}()

		synctest.Wait() // until nothing goes on without the validation split
		if is, epoch := calls(b.engine), "8 accumulations, 8 updates"; is != epoch || evaluations != 1 || tokenizer.splits != 2 {
			t.Errorf("while the validation split is tokenized: %s, %d evaluations, %d splits; want %s, the dry run, and 2", is, evaluations, tokenizer.splits, epoch)
		}
		close(release[criteria.PhaseVal])
		synctest.Wait() // until the tokenizer is to save itself
		if evaluations != 1+2 || tokenizer.splits != 3 {
			t.Errorf("while the test split is tokenized: %d evaluations, %d splits; want the dry run and 2, and 3", evaluations, tokenizer.splits)
		}
		close(release[criteria.PhaseTest])
		<-done
		if diff := cmp.Diff(wantLog, log); diff != "" {
			t.Errorf("log (-at once +in the background):\n%s", diff)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("outcome (-at once +in the background):\n%s", diff)
		}
	})
}

// TestTokenizingFails: a run ends as soon as a split cannot be tokenized, the first
// before anything is computed, and can be resumed.
func TestTokenizingFails(t *testing.T) {
	whole := smallBench(t)
	want := whole.outcome(t, whole.run(t))
	broken := errors.New("the tokenizer is broken")
	for name, tc := range map[string]struct {
		split, loses criteria.Phase
		late         bool   // when the engine has computed the epoch
		want         string // error
		calls        string // of the engine
	}{
		"train":       {split: criteria.PhaseTrain, want: "criteria: tokenize the train split: the tokenizer is broken", calls: "0 accumulations, 0 updates"},
		"train short": {loses: criteria.PhaseTrain, want: "criteria: the tokenizer returned 35 encodings for the 36 pairs of the train split", calls: "0 accumulations, 0 updates"},
		"val":         {split: criteria.PhaseVal, want: "criteria: tokenize the val split: the tokenizer is broken", calls: "2 accumulations, 1 updates"},
		"val short":   {loses: criteria.PhaseVal, want: "criteria: the tokenizer returned 11 encodings for the 12 pairs of the val split", calls: "2 accumulations, 1 updates"},
		"val late":    {split: criteria.PhaseVal, late: true, want: "criteria: tokenize the val split: the tokenizer is broken", calls: "5 accumulations, 3 updates"},
		"test":        {split: criteria.PhaseTest, want: "criteria: tokenize the test split: the tokenizer is broken", calls: "2 accumulations, 1 updates"},
		"test short":  {loses: criteria.PhaseTest, want: "criteria: the tokenizer returned 11 encodings for the 12 pairs of the test split", calls: "2 accumulations, 1 updates"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := whole.again(t)
				begun, release, accumulations := make(chan struct{}), make(chan struct{}), 0
				b.engine.Before = func(op string) error {
					if op == "accumulate" {
						if accumulations++; accumulations == 1 {
							close(begun) // to train
							if !tc.late {
								synctest.Wait() // until it is known what comes of the splits
							}
						}
						if accumulations == 5 && tc.late {
							close(release)
						}
					}
					return nil
				}
				tokenizer := &gatedTokenizer{loses: tc.loses, gate: func(_ context.Context, split criteria.Phase) error {
					if split != criteria.PhaseTrain {
						<-begun
					}
					if split != tc.split {
						return nil
					}
					if tc.late {
						<-release
					}
					return broken
				}}
				run, err := b.fail(t.Context(), t, criteria.WithTokenizer(tokenizer))
				if err.Error() != tc.want || tc.split != "" && !errors.Is(err, broken) {
					t.Errorf("error %q, want %q", err, tc.want)
				}
				if is := calls(b.engine); is != tc.calls {
					t.Errorf("the engine was given %s, want %s", is, tc.calls)
				}
				if run.Status != criteria.RunFailed {
					t.Errorf("status %q; want FAILED", run.Status)
				}
				b.engine.Before = nil
				if diff := cmp.Diff(want, b.outcome(t, b.run(t, criteria.WithResume(b.dir)))); diff != "" {
					t.Errorf("outcome (-whole +resumed):\n%s", diff)
				}
			})
		})
	}
}

// TestTokenizingEndsWithTheRun: whatever ends a run while a split is being
// tokenized ends the tokenizing, too, before Run returns.
func TestTokenizingEndsWithTheRun(t *testing.T) {
	broken, stop := errors.New("out of order"), errors.New("the user pressed Ctrl-C")
	for name, tc := range map[string]struct {
		split       criteria.Phase // that is being tokenized when
		op          string         // of the engine
		fails       bool           // or else is interrupted
		calls       int            // of it, before
		epoch, step int            // of the interruption
	}{
		"opening fails":              {split: criteria.PhaseTrain, op: "open", fails: true},
		"opening interrupted":        {split: criteria.PhaseTrain, op: "open"},
		"dry run fails":              {split: criteria.PhaseVal, op: "evaluate", fails: true},
		"dry run interrupted":        {split: criteria.PhaseVal, op: "evaluate", epoch: 1},
		"step fails":                 {split: criteria.PhaseVal, op: "accumulate", fails: true, calls: 3},
		"step interrupted":           {split: criteria.PhaseVal, op: "accumulate", calls: 3, epoch: 1, step: 4},
		"last step interrupted":      {split: criteria.PhaseVal, op: "update", calls: 7, epoch: 1, step: 8},
		"test: step fails":           {split: criteria.PhaseTest, op: "update", fails: true, calls: 3},
		"test: evaluation fails":     {split: criteria.PhaseTest, op: "evaluate", fails: true, calls: 2},
		"test: evaluation cut short": {split: criteria.PhaseTest, op: "evaluate", calls: 1, epoch: 1, step: 8},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				tokenizer := &gatedTokenizer{gate: func(ctx context.Context, split criteria.Phase) error {
					if split != tc.split {
						return nil
					}
					<-ctx.Done()
					return context.Cause(ctx)
				}}
				n := 0
				b.engine.Before = func(op string) error {
					if op != tc.op {
						return nil
					}
					if n++; n != tc.calls+1 {
						return nil
					}
					synctest.Wait() // until the split is being tokenized
					if !tokenizer.busy.Load() {
						t.Errorf("nothing is being tokenized")
					}
					if tc.fails {
						return broken
					}
					cancel(stop)
					return nil
				}
				_, err := b.fail(ctx, t, criteria.WithTokenizer(tokenizer))
				if tokenizer.busy.Load() {
					t.Error("the split is still being tokenized")
				}
				if tc.fails {
					if !errors.Is(err, broken) {
						t.Errorf("error %v, want that of the engine", err)
					}
					return
				}
				var interrupted *criteria.InterruptedError
				if !errors.As(err, &interrupted) || interrupted.Cause != stop || interrupted.Epoch != tc.epoch || interrupted.Step != tc.step {
					t.Fatalf("error %#v; want an InterruptedError in epoch %d after %d steps", err, tc.epoch, tc.step)
				}
				if want := filepath.Join(b.dir, "checkpoints", fmt.Sprintf("step-%08d", tc.step)); interrupted.Checkpoint != want {
					t.Errorf("checkpoint %q, want %q", interrupted.Checkpoint, want)
				}
			})
		})
	}
}

// A study needs both splits before its first trial.
func TestStudyTokenizing(t *testing.T) {
	broken := errors.New("out of order")
	for name, tc := range map[string]struct {
		split criteria.Phase // that cannot be tokenized
		op    string         // or else of the engine, that fails while the first one is
		want  string
	}{
		"train":  {split: criteria.PhaseTrain, want: "criteria: tokenize the train split: out of order"},
		"val":    {split: criteria.PhaseVal, want: "criteria: tokenize the val split: out of order"},
		"engine": {op: "open", want: "out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStudyBench(t)
			encoding := make(chan struct{})
			tokenizer := &gatedTokenizer{gate: func(ctx context.Context, split criteria.Phase) error {
				if split == tc.split {
					return broken
				}
				if tc.op != "" {
					close(encoding)
					<-ctx.Done()
				}
				return ctx.Err()
			}}
			b.engine.Before = func(op string) error {
				if op != tc.op {
					return nil
				}
				<-encoding
				return broken
			}
			_, err := b.study(t, criteria.WithTokenizer(tokenizer)).Run(t.Context())
			if !errors.Is(err, broken) || !strings.HasSuffix(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if tokenizer.busy.Load() || len(b.engine.Steps()) > 0 {
				t.Errorf("busy %t, %d steps; want the tokenizer at rest, and no trial", tokenizer.busy.Load(), len(b.engine.Steps()))
			}
		})
	}
}
