// Command exportjudge exports a trained model and tests what came out on the
// test split that its training never saw: model.onnx must answer as the
// classifier does, and in eight bits it must not be noticeably worse. It prints
// a line for each check, with the size of the files and their speed, and exits
// with 1 if one fails.
//
// Usage: exportjudge BEST_MODEL
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/metrics"
	"github.com/criteria-go/criteria/internal/ort"
	"github.com/criteria-go/criteria/internal/token"
)

const (
	// tolerance of the probabilities in float32.
	tolerance = 1e-5
	// allowedLoss of macro-F1 in eight bits: half a percentage point.
	allowedLoss = 0.005
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: exportjudge BEST_MODEL")
		os.Exit(2)
	}
	if err := judge(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "exportjudge:", err)
		os.Exit(1)
	}
}

func judge(ctx context.Context, modelDir string) (err error) {
	text, err := os.ReadFile(filepath.Join(modelDir, "training_config.yaml"))
	if err != nil {
		return err
	}
	config, err := criteria.ParseConfig(text)
	if err != nil {
		return err
	}
	data, err := criteria.ReadDataset(ctx, config.Data, config.Train.Seed)
	if err != nil {
		return err
	}
	labels, pairs := make([]int, len(data.Test)), make([]criteria.Pair, len(data.Test))
	for i, e := range data.Test {
		labels[i], pairs[i] = e.Label, e.Pair
	}
	want, err := classify(ctx, modelDir, pairs)
	if err != nil {
		return err
	}
	encodings, err := encode(ctx, modelDir, config.Model.Tokenizer, pairs)
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "exportjudge")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var failures []error
	check := func(ok bool, format string, args ...any) {
		line, verdict := fmt.Sprintf(format, args...), "PASS"
		if !ok {
			verdict = "FAIL"
			failures = append(failures, errors.New(line))
		}
		fmt.Println(verdict, line)
	}
	var scores [2]float64
	for i, options := range [][]criteria.ExportOption{nil, {criteria.WithInt8()}} {
		name := []string{"float32", "int8"}[i]
		out := filepath.Join(dir, name)
		if err := criteria.ExportONNX(ctx, modelDir, out, options...); err != nil {
			return err
		}
		model, err := os.ReadFile(filepath.Join(out, "model.onnx"))
		if err != nil {
			return err
		}
		start := time.Now()
		got, err := probabilities(ctx, model, encodings)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		speed := float64(len(got)) / time.Since(start).Seconds()
		answers := make([]int, len(got))
		var worst float64
		for j, p := range got {
			if p > 0.5 {
				answers[j] = 1
			}
			worst = max(worst, math.Abs(p-want[j]))
		}
		confusion, err := metrics.Count(labels, answers)
		if err != nil {
			return err
		}
		scores[i] = confusion.Macro().F1
		check(i > 0 || worst <= tolerance, "%s: %d pairs, macro-F1 %.4f, probabilities within %.2g of the classifier's, %d bytes, %.0f pairs/s",
			name, len(got), scores[i], worst, len(model), speed)
	}
	check(scores[0]-scores[1] < allowedLoss, "int8 loses %.2f percentage points of macro-F1, allowed are less than %.2f", 100*(scores[0]-scores[1]), 100*allowedLoss)
	return errors.Join(failures...)
}

// classify returns the probabilities that the library gives.
func classify(ctx context.Context, dir string, pairs []criteria.Pair) (probabilities []float64, err error) {
	classifier, err := criteria.Load(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, classifier.Close()) }()
	predictions, err := classifier.Predict(ctx, pairs)
	for _, p := range predictions {
		probabilities = append(probabilities, p.Probability)
	}
	return probabilities, err
}

func encode(ctx context.Context, dir string, c criteria.TokenizerConfig, pairs []criteria.Pair) (e token.Encodings, err error) {
	truncation, err := token.ParseTruncation(c.Truncation)
	if err != nil {
		return e, err
	}
	tokenizer, err := token.Open(dir)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, tokenizer.Close()) }()
	converted := make([]token.Pair, len(pairs))
	for i, p := range pairs {
		converted[i] = token.Pair{First: p.Post, Second: p.Criterion}
	}
	return tokenizer.EncodeAll(ctx, converted, runtime.NumCPU(), c.MaxLength, truncation)
}

// batchRows is the number of pairs that the exported model is given at once.
const batchRows = 16

// probabilities runs an exported model on the pairs, in order, and returns that
// of class 1.
func probabilities(ctx context.Context, model []byte, e token.Encodings) (result []float64, err error) {
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	session, err := rt.NewSession(model, ort.SessionOptions{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	pairs := len(e.Offsets) - 1
	for start := 0; start < pairs; start += batchRows {
		rows := min(batchRows, pairs-start)
		length := 0
		for r := range rows {
			length = max(length, int(e.Offsets[start+r+1]-e.Offsets[start+r]))
		}
		logits, err := runBatch(ctx, session, e, start, rows, length)
		if err != nil {
			return nil, err
		}
		for r := range rows {
			result = append(result, 1/(1+math.Exp(float64(logits[2*r])-float64(logits[2*r+1]))))
		}
	}
	return result, nil
}

func runBatch(ctx context.Context, session *ort.Session, e token.Encodings, start, rows, length int) (logits []float32, err error) {
	binding, err := session.NewBinding()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, binding.Close()) }()
	tensor := func(dtype ort.DType, shape ...int) (t ort.Tensor) {
		if err == nil {
			t, err = ort.NewTensor(dtype, shape...)
		}
		return t
	}
	ids, mask, types := tensor(ort.Int64, rows, length), tensor(ort.Int64, rows, length), tensor(ort.Int64, rows, length)
	out := tensor(ort.Float32, rows, deberta.Classes)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, t := range []ort.Tensor{ids, mask, types, out} {
			err = errors.Join(err, t.Buffer().Free())
		}
	}()
	for r := range rows {
		for j, id := range e.IDs[e.Offsets[start+r]:e.Offsets[start+r+1]] {
			ids.Int64()[r*length+j], mask.Int64()[r*length+j] = int64(id), 1
		}
	}
	err = errors.Join(binding.BindInput(deberta.InputIDs, ids), binding.BindInput(deberta.AttentionMask, mask),
		binding.BindInput(deberta.TokenTypeIDs, types), binding.BindOutput(deberta.Logits, out))
	if err != nil {
		return nil, err
	}
	if err := binding.Run(ctx); err != nil {
		return nil, err
	}
	return append(logits, out.Float32()...), nil
}
