package httpserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/http1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// tape is a connection whose client has sent everything in advance.
type tape struct {
	in  io.Reader
	out bytes.Buffer
}

func (c *tape) Read(p []byte) (int, error)         { return c.in.Read(p) }
func (c *tape) Write(p []byte) (int, error)        { return c.out.Write(p) }
func (c *tape) Close() error                       { return nil }
func (c *tape) LocalAddr() net.Addr                { return &net.TCPAddr{} }
func (c *tape) RemoteAddr() net.Addr               { return &net.TCPAddr{} }
func (c *tape) SetDeadline(time.Time) error        { return nil }
func (c *tape) SetReadDeadline(time.Time) error    { return nil }
func (c *tape) SetWriteDeadline(t time.Time) error { return nil }

func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
}

func post(body string, fields ...string) string {
	return "POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, ""), "\r\n") +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

// newServer returns a server of the dataset "blobs", and of more.
func newServer(tb testing.TB, more ...api.Served) *Server {
	d, err := cache.New(cache.Config{Name: "blobs", Policy: kv.DefaultPolicy(), MaxBytes: 16 << 20,
		Origin: origintest.New(map[string]string{"a": "1", "x/y": "slash"})})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	config := api.Config{MaxHeaderBytes: 5000, MaxBodyBytes: 30_000, Budget: budget.New(256 << 10)}
	backend := api.NewBackend(context.Background(), config, api.NewCatalog(append(more, api.Served{Dataset: d})...))
	handler := httpapi.New(backend, watch.NewEngine(backend), httpapi.Options{Stats: &backend.Stats().HTTP})
	return New(context.Background(), handler, caller.Of)
}

// FuzzServer sends any bytes to the server: each request gets a valid HTTP response, or the connection ends; nothing
// panics.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		get("/v1/blobs/a") + get("/v1/blobs/x/y"), strings.Replace(get("/openapi.json"), "GET", "HEAD", 1) + get("/"),
		post(`{"keys":["a","none"]}`, "Expect: 100-continue"), "GET / HTTP/1.0\r\n\r\n",
		"POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"4\r\n{\"ke\r\n7\r\nys\":[]}\r\n0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n", "GET", "\x16\x03\x01",
		get("/v1/blobs/a", "Cache-Control: no-cache", "If-None-Match: *", "Connection: upgrade", "Upgrade: h2c"),
		post("--x\r\n\r\n--x--", "Content-Type: multipart/form-data; boundary=x"),
		get("http://localhost/%zz?x#y"), "GET /a b HTTP/1.1\r\nHost:\r\n\r\n",
		get("/v1/blobs/a", "X: "+strings.Repeat("x", 4500)) + get("/"), post(strings.Repeat(" ", 20_000)),
		get("/v1/blobs/a", "Content-Length: 5") + "hello", post("{}", "Transfer-Encoding: identity"),
		"POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"5;a=b\r\n{\"key\r\n2\r\ns\"\r\n0\r\nX: y\r\n\r\n" + get("/"),
	} {
		f.Add([]byte(s))
	}
	s := newServer(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte(":watch")) {
			t.Skip("the response continues after the server has returned; see FuzzWatchQuery and FuzzEvent")
		}
		conn := &tape{in: bytes.NewReader(raw)}
		s.newConn(conn).serve()
		methods := methodsOf(raw)
		r := bufio.NewReader(&conn.out)
		for n := 0; ; n++ {
			method := "GET" // an unreadable request gets a response as GET does
			if len(methods) > 0 {
				method = methods[0]
			}
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				if !errors.Is(err, io.ErrUnexpectedEOF) || r.Buffered() > 0 {
					t.Fatalf("%q: not HTTP: %v", raw, err)
				}
				if n == 0 && len(raw) > 0 {
					t.Errorf("%q: no response", raw)
				}
				break
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatalf("%q: body: %v", raw, err)
			}
			if resp.StatusCode == http.StatusInternalServerError {
				t.Fatalf("%q: defect", raw)
			}
			if resp.StatusCode != http.StatusContinue && len(methods) > 0 {
				methods = methods[1:]
			}
		}
		for _, u := range s.config.Budget.Stats() {
			if u.Used != 0 {
				t.Errorf("%q: %d bytes for %v are still taken after the connection has ended", raw, u.Used, u.Use)
			}
		}
	})
}

// methodsOf returns the methods of the requests that can be read one after another.
func methodsOf(raw []byte) (methods []string) {
	r := http1.NewReader(bytes.NewReader(raw), http1.Limits{Head: 5000, Buffer: 5000})
	for {
		var h http1.Head
		if r.ReadHead(&h) != nil {
			return methods
		}
		methods = append(methods, strings.Clone(h.Method))
		content := r.Content(&h)
		if _, err := io.Copy(io.Discard, &content); err != nil {
			return methods
		}
		r.Release()
	}
}

// countedWrites is a tape that counts the writes to it.
type countedWrites struct {
	tape
	n int
}

func (c *countedWrites) Write(p []byte) (int, error) {
	c.n++
	return c.tape.Write(p)
}

// Responses to requests that have arrived together leave with one write, as far as the budget has memory for them.
func TestPipelinedResponsesLeaveTogether(t *testing.T) {
	s := newServer(t)
	const n = 40
	serve := func() (writes int) {
		c := &countedWrites{tape: tape{in: strings.NewReader(strings.Repeat(get("/v1/blobs/a"), n))}}
		s.newConn(c).serve()
		if got := strings.Count(c.out.String(), "HTTP/1.1 200 OK\r\n"); got != n {
			t.Errorf("got %d responses, want %d", got, n)
		}
		if used := s.config.Budget.Stats()[budget.Responses].Used; used != 0 {
			t.Errorf("%d bytes are still taken", used)
		}
		return c.n
	}
	if writes := serve(); writes != 1 {
		t.Errorf("got %d writes, want 1", writes)
	}
	taken := s.config.Budget.Loan(budget.Responses)
	taken.Grow(s.config.Budget.Limit(budget.Responses) - wideBytes + 1)
	c := &countedWrites{tape: tape{in: strings.NewReader(strings.Repeat(get("/v1/blobs/a"), n))}}
	s.newConn(c).serve()
	if got := strings.Count(c.out.String(), "HTTP/1.1 200 OK\r\n"); got != n || c.n == 1 {
		t.Errorf("without memory: got %d responses in %d writes, want %d in several", got, c.n, n)
	}
	taken.Close()
}
