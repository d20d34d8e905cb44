package study

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/c-bata/goptuna"
)

// TPE is the Tree-structured Parzen Estimator as Optuna 5 has it by default:
// multivariate, and with running trials counted among the bad ones (constant
// liar), so that parallel workers spread out.
//
// It satisfies goptuna.RelativeSampler, for the parameters that every trial has,
// and goptuna.Sampler, for the others: conditional parameters, and all while
// there are few trials. In a plain goptuna.Study, give it as both.
//
// A TPE holds no state, so one may serve any number of workers.
type TPE struct {
	Seed uint64
	// StartupTrials are drawn at random before the first estimate is made.
	// NewTPE sets 10.
	StartupTrials int
	// Candidates are drawn from the estimate of the good trials, to take the one
	// that is most characteristic of them. NewTPE sets 24.
	Candidates int
}

// NewTPE returns a sampler with Optuna's defaults.
func NewTPE(seed uint64) *TPE { return &TPE{Seed: seed, StartupTrials: 10, Candidates: 24} }

var (
	_ Sampler         = (*TPE)(nil)
	_ RelativeSampler = (*TPE)(nil)
)

func (*TPE) knowsDistribution() {}

// Sample implements goptuna.Sampler: a value for one parameter, from the trials
// that have it.
func (s *TPE) Sample(study *goptuna.Study, trial FrozenTrial, name string, distribution any) (float64, error) {
	d, err := toDistribution(distribution)
	if err != nil {
		return 0, fmt.Errorf("parameter %s: %w", name, err)
	}
	if d.Single() {
		return nearest(d, math.Inf(-1)), nil
	}
	trials, err := study.GetTrials()
	if err != nil {
		return 0, err
	}
	rng := stream(s.Seed, trial.Number, name)
	if finished(trials) < s.StartupTrials {
		return uniform(rng, d), nil
	}
	x, err := s.sample(rng, trials, study.Direction(), trial.Number, []string{name}, []Distribution{d})
	if err != nil {
		return 0, err
	}
	return x[0], nil
}

// SampleRelative implements goptuna.RelativeSampler: values for the parameters
// of space together. While there are too few trials it returns none.
func (s *TPE) SampleRelative(study *goptuna.Study, trial FrozenTrial, space map[string]any) (map[string]float64, error) {
	names, dists, err := toSpace(space)
	if err != nil {
		return nil, err
	}
	for i := len(names) - 1; i >= 0; i-- {
		if dists[i].Single() {
			names, dists = slices.Delete(names, i, i+1), slices.Delete(dists, i, i+1)
		}
	}
	trials, err := study.GetTrials()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 || finished(trials) < s.StartupTrials {
		return nil, nil
	}
	x, err := s.sample(stream(s.Seed, trial.Number, ""), trials, study.Direction(), trial.Number, names, dists)
	if err != nil {
		return nil, err
	}
	params := make(map[string]float64, len(names))
	external := make(map[string]any, len(names))
	for i, name := range names {
		params[name] = x[i]
		external[name] = dists[i].ToExternalRepr(x[i])
	}
	// Workers that draw before these have become the trial's parameters see them
	// here.
	text, err := json.Marshal(external)
	if err != nil {
		return nil, err
	}
	for i := 0; i*relativeParamsLen < len(text); i++ {
		part := text[i*relativeParamsLen : min((i+1)*relativeParamsLen, len(text))]
		if err := study.Storage.SetTrialSystemAttr(trial.ID, relativeParamsKey(i), string(part)); err != nil {
			return nil, err
		}
	}
	return params, nil
}

// relativeParamsLen is the longest attribute that Optuna writes.
const relativeParamsLen = 2045

// relativeParamsKey names the system attribute in which Optuna's TPE announces
// the parameters of a running trial, as JSON of the external values in pieces.
func relativeParamsKey(i int) string { return fmt.Sprintf("tpe:relative_params:%d", i) }

// sample returns the best of some candidates for a search space.
func (s *TPE) sample(rng *rand.Rand, trials []FrozenTrial, direction Direction, number int, names []string, dists []Distribution) ([]float64, error) {
	good, bad := split(trials, direction, number)
	l := newParzen(dists, observations(good, names, dists))
	g := newParzen(dists, observations(bad, names, dists))
	var best []float64
	highest := math.Inf(-1)
	for range max(s.Candidates, 1) {
		x := l.sample(rng)
		// The larger l/g, the larger the expected improvement.
		if ratio := l.logDensity(x) - g.logDensity(x); best == nil || ratio > highest {
			best, highest = x, ratio
		}
	}
	return best, nil
}

