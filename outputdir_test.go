package criteria_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

// A second run in the output directory of one that is at work fails before it
// writes anything, whichever of them resumes, and the first one goes on.
func TestOutputDirInUse(t *testing.T) {
	for name, tc := range map[string]struct {
		first, second func(t *testing.T, b *bench) []criteria.TrainerOption
	}{
		"both new":      {fresh, fresh},
		"first resumes": {resuming, fresh},
		"both resume":   {resuming, resuming},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := interruptedBench(t)
			var inside error
			asked := false
			second := &bench{dir: b.dir, engine: &fakes.Engine{}, tracker: &fakes.Tracker{}, data: b.data, config: b.config}
			hooks := criteria.Hooks{Step: func(criteria.StepEvent) {
				if asked {
					return
				}
				asked = true
				before := files(t, b.dir)
				_, inside = second.trainer(t, tc.second(t, b)...).Run(t.Context())
				if after := files(t, b.dir); strings.Join(before, "\n") != strings.Join(after, "\n") {
					t.Errorf("files before %q, after the second run %q", before, after)
				}
			}}
			b.run(t, append(tc.first(t, b), criteria.WithHooks(hooks))...)
			if !errors.Is(inside, criteria.ErrDirInUse) || !strings.Contains(inside.Error(), b.dir) {
				t.Errorf("the second run: %v; want ErrDirInUse, naming the directory", inside)
			}
			if n := len(second.tracker.Runs()); n != 0 {
				t.Errorf("the second run was tracked %d times", n)
			}
			// And when it has ended, the directory is free.
			b.again(t).run(t, criteria.WithOutputDir(b.dir))
		})
	}
}

func fresh(*testing.T, *bench) []criteria.TrainerOption { return nil }

func resuming(_ *testing.T, b *bench) []criteria.TrainerOption {
	return []criteria.TrainerOption{criteria.WithResume(b.dir)}
}

// A checkpoint that cannot be read for want of a permission is not damaged:
// nothing is removed.
func TestUnreadableCheckpoint(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("root reads everything: a folder stands in for the file")
	}
	b, _ := interruptedBench(t)
	names := checkpoints(t, b.dir)
	last := filepath.Join(b.dir, "checkpoints", names[len(names)-1], "state.json")
	if os.Getuid() == 0 { // reading it is EISDIR, which proves nothing either
		if err := errors.Join(os.Rename(last, last+".away"), os.Mkdir(last, 0o755)); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Chmod(last, 0); err != nil {
		t.Fatal(err)
	}
	_, err := b.trainer(t, criteria.WithResume(b.dir)).Run(t.Context())
	var fault *criteria.CheckpointError
	if !errors.As(err, &fault) || !strings.Contains(err.Error(), "nothing is removed") {
		t.Errorf("Run() = %v; want a CheckpointError that says that nothing is removed", err)
	}
	if got := checkpoints(t, b.dir); len(got) != len(names) {
		t.Errorf("checkpoints %q are left of %q", got, names)
	}
}

var errPatience = errors.New("out of patience")

// An error due to the end of a context is both its kind and its cause.
func TestCancelCause(t *testing.T) {
	b, dir := trained(t)
	c, err := criteria.Load(t.Context(), dir, fakeOptions(b)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errPatience)
	late, stop := context.WithTimeoutCause(t.Context(), 0, errPatience)
	defer stop()
	<-late.Done()
	for name, ask := range map[string]func(ctx context.Context) error{
		"Predict": func(ctx context.Context) error { _, err := c.Predict(ctx, manyPairs(5)); return err },
		"Warmup":  c.Warmup,
		"PredictSeq": func(ctx context.Context) error {
			for _, err := range c.PredictSeq(ctx, func(yield func(criteria.Pair) bool) { yield(manyPairs(1)[0]) }) {
				return err
			}
			return nil
		},
		"Explain":      func(ctx context.Context) error { _, err := c.Explain(ctx, manyPairs(1)[0]); return err },
		"CheckRuntime": func(ctx context.Context) error { _, err := criteria.CheckRuntime(ctx, ""); return err },
		"LoadFS": func(ctx context.Context) error {
			_, err := criteria.LoadFS(ctx, os.DirFS(dir), fakeOptions(b, criteria.WithWarmup())...)
			return err
		},
		"Run": func(ctx context.Context) error { _, err := b.again(t).trainer(t).Run(ctx); return err },
	} {
		if err := ask(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, errPatience) {
			t.Errorf("%s: %v; want context.Canceled and its cause", name, err)
		}
		if err := ask(late); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errPatience) {
			t.Errorf("%s: %v; want context.DeadlineExceeded and its cause", name, err)
		}
	}
}

// A panic of a hook or of an injected part goes on, and the tracked run is over.
func TestPanicEndsTheRun(t *testing.T) {
	for name, opt := range map[string]func(b *bench) criteria.TrainerOption{
		"hook": func(*bench) criteria.TrainerOption {
			return criteria.WithHooks(criteria.Hooks{Epoch: func(criteria.EpochEvent) { panic("ouch") }})
		},
		"engine": func(b *bench) criteria.TrainerOption {
			n := 0
			b.engine.Before = func(string) error {
				if n++; n == 5 {
					panic("ouch")
				}
				return nil
			}
			return criteria.WithSeed(1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := interruptedBench(t)
			b = b.again(t)
			func() {
				defer func() {
					if got := recover(); got != "ouch" {
						t.Errorf("recovered %v; want the panic", got)
					}
				}()
				_, _ = b.trainer(t, opt(b)).Run(t.Context())
			}()
			runs := b.tracker.Runs()
			if len(runs) != 1 || runs[0].Status != criteria.RunFailed {
				t.Errorf("%d tracked runs, the first %+v; want one that is FAILED", len(runs), runs[0].Status)
			}
			b.engine.Before = nil
			b.run(t) // the directory is free again
		})
	}
}

// A model that was changed on disk is not loaded, unless that is asked for.
func TestChangedModel(t *testing.T) {
	b, dir := trained(t)
	for _, name := range []string{"fake_model.json", "tokenizer.json", "decision.json"} {
		t.Run(name, func(t *testing.T) {
			changed := filepath.Join(t.TempDir(), "model")
			if err := os.CopyFS(changed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(changed, name)
			text, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("the model has no %s: %q", name, files(t, changed))
			}
			if err := os.WriteFile(path, append(text, ' '), 0o644); err != nil {
				t.Fatal(err)
			}
			var fault *criteria.DataError
			if c, err := criteria.Load(t.Context(), changed, fakeOptions(b)...); !errors.As(err, &fault) || fault.File != path {
				t.Errorf("Load() = %v, %v; want a DataError about %s", c, err, path)
			}
			if c, err := criteria.LoadFS(t.Context(), os.DirFS(changed), fakeOptions(b)...); !errors.As(err, &fault) {
				t.Errorf("LoadFS() = %v, %v; want a DataError", c, err)
			}
			c, err := criteria.Load(t.Context(), changed, fakeOptions(b, criteria.WithoutVerification())...)
			predictions(t, c, err)
		})
	}
}

// The card is for people: who writes more on it has the same model still.
func TestEditedCard(t *testing.T) {
	b, dir := trained(t)
	card := filepath.Join(dir, "README.md")
	text, err := os.ReadFile(card)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(card, append(text, "\nUsed since May.\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := criteria.Load(t.Context(), dir, fakeOptions(b)...)
	predictions(t, c, err)
}
