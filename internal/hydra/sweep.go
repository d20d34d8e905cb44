package hydra

import (
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
)

// maxJobs bounds the number of jobs that one sweep may expand to.
const maxJobs = 100_000

// sweep is a value that stands for several, one for each job of --multirun.
type sweep interface {
	pyType() string
	// name is what the sweep is called when a sweeper cannot enumerate it.
	name() string
	// values lists the values. options are the options of the group that the
	// override is for.
	values(options func() []string) ([]any, error)
}

// choiceSweep is a,b,c (simple) or choice(a,b,c).
type choiceSweep struct {
	items   []any
	simple  bool
	shuffle bool
}

func (*choiceSweep) pyType() string { return "ChoiceSweep" }
func (*choiceSweep) name() string   { return "CHOICE_SWEEP" }

func (s *choiceSweep) values(func() []string) ([]any, error) {
	return maybeShuffled(s.items, s.shuffle), nil
}

// rangeSweep is range(start,stop,step); its bounds are integers, floats or,
// counting as integers, booleans.
type rangeSweep struct {
	start, stop, step any
	shuffle           bool
}

func (*rangeSweep) pyType() string { return "RangeSweep" }
func (*rangeSweep) name() string   { return "RANGE_SWEEP" }

// values counts from start to stop. Floats are added up in decimal, with 28
// digits like Python's, starting from the exact values of the binary floats; so
// 0.1+0.1+0.1 is written as 0.30000000000000004.
func (s *rangeSweep) values(func() []string) ([]any, error) {
	_, startFloat := s.start.(float64)
	_, stopFloat := s.stop.(float64)
	_, stepFloat := s.step.(float64)
	isFloat := startFloat || stopFloat || stepFloat
	var bounds [3]decimal
	for i, v := range []any{s.start, s.stop, s.step} {
		d, ok := newDecimal(v)
		if !ok {
			return nil, errorf(KindHydra, "Invalid range values (start:%s, stop:%s, step:%s)", pyStr(s.start), pyStr(s.stop), pyStr(s.step))
		}
		bounds[i] = d
	}
	at, stop, step := bounds[0], bounds[1], bounds[2]
	direction := step.sign()
	switch {
	case direction == 0 && !isFloat:
		return nil, errorf(KindValue, "range() arg 3 must not be zero")
	case direction == 0:
		return nil, errorf(KindHydra, "Invalid range values (start:%s, stop:%s, step:%s)", pyStr(s.start), pyStr(s.stop), pyStr(s.step))
	}
	var items []any
	for at.cmp(stop)*direction < 0 {
		if len(items) == maxJobs {
			return nil, errorf(KindHydra, "range has more than %d values", maxJobs)
		}
		items = append(items, at.value(isFloat))
		at = at.add(step)
		if isFloat {
			at = at.round()
		}
	}
	return maybeShuffled(items, s.shuffle), nil
}

// sorted returns the range that runs upwards or, with reverse, downwards.
func (s *rangeSweep) sorted(reverse bool) *rangeSweep {
	start, ok1 := newDecimal(s.start)
	stop, ok2 := newDecimal(s.stop)
	step, ok3 := newDecimal(s.step)
	if !ok1 || !ok2 || !ok3 || start.cmp(stop) == 0 || start.cmp(stop) > 0 == reverse {
		return s
	}
	shift := step
	if shift.sign() < 0 != reverse {
		shift = shift.neg()
	}
	isFloat := func(v any) bool { _, ok := v.(float64); return ok }
	return &rangeSweep{
		start:   stop.add(shift).value(isFloat(s.stop) || isFloat(s.step)),
		stop:    start.add(shift).value(isFloat(s.start) || isFloat(s.step)),
		step:    step.neg().value(isFloat(s.step)),
		shuffle: s.shuffle,
	}
}

// intervalSweep is interval(start,end), a range of reals that the basic sweeper
// cannot enumerate.
type intervalSweep struct{ start, end any }

func (*intervalSweep) pyType() string { return "IntervalSweep" }
func (*intervalSweep) name() string   { return "INTERVAL_SWEEP" }

func (s *intervalSweep) values(func() []string) ([]any, error) {
	return nil, errorf(KindHydra, "BasicSweeper does not support sweep type : %s", s.name())
}

// globSweep is glob(…): the options of a group whose names match.
type globSweep struct{ include, exclude []string }

func (*globSweep) pyType() string { return "Glob" }
func (*globSweep) name() string   { return "GLOB_CHOICE_SWEEP" }

func (s *globSweep) values(options func() []string) ([]any, error) {
	var items []any
	for _, option := range options() {
		if matchesAny(s.include, option) && !matchesAny(s.exclude, option) {
			items = append(items, verbatim(option))
		}
	}
	return items, nil
}

// verbatim is a text that goes into an override as it is.
type verbatim string

func matchesAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if fnmatch(pattern, name) {
			return true
		}
	}
	return false
}

