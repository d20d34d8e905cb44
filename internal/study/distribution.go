package study

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/c-bata/goptuna"
)

// Distribution is the range of a hyperparameter: a [FloatDistribution], an
// [IntDistribution] or a [CategoricalDistribution].
//
// Samplers and storages know a value by its internal form, a float64: the
// number itself, or the index of a choice. Users know its external form: a
// float64, an int, or the choice.
type Distribution interface {
	goptuna.Distribution
	// ToInternalRepr is the inverse of ToExternalRepr. It also takes what JSON
	// makes of an external value, and, as Optuna's does, numbers outside of the
	// range, but not NaN, and on a logarithmic scale only positive ones.
	ToInternalRepr(external any) (float64, error)
	// Validate reports what is wrong with the range itself.
	Validate() error

	forGoptuna() any
}

// FloatDistribution is Low ≤ x ≤ High, evenly in x or, if Log, in its
// logarithm. Step > 0 leaves only Low + k·Step; it excludes Log.
type FloatDistribution struct {
	Low, High float64
	Step      float64 // 0: continuous
	Log       bool
}

// IntDistribution is Low ≤ n ≤ High, both included, evenly in n or, if Log, in
// its logarithm. Step > 1 leaves only Low + k·Step; it excludes Log.
type IntDistribution struct {
	Low, High int
	Step      int // 0 stands for 1
	Log       bool
}

// CategoricalDistribution is one of Choices: nil, booleans, ints, float64s and
// strings, as JSON has them.
type CategoricalDistribution struct {
	Choices []any
}

// Categorical returns the distribution of some choices.
func Categorical[T bool | int | float64 | string](choices ...T) CategoricalDistribution {
	d := CategoricalDistribution{Choices: make([]any, len(choices))}
	for i, c := range choices {
		d.Choices[i] = c
	}
	return d
}

// Validate implements Distribution.
func (d FloatDistribution) Validate() error {
	switch {
	case !isFinite(d.Low) || !isFinite(d.High) || d.Low > d.High:
		return fmt.Errorf("float range %v to %v: want finite bounds, the lower one first", d.Low, d.High)
	case d.Log && d.Low <= 0:
		return fmt.Errorf("float range %v to %v: a logarithmic scale needs a positive lower bound", d.Low, d.High)
	case d.Step < 0 || math.IsNaN(d.Step) || d.Log && d.Step != 0:
		return fmt.Errorf("float range %v to %v: step %v: want 0, or a positive one on a linear scale", d.Low, d.High, d.Step)
	}
	return nil
}

// Validate implements Distribution.
func (d IntDistribution) Validate() error {
	switch {
	case d.Low > d.High:
		return fmt.Errorf("integer range %d to %d: want the lower bound first", d.Low, d.High)
	case d.Log && d.Low < 1:
		return fmt.Errorf("integer range %d to %d: a logarithmic scale needs a lower bound of at least 1", d.Low, d.High)
	case d.Step < 0 || d.Log && d.step() != 1:
		return fmt.Errorf("integer range %d to %d: step %d: want 1, or more on a linear scale", d.Low, d.High, d.Step)
	}
	return nil
}

// Validate implements Distribution.
func (d CategoricalDistribution) Validate() error {
	if len(d.Choices) == 0 {
		return errors.New("no choices")
	}
	for i, c := range d.Choices {
		if _, err := encodeChoice(c); err != nil {
			return fmt.Errorf("choice %d: %w", i, err)
		}
		for _, other := range d.Choices[:i] {
			if sameChoice(c, other) {
				return fmt.Errorf("choice %d: %v is there twice", i, c)
			}
		}
	}
	return nil
}

func (d IntDistribution) step() int { return max(d.Step, 1) }

// Single implements goptuna.Distribution.
func (d FloatDistribution) Single() bool {
	return d.Low == d.High || d.Step > 0 && d.High-d.Low < d.Step
}

// Single implements goptuna.Distribution.
func (d IntDistribution) Single() bool { return d.High-d.Low < d.step() }

// Single implements goptuna.Distribution.
func (d CategoricalDistribution) Single() bool { return len(d.Choices) == 1 }

