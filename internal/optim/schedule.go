package optim

import (
	"fmt"
	"math"
)

// ScheduleKind is the course that the learning rate takes after the warmup.
type ScheduleKind string

// The schedules of transformers: get_linear_schedule_with_warmup,
// get_cosine_schedule_with_warmup (half a period) and
// get_constant_schedule_with_warmup.
const (
	Linear   ScheduleKind = "linear"
	Cosine   ScheduleKind = "cosine"
	Constant ScheduleKind = "constant"
)

// Schedule is the learning rate as a function of the step: it grows from 0 to
// Peak over Warmup steps and then follows Kind until Total.
type Schedule struct {
	Kind   ScheduleKind
	Peak   float64
	Warmup int // optimizer steps
	Total  int // optimizer steps, the warmup's included
}

// WarmupSteps returns the number of warmup steps for a share of all steps,
// rounded up, as transformers does.
func WarmupSteps(ratio float64, total int) int {
	return int(math.Ceil(ratio * float64(total)))
}

// LR returns the rate of the optimizer step with this index, counted from 0.
// With a warmup the very first step has rate 0: it moves nothing, but feeds the
// moments.
func (s Schedule) LR(step int) float64 {
	if step < s.Warmup {
		return s.Peak * (float64(step) / float64(max(1, s.Warmup)))
	}
	progress := float64(step-s.Warmup) / float64(max(1, s.Total-s.Warmup))
	switch s.Kind {
	case Linear:
		return s.Peak * math.Max(0, float64(s.Total-step)/float64(max(1, s.Total-s.Warmup)))
	case Cosine:
		return s.Peak * math.Max(0, 0.5*(1+math.Cos(math.Pi*progress)))
	case Constant:
		return s.Peak
	}
	panic(fmt.Sprintf("optim: unknown schedule %q", s.Kind))
}
