//go:build !race

package h2

import (
	"io"
	"net"
	"runtime"
	"testing"
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
