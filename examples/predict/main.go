// Command predict judges pairs with a trained model. It reads one JSON object
// per line, {"post": …, "criterion": …}, from standard input and writes one per
// line, {"probability": …, "label": …}, in the same order:
//
//	go run ./examples/predict outputs/DATE/TIME/best_model < pairs.jsonl
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "predict:", err)
		os.Exit(1)
	}
}

// answer is a line of the output.
type answer struct {
	Probability float64 `json:"probability"` // that the post shows the criterion
	Label       bool    `json:"label"`
	Truncated   bool    `json:"truncated,omitempty"` // the pair was too long and was cut
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	if len(args) != 1 {
		return errors.New("want one argument, the best_model folder of a training; the pairs come from standard input")
	}
	classifier, err := criteria.Load(ctx, args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, classifier.Close()) }()

	buffered := bufio.NewWriter(out)
	encoder := json.NewEncoder(buffered)
	pairs, readError := read(in)
	for p, err := range classifier.PredictSeq(ctx, pairs) {
		if err != nil {
			return errors.Join(err, buffered.Flush())
		}
		if err := encoder.Encode(answer{p.Probability, p.Label, p.Truncated}); err != nil {
			return err
		}
	}
	return errors.Join(buffered.Flush(), readError())
}

// read yields the pairs of in, up to the first fault; failed tells which.
func read(in io.Reader) (pairs iter.Seq[criteria.Pair], failed func() error) {
	var fault error
	pairs = func(yield func(criteria.Pair) bool) {
		decoder := json.NewDecoder(in)
		for line := 1; ; line++ {
			var p struct{ Post, Criterion string }
			err := decoder.Decode(&p)
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				fault = fmt.Errorf("pair %d: %w", line, err)
				return
			case p.Post == "" || p.Criterion == "":
				fault = fmt.Errorf(`pair %d: want {"post": "…", "criterion": "…"}, both with text`, line)
				return
			}
			if !yield(criteria.Pair{Post: p.Post, Criterion: p.Criterion}) {
				return
			}
		}
	}
	return pairs, func() error { return fault }
}
