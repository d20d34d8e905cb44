// Command quality compares the models that this library trains with those of a
// plain PyTorch loop: the same data, first weights, head and hyperparameters, and
// many seeds. docs/quality.md explains the figures.
//
// Usage: quality [-out DIR] [-sets small,sample,hard] [-arms ours,grouped,sorted,torch]
// [-pooling cls,mean,max] [-seeds N] [-epochs N] [-report]
//
// Every training appends a line to a file in DIR and is not done again: a command
// that was stopped continues. With -report it prints the table of what is there.
//
// The environment variable CRITERIA_PEER_PYTHON names a Python with torch and
// transformers; `make bench-quality` sets it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quality:", err)
		os.Exit(1)
	}
}

// plan is what is to be compared.
type plan struct {
	sets, arms, poolings []string
	seeds, epochs, batch int
	rate                 float64
	out                  string
}

// arms are the ways of training, in the order of the table.
var arms = []string{armTorch, armOurs, armGrouped, armSorted}

const (
	armTorch   = "torch"   // the plain PyTorch loop
	armOurs    = "ours"    // the default
	armGrouped = "grouped" // data.dataloader.group_by_length=true
	armSorted  = "sorted"  // the order of version 0.1, in which a run that it began goes on
)

func run(ctx context.Context) error {
	var p plan
	flag.StringVar(&p.out, "out", filepath.Join("outputs", "quality"), "folder of the results")
	flag.IntVar(&p.seeds, "seeds", 10, "trainings of each kind")
	flag.IntVar(&p.epochs, "epochs", 24, "epochs of each training")
	flag.IntVar(&p.batch, "batch", 32, "pairs of a batch")
	flag.Float64Var(&p.rate, "rate", 2e-3, "learning rate")
	report := flag.Bool("report", false, "only print the table")
	for _, l := range []struct {
		name string
		to   *[]string
		all  []string
	}{
		{"sets", &p.sets, setNames()}, {"arms", &p.arms, arms}, {"pooling", &p.poolings, []string{"cls", "mean", "max"}},
	} {
		*l.to = l.all
		flag.Func(l.name, "some of "+strings.Join(l.all, ","), func(text string) error {
			*l.to = strings.Split(text, ",")
			for _, name := range *l.to {
				if !slices.Contains(l.all, name) {
					return fmt.Errorf("%q is none of %s", name, strings.Join(l.all, ", "))
				}
			}
			return nil
		})
	}
	flag.Parse()
	if !*report {
		if err := p.train(ctx); err != nil {
			return err
		}
	}
	return p.report(os.Stdout)
}

// train does all trainings that have no result yet: those of one seed after those
// of another, so that a command that is stopped leaves a table of fewer seeds.
func (p plan) train(ctx context.Context) (err error) {
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "criteria-quality")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var torch *peer
	defer func() {
		if torch != nil {
			torch.close()
		}
	}()
	for _, set := range p.sets {
		data, err := readSet(ctx, set, dir)
		if err != nil {
			return err
		}
		done, err := openResults(filepath.Join(p.out, set+".jsonl"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done.close()) }()
		for seed := range p.seeds {
			for _, pooling := range p.poolings {
				for _, arm := range p.arms {
					t := training{Set: set, Pooling: pooling, Arm: arm, Seed: uint64(seed), Epochs: p.epochs, Batch: p.batch, Rate: p.rate}
					if done.has(t) {
						continue
					}
					if arm == armTorch && torch == nil {
						if torch, err = startPeer(os.Getenv("CRITERIA_PEER_PYTHON")); err != nil {
							return err
						}
					}
					begun := time.Now()
					scores, err := t.do(ctx, data, torch, filepath.Join(dir, "run"))
					if err != nil {
						return fmt.Errorf("%s %s %s, seed %d: %w", set, pooling, arm, seed, err)
					}
					if err := done.add(result{training: t, Scores: scores}); err != nil {
						return err
					}
					last := scores[len(scores)-1]
					fmt.Fprintf(os.Stderr, "# %s %s %s, seed %d: validation loss %.3f, macro-F1 %.3f, %v\n",
						set, pooling, arm, seed, last.ValLoss, last.ValF1, time.Since(begun).Round(time.Second))
				}
			}
		}
	}
	return nil
}

// do trains once, in a folder of its own that is removed afterwards.
func (t training) do(ctx context.Context, data *criteria.Dataset, torch *peer, dir string) (scores []score, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if t.Arm == armTorch {
		return t.withTorch(ctx, data, torch, dir)
	}
	return t.withOurs(ctx, data, dir)
}