// Contains implements goptuna.Distribution.
func (d FloatDistribution) Contains(x float64) bool {
	if !(d.Low <= x && x <= d.High) {
		return false
	}
	k := (x - d.Low) / d.Step
	return d.Step == 0 || math.Abs(k-math.Round(k)) < 1e-8
}

// Contains implements goptuna.Distribution.
func (d IntDistribution) Contains(x float64) bool {
	return x == math.Trunc(x) && float64(d.Low) <= x && x <= float64(d.High) && (int(x)-d.Low)%d.step() == 0
}

// Contains implements goptuna.Distribution.
func (d CategoricalDistribution) Contains(x float64) bool {
	return x == math.Trunc(x) && 0 <= x && x < float64(len(d.Choices))
}

// ToExternalRepr returns the float64.
func (d FloatDistribution) ToExternalRepr(x float64) any { return x }

// ToExternalRepr returns the int.
func (d IntDistribution) ToExternalRepr(x float64) any { return int(x) }

// ToExternalRepr returns the choice.
func (d CategoricalDistribution) ToExternalRepr(x float64) any { return d.Choices[int(x)] }

// ToInternalRepr implements Distribution.
func (d FloatDistribution) ToInternalRepr(external any) (float64, error) {
	return internalNumber(external, d.Log)
}

// ToInternalRepr implements Distribution.
func (d IntDistribution) ToInternalRepr(external any) (float64, error) {
	return internalNumber(external, d.Log)
}

// ToInternalRepr implements Distribution.
func (d CategoricalDistribution) ToInternalRepr(external any) (float64, error) {
	i := slices.IndexFunc(d.Choices, func(c any) bool { return sameChoice(c, external) })
	if i < 0 {
		return 0, fmt.Errorf("%v is none of the choices %v", external, d.Choices)
	}
	return float64(i), nil
}

func internalNumber(external any, log bool) (float64, error) {
	x, ok := number(external)
	switch {
	case !ok || math.IsNaN(x):
		return 0, fmt.Errorf("%v is not a number", external)
	case log && x <= 0:
		return 0, fmt.Errorf("%v is not positive, as a logarithmic scale wants it", external)
	}
	return x, nil
}

// number returns the value of anything numeric.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case json.Number:
		x, err := v.Float64()
		return x, err == nil
	}
	return 0, false
}

// sameChoice compares as Python does, for which 4 == 4.0.
func sameChoice(a, b any) bool {
	x, xok := number(a)
	y, yok := number(b)
	if xok || yok {
		return xok && yok && x == y
	}
	return a == b
}

// forGoptuna returns the nearest range that goptuna's samplers know.
func (d FloatDistribution) forGoptuna() any {
	switch {
	case d.Log:
		return goptuna.LogUniformDistribution{Low: d.Low, High: d.High}
	case d.Step > 0:
		return goptuna.DiscreteUniformDistribution{Low: d.Low, High: d.last(), Q: d.Step}
	}
	return goptuna.UniformDistribution{Low: d.Low, High: d.High}
}

// forGoptuna returns a discrete range of floats, because goptuna's samplers of
// integers never draw the upper bound. A logarithmic scale it has only for
// floats: there, half a step more on both sides gives the bounds their weight.
func (d IntDistribution) forGoptuna() any {
	low, high := float64(d.Low), float64(d.last())
	if d.Log {
		return goptuna.LogUniformDistribution{Low: low - 0.5, High: high + 0.5}
	}
	return goptuna.DiscreteUniformDistribution{Low: low, High: high, Q: float64(d.step())}
}

func (d CategoricalDistribution) forGoptuna() any {
	g := goptuna.CategoricalDistribution{Choices: make([]string, len(d.Choices))}
	for i, c := range d.Choices {
		g.Choices[i] = fmt.Sprint(c)
	}
	return g
}

