package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/criteria-go/criteria"
)

// Error is an answer that says what is wrong. docs/serving.md lists the codes.
type Error struct {
	Status  int    `json:"-"`    // of HTTP
	Code    string `json:"code"` // for programs, e.g. too_many_pairs
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// errorBody is how an error looks in an answer.
type errorBody struct {
	Error *Error `json:"error"`
}

// StatusClientClosed is logged when the client has gone, as nginx does; nobody
// receives it.
const StatusClientClosed = 499

// publicError says what a client may know of an error.
func (s *Server) publicError(ctx context.Context, err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case ctx.Err() != nil:
		return &Error{StatusClientClosed, "client_closed_request", "the client has gone"}
	case errors.Is(err, criteria.ErrOverloaded):
		return &Error{http.StatusTooManyRequests, "overloaded", "too many requests are waiting; try again later"}
	case errors.Is(err, criteria.ErrClosed):
		return &Error{http.StatusServiceUnavailable, "closing", "the server is about to end"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{http.StatusServiceUnavailable, "timeout",
			fmt.Sprintf("no answer within %v; try again later or ask for less", s.limits.Timeout)}
	}
	return &Error{http.StatusInternalServerError, "internal", "the server could not compute an answer; its log says why"}
}

func invalid(format string, args ...any) *Error {
	return &Error{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}

func invalidJSON(format string, args ...any) *Error {
	return &Error{http.StatusBadRequest, "invalid_json", fmt.Sprintf(format, args...)}
}

func tooLarge(code, format string, args ...any) *Error {
	return &Error{http.StatusRequestEntityTooLarge, code, fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) *Error {
	return &Error{http.StatusUnsupportedMediaType, "unsupported_media_type", fmt.Sprintf(format, args...)}
}

// ofProtocol are the errors of requests that net/http refuses on its own, by
// their status.
var ofProtocol = map[int]*Error{
	http.StatusBadRequest: {http.StatusBadRequest, "invalid_http", "what came is no request of HTTP/1.1"},
	http.StatusExpectationFailed: {http.StatusExpectationFailed, "expectation_failed",
		"of the values of Expect only 100-continue is known"},
	http.StatusRequestHeaderFieldsTooLarge: {http.StatusRequestHeaderFieldsTooLarge, "headers_too_large",
		fmt.Sprintf("want at most %d bytes of headers", maxHeaderBytes)},
	http.StatusNotImplemented: {http.StatusNotImplemented, "unsupported_transfer_encoding",
		"of the transfer encodings only chunked is known"},
	http.StatusHTTPVersionNotSupported: {http.StatusHTTPVersionNotSupported, "unsupported_http_version", "want HTTP/1.1"},
}
