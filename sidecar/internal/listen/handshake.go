package listen

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// HandshakeStats counts handshakes that did not succeed. The counters are live.
type HandshakeStats struct {
	Failed   atomic.Int64 // rejected by either side, or cut off
	TimedOut atomic.Int64 // that took too long, or waited too long for others to end
}

// Limits of handshakes. A handshake takes up to 50 KiB and a few milliseconds of CPU; a connection that waits for its turn has
// only its socket.
const (
	maxHandshakes = 64
	// HandshakeTimeout limits the time from accept to the end of the handshake.
	HandshakeTimeout = 5 * time.Second
	// busyTimeout is the time for one handshake while others wait, so that clients that send nothing do not block them.
	busyTimeout = time.Second
)

// Handshaken turns ln into a listener of connections on which handshake has succeeded, which returns the connection to use.
// At most 64 run at once.
func Handshaken(ln net.Listener, stats *HandshakeStats, handshake func(net.Conn) (net.Conn, error)) net.Listener {
	h := &handshaken{handoff: newHandoff(ln.Addr()), listener: ln, stats: stats, handshake: handshake, open: map[net.Conn]struct{}{}}
	h.loops.Go(h.acceptAll)
	return h
}

type handshaken struct {
	*handoff
	listener  net.Listener
	stats     *HandshakeStats
	handshake func(net.Conn) (net.Conn, error)
	loops     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	waiting []newConn
	open    map[net.Conn]struct{} // on which a handshake runs
	closed  bool
}

type newConn struct {
	conn net.Conn
	at   time.Time
}

func (h *handshaken) acceptAll() {
	for {
		c, err := h.listener.Accept()
		if err != nil {
			_ = h.handoff.Close()
			return
		}
		h.add(newConn{c, time.Now()})
	}
}

// add begins a handshake, or lets it wait.
func (h *handshaken) add(a newConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		_ = a.conn.Close() // nobody accepts it
	case len(h.open) >= maxHandshakes: //guard:unlimited-handshakes
		PlaceOf(a.conn).Wait()
		h.waiting = append(h.waiting, a)
	default:
		h.startLocked(a)
	}
}

func (h *handshaken) startLocked(a newConn) {
	PlaceOf(a.conn).Wait()
	h.open[a.conn] = struct{}{}
	timeout := time.Until(a.at.Add(HandshakeTimeout))
	if len(h.waiting) > 0 {
		timeout = min(timeout, busyTimeout)
	}
	h.loops.Go(func() {
		defer h.next(a.conn)
		secure, err := h.run(a.conn, timeout)
		if err != nil {
			_ = a.conn.Close() // the handshake has told the client what it could
			h.count(err)
			return
		}
		PlaceOf(a.conn).stop() // the server says more
		h.give(secure)
	})
}

func (h *handshaken) run(c net.Conn, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		return nil, os.ErrDeadlineExceeded
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil { //guard:handshake-without-end
		return nil, err
	}
	secure, err := h.handshake(c)
	if err != nil {
		return nil, err
	}
	return secure, c.SetDeadline(time.Time{})
}

func (h *handshaken) count(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.stats.TimedOut.Add(1)
	} else {
		h.stats.Failed.Add(1)
	}
}

// next ends a handshake and begins that of the connection that waits longest.
func (h *handshaken) next(c net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, c)
	if len(h.waiting) == 0 || h.closed {
		return
	}
	first := h.waiting[0]
	h.waiting[0] = newConn{}
	h.waiting = h.waiting[1:]
	h.startLocked(first)
}

// Close implements net.Listener. It closes the connections on which no handshake has ended.
func (h *handshaken) Close() error {
	err := errors.Join(h.listener.Close(), h.handoff.Close())
	h.mu.Lock()
	h.closed = true
	for c := range h.open {
		_ = c.Close() // it ends its handshake
	}
	for _, a := range h.waiting {
		_ = a.conn.Close() // nobody accepts it
	}
	h.waiting = nil
	h.mu.Unlock()
	h.loops.Wait()
	return err
}
