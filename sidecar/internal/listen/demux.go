package listen

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// HTTP2Preface begins every HTTP/2 connection (RFC 9113, 3.4), and so every gRPC connection. No HTTP/1 request begins with
// it.
const HTTP2Preface = "PRI * HTTP/2.0\r\n"

// Rule selects connections by their first bytes.
type Rule struct {
	// Prefix is how the selected connections begin.
	Prefix string
	// Strip removes the prefix before the server gets the connection.
	Strip bool
	// Timeout bounds the arrival of the bytes that decide. A connection that takes longer is closed.
	Timeout time.Duration
}

// Demux accepts connections from ln and passes those that match r to one server and all others to another. It returns
// the error of ln, which is net.ErrClosed after ln was closed, once both servers have returned; a server must return when
// its listener is closed, and call the methods of Place. When ctx ends, connections that are still undecided are closed.
func Demux(ctx context.Context, ln net.Listener, r Rule, matching, others func(net.Listener) error) error {
	toMatching, toOthers := newHandoff(ln.Addr()), newHandoff(ln.Addr())
	var servers, readers sync.WaitGroup
	// Each server returns because its handoff is closed; that error adds nothing.
	servers.Go(func() { _ = matching(toMatching) })
	servers.Go(func() { _ = others(toOthers) })
	var err error
	for err == nil {
		var c net.Conn
		if c, err = ln.Accept(); err == nil {
			readers.Go(func() { hand(ctx, c, r, toMatching, toOthers) })
		}
	}
	readers.Wait()
	_, _ = toMatching.Close(), toOthers.Close()
	servers.Wait()
	return err
}

func hand(ctx context.Context, c net.Conn, r Rule, matching, others *handoff) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	conn, matches, err := r.read(c)
	stop()
	switch {
	case err != nil:
		_ = c.Close() // it ended, or was too slow, before the bytes that decide
	case matches:
		matching.give(conn)
	default:
		others.give(conn)
	}
}

// read reads from c until it is decided whether it matches. It returns a connection from which the server reads all bytes,
// or those after the prefix where r strips it.
func (r Rule) read(c net.Conn) (conn net.Conn, matches bool, err error) {
	PlaceOf(c).Wait() // until the server calls Work
	if err := c.SetReadDeadline(time.Now().Add(r.Timeout)); err != nil {
		return nil, false, err
	}
	head := make([]byte, 0, len(r.Prefix))
	for len(head) < len(r.Prefix) && strings.HasPrefix(r.Prefix, string(head)) {
		n, err := c.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			return nil, false, err
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, err
	}
	matches = string(head) == r.Prefix
	if matches && r.Strip {
		return c, true, nil
	}
	return &replayed{Conn: c, head: head}, matches, nil
}

// replayed is a connection with some bytes that were read before and are read again.
type replayed struct {
	net.Conn
	head []byte
}

// NetConn returns the connection; see caller.Of.
func (c *replayed) NetConn() net.Conn { return c.Conn }

// CloseWrite closes the sending half, where the connection has halves.
func (c *replayed) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Read implements net.Conn.
func (c *replayed) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	c.head = c.head[n:]
	return n, nil
}

// handoff is a listener of connections that Demux has accepted.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once // of closing done
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give passes c to the next Accept, or closes it when the handoff is closed.
func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close() // the server has stopped
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return h.addr }
