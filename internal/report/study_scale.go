package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
)

// scale places values between 0 and 1.
type scale struct {
	lo, hi float64
	log    bool
	whole  bool     // nothing is between 1 and 2
	labels []string // of choices, evenly spaced; lo and hi are then unused
}

// newScale spans some finite values.
func newScale(values []float64) scale {
	return scale{lo: slices.Min(values), hi: slices.Max(values)}
}

// paramScale is the scale of a parameter's axis.
func paramScale(p Param, trials []Trial) (scale, error) {
	s := scale{lo: p.Low, hi: p.High, log: p.Log}
	if len(p.Choices) > 0 {
		for _, c := range p.Choices {
			s.labels = append(s.labels, choice(c))
		}
		for _, t := range trials {
			if v, ok := t.Params[p.Name]; ok && !slices.Contains(s.labels, choice(v)) {
				s.labels = append(s.labels, choice(v)) // the choices have changed since
			}
		}
		return s, nil
	}
	var values []float64
	for _, t := range trials {
		v, ok := t.Params[p.Name]
		if !ok {
			continue
		}
		x, ok := toFloat(v)
		switch {
		case !ok:
			return s, fmt.Errorf("report: parameter %s of trial %d is %v, want a number", p.Name, t.Number, v)
		case p.Log && x <= 0:
			return s, fmt.Errorf("report: parameter %s of trial %d is %v, want a positive number for a logarithmic axis", p.Name, t.Number, v)
		case finite(x):
			values = append(values, x)
		}
	}
	if p.Low < p.High {
		values = append(values, p.Low, p.High) // a trial may come from before the range was narrowed
	}
	if len(values) == 0 {
		values = []float64{p.Low}
	}
	s.lo, s.hi = slices.Min(values), slices.Max(values)
	s.whole = !slices.ContainsFunc(values, func(x float64) bool { return x != math.Trunc(x) })
	if s.log && s.lo <= 0 {
		return s, fmt.Errorf("report: parameter %s has a logarithmic axis from %v, want a positive bound", p.Name, s.lo)
	}
	return s, nil
}

// pad widens a linear scale on both sides by a share of its span.
func (s *scale) pad(share float64) {
	margin := (s.hi - s.lo) * share
	if margin == 0 {
		margin = math.Max(math.Abs(s.lo)*0.05, 0.01)
	}
	s.lo, s.hi = s.lo-margin, s.hi+margin
}

// at returns where a value is. It is nowhere if there is none.
func (s scale) at(v any) (float64, bool) {
	if len(s.labels) > 0 {
		i := slices.Index(s.labels, choice(v))
		if i < 0 {
			return 0, false
		}
		return s.position(i), true
	}
	x, ok := toFloat(v)
	if !ok || !finite(x) {
		return 0, false
	}
	return s.place(x), true
}

func (s scale) position(i int) float64 {
	if len(s.labels) == 1 {
		return 0.5
	}
	return float64(i) / float64(len(s.labels)-1)
}

func (s scale) place(x float64) float64 {
	if s.lo == s.hi {
		return 0.5
	}
	if s.log {
		return math.Log(x/s.lo) / math.Log(s.hi/s.lo)
	}
	return (x - s.lo) / (s.hi - s.lo)
}

// mark is a tick of a scale.
type mark struct {
	value, at float64
	label     string
}

