package hydra

import (
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// The types of plain YAML scalars by YAML 1.1, https://yaml.org/type/, in the
// form of PyYAML's resolver.
var (
	boolScalar  = regexp.MustCompile(`^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$`)
	nullScalar  = regexp.MustCompile(`^(?:~|null|Null|NULL|)$`)
	intScalar   = regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	floatScalar = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?` +
		`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
	timestampScalar = regexp.MustCompile(`^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)` +
		`[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?)$`)

	// omegaFloatScalar is what OmegaConf reads as a float in addition: the
	// scientific notation of YAML 1.2, so that 1e-5 is a number.
	omegaFloatScalar = regexp.MustCompile(`^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?` +
		`|[-+]?[0-9]+(?:_[0-9]+)*[eE][-+]?[0-9]+)$`)
)

// The tags a plain scalar can resolve to, in their short form.
const (
	tagNull      = "!!null"
	tagBool      = "!!bool"
	tagInt       = "!!int"
	tagFloat     = "!!float"
	tagStr       = "!!str"
	tagBinary    = "!!binary"
	tagTimestamp = "!!timestamp"
	tagMerge     = "!!merge"
	tagValue     = "!!value"
	tagSeq       = "!!seq"
	tagMap       = "!!map"
	tagSet       = "!!set"
	tagOmap      = "!!omap"
	tagPairs     = "!!pairs"
)

// readTag returns the tag of a plain scalar in a file: YAML 1.1 without
// timestamps and with OmegaConf's floats.
func readTag(s string) string {
	tag := writeTag(s)
	switch {
	case tag == tagTimestamp:
		return tagStr
	case tag == tagStr && omegaFloatScalar.MatchString(s):
		return tagFloat
	}
	return tag
}

// writeTag returns the tag that PyYAML's own resolver gives a plain scalar. It
// decides, when writing, whether a string must be quoted to stay one.
func writeTag(s string) string {
	switch {
	case boolScalar.MatchString(s):
		return tagBool
	case floatScalar.MatchString(s):
		return tagFloat
	case intScalar.MatchString(s):
		return tagInt
	case s == "<<":
		return tagMerge
	case nullScalar.MatchString(s):
		return tagNull
	case timestampScalar.MatchString(s):
		return tagTimestamp
	case s == "=":
		return tagValue
	}
	return tagStr
}

// parseScalar returns the value of a scalar of the given tag. A scalar that is
// tagged by hand need not have the form of its type.
func parseScalar(tag, s string) (any, *Error) {
	switch tag {
	case tagStr:
		return s, nil
	case tagNull:
		return nil, nil
	case tagBool:
		switch strings.ToLower(s) {
		case "yes", "true", "on":
			return true, nil
		case "no", "false", "off":
			return false, nil
		}
		return nil, errorf(KindLookup, "%s", strRepr(strings.ToLower(s)))
	case tagInt:
		return parseYAMLInt(s)
	case tagFloat:
		return parseYAMLFloat(s)
	}
	return nil, errorf(KindYAML, "could not determine a constructor for the tag '%s'", longTag(tag))
}

// parseYAMLInt reads an integer: decimal, 0b binary, 0 octal, 0x hexadecimal or
// base 60 as in 1:30:00.
func parseYAMLInt(s string) (any, *Error) {
	digits := strings.ReplaceAll(s, "_", "")
	negative := strings.HasPrefix(digits, "-")
	if negative || strings.HasPrefix(digits, "+") {
		digits = digits[1:]
	}
	if len(digits) > maxDigits {
		return nil, errorf(KindValue, "Exceeds the limit (%d digits) for integer string conversion: value has %d digits",
			maxDigits, len(digits))
	}
	base, text := 10, digits
	switch {
	case strings.HasPrefix(digits, "0b"):
		base, text = 2, digits[2:]
	case strings.HasPrefix(digits, "0x"):
		base, text = 16, digits[2:]
	case len(digits) > 1 && digits[0] == '0':
		base = 8
	}
	value := new(big.Int)
	for part := range strings.SplitSeq(text, ":") {
		digit, err := bigInt(part, base)
		if err != nil {
			return nil, err
		}
		value.Mul(value, big.NewInt(60)).Add(value, digit)
	}
	if negative {
		value.Neg(value)
	}
	return smallest(value), nil
}

// bigInt parses unsigned digits.
func bigInt(digits string, base int) (*big.Int, *Error) {
	if digits != "" && !strings.ContainsAny(digits[:1], "+-") {
		if i, ok := new(big.Int).SetString(digits, base); ok {
			return i, nil
		}
	}
	return nil, errorf(KindValue, "invalid literal for int() with base %d: %s", base, strRepr(digits))
}

// parseYAMLFloat reads a float: decimal, .inf, .nan or base 60 as in 1:30:00.5.
func parseYAMLFloat(s string) (any, *Error) {
	text := strings.ToLower(strings.ReplaceAll(s, "_", ""))
	sign := 1.0
	if strings.HasPrefix(text, "-") {
		sign = -1
	}
	unsigned := text
	if text != "" && strings.ContainsAny(text[:1], "+-") {
		unsigned = text[1:]
	}
	switch {
	case unsigned == ".inf":
		return sign * math.Inf(1), nil
	case unsigned == ".nan":
		return math.NaN(), nil
	case strings.Contains(unsigned, ":"):
		// The parts are summed from the last one on, as PyYAML does: the order
		// decides the last bit.
		parts := strings.Split(unsigned, ":")
		value, base := 0.0, 1.0
		for i := len(parts) - 1; i >= 0; i-- {
			digit, err := strconv.ParseFloat(parts[i], 64)
			if err != nil {
				return nil, errorf(KindValue, "could not convert string to float: %s", strRepr(parts[i]))
			}
			value += digit * base
			base *= 60
		}
		return sign * value, nil
	}
	f, err := parseFloat(unsigned)
	if err != nil {
		return nil, err
	}
	return sign * f, nil
}

// longTag returns the full form of a short tag.
func longTag(tag string) string {
	if rest, ok := strings.CutPrefix(tag, "!!"); ok {
		return "tag:yaml.org,2002:" + rest
	}
	return tag
}
