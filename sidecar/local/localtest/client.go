package localtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// Get returns a GET request with header lines.
func Get(target string, fields ...string) string {
	return request("GET", target, "localhost:7070", "", fields)
}

// Delete returns a DELETE request with header lines.
func Delete(target string, fields ...string) string {
	return request("DELETE", target, "localhost:7070", "", fields)
}

// Post returns a POST request with header lines.
func Post(target, body string, fields ...string) string {
	return request("POST", target, "localhost", body, append(fields, fmt.Sprintf("Content-Length: %d", len(body))))
}

// Put returns a PUT request with header lines.
func Put(target, body string, fields ...string) string {
	return request("PUT", target, "localhost", body, append(fields, fmt.Sprintf("Content-Length: %d", len(body))))
}

func request(method, target, host, body string, fields []string) string {
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: " + host}, fields...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// Conn is a connection on which a test writes HTTP byte by byte.
type Conn struct {
	net.Conn
	Reader *bufio.Reader
	TB     testing.TB
}

// Dial connects to a server.
func Dial(tb testing.TB, network, address string) *Conn {
	tb.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	conn := &Conn{Conn: c, TB: tb}
	conn.Reader = bufio.NewReader(conn)
	return conn
}

// timeout bounds each wait of a test for the server. It does not bound the test, which may take minutes on a busy machine.
const timeout = time.Minute

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// Send writes s.
func (c *Conn) Send(s string) {
	c.TB.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.TB.Fatal(err)
	}
}

// Response reads one response to a request with a method, and its body.
func (c *Conn) Response(method string) (*http.Response, string) {
	c.TB.Helper()
	resp, err := http.ReadResponse(c.Reader, &http.Request{Method: method})
	if err != nil {
		c.TB.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.TB.Fatal(err)
	}
	return resp, string(body)
}

// ExpectClosed fails unless the server has closed the connection and sent nothing more.
func (c *Conn) ExpectClosed() {
	c.TB.Helper()
	if rest, err := io.ReadAll(c.Reader); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.TB.Errorf("the connection is not closed: got %q, %v", rest, err)
	}
}

// CheckProblem fails unless a response is a problem document of a type.
func CheckProblem(tb testing.TB, resp *http.Response, body, name string) {
	tb.Helper()
	if got := resp.Header.Get("Content-Type"); got != apierror.ContentType {
		tb.Errorf("Content-Type %q, want %q", got, apierror.ContentType)
	}
	var p apierror.Problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		tb.Fatalf("%v: %s", err, body)
	}
	if p.Type != apierror.BaseURI+name || p.Status != resp.StatusCode || p.Title == "" || p.Detail == "" {
		tb.Errorf("got %s with status %d, want problem type %s", body, resp.StatusCode, name)
	}
	if strings.Contains(body, "canary-secret") {
		tb.Errorf("the text of an unchecked error is shown: %s", body)
	}
}

// Client returns a gRPC client of the server at an address.
func Client(tb testing.TB, address string) ringsidev1.CacheClient {
	tb.Helper()
	return ringsidev1.NewCacheClient(Connect(tb, address))
}

// Connect returns a gRPC connection to an address. A client that does not read accepts at most 64 KiB: by default the window
// grows with the estimated bandwidth.
func Connect(tb testing.TB, address string) *grpc.ClientConn {
	tb.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// Await waits until a condition that another goroutine changes is true.
func Await(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(timeout); !is(); {
		if time.Now().After(deadline) {
			tb.Fatalf("not true after %v: %s", timeout, what)
		}
		time.Sleep(time.Millisecond)
	}
}