// ticks returns at most about n marks at round numbers, or all choices.
func (s scale) ticks(n int) []mark {
	var marks []mark
	for i, label := range s.labels {
		marks = append(marks, mark{value: float64(i), at: s.position(i), label: label})
	}
	if marks != nil {
		return marks
	}
	add := func(x float64) {
		marks = append(marks, mark{value: x, at: s.place(x), label: number(x, 4)})
	}
	switch {
	case s.lo == s.hi:
		add(s.lo)
	case s.log:
		// As many numbers that begin with one of these digits as there is room for.
		first, last := math.Floor(math.Log10(s.lo)), math.Ceil(math.Log10(s.hi))
		for _, leads := range [][]int{{1, 2, 5}, {1, 3}, {1}} {
			marks = nil
			every := 1.0
			if len(leads) == 1 {
				every = math.Max(1, math.Ceil((last-first)/float64(n)))
			}
			for e := first; e <= last; e += every {
				for _, lead := range leads {
					if x, err := strconv.ParseFloat(fmt.Sprintf("%de%.0f", lead, e), 64); err == nil && x >= s.lo*(1-1e-9) && x <= s.hi*(1+1e-9) {
						add(x)
					}
				}
			}
			if len(marks) <= n {
				break
			}
		}
		if len(marks) < 2 { // less than from one round number to the next
			marks = nil
			add(s.lo)
			add(s.hi)
		}
	default:
		step := roundStep((s.hi - s.lo) / float64(n))
		if s.whole {
			step = wholeStep((s.hi - s.lo) / float64(n))
		}
		decimals := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
		if lead := step * math.Pow(10, float64(decimals)); lead > 2.4 && lead < 2.6 {
			decimals++ // 0.025
		}
		for k := math.Ceil(s.lo/step - 1e-9); k*step <= s.hi+step*1e-9; k++ {
			x := k * step
			if math.Abs(x) < step*1e-9 {
				x = 0
			}
			add(x)
			if decimals <= 4 && math.Abs(x) < 1e5 {
				marks[len(marks)-1].label = strconv.FormatFloat(x, 'f', decimals, 64) // 0.90 beside 0.85
			}
		}
	}
	return marks
}

// plotTicks are the ticks for an axis of gonum, at their positions or values.
func (s scale) plotTicks(n int, positions bool) []plot.Tick {
	var ticks []plot.Tick
	for _, m := range s.ticks(n) {
		at := m.value
		if positions {
			at = m.at
		}
		ticks = append(ticks, plot.Tick{Value: at, Label: m.label})
	}
	return ticks
}

// roundStep is the smallest of 1, 2, 2.5 and 5 times a power of ten that is not
// below x.
func roundStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, lead := range []float64{1, 2, 2.5, 5} {
		if lead*power >= x*(1-1e-9) {
			return lead * power
		}
	}
	return 10 * power
}

// wholeStep is the smallest of 1, 2 and 5 times a power of ten, and a whole
// number, that is not below x.
func wholeStep(x float64) float64 {
	for power := 1.0; ; power *= 10 {
		for _, lead := range []float64{1, 2, 5} {
			if lead*power >= x*(1-1e-9) {
				return lead * power
			}
		}
	}
}

// number prints a number with few digits, the same in all pictures.
func number(x float64, digits int) string {
	if a := math.Abs(x); a != 0 && (a < 1e-3 || a >= 1e6) {
		return trimExponent(strconv.FormatFloat(x, 'e', -1, 64), x, digits)
	}
	return strconv.FormatFloat(round(x, digits), 'g', -1, 64)
}

// trimExponent writes 1e-6 for 1e-06, with at most some digits.
func trimExponent(s string, x float64, digits int) string {
	if len(s) > digits+4 {
		s = strconv.FormatFloat(x, 'e', digits-2, 64)
	}
	mantissa, exponent := s[:len(s)-4], s[len(s)-4:] // e-06; three digits stay as they are
	if exponent[0] == 'e' && exponent[2] == '0' {
		return mantissa + exponent[:2] + exponent[3:]
	}
	return s
}

// round keeps significant digits of the fraction; whole parts stay whole.
func round(x float64, digits int) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'f', digits, 64), 64)
	if err != nil {
		return x
	}
	return y
}

// choice is how a choice is written on an axis: 16 and 16.0 are one.
func choice(v any) string {
	if x, ok := toFloat(v); ok {
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	if v == nil {
		return "none"
	}
	return fmt.Sprint(v)
}

func toFloat(v any) (float64, bool) {
	switch x := v.(type) {
	case float64:
		return x, true
	case float32:
		return float64(x), true
	case int:
		return float64(x), true
	case int64:
		return float64(x), true
	}
	return 0, false
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
