package h2

import (
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// idleConn delivers some bytes and then waits until it is closed.
type idleConn struct {
	replay
	closed chan struct{}
}

func (c *idleConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		return c.replay.Read(p)
	}
	<-c.closed
	return 0, io.EOF
}

func (c *idleConn) Close() error { return nil }

var _ net.Conn = (*idleConn)(nil)

// A connection that has had some requests and is idle takes no more than what it has paid for.
func TestIdleConnectionIsSmall(t *testing.T) {
	const conns = 200
	s := serving(Config{Fast: echoFast{}})
	closed := make(chan struct{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range conns {
		go s.ServeConn(&idleConn{*newReplay(t, 1), closed})
	}
	for s.Stats().Fast.Load() < conns {
		runtime.Gosched()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	bytes := (int64(after.HeapAlloc+after.StackInuse) - int64(before.HeapAlloc+before.StackInuse)) / conns
	t.Logf("%d bytes per idle connection", bytes)
	if bytes > idleBytes {
		t.Errorf("an idle connection has %d bytes, want at most %d", bytes, idleBytes)
	}
	close(closed)
	s.Close()
}

// The listener takes a part of what a connection holds, and the server the rest.
func TestConnectionTakesItsMemoryBeforeItIsRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := budget.New(1 << 20)
	s := serving(Config{Budget: b})
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(listen.New(ln, listen.Config{MaxConns: 1000, Bytes: b.Of(budget.Connections), ConnBytes: listen.HTTP2Bytes}))
	}()
	const each = listen.HTTP2Bytes + moreBytes
	fit := int(b.Limit(budget.Connections) / each)
	for range 3 * fit {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil { // the SETTINGS of the server
			t.Errorf("a new connection is not served: %v; want that one that waits loses its place", err)
		}
	}
	if n := used(b, budget.Connections); n != int64(fit)*each {
		t.Errorf("%d bytes are taken, want those of %d connections with %d each", n, fit, each)
	}
	ln.Close()
	<-served
	s.Close()
	if n := used(b, budget.Connections); n != 0 {
		t.Errorf("%d bytes are taken after all were closed", n)
	}
}
