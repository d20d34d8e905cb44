package criteria

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/report"
	"github.com/criteria-go/criteria/internal/study"
)

// The hyperparameters of a study, in the order of the configuration.
const (
	paramHeadLayers   = "head_layers"
	paramHiddenDim    = "hidden_dim"
	paramPooling      = "pooling_strategy"
	paramActivation   = "activation"
	paramDropout      = "dropout"
	paramLearningRate = "learning_rate"
	paramBatchSize    = "batch_size"
	paramWarmupRatio  = "warmup_ratio"
	paramWeightDecay  = "weight_decay"
	paramScheduler    = "scheduler"
)

var paramNames = []string{
	paramHeadLayers, paramHiddenDim, paramPooling, paramActivation, paramDropout,
	paramLearningRate, paramBatchSize, paramWarmupRatio, paramWeightDecay, paramScheduler,
}

// hyperparameters are the values of one trial.
type hyperparameters struct {
	HeadLayers   int
	HiddenDim    int // 0 without hidden layers
	Pooling      string
	Activation   string
	Dropout      float64
	LearningRate float64
	BatchSize    int
	WarmupRatio  float64
	WeightDecay  float64
	Scheduler    string
}

func (r IntRange) distribution() study.IntDistribution {
	return study.IntDistribution{Low: r.Low, High: r.High, Log: r.Log}
}

func (r FloatRange) distribution() study.FloatDistribution {
	return study.FloatDistribution{Low: r.Low, High: r.High, Log: r.Log}
}

// distributions returns the ranges as the search knows them.
func (s SearchSpace) distributions() map[string]study.Distribution {
	return map[string]study.Distribution{
		paramHeadLayers:   s.HeadLayers.distribution(),
		paramHiddenDim:    s.HiddenDim.distribution(),
		paramPooling:      study.Categorical(s.PoolingStrategy.Choices...),
		paramActivation:   study.Categorical(s.Activation.Choices...),
		paramDropout:      s.Dropout.distribution(),
		paramLearningRate: s.LearningRate.distribution(),
		paramBatchSize:    study.Categorical(s.BatchSize.Choices...),
		paramWarmupRatio:  s.WarmupRatio.distribution(),
		paramWeightDecay:  s.WeightDecay.distribution(),
		paramScheduler:    study.Categorical(s.Scheduler.Choices...),
	}
}

// suggest draws the values of a trial. How wide hidden layers are is asked only
// where there are any: what has no influence would only mislead the sampler.
func (s SearchSpace) suggest(ctx context.Context, t *study.Trial) (h hyperparameters, err error) {
	d := drawer{ctx: ctx, trial: t}
	h.HeadLayers = draw(&d, paramHeadLayers, s.HeadLayers.distribution(), t.SuggestInt)
	if h.HeadLayers > 0 {
		h.HiddenDim = draw(&d, paramHiddenDim, s.HiddenDim.distribution(), t.SuggestInt)
	}
	h.Pooling = choose(&d, paramPooling, s.PoolingStrategy.Choices)
	h.Activation = choose(&d, paramActivation, s.Activation.Choices)
	h.Dropout = draw(&d, paramDropout, s.Dropout.distribution(), t.SuggestFloat)
	h.LearningRate = draw(&d, paramLearningRate, s.LearningRate.distribution(), t.SuggestFloat)
	h.BatchSize = choose(&d, paramBatchSize, s.BatchSize.Choices)
	h.WarmupRatio = draw(&d, paramWarmupRatio, s.WarmupRatio.distribution(), t.SuggestFloat)
	h.WeightDecay = draw(&d, paramWeightDecay, s.WeightDecay.distribution(), t.SuggestFloat)
	h.Scheduler = choose(&d, paramScheduler, s.Scheduler.Choices)
	return h, d.err
}

// drawer draws until something fails.
type drawer struct {
	ctx   context.Context
	trial *study.Trial
	err   error
}

func draw[T, D any](d *drawer, name string, from D, suggest func(context.Context, string, D) (T, error)) (x T) {
	if d.err == nil {
		x, d.err = suggest(d.ctx, name, from)
	}
	return x
}

func choose[T int | string](d *drawer, name string, choices []T) (x T) {
	if d.err == nil {
		x, d.err = study.SuggestChoice(d.ctx, d.trial, name, choices...)
	}
	return x
}

