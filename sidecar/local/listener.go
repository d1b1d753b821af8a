package local

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/split"
)

// bounded turns a net.Listener into one with at most max open connections, which can all be closed.
type bounded struct {
	net.Listener
	max     int
	stats   *Protocol
	refusal []byte // sent to a connection too many; nil: it is closed without a word

	mu     sync.Mutex // guards the fields below
	conns  map[*boundedConn]struct{}
	closed bool

	done chan struct{} // closed with the listener
	once sync.Once     // of closing done
}

func newBounded(ln net.Listener, limit int, stats *Protocol, refusal []byte) *bounded {
	return &bounded{Listener: ln, max: limit, stats: stats, refusal: refusal,
		conns: map[*boundedConn]struct{}{}, done: make(chan struct{})}
}

// Accept implements net.Listener. It outlives every failure that passes, such as a want of file descriptors.
func (l *bounded) Accept() (net.Conn, error) {
	for {
		c, err := split.Accept(l.Listener, l.done, func() { l.stats.AcceptErrors.Add(1) })
		if err != nil {
			return nil, err
		}
		if held, ok := l.admit(c); ok {
			return held, nil
		}
		l.refuse(c)
	}
}

func (l *bounded) admit(c net.Conn) (net.Conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.conns) >= l.max {
		return nil, false
	}
	held := &boundedConn{Conn: c, listener: l}
	l.conns[held] = struct{}{}
	l.stats.Conns.Add(1)
	return held, true
}

// refuse tells a connection that it is one too many. The few bytes fit into the buffer of a new socket; the deadline is
// for listeners that have none.
func (l *bounded) refuse(c net.Conn) {
	l.stats.ConnsRefused.Add(1)
	if l.refusal != nil && c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)) == nil {
		// Whether the client still reads does not matter: it is closed next.
		_, _ = c.Write(l.refusal)
	}
	_ = c.Close()
}

// Close implements net.Listener. Open connections stay open.
func (l *bounded) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// closeConns closes every open connection, and refuses new ones.
func (l *bounded) closeConns() {
	l.mu.Lock()
	l.closed = true
	open := make([]*boundedConn, 0, len(l.conns))
	for c := range l.conns {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		// The server that reads from it sees the end and cleans up.
		_ = c.Close()
	}
}

func (l *bounded) forget(c *boundedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[c]; ok {
		delete(l.conns, c)
		l.stats.Conns.Add(-1)
	}
}

// boundedConn is a connection that its listener counts.
type boundedConn struct {
	net.Conn
	listener *bounded
}

// CloseWrite closes the half on which the server writes, where the connection has halves. net/http calls it, too.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.listener.forget(c)
	return c.Conn.Close()
}

// tooManyConnections is the answer to an HTTP connection over the bound. No request was read, so it is written by hand.
func tooManyConnections() []byte {
	body := failure{problem: problemConns, retry: time.Second,
		detail: "the listener has as many connections as it may; keep connections open and use them again"}.json()
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: %s\r\nContent-Length: %d\r\n"+
		"Retry-After: 1\r\nConnection: close\r\n\r\n%s", typeProblem, len(body), body)
}