// toDistribution takes a range of this package or of goptuna.
func toDistribution(distribution any) (Distribution, error) {
	switch d := distribution.(type) {
	case Distribution:
		return d, nil
	case goptuna.UniformDistribution:
		return FloatDistribution{Low: d.Low, High: d.High}, nil
	case goptuna.LogUniformDistribution:
		return FloatDistribution{Low: d.Low, High: d.High, Log: true}, nil
	case goptuna.DiscreteUniformDistribution:
		return FloatDistribution{Low: d.Low, High: d.High, Step: d.Q}, nil
	case goptuna.IntUniformDistribution:
		return IntDistribution{Low: d.Low, High: d.High}, nil
	case goptuna.StepIntUniformDistribution:
		return IntDistribution{Low: d.Low, High: d.High, Step: d.Step}, nil
	case goptuna.CategoricalDistribution:
		return Categorical(d.Choices...), nil
	}
	return nil, fmt.Errorf("%w: %T", goptuna.ErrUnknownDistribution, distribution)
}

// toSpace converts a search space and returns its names in order, which is the
// order of the dimensions.
func toSpace(space map[string]any) (names []string, dists []Distribution, err error) {
	for name := range space {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		d, err := toDistribution(space[name])
		if err != nil {
			return nil, nil, fmt.Errorf("parameter %s: %w", name, err)
		}
		dists = append(dists, d)
	}
	return names, dists, nil
}

// last returns the largest value, which is below High if that is no whole
// number of steps away.
func (d FloatDistribution) last() float64 {
	if d.Step == 0 {
		return d.High
	}
	k := math.Floor((d.High-d.Low)/d.Step + 1e-8) // steps have rounding errors
	return min(d.Low+k*d.Step, d.High)
}

func (d IntDistribution) last() int { return d.High - (d.High-d.Low)%d.step() }

// grid describes the values of a range: from low to high, both included, in
// steps, or continuous if step is 0.
func grid(d Distribution) (low, high, step float64, log bool) {
	switch d := d.(type) {
	case FloatDistribution:
		return d.Low, d.last(), d.Step, d.Log
	case IntDistribution:
		return float64(d.Low), float64(d.last()), float64(d.step()), d.Log
	case CategoricalDistribution:
		return 0, float64(len(d.Choices) - 1), 1, false
	}
	return math.NaN(), math.NaN(), 0, false
}

// nearest returns the value of a range nearest to x.
func nearest(d Distribution, x float64) float64 {
	low, high, step, _ := grid(d)
	if step > 0 {
		x = low + math.RoundToEven((x-low)/step)*step
	}
	return min(max(x, low), high)
}

// CheckCompatible reports whether a study in which a parameter had the range
// old can go on with the range new. Bounds may change; the kind, the scale and
// the choices may not, for then Optuna could not read the study.
func CheckCompatible(old, new Distribution) error {
	ok := false
	switch old := old.(type) {
	case FloatDistribution:
		d, same := new.(FloatDistribution)
		ok = same && d.Log == old.Log
	case IntDistribution:
		d, same := new.(IntDistribution)
		ok = same && d.Log == old.Log
	case CategoricalDistribution:
		d, same := new.(CategoricalDistribution)
		ok = same && slices.EqualFunc(d.Choices, old.Choices, sameChoice)
	}
	if !ok {
		return fmt.Errorf("the study has used the range %+v, which cannot become %+v: start a study of another name", old, new)
	}
	return nil
}

func sameDistribution(a, b Distribution) bool {
	switch a := a.(type) {
	case FloatDistribution:
		b, ok := b.(FloatDistribution)
		return ok && a.Low == b.Low && a.last() == b.last() && a.Step == b.Step && a.Log == b.Log
	case IntDistribution:
		b, ok := b.(IntDistribution)
		return ok && a.Low == b.Low && a.last() == b.last() && a.step() == b.step() && a.Log == b.Log
	case CategoricalDistribution:
		b, ok := b.(CategoricalDistribution)
		return ok && slices.EqualFunc(a.Choices, b.Choices, sameChoice)
	}
	return false
}

// distributionJSON is Optuna's form of a distribution.
type distributionJSON struct {
	Name       string         `json:"name"`
	Attributes map[string]any `json:"attributes"`
}

