package criteria

import "time"

// Hooks are told of a run's progress. Nil fields are skipped. They are called
// one at a time and in order, by a Trainer on the goroutine of Run; they must not
// block, and must not call back into the Trainer or Study. A panic in one is not
// recovered.
//
// Of a [Study], Start and End are called once. Step, Epoch and Checkpoint speak of
// its trials; if several run at the same time, their events mix, and Step is not
// called.
type Hooks struct {
	// Download is called while a checkpoint comes from the hub: when the
	// transfer of a file starts, about once per megabyte, and when it is done.
	Download func(DownloadEvent)
	// Start is called once, when data, model and tracker are ready.
	Start func(StartEvent)
	// Step is called after every micro-batch of training, validation and test.
	// Speed, progress and remaining time follow from it.
	Step func(StepEvent)
	// Epoch is called after the validation of each epoch.
	Epoch func(EpochEvent)
	// Checkpoint is called when a model was written.
	Checkpoint func(CheckpointEvent)
	// End is called when the run is over, however it ended.
	End func(EndEvent)
	// Trial is called when a trial of a study is over, however it ended.
	Trial func(TrialEvent)
}

// DownloadEvent describes the transfer of a file.
type DownloadEvent struct {
	File        string
	Done, Total int64 // bytes; Total is -1 if the hub does not say
}

// StartEvent describes a run that is about to train.
type StartEvent struct {
	RunID            string // "" if the run is not tracked
	Dir              string // output directory
	Train, Val, Test int    // pairs
	Epochs           int
	Steps            int     // updates of the whole run
	DryRunLoss       float64 // of the first batch, before any update
}

// Phase is a part of a run.
type Phase string

// The phases of a run.
const (
	PhaseTrain Phase = "train"
	PhaseVal   Phase = "val"
	PhaseTest  Phase = "test"
)

// StepEvent describes a micro-batch that was computed.
type StepEvent struct {
	Trial         int // of a study, its number
	Phase         Phase
	Epoch, Epochs int // the epoch, from 1, of how many
	Pairs, Total  int // pairs of this phase and epoch that are done, of how many
	Step, Steps   int // updates done, of how many
	Loss          float64
	LearningRate  float64 // of the last update
	GradNorm      float64 // of the last update, before clipping
	Time          time.Time
}

// EpochEvent describes an epoch that has ended.
type EpochEvent struct {
	Trial int // of a study, its number
	EpochScores
	Epochs int
	Best   bool // whether it is the best so far
}

// CheckpointEvent describes a model that was written.
type CheckpointEvent struct {
	Trial int // of a study, its number
	Dir   string
	Epoch int
}

// EndEvent describes how a run ended.
type EndEvent struct {
	Status RunStatus
	Err    error // what Run returns; nil if it succeeded
}

// TrialEvent describes a trial that has ended.
type TrialEvent struct {
	Trial    Trial
	Best     *Trial // the best one so far; nil if none is complete
	Finished int    // complete and pruned trials of the study
	Trials   int    // that it is to have
}

// joinHooks returns hooks that call all of h in order.
func joinHooks(h ...Hooks) Hooks {
	return Hooks{
		Download:   joined(h, func(h Hooks) func(DownloadEvent) { return h.Download }),
		Start:      joined(h, func(h Hooks) func(StartEvent) { return h.Start }),
		Step:       joined(h, func(h Hooks) func(StepEvent) { return h.Step }),
		Epoch:      joined(h, func(h Hooks) func(EpochEvent) { return h.Epoch }),
		Checkpoint: joined(h, func(h Hooks) func(CheckpointEvent) { return h.Checkpoint }),
		End:        joined(h, func(h Hooks) func(EndEvent) { return h.End }),
		Trial:      joined(h, func(h Hooks) func(TrialEvent) { return h.Trial }),
	}
}

// joined returns a function that calls one hook of each of h that has it.
func joined[E any](h []Hooks, pick func(Hooks) func(E)) func(E) {
	var calls []func(E)
	for _, hooks := range h {
		if call := pick(hooks); call != nil {
			calls = append(calls, call)
		}
	}
	return func(e E) {
		for _, call := range calls {
			call(e)
		}
	}
}