// split divides the trials into the best tenth, at most 25 of them, and all
// others, each in the order of their numbers. Complete trials are better than
// pruned ones, of which those that came farther are better. Running trials are
// among the others; the trial of the given number is in neither.
func split(trials []FrozenTrial, direction Direction, number int) (good, bad []FrozenTrial) {
	sign := 1.0
	if direction == Maximize {
		sign = -1
	}
	var complete, pruned, running []FrozenTrial
	for _, t := range trials {
		switch {
		case t.Number == number:
		case t.State == Complete:
			complete = append(complete, t)
		case t.State == Pruned:
			pruned = append(pruned, t)
		case t.State == Running:
			running = append(running, t)
		}
	}
	slices.SortStableFunc(complete, func(a, b FrozenTrial) int {
		return cmp.Compare(lossOf(a.Value, sign), lossOf(b.Value, sign))
	})
	slices.SortStableFunc(pruned, func(a, b FrozenTrial) int {
		astep, avalue := lastReport(a, sign)
		bstep, bvalue := lastReport(b, sign)
		return cmp.Or(cmp.Compare(bstep, astep), cmp.Compare(avalue, bvalue))
	})
	ranked := slices.Concat(complete, pruned)
	n := min(int(math.Ceil(0.1*float64(len(ranked)))), 25)
	good, bad = ranked[:n:n], append(ranked[n:], running...)
	byNumber := func(a, b FrozenTrial) int { return cmp.Compare(a.Number, b.Number) }
	slices.SortFunc(good, byNumber)
	slices.SortFunc(bad, byNumber)
	return good, bad
}

// lastReport returns the last step that a trial reported, or -1, and the loss
// there.
func lastReport(t FrozenTrial, sign float64) (step int, loss float64) {
	step = lastStep(t)
	if step < 0 {
		return step, 0
	}
	return step, lossOf(t.IntermediateValues[step], sign)
}

// lossOf returns what is to be small; nothing is worse than no number.
func lossOf(value, sign float64) float64 {
	if math.IsNaN(value) {
		return math.Inf(1)
	}
	return sign * value
}

func lastStep(t FrozenTrial) int {
	last := -1
	for step := range t.IntermediateValues {
		last = max(last, step)
	}
	return last
}

func finished(trials []FrozenTrial) (n int) {
	for _, t := range trials {
		if t.State == Complete || t.State == Pruned {
			n++
		}
	}
	return n
}

// observations returns the internal values of the trials that have them for
// every name.
func observations(trials []FrozenTrial, names []string, dists []Distribution) [][]float64 {
	var all [][]float64
	for _, t := range trials {
		announced := announcedParams(t)
		x := make([]float64, 0, len(names))
		for i, name := range names {
			v, ok := t.InternalParams[name]
			if !ok {
				external, announced := announced[name]
				if !announced {
					break
				}
				internal, err := dists[i].ToInternalRepr(external)
				if err != nil {
					break // of another range
				}
				v = internal
			}
			if !usable(dists[i], v) {
				break
			}
			x = append(x, v)
		}
		if len(x) == len(names) {
			all = append(all, x)
		}
	}
	return all
}

// usable reports whether a value, which a trial may have from another range, has
// a place on the scale of this one.
func usable(d Distribution, x float64) bool {
	switch d := d.(type) {
	case CategoricalDistribution:
		return d.Contains(x)
	case FloatDistribution:
		return !d.Log || x > 0
	case IntDistribution:
		return !d.Log || x >= 1
	}
	return false
}

// announcedParams returns the external values that a running trial is going to
// have. If another worker has written only some of the pieces yet, there are
// none.
func announcedParams(t FrozenTrial) map[string]any {
	if t.State != Running {
		return nil
	}
	var text []byte
	for i := 0; ; i++ {
		part, ok := t.SystemAttrs[relativeParamsKey(i)]
		if !ok {
			break
		}
		text = append(text, part...)
	}
	var params map[string]any
	if json.Unmarshal(text, &params) != nil {
		return nil
	}
	return params
}

// Random draws every parameter on its own, evenly over its range or, on a
// logarithmic scale, evenly over the logarithm. Both bounds of integers have the
// weight of any other.
type Random struct{ Seed uint64 }

var _ Sampler = Random{}

func (Random) knowsDistribution() {}

// Sample implements goptuna.Sampler.
func (s Random) Sample(_ *goptuna.Study, trial FrozenTrial, name string, distribution any) (float64, error) {
	d, err := toDistribution(distribution)
	if err != nil {
		return 0, fmt.Errorf("parameter %s: %w", name, err)
	}
	return uniform(stream(s.Seed, trial.Number, name), d), nil
}

func uniform(rng *rand.Rand, d Distribution) float64 {
	if c, ok := d.(CategoricalDistribution); ok {
		return float64(rng.IntN(len(c.Choices)))
	}
	// The bounds and the scale are those of kernels without observations.
	k := newNormalKernels(d, nil)
	y := k.low + rng.Float64()*(k.high-k.low)
	if k.log {
		y = math.Exp(y)
	}
	return nearest(d, y)
}

// stream returns the random numbers for one parameter of one trial, or for its
// parameters together if name is empty. A cryptographic hash keeps streams of
// neighbouring seeds and numbers apart.
func stream(seed uint64, number int, name string) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d/%d/%s", seed, number, name))))
}
