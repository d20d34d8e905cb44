package weights

import (
	"fmt"
	"strings"
)

// FormatError reports a weight file that cannot be read, or that does not hold
// what was asked of it.
type FormatError struct {
	Path   string // file or folder
	Found  string // what was found there, and what was wanted if that is not plain
	Remedy string // what the user can do about it
	Err    error  // cause, or nil
}

// Error gives everything on one line: file, finding, cause, remedy.
func (e *FormatError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "checkpoint %s: %s", e.Path, e.Found)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %s", shorten(e.Err.Error()))
	}
	if e.Remedy != "" {
		fmt.Fprintf(&b, "; %s", e.Remedy)
	}
	return b.String()
}

func (e *FormatError) Unwrap() error { return e.Err }

// Remedies that several findings share.
const (
	remedyIncomplete = "the file is incomplete or damaged: copy or download it again"
	remedyResave     = "load it with PyTorch and save model.state_dict() again with safetensors.torch.save_file"
)

// shorten keeps a message that quotes foreign bytes on one readable line.
func shorten(s string) string {
	const limit = 240
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// quote is strconv.Quote for a name out of a file, cut to a readable length.
func quote(name string) string { return fmt.Sprintf("%q", shorten(name)) }
