package criteria

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"

	"github.com/criteria-go/criteria/internal/report"
	"github.com/criteria-go/criteria/internal/study"
)

// report makes the result and its files. It says whether trials still run, in
// other processes.
func (r *studyRun) report(ctx context.Context) (result *StudyResult, running bool, err error) {
	if r.core == nil {
		return nil, false, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	trials, err := r.core.Trials(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("criteria: %w", err)
	}
	result = &StudyResult{
		Study: r.config.HPO.StudyName, RunID: r.base.record.tracked.ID(), Dir: r.outputDir,
		Elapsed: r.now().Sub(r.base.began),
	}
	for _, t := range trials {
		result.Trials = append(result.Trials, newTrialRecord(t))
		running = running || t.State == study.Running
	}
	if best, ok := study.Best(trials, study.Maximize); ok {
		record := newTrialRecord(best)
		result.Best = &record
		if h, err := readHyperparameters(best.Params); err == nil {
			config := h.apply(r.config)
			result.Config = &config
		}
	}
	if result.Importances, err = r.importances(trials); err != nil {
		return result, running, err
	}
	if err := r.recordBest(ctx, trials); err != nil {
		return result, running, err
	}
	return result, running, r.pictures(ctx, result)
}

// importances says how much each hyperparameter mattered; nothing if there are
// too few trials to say it.
func (r *studyRun) importances(trials []study.FrozenTrial) ([]Importance, error) {
	var shares []study.Importance
	var err error
	if r.config.HPO.Importance == importancePEDANOVA {
		shares, err = study.PEDANOVA(trials, study.Maximize)
	} else {
		shares, err = study.FANOVA(trials, r.config.Train.Seed)
	}
	if errors.Is(err, study.ErrTooFewTrials) || errors.Is(err, study.ErrNoVariance) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("criteria: importances: %w", err)
	}
	list := make([]Importance, len(shares))
	for i, s := range shares {
		list[i] = Importance(s)
	}
	return list, nil
}

// pictures draws what the search came to.
func (r *studyRun) pictures(ctx context.Context, result *StudyResult) error {
	search := report.Search{
		Title: "Study " + result.Study, Objective: objective, Maximize: true, Params: r.config.HPO.SearchSpace.axes(),
	}
	states := map[TrialState]report.TrialState{
		TrialCompleted: report.Complete, TrialPruned: report.Pruned, TrialFailed: report.Failed,
	}
	for _, t := range result.Trials {
		search.Trials = append(search.Trials, report.Trial{
			Number: t.Number, State: states[t.State], Value: t.Value, Params: t.Params,
		})
	}
	var shares []report.Importance
	for _, i := range result.Importances {
		shares = append(shares, report.Importance(i))
	}
	evaluator := map[string]string{importanceFANOVA: "fANOVA", importancePEDANOVA: "PED-ANOVA"}[r.config.HPO.Importance]
	for _, f := range []reportPart{
		{historyFile, func() ([]byte, error) { return report.OptimizationHistory(search) }},
		{importancesFile, func() ([]byte, error) {
			return report.ParamImportances("Study "+result.Study, objective, evaluator, shares)
		}},
		{parallelFile, func() ([]byte, error) { return report.ParallelCoordinate(search) }},
		{sliceFile, func() ([]byte, error) { return report.Slice(search) }},
	} {
		if err := r.base.record.file(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// finished counts the complete and pruned trials.
func (r *StudyResult) finished() int {
	n := 0
	for _, t := range r.Trials {
		if t.State == TrialCompleted || t.State == TrialPruned {
			n++
		}
	}
	return n
}

// endedTrials counts those that change no more.
func endedTrials(trials []study.FrozenTrial) int {
	n := 0
	for _, t := range trials {
		if t.State.IsFinished() {
			n++
		}
	}
	return n
}

// finishedTrials counts those that are complete or pruned.
func finishedTrials(trials []study.FrozenTrial) int {
	var tally study.Tally
	for _, t := range trials {
		tally.Count(t.State, 1)
	}
	return tally.Finished
}

// newTrialRecord turns the record of a trial into ours.
func newTrialRecord(t study.FrozenTrial) Trial {
	return Trial{
		Number: t.Number,
		State: map[study.State]TrialState{
			study.Running: TrialRunning, study.Waiting: TrialWaiting, study.Complete: TrialCompleted,
			study.Pruned: TrialPruned, study.Failed: TrialFailed,
		}[t.State],
		Value: valueOf(t), Params: maps.Clone(t.Params), Scores: maps.Clone(t.IntermediateValues),
		Reason: stringAttr(t, study.AttrFailReason), RunID: stringAttr(t, attrRunID),
		Started: t.DatetimeStart, Ended: t.DatetimeComplete,
	}
}

func valueOf(t study.FrozenTrial) float64 {
	if t.State == study.Complete || t.State == study.Pruned {
		return t.Value
	}
	return math.NaN()
}

// stringAttr returns a user attribute that is a text; "" if there is none.
func stringAttr(t study.FrozenTrial, key string) string {
	var text string
	if json.Unmarshal([]byte(t.UserAttrs[key]), &text) != nil {
		return ""
	}
	return text
}
