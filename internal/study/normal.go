package study

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// normalCDF is Φ(z).
func normalCDF(z float64) float64 { return 0.5 * math.Erfc(-z/math.Sqrt2) }

// logNormalCDF is log Φ(z), exact also where Φ itself is 0 in float64.
func logNormalCDF(z float64) float64 {
	switch {
	case z > 0:
		return math.Log1p(-normalCDF(-z))
	case z > -30:
		return math.Log(normalCDF(z))
	}
	// The asymptotic series of Mills' ratio (Abramowitz & Stegun 26.2.12); the
	// first term left out is below 1e-12 here.
	y := 1 / (z * z)
	series := -y * (1 - 3*y*(1-5*y*(1-7*y)))
	return -z*z/2 - math.Log(-z) - math.Log(2*math.Pi)/2 + math.Log1p(series)
}

// logNormalMass is log(Φ(b) − Φ(a)), for a < b.
func logNormalMass(a, b float64) float64 {
	switch {
	case a > 0: // the left tail has the digits
		return logNormalMass(-b, -a)
	case b > 0:
		return math.Log1p(-normalCDF(a) - normalCDF(-b))
	}
	upper, lower := logNormalCDF(b), logNormalCDF(a)
	return upper + math.Log1p(-math.Exp(lower-upper))
}

// truncatedNormal returns the quantile u of the standard normal distribution
// cut to a ≤ z ≤ b.
func truncatedNormal(u, a, b float64) float64 {
	if a > 0 {
		return -truncatedNormal(1-u, -b, -a)
	}
	below := normalCDF(a)
	z := mathext.NormalQuantile(below + u*(normalCDF(b)-below))
	return min(max(z, a), b)
}
