package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
)

// measure is a column of the table.
type measure struct {
	name string
	of   func(r result) float64
}

// measures are those of the last epoch, and the test of the epoch that validation
// would choose, as a run does.
var measures = []measure{
	{"validation loss", func(r result) float64 { return r.last().ValLoss }},
	{"validation macro-F1", func(r result) float64 { return r.last().ValF1 }},
	{"test loss", func(r result) float64 { return r.last().TestLoss }},
	{"test macro-F1", func(r result) float64 { return r.last().TestF1 }},
	{"test macro-F1 of the best epoch", func(r result) float64 { return r.chosen().TestF1 }},
}

func (r result) last() score { return r.Scores[len(r.Scores)-1] }

// chosen returns the scores of the epoch with the best validation macro-F1, of
// equals the first.
func (r result) chosen() score {
	return slices.MaxFunc(r.Scores, func(a, b score) int {
		switch {
		case a.ValF1 < b.ValF1:
			return -1
		case a.ValF1 > b.ValF1:
			return 1
		}
		return 0
	})
}

// report prints the tables of all results, in Markdown.
func (p plan) report(w io.Writer) error {
	for _, set := range p.sets {
		all, err := readResults(filepath.Join(p.out, set+".jsonl"))
		if err != nil {
			return err
		}
		for _, pooling := range p.poolings {
			by := make(map[string][]result)
			for _, r := range all {
				if r.Pooling == pooling && r.Epochs == p.epochs && slices.Contains(p.arms, r.Arm) {
					by[r.Arm] = append(by[r.Arm], r)
				}
			}
			if len(by) == 0 {
				continue
			}
			fmt.Fprintf(w, "### %s, %s pooling\n\n", set, pooling)
			writeLast(w, by)
			writeEpochs(w, by, p.epochs)
		}
	}
	return nil
}

// writeLast prints what the last epoch has come to, with p against PyTorch.
func writeLast(w io.Writer, by map[string][]result) {
	fmt.Fprint(w, "| | seeds |")
	for _, m := range measures {
		fmt.Fprintf(w, " %s |", m.name)
	}
	fmt.Fprint(w, "\n| --- | --- |")
	for range measures {
		fmt.Fprint(w, " --- |")
	}
	fmt.Fprintln(w)
	for _, arm := range arms {
		if len(by[arm]) == 0 {
			continue
		}
		fmt.Fprintf(w, "| %s | %d |", arm, len(by[arm]))
		for _, m := range measures {
			mean, sd := meanSD(values(by[arm], m.of))
			fmt.Fprintf(w, " %.3f ± %.3f", mean, sd)
			if arm != armTorch && len(by[armTorch]) > 0 {
				fmt.Fprintf(w, ", p = %.2g", mannWhitney(values(by[arm], m.of), values(by[armTorch], m.of)))
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// writeEpochs prints validation loss and macro-F1 on the way.
func writeEpochs(w io.Writer, by map[string][]result, epochs int) {
	fmt.Fprint(w, "| epoch |")
	for _, arm := range arms {
		if len(by[arm]) > 0 {
			fmt.Fprintf(w, " %s |", arm)
		}
	}
	fmt.Fprint(w, "\n| --- |")
	for range by {
		fmt.Fprint(w, " --- |")
	}
	fmt.Fprintln(w)
	for _, epoch := range milestones(epochs) {
		fmt.Fprintf(w, "| %d |", epoch)
		for _, arm := range arms {
			if len(by[arm]) == 0 {
				continue
			}
			at := func(of func(score) float64) (mean, sd float64) {
				return meanSD(values(by[arm], func(r result) float64 { return of(r.Scores[epoch-1]) }))
			}
			for i, of := range []func(score) float64{
				func(s score) float64 { return s.ValLoss }, func(s score) float64 { return s.ValF1 },
				func(s score) float64 { return s.TestLoss }, func(s score) float64 { return s.TestF1 },
			} {
				mean, sd := at(of)
				fmt.Fprintf(w, "%s%.2f ± %.2f", []string{" ", ", ", "; ", ", "}[i], mean, sd)
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// milestones are the epochs of the table: every quarter.
func milestones(epochs int) []int {
	var list []int
	for quarter := 1; quarter <= 4; quarter++ {
		if epoch := epochs * quarter / 4; epoch > 0 && !slices.Contains(list, epoch) {
			list = append(list, epoch)
		}
	}
	return list
}

func values(of []result, measure func(result) float64) []float64 {
	x := make([]float64, len(of))
	for i, r := range of {
		x[i] = measure(r)
	}
	return x
}
