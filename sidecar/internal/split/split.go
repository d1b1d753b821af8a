// Package split turns one listener into two, by the bytes with which a connection begins, and accepts what comes to a
// listener for as long as that can.
package split

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"
)

// Preface begins every HTTP/2 connection (RFC 9113, 3.4), and so every gRPC connection. Its first bytes are no HTTP/1
// request that anybody sends.
const Preface = "PRI * HTTP/2.0\r\n"

// Rule says which connections match.
type Rule struct {
	// Prefix is what they begin with.
	Prefix string
	// Strip takes the prefix away before the server sees the connection.
	Strip bool
	// Timeout bounds the arrival of as many bytes as tell; a connection that takes longer is closed.
	Timeout time.Duration
}

// Serve accepts connections from ln and hands those that match to one server and all others to the other. It returns
// ln's error, which closing ln brings about, after both servers have returned; these return when their listener is
// closed. When ctx ends, connections that have not yet shown what they are get closed.
func Serve(ctx context.Context, ln net.Listener, r Rule, matching, others func(net.Listener) error) error {
	toMatching, toOthers := newHandoff(ln.Addr()), newHandoff(ln.Addr())
	var servers, readers sync.WaitGroup
	// What a server returns says no more than that its handoff is closed.
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
		_ = c.Close() // it said nothing, or too little
	case matches:
		matching.give(conn)
	default:
		others.give(conn)
	}
}

// read reads as much of c as tells whether it matches, and returns a connection that begins where its server should.
func (r Rule) read(c net.Conn) (conn net.Conn, matches bool, err error) {
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

// replayed is a connection of which some bytes have been read already.
type replayed struct {
	net.Conn
	head []byte
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

// handoff is a listener whose connections somebody else has accepted.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once // of closing done
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give hands c to whoever accepts, or closes it when nobody does any more.
func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close() // nobody is left to tell
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
