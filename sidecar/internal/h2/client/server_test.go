package client

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/test.Echo/Echo"

// server is the other end of a connection, on frames. Its goroutine reads until the connection ends.
type server struct {
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	script func(s *server, id uint32) // answers each complete request, in a goroutine of its own
	silent bool                       // it sends nothing by itself, not even SETTINGS
	stuck  atomic.Bool                // it reads no more

	mu      sync.Mutex // guards the fields below
	headers []map[string]string
	data    map[uint32][]byte
	resets  map[uint32]http2.ErrCode
	windows map[uint32]int // what WINDOW_UPDATE added
	pings   int
	pongs   int
	writing sync.Mutex
	closed  chan struct{}
}

// serveOn serves the other end of a pipe, which it returns.
func (s *server) serveOn() net.Conn {
	here, there := net.Pipe()
	s.conn, s.framer, s.hpack = there, http2.NewFramer(there, there), hpack.NewEncoder(&s.block)
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.framer.AllowIllegalWrites = true
	s.closed = make(chan struct{})
	s.data, s.resets, s.windows = map[uint32][]byte{}, map[uint32]http2.ErrCode{}, map[uint32]int{}
	go s.read()
	return here
}

func (s *server) read() {
	defer s.conn.Close()
	if _, err := io.ReadFull(s.conn, make([]byte, len(preface))); err != nil {
		return
	}
	if !s.silent {
		go s.write(func() { _ = s.framer.WriteSettings() })
	}
	for {
		f, err := s.framer.ReadFrame()
		if err != nil {
			return
		}
		if s.stuck.Load() {
			<-s.closed
			return
		}
		s.handle(f)
	}
}

// stop makes the server read no more until the returned function closes the connection.
func (s *server) stop() (closeConn func()) {
	s.stuck.Store(true)
	return func() { close(s.closed) }
}

// write writes frames, one writer at a time.
func (s *server) write(frames func()) {
	s.writing.Lock()
	defer s.writing.Unlock()
	frames()
}

func (s *server) handle(f http2.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ended := f.Header().StreamID, false
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		fields := map[string]string{}
		for _, field := range f.Fields {
			fields[field.Name] = field.Value
		}
		s.headers = append(s.headers, fields)
		ended = f.StreamEnded()
	case *http2.DataFrame:
		s.data[id] = append(s.data[id], f.Data()...)
		ended = f.StreamEnded()
	case *http2.RSTStreamFrame:
		s.resets[id] = f.ErrCode
	case *http2.WindowUpdateFrame:
		s.windows[id] += int(f.Increment)
	case *http2.PingFrame:
		if f.IsAck() {
			s.pongs++
		} else {
			s.pings++
		}
	}
	if ended && s.script != nil {
		go s.write(func() { s.script(s, id) })
	}
}

// The functions below are for scripts.

func (s *server) header(id uint32, end bool, fields ...string) {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = s.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = s.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: end})
}

func (s *server) begin(id uint32) {
	s.header(id, false, ":status", "200", "content-type", "application/grpc")
}

func (s *server) trailer(id uint32) { s.header(id, true, "grpc-status", "0") }

// encoded returns a message of n bytes, with its prefix.
func encoded(n int) []byte {
	slice, _ := encoding.GetCodecV2("proto").Marshal(wrapperspb.Bytes(make([]byte, n)))
	size := slice.Len()
	return append([]byte{0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}, slice.Materialize()...)
}

// answer sends a message of n bytes.
func (s *server) answer(id uint32, n int) {
	s.begin(id)
	_ = s.framer.WriteData(id, false, encoded(n))
	s.trailer(id)
}

func answering(n int) func(*server, uint32) {
	return func(s *server, id uint32) { s.answer(id, n) }
}

// connect returns a client whose connections have the servers at their ends, one after the other, in a bubble of synctest.
func connect(t testing.TB, servers ...*server) *Client {
	next := 0
	c := New(testConfig(func(context.Context) (net.Conn, error) {
		if next == len(servers) {
			return nil, io.ErrUnexpectedEOF
		}
		next++
		return servers[next-1].serveOn(), nil
	}))
	t.Cleanup(c.Close)
	return c
}

func testConfig(dial func(context.Context) (net.Conn, error)) Config {
	return Config{
		Dial: dial, ConnectTimeout: time.Second, FirstBackoff: 100 * time.Millisecond, Authority: "m:1",
		Codec: encoding.GetCodecV2("proto"), MaxHeaderBytes: 16 << 10, IdleTimeout: 5 * time.Minute,
		PingInterval: 30 * time.Second, PingTimeout: 5 * time.Second,
		Spawn: func(task func()) bool { go task(); return true },
	}
}

// call makes a call with a message of n bytes, and returns the size of the response.
func call(ctx context.Context, c grpc.ClientConnInterface, n int, options ...grpc.CallOption) (int, error) {
	var reply wrapperspb.BytesValue
	err := c.Invoke(ctx, method, wrapperspb.Bytes(make([]byte, n)), &reply, options...)
	return len(reply.GetValue()), err
}

// bubble runs a test in a bubble of synctest that closes the client at its end.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}
