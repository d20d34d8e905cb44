package study

import "github.com/c-bata/goptuna"

// goptuna's names, for those who use this package and not goptuna.
type (
	// FrozenTrial is the record of a trial; see the package's conventions.
	FrozenTrial = goptuna.FrozenTrial
	// State is what became of a trial so far.
	State = goptuna.TrialState
	// Direction is Maximize or Minimize.
	Direction = goptuna.StudyDirection
	// Sampler draws one parameter: TPE, Random, or one of goptuna's.
	Sampler = goptuna.Sampler
	// RelativeSampler draws parameters together: TPE, or one of goptuna's.
	RelativeSampler = goptuna.RelativeSampler
	// Pruner judges running trials: MedianPruner, or one of goptuna's.
	Pruner = goptuna.Pruner
)

// The directions of a study.
const (
	Maximize = goptuna.StudyDirectionMaximize
	Minimize = goptuna.StudyDirectionMinimize
)

// What became of a trial.
const (
	Running  = goptuna.TrialStateRunning
	Complete = goptuna.TrialStateComplete
	Pruned   = goptuna.TrialStatePruned
	Failed   = goptuna.TrialStateFail
	Waiting  = goptuna.TrialStateWaiting
)

// ErrPruned is what an objective returns, wrapped or not, to give its trial up.
var ErrPruned = goptuna.ErrTrialPruned
