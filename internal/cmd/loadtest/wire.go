package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// wireKind is something that comes over a connection as no HTTP client of Go's
// would send it.
type wireKind struct {
	name, text string
	status     int
	code       string
}

const wireBody = `{"post": "hello", "criterion": "c"}`

// posted is a request to /v1/predict with these headers, each with its line end.
func posted(headers, body string) string {
	return fmt.Sprintf("POST /v1/predict HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)
}

func chunked(headers string) string {
	return fmt.Sprintf("POST /v1/predict HTTP/1.1\r\nHost: x\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
		headers, len(wireBody), wireBody)
}

func lines(requestLine string, headers ...string) string {
	return requestLine + "\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

var wireKinds = []wireKind{
	{"chunked", chunked(""), 200, ""},
	{"both lengths", chunked("Content-Length: 5\r\n"), 400, "invalid_http"},
	{"folded header", posted("X: a\r\n b\r\n", wireBody), 400, "invalid_http"},
	{"no HTTP", "hello\r\n\r\n", 400, "invalid_http"},
	{"no host", lines("GET /healthz HTTP/1.1"), 400, "invalid_http"},
	{"version", lines("GET /healthz HTTP/4.2", "Host: x"), 505, "unsupported_http_version"},
	{"large headers", lines("GET /healthz HTTP/1.1", "Host: x", "X: "+strings.Repeat("x", 30<<10)), 431, "headers_too_large"},
	{"transfer encoding", lines("POST /v1/predict HTTP/1.1", "Host: x", "Transfer-Encoding: br"), 501, "unsupported_transfer_encoding"},
	{"expectation", posted("Expect: wonders\r\n", wireBody), 417, "expectation_failed"},
	{"path with two slashes", lines("GET //healthz HTTP/1.1", "Host: x"), 404, "not_found"},
	{"path with dots", lines("GET /v1/../healthz HTTP/1.1", "Host: x"), 404, "not_found"},
	{"options of all", lines("OPTIONS * HTTP/1.1", "Host: x"), 404, "not_found"},
	{"method of metrics", lines("POST /metrics HTTP/1.1", "Host: x", "Content-Length: 0"), 405, "method_not_allowed"},
	{"gzip", posted("Content-Encoding: gzip\r\n", "\x1f\x8b\x08"), 415, "unsupported_media_type"},
	{"charset", posted("Content-Type: application/json; charset=utf-16\r\n", wireBody), 415, "unsupported_media_type"},
	{"lone surrogate", posted("", `{"post": "\ud800", "criterion": "c"}`), 400, "invalid_utf8"},
	{"same key twice", posted("", `{"post": "a", "post": "b", "criterion": "c"}`), 400, "invalid_request"},
	{"key in another case", posted("", `{"POST": "a", "criterion": "c"}`), 400, "invalid_request"},
	{"wrong type", posted("", `{"post": {}, "criterion": "c"}`), 400, "invalid_request"},
	{"deep", posted("", strings.Repeat("[", 200_000)), 400, "invalid_request"},
}

// wire sends all that there is, each over a connection of its own, until ctx
// ends.
func wire(ctx context.Context, random *rand.Rand, address string, counts *counts) {
	for ctx.Err() == nil {
		k := wireKinds[random.IntN(len(wireKinds))]
		status, text, err := sendRaw(address, k.text)
		if err != nil {
			counts.fault(fmt.Errorf("%s: %w", k.name, err))
			continue
		}
		counts.add(k.name, fmt.Sprint(status))
		var answer struct{ Error struct{ Code string } }
		if err := typed(status, text); err != nil {
			counts.fault(fmt.Errorf("%s: %w", k.name, err))
			continue
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			counts.fault(fmt.Errorf("%s: %w", k.name, err))
			continue
		}
		busy := status == http.StatusTooManyRequests && k.status == http.StatusOK
		if !busy && (status != k.status || answer.Error.Code != k.code) {
			counts.fault(fmt.Errorf("%s: status %d, want %d with %q: %s", k.name, status, k.status, k.code, text))
		}
	}
}

// sendRaw sends bytes over a new connection and returns the first answer.
func sendRaw(address, text string) (status int, body []byte, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, nil, err
	}
	if _, err := io.WriteString(conn, text); err != nil && !isReset(err) {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}