// readHyperparameters reads the values of a trial back from its record.
func readHyperparameters(params map[string]any) (h hyperparameters, err error) {
	read := func(name string, into any) {
		if err != nil {
			return
		}
		value, ok := params[name]
		switch into := into.(type) {
		case *int:
			if f, isFloat := value.(float64); isFloat && f == float64(int(f)) {
				value = int(f)
			}
			*into, ok = value.(int)
		case *float64:
			if i, isInt := value.(int); isInt {
				value = float64(i)
			}
			*into, ok = value.(float64)
		case *string:
			*into, ok = value.(string)
		}
		if !ok {
			err = fmt.Errorf("the parameter %s is %v (%T)", name, value, value)
		}
	}
	read(paramHeadLayers, &h.HeadLayers)
	if h.HeadLayers > 0 {
		read(paramHiddenDim, &h.HiddenDim)
	}
	read(paramPooling, &h.Pooling)
	read(paramActivation, &h.Activation)
	read(paramDropout, &h.Dropout)
	read(paramLearningRate, &h.LearningRate)
	read(paramBatchSize, &h.BatchSize)
	read(paramWarmupRatio, &h.WarmupRatio)
	read(paramWeightDecay, &h.WeightDecay)
	read(paramScheduler, &h.Scheduler)
	return h, err
}

// apply returns base with the values of a trial.
func (h hyperparameters) apply(base Config) Config {
	c := base.clone()
	c.Model.Head = HeadConfig{
		NumLayers: h.HeadLayers, HiddenDims: slices.Repeat([]int{h.HiddenDim}, h.HeadLayers),
		Activation: h.Activation, Dropout: h.Dropout, PoolingStrategy: h.Pooling,
	}
	c.Train.LearningRate, c.Train.BatchSize = h.LearningRate, h.BatchSize
	c.Train.WarmupRatio, c.Train.WeightDecay, c.Train.Scheduler = h.WarmupRatio, h.WeightDecay, h.Scheduler
	return c
}

// String lists the values for people.
func (h hyperparameters) String() string {
	params := h.params()
	words := make([]string, 0, len(paramNames))
	for _, name := range paramNames {
		if name != paramHiddenDim || h.HeadLayers > 0 {
			words = append(words, name+"="+params[name])
		}
	}
	return strings.Join(words, " ")
}

// params are the values for the record: all ten, as Python's str writes them.
func (h hyperparameters) params() map[string]string {
	out := map[string]string{
		paramHeadLayers: formatValue(h.HeadLayers), paramHiddenDim: formatValue(h.HiddenDim),
		paramPooling: h.Pooling, paramActivation: h.Activation, paramDropout: formatValue(h.Dropout),
		paramLearningRate: formatValue(h.LearningRate), paramBatchSize: formatValue(h.BatchSize),
		paramWarmupRatio: formatValue(h.WarmupRatio), paramWeightDecay: formatValue(h.WeightDecay), paramScheduler: h.Scheduler,
	}
	if h.HeadLayers == 0 {
		out[paramHiddenDim] = "None"
	}
	return out
}

// axes describes the hyperparameters for pictures.
func (s SearchSpace) axes() []report.Param {
	distributions := s.distributions()
	axes := make([]report.Param, len(paramNames))
	for i, name := range paramNames {
		axes[i].Name = name
		switch d := distributions[name].(type) {
		case study.IntDistribution:
			axes[i].Low, axes[i].High, axes[i].Log = float64(d.Low), float64(d.High), d.Log
		case study.FloatDistribution:
			axes[i].Low, axes[i].High, axes[i].Log = d.Low, d.High, d.Log
		case study.CategoricalDistribution:
			axes[i].Choices = d.Choices
		}
	}
	return axes
}

// checkSpace compares the search space with the one that the trials so far were
// drawn from.
func checkSpace(space SearchSpace, trials []study.FrozenTrial) (key string, was, is study.Distribution) {
	now := space.distributions()
	for _, t := range trials {
		for _, name := range slices.Sorted(maps.Keys(t.Distributions)) {
			old, ok := t.Distributions[name].(study.Distribution)
			if is, known := now[name]; ok && known && study.CheckCompatible(old, is) != nil {
				return "hpo.search_space." + name, old, is
			}
		}
	}
	return "", nil, nil
}
