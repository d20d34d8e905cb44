package hydra

import (
	"errors"
	"fmt"
	"strings"
)

// A Kind is the class of a configuration error, under the name that Hydra,
// OmegaConf or Python give it.
type Kind string

// The kinds of errors. Those of Hydra itself come first, then OmegaConf's, then
// the Python exceptions that Hydra lets through; all YAML errors are one kind.
const (
	KindHydra         Kind = "HydraException"
	KindOverrideParse Kind = "OverrideParseException"
	KindComposition   Kind = "ConfigCompositionException"
	KindMissingConfig Kind = "MissingConfigException"
	KindSearchPath    Kind = "SearchPathException"

	KindAttribute                Kind = "ConfigAttributeError"
	KindKey                      Kind = "ConfigKeyError"
	KindConfigType               Kind = "ConfigTypeError"
	KindIndex                    Kind = "ConfigIndexError"
	KindValidation               Kind = "ValidationError"
	KindKeyValidation            Kind = "KeyValidationError"
	KindUnsupportedValue         Kind = "UnsupportedValueType"
	KindGrammar                  Kind = "GrammarParseError"
	KindMissingValue             Kind = "MissingMandatoryValue"
	KindInterpolation            Kind = "InterpolationResolutionError"
	KindInterpolationKey         Kind = "InterpolationKeyError"
	KindInterpolationMissing     Kind = "InterpolationToMissingValueError"
	KindInterpolationValidation  Kind = "InterpolationValidationError"
	KindUnsupportedInterpolation Kind = "UnsupportedInterpolationType"

	KindValue     Kind = "ValueError"
	KindType      Kind = "TypeError"
	KindAssertion Kind = "AssertionError"
	KindOverflow  Kind = "OverflowError"
	KindLookup    Kind = "KeyError"
	KindOS        Kind = "OSError"
	KindYAML      Kind = "YAMLError"

	// KindUnsupported marks what this package leaves out of Hydra.
	KindUnsupported Kind = "Unsupported"
)

// isHydra tells the errors that Hydra prints without a stack trace.
func (k Kind) isHydra() bool {
	switch k {
	case KindHydra, KindOverrideParse, KindComposition, KindMissingConfig, KindSearchPath:
		return true
	}
	return false
}

// isOmegaConf tells the errors that belong to OmegaConf and thus carry the
// place of the value they are about.
func (k Kind) isOmegaConf() bool {
	switch k {
	case KindAttribute, KindKey, KindConfigType, KindIndex, KindValidation, KindKeyValidation,
		KindUnsupportedValue, KindGrammar, KindMissingValue:
		return true
	}
	return k.isInterpolation()
}

// isInterpolation tells the failures to resolve an interpolation.
func (k Kind) isInterpolation() bool {
	switch k {
	case KindInterpolation, KindInterpolationKey, KindInterpolationMissing, KindInterpolationValidation,
		KindUnsupportedInterpolation:
		return true
	}
	return false
}

// Error is an error in the configuration or on the command line.
type Error struct {
	Kind Kind
	// Msg is the message without that of Cause. It may have several lines.
	Msg string
	// Key is the full key of the value concerned, if there is one.
	Key string
	// At is the place in a file, as in `in "conf/config.yaml", line 3, column 1`,
	// if it is not part of Msg.
	At string
	// Cause is the error that led to this one, or nil.
	Cause error

	// located is set once the place of the value is part of Msg.
	located bool
}

// Error returns the text that Hydra prints: the message and, if the cause is an
// error of OmegaConf, its text on the next line.
func (e *Error) Error() string {
	text := e.Msg
	if e.At != "" {
		text += "\n  " + e.At
	}
	var cause *Error
	if !errors.As(e.Cause, &cause) || !cause.Kind.isOmegaConf() {
		return text
	}
	return strings.TrimPrefix(text+"\n"+cause.Error(), "\n")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func errorf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// asError returns the first *Error in the chain of err; an error from elsewhere
// becomes one of kind ValueError.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: KindValue, Msg: err.Error()}
}
