package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/body"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

// echoFast answers /fast with the message, unless that begins with "no".
type echoFast struct{}

func (echoFast) Match(path string) bool { return path == "/fast" }

func (echoFast) Append(_ context.Context, _ Call, message, dst []byte, limit int) ([]byte, bool) {
	if bytes.Equal(message, []byte("panic")) {
		panic("in Fast")
	}
	return append(dst, message...), !bytes.HasPrefix(message, []byte("no")) && len(message) <= limit
}

func TestFastAnswersOnlyPlainCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{Fast: echoFast{}})
		c := connect(t, s)
		for _, test := range []struct {
			path, message string
			more          []string
			fast          bool
		}{
			{"/fast", "x", nil, true}, {"/fast", "", nil, true}, {"/other", "x", nil, false}, {"/fast", "no", nil, false},
			{"/fast", "panic", nil, false},
			{"/fast", "x", []string{"grpc-timeout", "1S", "user-agent", "u", "grpc-encoding", "identity", "grpc-accept-encoding", "gzip"}, true},
			{"/fast", "x", []string{"traceparent", "00-1-2-01", "x-request-id", "7", "grpc-timeout", "99999999n"}, true},
			{"/fast", "x", []string{"grpc-trace-bin", "AAA"}, false}, {"/fast", "x", []string{"cookie", "a=b"}, false},
			{"/fast", "x", []string{"grpc-timeout", "1"}, false}, {"/fast", "x", []string{"grpc-timeout", "123456789S"}, false},
			{"/fast", "x", []string{"grpc-timeout", "S"}, false}, {"/fast", "x", []string{"grpc-timeout", "-1S"}, false},
			{"/fast", "x", []string{"grpc-encoding", "gzip"}, false}, {"/fast", "x", []string{"authorization", "Bearer t"}, false},
		} {
			before := s.Stats().Fast.Load()
			id := c.call(test.path, test.more...)
			c.send(id, framed([]byte(test.message)), true)
			c.expectStatus(id, "0")
			a := c.response(id)
			if fast := s.Stats().Fast.Load() > before; fast != test.fast || !bytes.Equal(a.data, framed([]byte(test.message))) ||
				a.header["content-type"] != "application/grpc" {
				t.Errorf("%+v: fast %v, got %+v", test, fast, a)
			}
		}
	})
}

// The message may come in pieces, and END_STREAM in a frame of its own.
func TestFastAnswersMessageInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{Fast: echoFast{}})
		c := connect(t, s)
		id, message := c.call("/fast"), framed([]byte("hello"))
		c.send(id, message[:3], false)
		c.send(id, message[3:7], false)
		c.send(id, message[7:], true)
		c.expectStatus(id, "0")
		if n := s.Stats().Fast.Load(); n != 1 {
			t.Errorf("%d fast answers", n)
		}
		slow := c.call("/fast")
		time.Sleep(10 * time.Second)
		c.expectStatus(slow, "4")
	})
}

func TestFastKeepsTheWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{Fast: echoFast{}})
		c := connect(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		c.unary("/fast", []byte("12345"))
		id := c.unary("/fast", []byte("123456"))
		if a := c.response(id); s.Stats().Fast.Load() != 1 || len(a.data) != 10 {
			t.Errorf("%d fast answers, %d bytes; want 1 and 10", s.Stats().Fast.Load(), len(a.data))
		}
		c.do(c.framer.WriteWindowUpdate(id, 1))
		c.expectStatus(id, "0")
	})
}

// replay is a connection that delivers the same requests again and again.
type replay struct {
	net.Conn
	first, each []byte
	times       int
	writes      int
	ids         uint32
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	if r.times--; r.times < 0 {
		return 0, io.EOF
	}
	n := copy(p, r.each)
	for at := 0; at < n; { // number the streams
		f := frame.Parse(p[at:])
		if f.Kind == frame.Headers {
			r.ids += 2
		}
		frame.Put(p[at:at+frame.HeaderBytes+f.Length], f.Kind, f.Flags, r.ids)
		at += frame.HeaderBytes + f.Length
	}
	return n, nil
}

func (r *replay) Write(p []byte) (int, error) { r.writes++; return len(p), nil }
func (r *replay) Close() error                { return nil }
func (r *replay) RemoteAddr() net.Addr        { return &net.UnixAddr{} }
func (r *replay) LocalAddr() net.Addr         { return &net.UnixAddr{} }

// newReplay returns the bytes of a client that sends n calls at once, with fields in its HPACK table.
func newReplay(t *testing.T, n int) *replay { return newReplayTo(t, n, "/fast") }

func newReplayTo(t *testing.T, n int, path string) *replay {
	r := &replay{ids: 1}
	var out bytes.Buffer
	c := &client{t: t, framer: http2.NewFramer(&out, nil), windows: map[uint32]int64{}, next: 1}
	c.hpack = hpack.NewEncoder(&c.block)
	out.WriteString(http2.ClientPreface)
	c.do(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
	c.do(c.framer.WriteSettingsAck())
	c.do(c.framer.WriteWindowUpdate(0, 1<<30))
	write := func() {
		id := c.call(path)
		c.do(c.framer.WriteData(id, true, framed(message(100))))
	}
	write()
	r.first = bytes.Clone(out.Bytes())
	out.Reset()
	for range n {
		write()
	}
	r.each = bytes.Clone(out.Bytes())
	return r
}

func TestFastAnswersAllocateNothingAndShareWrites(t *testing.T) {
	const calls, rounds = 16, 1000
	r := newReplay(t, calls)
	r.times = rounds
	s := New(Config{Fast: echoFast{}, Handler: http.NotFoundHandler()})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s.ServeConn(r)
	runtime.ReadMemStats(&after)
	if n := s.Stats().Fast.Load(); n != calls*rounds+1 {
		t.Fatalf("%d fast answers, want %d", n, calls*rounds+1)
	}
	if n := after.Mallocs - before.Mallocs; n > calls*rounds/50 {
		t.Errorf("%d allocations for %d calls", n, calls*rounds)
	}
	if r.writes > rounds+10 {
		t.Errorf("%d writes for %d reads", r.writes, rounds)
	}
}

func TestServerClosesItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{})
		c := connect(t, s)
		s.Close()
		c.settle()
		if !c.isEnded() {
			t.Error("the connection is open")
		}
		late := start(t, s)
		late.settle()
		if !late.isEnded() {
			t.Error("a connection after Close is open")
		}
		if err := s.Shutdown(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// Buffers for large responses are taken from the budget when a handler has sent the first one.
func TestFastAnswersLargeResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{Fast: echoFast{}, Budget: budget.New(1 << 20)})
		c := connect(t, s)
		for i, size := range []int{3000, 3000, wideBytes/2 - body.PrefixBytes, wideBytes/2 - body.PrefixBytes + 1} {
			id := c.unary("/fast", bytes.Repeat([]byte("l"), size))
			c.expectStatus(id, "0")
			if n := len(c.response(id).data); n != size+body.PrefixBytes {
				t.Errorf("response %d has %d bytes; want %d", i, n, size+body.PrefixBytes)
			}
		}
		if n := s.Stats().Fast.Load(); n != 2 {
			t.Errorf("%d fast answers; want 2: the second and the third", n)
		}
	})
}