// fnmatch matches shell patterns: *, ?, [abc] and [!abc]. Unlike path.Match it
// treats the slash as any other character and has no escapes.
func fnmatch(pattern, name string) bool {
	p, s := []rune(pattern), []rune(name)
	pi, si := 0, 0
	star, mark := -1, 0 // the last * and where its match ends so far
	for si < len(s) {
		if pi < len(p) && p[pi] == '*' {
			star, mark = pi, si
			pi++
			continue
		}
		if pi < len(p) {
			if ok, size := matchOne(p[pi:], s[si]); ok {
				pi += size
				si++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		pi, si = star+1, mark
	}
	return strings.Trim(string(p[pi:]), "*") == ""
}

// matchOne matches one character with the first element of a pattern, and
// returns the length of the element.
func matchOne(p []rune, r rune) (ok bool, size int) {
	switch p[0] {
	case '?':
		return true, 1
	case '[':
		i := 1
		negated := i < len(p) && p[i] == '!'
		if negated {
			i++
		}
		found := false
		for first := i; i < len(p) && (p[i] != ']' || i == first); i++ {
			if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
				found = found || p[i] <= r && r <= p[i+2]
				i += 2
				continue
			}
			found = found || p[i] == r
		}
		if i < len(p) {
			return found != negated, i + 1
		}
	}
	return p[0] == r, 1
}

func maybeShuffled(items []any, shuffle bool) []any {
	if !shuffle {
		return items
	}
	items = append([]any(nil), items...)
	rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return items
}

// expandSweep returns the overrides of every job: all combinations of the
// values, those of the first key varying slowest. A key that is given twice
// takes its last values in its first place. Values are written out anew.
func expandSweep(overrides []*override, options func(group string) []string) ([][]string, error) {
	var keys []string
	lines := make(map[string][]string)
	jobs := 1
	for _, o := range overrides {
		key := o.keyElement()
		values := []any{o.value}
		if s := o.sweep(); s != nil {
			var err error
			if values, err = s.values(func() []string { return options(o.key) }); err != nil {
				return nil, err
			}
		}
		if _, repeated := lines[key]; !repeated {
			keys = append(keys, key)
		}
		line := make([]string, len(values))
		for i, value := range values {
			line[i] = key + "=" + overrideText(value)
		}
		lines[key] = line
	}
	for _, key := range keys {
		if jobs *= len(lines[key]); jobs > maxJobs {
			return nil, errorf(KindHydra, "the sweep has more than %d jobs", maxJobs)
		}
	}
	expanded := make([][]string, jobs)
	for job := range expanded {
		expanded[job] = make([]string, len(keys))
		rest := job
		for i := len(keys) - 1; i >= 0; i-- {
			choices := lines[keys[i]]
			expanded[job][i] = choices[rest%len(choices)]
			rest /= len(choices)
		}
	}
	return expanded, nil
}

// decimal is unscaled * 10^exp.
type decimal struct {
	unscaled *big.Int
	exp      int
}

// decimalDigits is the precision of Python's decimal arithmetic.
const decimalDigits = 28

// newDecimal returns the exact value of a number.
func newDecimal(v any) (decimal, bool) {
	x, ok := asNumber(v)
	if !ok || x.IsInf() {
		return decimal{}, false
	}
	mantissa := new(big.Float)
	exp := x.MantExp(mantissa)
	// mantissa is in [0.5,1) and has at most as many bits as its precision.
	shift := int(mantissa.MinPrec())
	unscaled, _ := mantissa.SetMantExp(mantissa, shift).Int(nil)
	exp -= shift
	if exp >= 0 {
		return decimal{unscaled.Lsh(unscaled, uint(exp)), 0}, true
	}
	// m * 2^-e == m * 5^e * 10^-e
	return decimal{unscaled.Mul(unscaled, pow(5, -exp)), exp}, true
}

func pow(base int64, n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(n)), nil)
}

// aligned returns the unscaled values of two decimals for the smaller exponent.
func aligned(d, e decimal) (x, y *big.Int, exp int) {
	exp = min(d.exp, e.exp)
	return new(big.Int).Mul(d.unscaled, pow(10, d.exp-exp)), new(big.Int).Mul(e.unscaled, pow(10, e.exp-exp)), exp
}

func (d decimal) sign() int    { return d.unscaled.Sign() }
func (d decimal) neg() decimal { return decimal{new(big.Int).Neg(d.unscaled), d.exp} }

func (d decimal) cmp(e decimal) int {
	x, y, _ := aligned(d, e)
	return x.Cmp(y)
}

func (d decimal) add(e decimal) decimal {
	x, y, exp := aligned(d, e)
	return decimal{x.Add(x, y), exp}
}

// round returns d with at most 28 digits, half to even.
func (d decimal) round() decimal {
	excess := len(new(big.Int).Abs(d.unscaled).String()) - decimalDigits
	if excess <= 0 {
		return d
	}
	unit := pow(10, excess)
	quotient, remainder := new(big.Int).QuoRem(new(big.Int).Abs(d.unscaled), unit, new(big.Int))
	half := remainder.Lsh(remainder, 1).Cmp(unit)
	if half > 0 || half == 0 && quotient.Bit(0) == 1 {
		quotient.Add(quotient, big.NewInt(1))
	}
	if d.sign() < 0 {
		quotient.Neg(quotient)
	}
	return decimal{quotient, d.exp + excess}.round()
}

// value returns d as a float or, if it is one, as an integer.
func (d decimal) value(isFloat bool) any {
	if isFloat {
		// Correctly rounded; a decimal that came from floats is in range.
		f, _ := strconv.ParseFloat(d.unscaled.String()+"e"+strconv.Itoa(d.exp), 64)
		return f
	}
	return smallest(new(big.Int).Mul(d.unscaled, pow(10, d.exp)))
}
