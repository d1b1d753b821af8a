package h2

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// client is the other end of a connection, on frames. Its goroutine reads until the connection ends.
type client struct {
	t      testing.TB
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder

	mu        sync.Mutex
	wake      *sync.Cond
	window    int64
	windows   map[uint32]int64
	initial   int64
	responses map[uint32]*answer
	goAways   []http2.GoAwayFrame
	pings     int
	silent    bool // it acknowledges nothing
	accept    func(net.Conn) net.Conn
	begun     chan struct{}        // closed after the preface
	tls       *tls.ConnectionState // of the server's end; nil without TLS
	stuck     chan struct{}        // if not nil, it reads nothing until this is closed
	ended     bool
	next      uint32
}

// answer is what arrived for a stream.
type answer struct {
	header, trailer map[string]string
	data            []byte
	ended           bool
	reset           *http2.ErrCode
}

// connect begins a connection with the settings, in a bubble of synctest.
func connect(t testing.TB, s *Server, settings ...http2.Setting) *client {
	return greet(start(t, s), settings...)
}

// greet sends the preface.
func greet(c *client, settings ...http2.Setting) *client {
	first := bytes.NewBufferString(http2.ClientPreface)
	c.do(http2.NewFramer(first, nil).WriteSettings(settings...))
	c.write(first.Bytes()) // at once: its acknowledgement of the server's settings must not be between
	close(c.begun)
	c.settle()
	return c
}

// start begins a connection on which the client has sent nothing.
func start(t testing.TB, s *Server, prepare ...func(*client)) *client {
	here, there := net.Pipe()
	c := &client{t: t, conn: there, framer: http2.NewFramer(there, there), window: 65535, initial: 65535,
		windows: map[uint32]int64{}, responses: map[uint32]*answer{}, next: 1, begun: make(chan struct{})}
	c.wake = sync.NewCond(&c.mu)
	c.hpack = hpack.NewEncoder(&c.block)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.AllowIllegalWrites = true
	for _, p := range prepare {
		p(c)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.ServeConn(c.serverSide(here))
	}()
	go c.read()
	t.Cleanup(func() {
		select {
		case <-c.begun:
		default:
			close(c.begun)
		}
		there.Close()
		<-served
	})
	return c
}

// serverSide gives the server's end of a connection the state of TLS.
func (c *client) serverSide(nc net.Conn) net.Conn {
	if c.accept != nil {
		nc = c.accept(nc)
	}
	if c.tls == nil {
		return nc
	}
	return secured{nc, *c.tls}
}

type secured struct {
	net.Conn
	state tls.ConnectionState
}

func (s secured) ConnectionState() tls.ConnectionState { return s.state }

func (c *client) settle() { synctest.Wait() }

func (c *client) do(err error) {
	c.t.Helper()
	if err != nil && !c.isEnded() {
		c.t.Log(err)
	}
}

func (c *client) write(b []byte) {
	_, err := c.conn.Write(b)
	c.do(err)
}

func (c *client) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// setSilent makes the client acknowledge nothing from now on.
func (c *client) setSilent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = true
}

func (c *client) farewells() []http2.GoAwayFrame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.goAways)
}

func (c *client) pingCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pings
}

func (c *client) read() {
	for {
		if c.stuck != nil {
			<-c.stuck
		}
		f, err := c.framer.ReadFrame()
		c.mu.Lock()
		if err != nil {
			c.ended = true
			c.wake.Broadcast()
			c.mu.Unlock()
			return
		}
		reply := c.take(f)
		c.wake.Broadcast()
		c.mu.Unlock()
		if reply != nil {
			go func() { // a pipe has no buffer: reading must go on
				<-c.begun
				reply()
			}()
		}
	}
}

func (c *client) take(f http2.Frame) (reply func()) {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() && !c.silent {
			return func() { _ = http2.NewFramer(c.conn, nil).WriteSettingsAck() }
		}
	case *http2.PingFrame:
		c.pings++
		if data := f.Data; !f.IsAck() && !c.silent {
			return func() { _ = http2.NewFramer(c.conn, nil).WritePing(true, data) }
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else {
			c.windows[f.StreamID] += int64(f.Increment)
		}
	case *http2.GoAwayFrame:
		c.goAways = append(c.goAways, *f)
	case *http2.RSTStreamFrame:
		code := f.ErrCode
		c.answerTo(f.StreamID).reset = &code
	case *http2.DataFrame:
		a := c.answerTo(f.StreamID)
		a.data = append(a.data, f.Data()...)
		a.ended = f.StreamEnded()
	case *http2.MetaHeadersFrame:
		c.takeHeader(f)
	}
	return nil
}

