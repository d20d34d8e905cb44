package main

import (
	"context"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/metrics"
	"github.com/criteria-go/criteria/internal/token"
)

// config is that of a training: model=tiny data=sample train=tiny, without early
// stopping.
func (t training) config() criteria.Config {
	c := criteria.DefaultConfig()
	c.Model.Checkpoint = checkpoint
	c.Model.Head.PoolingStrategy = t.Pooling
	c.Model.Tokenizer.MaxLength = 128
	c.Train.Seed = t.Seed
	c.Train.Epochs = t.Epochs
	c.Train.BatchSize, c.Train.EvalBatchSize = t.Batch, 64
	c.Train.LearningRate = t.Rate
	c.Train.EarlyStoppingPatience = 0
	c.Train.KeepCheckpoints = 1
	c.Train.CheckpointMinutes = 0
	c.Data.DataLoader.GroupByLength = t.Arm == armGrouped
	c.Train.Threads = 1
	return c
}

// opened is an engine that remembers the session which trains.
type opened struct {
	criteria.Engine
	session criteria.Session
}

func (o *opened) Open(ctx context.Context, spec criteria.ModelSpec) (criteria.Session, error) {
	s, err := o.Engine.Open(ctx, spec)
	if spec.Training != nil {
		o.session = s
	}
	return s, err
}

// withOurs trains with this library and tests the model after every epoch.
func (t training) withOurs(ctx context.Context, d *criteria.Dataset, dir string) ([]score, error) {
	encoded, err := encode(ctx, d, t.config())
	if err != nil {
		return nil, err
	}
	engine := &opened{Engine: criteria.ONNXRuntime("")}
	var scores []score
	var failed error
	hooks := criteria.Hooks{Epoch: func(e criteria.EpochEvent) {
		loss, f1, err := encoded.Test.evaluate(ctx, engine.session, encoded.Weights)
		if err != nil {
			failed = err
		}
		scores = append(scores, score{ValLoss: e.Val.Loss, ValF1: e.Val.MacroF1, TestLoss: loss, TestF1: f1})
	}}
	opts := []criteria.TrainerOption{criteria.WithConfig(t.config()), criteria.WithDataset(d),
		criteria.WithOutputDir(dir), criteria.WithEngine(engine), criteria.WithHooks(hooks)}
	if t.Arm == armSorted {
		if err := beginOlder(ctx, dir, opts); err != nil {
			return nil, err
		}
		opts = append(opts, criteria.WithResume(dir))
	}
	trainer, err := criteria.NewTrainer(opts...)
	if err != nil {
		return nil, err
	}
	if _, err := trainer.Run(ctx); err != nil {
		return nil, err
	}
	return scores, failed
}

// encodedSet is a data set as token ids.
type encodedSet struct {
	Train   encodedSplit `json:"train"`
	Val     encodedSplit `json:"val"`
	Test    encodedSplit `json:"test"`
	Weights [2]float32   `json:"weights"` // of the classes
}

type encodedSplit struct {
	IDs    [][]int32 `json:"ids"`
	Labels []int64   `json:"labels"`
}

// encode turns a data set into token ids, as a run does.
func encode(ctx context.Context, d *criteria.Dataset, c criteria.Config) (*encodedSet, error) {
	tokenizer, err := token.Open(checkpoint)
	if err != nil {
		return nil, err
	}
	defer tokenizer.Close()
	out := &encodedSet{}
	var counts [2]int
	for _, s := range []struct {
		from []criteria.Example
		to   *encodedSplit
	}{{d.Train, &out.Train}, {d.Val, &out.Val}, {d.Test, &out.Test}} {
		pairs := make([]token.Pair, len(s.from))
		for i, e := range s.from {
			pairs[i] = token.Pair{First: e.Post, Second: e.Criterion}
			s.to.Labels = append(s.to.Labels, int64(e.Label))
			if s.to == &out.Train {
				counts[e.Label]++
			}
		}
		e, err := tokenizer.EncodeAll(ctx, pairs, 1, c.Model.Tokenizer.MaxLength, token.LongestFirst)
		if err != nil {
			return nil, err
		}
		for i := range e.Len() {
			s.to.IDs = append(s.to.IDs, e.At(i))
		}
	}
	out.Weights = data.ClassWeights(counts)
	return out, nil
}

// evaluate scores a split in batches of 64.
func (s encodedSplit) evaluate(ctx context.Context, session criteria.Session, weights [2]float32) (loss, f1 float64, err error) {
	var confusion metrics.Confusion
	var total float64
	for from := 0; from < len(s.IDs); from += 64 {
		b := s.batch(from, min(from+64, len(s.IDs)), weights)
		r, err := session.Evaluate(ctx, b)
		if err != nil {
			return 0, 0, err
		}
		var weight float64
		for i, label := range b.Labels {
			weight += float64(b.SampleWeights[i])
			predicted := 0
			if r.Logits[2*i+1] > r.Logits[2*i] {
				predicted = 1
			}
			confusion[label][predicted]++
		}
		loss += r.Loss * weight
		total += weight
	}
	return loss / total, confusion.Macro().F1, nil
}

// batch pads rows from, from+1 … to−1 to the longest of them.
func (s encodedSplit) batch(from, to int, weights [2]float32) criteria.Batch {
	b := criteria.Batch{Rows: to - from}
	for _, ids := range s.IDs[from:to] {
		b.Length = max(b.Length, len(ids))
	}
	b.InputIDs = make([]int64, b.Rows*b.Length)
	b.AttentionMask = make([]int64, b.Rows*b.Length)
	for row, ids := range s.IDs[from:to] {
		for i, id := range ids {
			b.InputIDs[row*b.Length+i], b.AttentionMask[row*b.Length+i] = int64(id), 1
		}
	}
	b.Labels = s.Labels[from:to]
	for _, label := range b.Labels {
		b.SampleWeights = append(b.SampleWeights, weights[label])
	}
	return b
}
