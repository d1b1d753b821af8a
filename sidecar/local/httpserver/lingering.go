package httpserver

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// The limits of a lingering close. On loopback 64 MiB take less than a tenth of a second; a client that sends more, or more
// slowly, may see a reset instead of the response.
const (
	maxLingeringBytes = 64 << 20 // of a lingering close
	maxLingeringTime  = time.Second
)

// lingeringListener turns a net.Listener into one whose connections support a lingering close.
type lingeringListener struct{ net.Listener }

// Accept implements net.Listener.
func (l lingeringListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingeringConn{Conn: c, caller: caller.Of(c)}, nil
}

// lingeringConn is a connection whose Close can be a lingering close (RFC 9112, 9.6): without it, the kernel answers input
// that nothing reads with a reset, which overtakes the response.
type lingeringConn struct {
	net.Conn
	caller    caller.Caller // who is at the other end
	requested atomic.Bool
}

// callerOf returns who is at the other end of a connection of a lingeringListener.
func callerOf(c net.Conn) caller.Caller {
	if l, ok := c.(*lingeringConn); ok {
		return l.caller
	}
	return caller.Of(c)
}

// closeLingering makes the next Close of c a lingering close, if its listener supports that.
func closeLingering(c net.Conn) {
	if l, ok := c.(*lingeringConn); ok {
		l.requested.Store(true)
	}
}

// Close implements net.Conn.
func (c *lingeringConn) Close() error {
	if c.requested.Swap(false) {
		c.drain()
	}
	return c.Conn.Close()
}

// drain closes the direction to the client, and reads what is in transit until the client closes, too. Behind
// listen.Demux a connection cannot be closed in one direction: there the length of the response marks its end.
func (c *lingeringConn) drain() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // reading shows whether the connection is still open
	}
	if c.SetReadDeadline(time.Now().Add(maxLingeringTime)) == nil { //guard:close-after-refusal-without-time-limit
		_, _ = io.CopyN(io.Discard, c.Conn, maxLingeringBytes) // ends with the client, or at a limit
	}
}