func (c *client) takeHeader(f *http2.MetaHeadersFrame) {
	a, fields := c.answerTo(f.StreamID), map[string]string{}
	for _, field := range f.Fields {
		fields[field.Name] = field.Value
	}
	if a.ended = f.StreamEnded(); a.header == nil {
		a.header = fields
	}
	if a.ended {
		a.trailer = fields
	}
}

func (c *client) answerTo(id uint32) *answer {
	if c.responses[id] == nil {
		c.responses[id] = &answer{}
	}
	return c.responses[id]
}

// response returns what has arrived for a stream until nothing more happens.
func (c *client) response(id uint32) answer {
	c.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	a := *c.answerTo(id)
	a.header = maps.Clone(a.header)
	return a
}

// encode returns a header block.
func (c *client) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.do(c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(c.block.Bytes())
}

// begin sends a header and returns the id of its stream.
func (c *client) begin(end bool, fields ...string) uint32 {
	id := c.next
	c.next += 2
	c.mu.Lock()
	c.windows[id] = c.initial
	c.mu.Unlock()
	c.header(id, end, c.encode(fields...))
	return id
}

func (c *client) header(id uint32, end bool, block []byte) {
	c.do(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: block}))
}

func (c *client) get(path string, more ...string) uint32 {
	return c.begin(true, append([]string{":method", "GET", ":scheme", "http", ":path", path, ":authority", "h"}, more...)...)
}

func (c *client) post(path string, more ...string) uint32 {
	return c.begin(false, append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "h"}, more...)...)
}

func (c *client) call(path string, more ...string) uint32 {
	return c.post(path, append([]string{"content-type", "application/grpc", "te", "trailers"}, more...)...)
}

// unary sends a whole call.
func (c *client) unary(path string, message []byte) uint32 {
	id := c.call(path)
	c.send(id, framed(message), true)
	return id
}

// send sends bytes as far as the windows allow, without waiting for more than what the server sends by itself.
func (c *client) send(id uint32, b []byte, end bool) (sent int) {
	for {
		c.mu.Lock()
		if c.ended || c.answerTo(id).reset != nil {
			c.mu.Unlock()
			return sent
		}
		n := min(int64(len(b)), 16<<10, c.window, c.windows[id])
		c.window -= n
		c.windows[id] -= n
		c.mu.Unlock()
		if n > 0 || len(b) == 0 {
			c.do(c.framer.WriteData(id, end && int(n) == len(b), b[:n]))
			sent += int(n)
			if b = b[n:]; len(b) == 0 {
				return sent
			}
			continue
		}
		c.settle()
		c.mu.Lock()
		blocked := c.window <= 0 || c.windows[id] <= 0
		c.mu.Unlock()
		if blocked {
			return sent
		}
	}
}

func framed(message []byte) []byte {
	b := make([]byte, 5, 5+len(message))
	binary.BigEndian.PutUint32(b[1:], uint32(len(message)))
	return append(b, message...)
}

// expectGoAway checks that the connection ends with an error.
func (c *client) expectGoAway(want http2.ErrCode) {
	c.t.Helper()
	c.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.goAways) == 0 || c.goAways[len(c.goAways)-1].ErrCode != want || !c.ended {
		c.t.Errorf("got GOAWAY %v and ended %v, want GOAWAY %v and the end", c.goAways, c.ended, want)
	}
}

func (c *client) expectReset(id uint32, want http2.ErrCode) {
	c.t.Helper()
	if a := c.response(id); a.reset == nil || *a.reset != want {
		c.t.Errorf("stream %d: got reset %v, want %v", id, a.reset, want)
	}
}

// expectStatus checks the status of a call, which for a trailers-only response is in the first header.
func (c *client) expectStatus(id uint32, want string) {
	c.t.Helper()
	if a := c.response(id); !a.ended || a.trailer["grpc-status"] != want {
		c.t.Errorf("stream %d: got header %v, trailer %v, ended %v; want status %s", id, a.header, a.trailer, a.ended, want)
	}
}

func used(b *budget.Budget, u budget.Use) int64 { return b.Stats()[u].Used }

// grpcHandler answers calls as a grpc.Server does: it reads one message and sends it back.
func grpcHandler(w http.ResponseWriter, r *http.Request) {
	message, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write(message)
	w.Header().Set("Grpc-Status", "0")
}

func serving(c Config) *Server {
	if c.Handler == nil {
		c.Handler = http.HandlerFunc(grpcHandler)
	}
	return New(c)
}
