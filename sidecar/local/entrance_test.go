package local

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/ringside-cache/ringside/origin/origintest"
)

// tape is a connection whose client has said everything in advance.
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

// FuzzEntrance sends any bytes into the server that production uses: each request is answered with valid HTTP, or the
// connection ends; nothing panics.
func FuzzEntrance(f *testing.F) {
	for _, s := range []string{
		get("/v1/blobs/a") + get("/v1/blobs/x/y"), strings.Replace(get("/openapi.json"), "GET", "HEAD", 1) + get("/"),
		post("/v1/blobs:batchGet", `{"keys":["a","none"]}`, "Expect: 100-continue"), "GET / HTTP/1.0\r\n\r\n",
		"POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"4\r\n{\"ke\r\n7\r\nys\":[]}\r\n0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n", "GET", "\x16\x03\x01",
		get("/v1/blobs/a", "Cache-Control: no-cache", "If-None-Match: *", "Connection: upgrade", "Upgrade: h2c"),
		post("/v1/blobs:batchGet", "--x\r\n\r\n--x--", "Content-Type: multipart/form-data; boundary=x"),
		get("http://localhost/%zz?x#y"), "GET /a b HTTP/1.1\r\nHost:\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	s := New(Config{MaxHeaderBytes: 512, MaxBodyBytes: 512},
		NewCatalog(Served{Dataset: newDataset(f, "blobs", origintest.New(rows()))}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte(":watch")) {
			t.Skip("the answer goes on after the server has returned; see FuzzWatchQuery and FuzzEvent")
		}
		conn := &tape{in: bytes.NewReader(raw)}
		methods := serveTape(s.http, conn)
		r := bufio.NewReader(&conn.out)
		for {
			method := "GET" // what cannot be read is answered as a GET would be
			if len(methods) > 0 {
				method = methods[0]
			}
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				if !errors.Is(err, io.ErrUnexpectedEOF) || r.Buffered() > 0 {
					t.Fatalf("%q: not HTTP: %v", raw, err)
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
		if len(methods) > 0 {
			t.Errorf("%q: no answer to %v", raw, methods)
		}
	})
}

// serveTape serves one connection to its end and returns the methods of the requests that were read.
func serveTape(s *httpServer, conn *tape) (methods []string) {
	handle := s.Handler
	defer func() { s.Handler = handle }()
	s.Handler = func(x *fasthttp.RequestCtx) {
		methods = append(methods, string(x.Method()))
		handle(x)
	}
	// Its error says how the client broke off.
	_ = s.ServeConn(conn)
	return methods
}
