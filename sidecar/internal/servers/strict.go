package servers

import (
	"errors"
	"net"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// strictLines makes net/http as strict as package http1 about the ends of lines: requests to operators' listeners have no
// content, so that all that a client sends are lines of headers. A line that ends without a carriage return, or continues the
// one before it, is another request to other readers; net/http accepts both.
type strictLines struct{ *listen.Listener }

// Accept implements net.Listener.
func (l strictLines) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &strictConn{Conn: c}, nil
}

// strictConn is a connection whose reading fails at a malformed line.
type strictConn struct {
	net.Conn
	last  byte // that was read
	fault error
}

var errLine = errors.New("a line does not end in CR LF, or continues another line")

// NetConn returns the connection; see listen.PlaceOf.
func (c *strictConn) NetConn() net.Conn { return c.Conn }

// CloseWrite closes the sending half, where the connection has halves; net/http calls it.
func (c *strictConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read implements net.Conn.
func (c *strictConn) Read(p []byte) (int, error) {
	if c.fault != nil {
		return 0, c.fault
	}
	n, err := c.Conn.Read(p)
	for i, b := range p[:n] {
		if b == '\n' && c.last != '\r' || c.last == '\n' && (b == ' ' || b == '\t') { //guard:operators-accept-malformed-lines
			c.fault = errLine
			return i, errLine
		}
		c.last = b
	}
	return n, err
}