// MarshalDistribution returns Optuna's JSON of a range, such as
// {"name":"IntDistribution","attributes":{"high":3,"log":false,"low":0,"step":1}}.
func MarshalDistribution(d Distribution) ([]byte, error) {
	var j distributionJSON
	switch d := d.(type) {
	case FloatDistribution:
		j = distributionJSON{"FloatDistribution", map[string]any{"low": pythonFloat(d.Low), "high": pythonFloat(d.last()), "step": nil, "log": d.Log}}
		if d.Step > 0 {
			j.Attributes["step"] = pythonFloat(d.Step)
		}
	case IntDistribution:
		j = distributionJSON{"IntDistribution", map[string]any{"low": d.Low, "high": d.last(), "step": d.step(), "log": d.Log}}
	case CategoricalDistribution:
		choices := make([]json.RawMessage, len(d.Choices))
		for i, c := range d.Choices {
			text, err := encodeChoice(c)
			if err != nil {
				return nil, fmt.Errorf("choice %d: %w", i, err)
			}
			choices[i] = text
		}
		j = distributionJSON{"CategoricalDistribution", map[string]any{"choices": choices}}
	default:
		return nil, fmt.Errorf("%w: %T", goptuna.ErrUnknownDistribution, d)
	}
	return json.Marshal(j)
}

// UnmarshalDistribution is the inverse of MarshalDistribution. It checks the
// range.
func UnmarshalDistribution(text []byte) (Distribution, error) {
	var j struct {
		Name       string `json:"name"`
		Attributes struct {
			Low, High, Step *json.Number
			Log             bool
			Choices         []any
		} `json:"attributes"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&j); err != nil {
		return nil, fmt.Errorf("distribution %q: %w", text, err)
	}
	a := j.Attributes
	var d Distribution
	var err error
	num := func(n *json.Number) (x float64) {
		if n == nil {
			err = errors.Join(err, errors.New("a bound is missing"))
			return 0
		}
		x, e := n.Float64()
		err = errors.Join(err, e)
		return x
	}
	whole := func(n *json.Number) int {
		x := num(n)
		if x != math.Trunc(x) || math.Abs(x) > 1<<53 {
			err = errors.Join(err, fmt.Errorf("%v is no whole number", x))
			return 0
		}
		return int(x)
	}
	switch j.Name {
	case "FloatDistribution":
		f := FloatDistribution{Low: num(a.Low), High: num(a.High), Log: a.Log}
		if a.Step != nil {
			f.Step = num(a.Step)
		}
		d = f
	case "IntDistribution":
		n := IntDistribution{Low: whole(a.Low), High: whole(a.High), Step: 1, Log: a.Log}
		if a.Step != nil {
			n.Step = whole(a.Step)
		}
		d = n
	case "CategoricalDistribution":
		for i, c := range a.Choices {
			if n, ok := c.(json.Number); ok {
				a.Choices[i] = choiceOf(n)
			}
		}
		d = CategoricalDistribution{Choices: a.Choices}
	default:
		err = fmt.Errorf("unknown kind %q: want FloatDistribution, IntDistribution or CategoricalDistribution", j.Name)
	}
	if err == nil {
		err = d.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("distribution %s: %w", text, err)
	}
	return d, nil
}

// choiceOf tells 4 from 4.0, as Python does.
func choiceOf(n json.Number) any {
	if i, err := strconv.Atoi(n.String()); err == nil {
		return i
	}
	x, err := n.Float64()
	if err != nil {
		return n // Validate refuses it
	}
	return x
}

// pythonFloat is a float64 that JSON shows to be one: 1.0, not 1.
type pythonFloat float64

// MarshalJSON implements json.Marshaler.
func (x pythonFloat) MarshalJSON() ([]byte, error) {
	text, err := json.Marshal(float64(x))
	if err == nil && !strings.ContainsAny(string(text), ".e") {
		text = append(text, ".0"...)
	}
	return text, err
}

func encodeChoice(c any) (json.RawMessage, error) {
	switch c := c.(type) {
	case nil, bool, int, string:
		return json.Marshal(c)
	case float64:
		return json.Marshal(pythonFloat(c))
	}
	return nil, fmt.Errorf("%v has type %T: want nil, bool, int, float64 or string", c, c)
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
