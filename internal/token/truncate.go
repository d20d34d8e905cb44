package token

import "fmt"

// Truncation says which text gives way when a pair is too long. Tokens are
// cut off at the end.
type Truncation int

// The strategies of transformers.
const (
	LongestFirst  Truncation = iota // cut the longer text, then both
	OnlyFirst                       // cut the first text only
	OnlySecond                      // cut the second text only
	DoNotTruncate                   // keep everything: an encoding may be longer than asked
)

var truncationNames = []string{"longest_first", "only_first", "only_second", "do_not_truncate"}

// String returns the name that [ParseTruncation] reads.
func (t Truncation) String() string {
	if t < 0 || int(t) >= len(truncationNames) {
		return fmt.Sprintf("Truncation(%d)", int(t))
	}
	return truncationNames[t]
}

// ParseTruncation reads longest_first (or true), only_first, only_second,
// do_not_truncate (or false).
func ParseTruncation(s string) (Truncation, error) {
	switch s {
	case "true":
		return LongestFirst, nil
	case "false":
		return DoNotTruncate, nil
	}
	for i, name := range truncationNames {
		if s == name {
			return Truncation(i), nil
		}
	}
	return 0, fmt.Errorf("token: found truncation %q, want longest_first (true), only_first, only_second or do_not_truncate (false)", s)
}

// Padding says how far an encoding is filled up with [PAD].
type Padding int

// The strategies of transformers.
const (
	PadMaxLength Padding = iota // up to the maximum length
	PadLongest                  // up to the longest of the batch: whoever builds the batch does it
	DoNotPad
)

var paddingNames = []string{"max_length", "longest", "do_not_pad"}

// String returns the name that [ParsePadding] reads.
func (p Padding) String() string {
	if p < 0 || int(p) >= len(paddingNames) {
		return fmt.Sprintf("Padding(%d)", int(p))
	}
	return paddingNames[p]
}

// ParsePadding reads max_length, longest (or true), do_not_pad (or false).
func ParsePadding(s string) (Padding, error) {
	switch s {
	case "true":
		return PadLongest, nil
	case "false":
		return DoNotPad, nil
	}
	for i, name := range paddingNames {
		if s == name {
			return Padding(i), nil
		}
	}
	return 0, fmt.Errorf("token: found padding %q, want max_length, longest (true) or do_not_pad (false)", s)
}

// TruncationError says that the text that may be cut is too short to bring
// the pair down to the maximum length.
type TruncationError struct {
	Truncation Truncation
	MaxLength  int
	Lengths    []int // tokens of each text, without special tokens
}

// Error names the lengths and the way out.
func (e *TruncationError) Error() string {
	return fmt.Sprintf("token: sequence to truncate too short to respect max_length %d: found texts of %v tokens with truncation %s; raise max_length or use longest_first",
		e.MaxLength, e.Lengths, e.Truncation)
}

// cut lowers keep, the token counts of one text or two, so that they and their
// special tokens fit into maxLength, and tells whether it had to. The rules
// are those of the Rust library, whose longest_first fills the shorter text
// first and shares what is left evenly, the odd token going to the longer.
func (t Truncation) cut(keep []int, maxLength int) (bool, error) {
	if t == DoNotTruncate {
		return false, nil
	}
	room := maxLength - 1 - len(keep)
	if room < 0 {
		return false, fmt.Errorf("token: found max_length %d, want at least %d: the special tokens alone take that many", maxLength, 1+len(keep))
	}
	total := 0
	for _, n := range keep {
		total += n
	}
	excess := total - room
	if excess <= 0 {
		return false, nil
	}
	tooShort := &TruncationError{Truncation: t, MaxLength: maxLength, Lengths: append([]int(nil), keep...)}
	switch {
	case t == LongestFirst && len(keep) == 1:
		keep[0] = room
	case t == LongestFirst:
		short, long := &keep[0], &keep[1]
		if *short > *long {
			short, long = long, short
		}
		if *short > room {
			*long = *short
		} else {
			*long = max(*short, room-*short)
		}
		if *short+*long > room {
			*short = room / 2
			*long = *short + room%2
		}
	case t == OnlyFirst:
		if keep[0] <= excess {
			return false, tooShort
		}
		keep[0] -= excess
	case t == OnlySecond:
		if len(keep) < 2 || keep[1] <= excess {
			return false, tooShort
		}
		keep[1] -= excess
	default:
		return false, fmt.Errorf("token: found %v, want a strategy of this package", t)
	}
	return true, nil
}
