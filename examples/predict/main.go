// Command predict judges pairs with a trained model. It reads one JSON object
// per line, {"post": …, "criterion": …}, or a CSV file with these columns, and
// writes one object per line, {"probability": …, "label": …}, in the same order.
// An "id" beside post and criterion, if there is one, comes back with the answer.
//
//	go run ./examples/predict outputs/DATE/TIME/best_model < pairs.jsonl
//	go run ./examples/predict outputs/DATE/TIME/best_model pairs.csv > answers.jsonl
//
// Input of any length needs the same memory. What is wrong with a line ends the
// program after the answers to the lines before it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/criteria-go/criteria"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "predict:", err)
		os.Exit(1)
	}
}

// answer is a line of the output.
type answer struct {
	ID          json.RawMessage `json:"id,omitempty"` // of the input
	Probability float64         `json:"probability"`  // that the post shows the criterion
	Label       bool            `json:"label"`
	Truncated   bool            `json:"truncated,omitempty"` // the pair was too long and was cut
}

func run(ctx context.Context, args []string, in io.Reader, out, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("predict", flag.ContinueOnError)
	flags.SetOutput(stderr)
	format := flags.String("format", "", "jsonl or csv; empty: by the name of the file, and jsonl without one")
	uri := flags.String("tracking-uri", "", "where MLflow is, for runs:/RUN_ID/model")
	every := flags.Duration("progress", 10*time.Second, "time between reports of progress; 0: none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if n := flags.NArg(); n < 1 || n > 2 {
		return errors.New("want a best_model folder or runs:/RUN_ID/model, and then at most one file; without a file the pairs come from standard input")
	}
	if file := flags.Arg(1); file != "" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
		if *format == "" && strings.EqualFold(filepath.Ext(file), ".csv") {
			*format = "csv"
		}
	}
	source, err := open(*format, in)
	if err != nil {
		return err
	}
	classifier, err := criteria.Load(ctx, flags.Arg(0), criteria.WithTrackingURI(*uri))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, classifier.Close()) }()
	return predict(ctx, classifier, source, out, newProgress(stderr, *every))
}

// predict writes an answer for every record that source yields.
func predict(ctx context.Context, classifier *criteria.Classifier, source source, out io.Writer, progress *progress) error {
	buffered := bufio.NewWriter(out)
	encoder := json.NewEncoder(buffered)
	var fault error
	var ids []json.RawMessage // of the pairs that have no answer yet
	var pairs iter.Seq[criteria.Pair] = func(yield func(criteria.Pair) bool) {
		for {
			r, err := source()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					fault = err
				}
				return
			}
			ids = append(ids, r.id)
			if !yield(r.pair) {
				return
			}
		}
	}
	for p, err := range classifier.PredictSeq(ctx, pairs) {
		if err != nil {
			return errors.Join(err, buffered.Flush())
		}
		if err := encoder.Encode(answer{ids[0], p.Probability, p.Label, p.Truncated}); err != nil {
			return err
		}
		ids = ids[1:]
		progress.add()
	}
	progress.end()
	return errors.Join(buffered.Flush(), fault)
}
