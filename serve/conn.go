package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// listener accepts connections on which errors have one form.
type listener struct {
	net.Listener
	server *Server
}

// Accept implements [net.Listener].
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, server: l.server}, nil
}

// conn is a connection to a client. net/http answers requests that it cannot
// read by itself, in plain text; here these answers become errors as all others
// are. It also follows where requests end, see [framing].
type conn struct {
	net.Conn
	server  *Server
	framing framing
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// ambiguous reports whether a request, whose handler begins, left open where it
// ends. It is called once for each request.
func ambiguous(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(*conn)
	return ok && c.framing.next()
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.framing.read(b[:n])
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (int, error) {
	e := ownAnswer(b)
	if e == nil {
		return c.Conn.Write(b)
	}
	c.server.report(context.Background(), request{path: "other", remote: c.RemoteAddr().String(), code: e.Status, err: e})
	if _, err := c.Conn.Write(e.raw()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// CloseWrite tells the client that no more will come. net/http does so before it
// closes a connection on which a request is still arriving.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// What net/http writes when it refuses a request, each in one piece. A handler
// writes more headers than these.
var (
	statusPrefix = []byte("HTTP/1.1 ")
	plainHeaders = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")
)

// ownAnswer returns the error to send in the place of an answer that net/http
// made up, or nil if b is none.
func ownAnswer(b []byte) *Error {
	rest, ok := bytes.CutPrefix(b, statusPrefix)
	if !ok || len(rest) < 3 {
		return nil
	}
	code, err := strconv.Atoi(string(rest[:3]))
	if err != nil {
		return nil
	}
	line := bytes.IndexByte(rest, '\r')
	if code != http.StatusExpectationFailed && (line < 0 || !bytes.HasPrefix(rest[line:], plainHeaders)) {
		return nil
	}
	if e, ok := ofProtocol[code]; ok {
		return e
	}
	return ofProtocol[http.StatusBadRequest]
}

// raw returns the whole answer of an error, after which the connection is closed.
func (e *Error) raw() []byte {
	body, err := json.Marshal(errorBody{e})
	if err != nil {
		panic(err) // strings can be marshalled
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n"+
		"Date: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		e.Status, http.StatusText(e.Status), time.Now().UTC().Format(http.TimeFormat), len(body)+1, body)
}
