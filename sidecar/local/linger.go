package local

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// The bounds of what is still read from a client whose request was refused before its end. On loopback 64 MiB take less
// than a tenth of a second; who sends more, or more slowly, may see a reset instead of the answer.
const (
	lingerBytes = 64 << 20
	lingerTime  = time.Second
)

// lingering turns a net.Listener into one whose connections can be closed in stages.
type lingering struct{ net.Listener }

// Accept implements net.Listener.
func (l lingering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingeringConn{Conn: c}, nil
}

// lingeringConn is a connection whose server can ask to have it closed in stages (RFC 9112, 9.6): the kernel answers
// input that nobody reads with a reset, which overtakes the answer.
type lingeringConn struct {
	net.Conn
	lingers atomic.Bool
}

// linger has c closed in stages, if its listener can.
func linger(c net.Conn) {
	if l, ok := c.(*lingeringConn); ok {
		l.lingers.Store(true)
	}
}

// Close implements net.Conn.
func (c *lingeringConn) Close() error {
	if c.lingers.Swap(false) {
		c.drain()
	}
	return c.Conn.Close()
}

// drain says that nothing more is written, and reads what the client has on its way until it closes, too. Behind
// listen.Demux a connection has no half to close: there the answer's length says where it ends.
func (c *lingeringConn) drain() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the reading shows whether the connection is still there
	}
	if c.SetReadDeadline(time.Now().Add(lingerTime)) == nil { //guard:goes-sending-after-refusal-holds-connection
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // it ends as the client does, or at a bound
	}
}
