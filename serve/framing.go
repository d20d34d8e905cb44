package serve

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
)

// framing follows the requests on a connection, to find those that leave open
// where they end: with both Content-Length and Transfer-Encoding, or with
// headers of several lines. net/http believes one reading and does not tell; a
// proxy before it may believe the other, and then the two see different requests
// (request smuggling; RFC 9112, 6.1 and 5.2). What net/http refuses anyway need
// not be found here: it closes the connection.
type framing struct {
	mu    sync.Mutex // net/http reads on while a handler runs
	found []bool     // whether requests are ambiguous whose handlers have not begun, oldest first

	line  []byte // the current one, so far
	skip  int64  // bytes of a body that are still to come
	phase phase
	lost  bool // whether it is not known any more where requests begin

	// Of the request whose headers are being read.
	old, folded        bool // HTTP/1.0, headers of several lines
	hasLength, hasCode bool // Content-Length, Transfer-Encoding
	length             int64
}

// phase is what the next line of a connection is.
type phase int

const (
	requestLine phase = iota
	header
	chunkSize
	chunkEnd
	trailer
)

// maxLine is beyond what net/http accepts of a line.
const maxLine = 64 << 10

// read takes notice of what came over the connection.
func (f *framing) read(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(b) > 0 && !f.lost {
		if f.skip > 0 {
			n := min(f.skip, int64(len(b)))
			f.skip -= n
			b = b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			f.line = append(f.line, b...)
			f.lost = len(f.line) > maxLine
			return
		}
		line := string(bytes.TrimSuffix(append(f.line, b[:end]...), []byte("\r")))
		f.line, b = f.line[:0], b[end+1:]
		f.take(line)
	}
}

// next reports whether the oldest request whose handler has not begun is
// ambiguous.
func (f *framing) next() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.found) == 0 {
		return f.lost
	}
	ambiguous := f.found[0]
	f.found = f.found[1:]
	return ambiguous
}

func (f *framing) take(line string) {
	switch f.phase {
	case requestLine:
		if line != "" { // net/http skips empty lines between requests
			f.phase = header
			f.old = strings.HasSuffix(line, "HTTP/1.0")
			f.folded, f.hasLength, f.hasCode, f.length = false, false, false, 0
		}
	case header:
		if line == "" {
			f.endHeaders()
			return
		}
		f.takeHeader(line)
	case chunkSize:
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 16, 64)
		switch {
		case err != nil || n < 0:
			f.lost = true
		case n == 0:
			f.phase = trailer
		default:
			f.phase, f.skip = chunkEnd, n
		}
	case chunkEnd:
		f.phase, f.lost = chunkSize, line != ""
	case trailer:
		if line == "" {
			f.phase = requestLine
		}
	}
}

func (f *framing) takeHeader(line string) {
	if line[0] == ' ' || line[0] == '\t' {
		f.folded = true
		return
	}
	name, value, _ := strings.Cut(line, ":")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "content-length":
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		f.hasLength, f.length, f.lost = true, n, err != nil || n < 0
	case "transfer-encoding":
		f.hasCode = true
	}
}

func (f *framing) endHeaders() {
	f.found = append(f.found, f.folded || f.hasCode && (f.hasLength || f.old))
	if f.hasCode {
		f.phase = chunkSize
		return
	}
	f.phase, f.skip = requestLine, f.length
}
