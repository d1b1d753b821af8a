package httpserver_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// strictCases are requests that two servers could understand differently, with the status that each listener answers. routed
// is that of net/http where it differs: it reads some of what RFC 9112, 2.2, 5.2 and 6.3 let a server read, each as one request.
var strictCases = []struct {
	name, request  string
	status, routed int
}{
	{"Transfer-Encoding: identity", batchWith("Transfer-Encoding: identity"), 400, 501},
	{"an unknown coding", batchWith("Transfer-Encoding: gzip, chunked"), 400, 501},
	{"chunked twice in a line", batchWith("Transfer-Encoding: chunked, chunked"), 400, 501},
	{"chunked in two lines", batchWith("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400, 501},
	{"a coding without a value", batchWith("Transfer-Encoding:"), 400, 501},
	{"a tab before the coding's name ends", batchWith("Transfer-Encoding\t: chunked"), 400, 400},
	{"both framings", batchWith("Content-Length: 5\r\nTransfer-Encoding: chunked") + oneChunk, 400, 200},
	{"both framings in the other order", batchWith("Transfer-Encoding: chunked\r\nContent-Length: 5") + oneChunk, 400, 200},
	{"a coding in HTTP/1.0", "POST /v1/blobs:batchGet HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 400},
	{"two lengths", batchWith("Content-Length: 5\r\nContent-Length: 6"), 400, 400},
	{"the same length twice", batchWith("Content-Length: 14\r\nContent-Length: 14") + `{"keys":["a"]}`, 400, 200},
	{"a list of lengths", batchWith("Content-Length: 2, 2") + "{}", 400, 400},
	{"a length with a plus sign", batchWith("Content-Length: +2") + "{}", 400, 400},
	{"a negative length", batchWith("Content-Length: -2"), 400, 400},
	{"a length with a space", batchWith("Content-Length: 2 2"), 400, 400},
	{"a hexadecimal length", batchWith("Content-Length: 0x2"), 400, 400},
	{"a length that overflows", batchWith("Content-Length: 99999999999999999999"), 400, 400},
	{"an empty length", batchWith("Content-Length:"), 400, 400},
	{"a space before the colon", getWith("X : y"), 400, 400},
	{"a space in a name", getWith("X y: z"), 400, 400},
	{"a control character in a name", getWith("X\x01y: z"), 400, 400},
	{"an empty name", getWith(": z"), 400, 400},
	{"a line without a colon", getWith("X"), 400, 400},
	{"a folded line", getWith("X: y\r\n z"), 400, 200},
	{"a folded line first", "GET /v1/blobs/a HTTP/1.1\r\n Host: localhost\r\n\r\n", 400, 400},
	{"NUL in a value", getWith("X: a\x00b"), 400, 400},
	{"CR in a value", getWith("X: a\rb"), 400, 400},
	{"DEL in a value", getWith("X: a\x7fb"), 400, 400},
	{"bare LF after the request line", "GET /v1/blobs/a HTTP/1.1\nHost: localhost\r\n\r\n", 400, 200},
	{"bare LF after a field", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\n\r\n", 400, 200},
	{"bare LF at the end", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\n", 400, 200},
	{"bare CR as line end", "GET /v1/blobs/a HTTP/1.1\rHost: localhost\r\r\n\r\n", 400, 400},
	{"no Host", "GET /v1/blobs/a HTTP/1.1\r\n\r\n", 400, 400},
	{"two Hosts", getWith("Host: localhost"), 400, 400},
	{"a Host with a space", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost evil\r\n\r\n", 400, 400},
	{"two spaces before the target", "GET  /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 400},
	{"two spaces after the target", "GET /v1/blobs/a  HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 400},
	{"a tab in the request line", "GET\t/v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 400},
	{"a space at the end of the request line", "GET /v1/blobs/a HTTP/1.1 \r\nHost: localhost\r\n\r\n", 400, 400},
	{"HTTP/0.9", "GET /v1/blobs/a\r\n\r\n", 400, 400},
	{"a version that is not one", "GET /v1/blobs/a HTTP/11\r\nHost: localhost\r\n\r\n", 400, 400},
	{"a version in lower case", "GET /v1/blobs/a http/1.1\r\nHost: localhost\r\n\r\n", 400, 400},
	{"a later version", "GET /v1/blobs/a HTTP/3.0\r\nHost: localhost\r\n\r\n", 505, 505},
	{"a relative target", "GET v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, 400},
	{"a space before a chunk extension", chunked("2 ;x\r\n{}\r\n0\r\n\r\n"), 400, 400},
	{"a chunk size with a sign", chunked("+2\r\n{}\r\n0\r\n\r\n"), 400, 400},
	{"a chunk size with a prefix", chunked("0x2\r\n{}\r\n0\r\n\r\n"), 400, 400},
	{"an empty chunk size", chunked("\r\n{}\r\n0\r\n\r\n"), 400, 400},
	{"a chunk size that overflows", chunked("10000000000000002\r\n{}"), 400, 400},
	{"a chunk that is longer than its size", chunked("2\r\n{} \r\n0\r\n\r\n"), 400, 400},
	{"bare LF after a chunk size", chunked("2\n{}\r\n0\r\n\r\n"), 400, 400},
	{"a long chunk extension", chunked("2;" + strings.Repeat("x", 5000) + "\r\n{}\r\n0\r\n\r\n"), 400, 400},
	{"many chunk extensions", chunked(strings.Repeat("1;"+strings.Repeat("x", 240)+"\r\n{\r\n", 200) + "0\r\n\r\n"), 400, 400},
	{"a large trailer section", chunked("2\r\n{}\r\n0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 500)+"\r\n", 100) + "\r\n"), 400, 400},
	{"a malformed trailer", strings.TrimSuffix(chunked(oneChunk), "\r\n") + "X : y\r\n\r\n", 400, 200},
}

const oneChunk = "e\r\n{\"keys\":[\"a\"]}\r\n0\r\n\r\n"

func batchWith(field string) string {
	return "POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\n" + field + "\r\n\r\n"
}

func getWith(field string) string {
	return "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n" + field + "\r\n\r\n"
}

func chunked(content string) string { return batchWith("Transfer-Encoding: chunked") + content }

// Behind each request there is another one, which must not get a response unless the first one was accepted.
func TestStrictHTTP(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	routed := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	for name, l := range map[string][2]string{"http": {"tcp", s.HTTP}, "unix": {"unix", s.Unix}, "routed": {"tcp", routed}} {
		for _, c := range strictCases {
			want := c.status
			if name == "routed" {
				want = c.routed
			}
			conn := localtest.Dial(t, l[0], l[1])
			conn.Send(c.request + localtest.Get("/v1/blobs/x/y", "Connection: close"))
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			resp, body := conn.Response("GET")
			if resp.StatusCode != want {
				t.Errorf("%s: %s: got %d %.200s, want %d", name, c.name, resp.StatusCode, body, want)
			}
			rest, err := io.ReadAll(conn.Reader)
			if errors.Is(err, os.ErrDeadlineExceeded) || want >= 400 && strings.Contains(string(rest), "HTTP/1.1") {
				t.Errorf("%s: %s: got %q, %v after the response, want the end", name, c.name, rest, err)
			}
		}
	}
}
