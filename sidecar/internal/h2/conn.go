package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

const (
	maxContinuations     = 32       // frames of one header block; ParsedBytes need 8
	writeUpdateThreshold = 16 << 10 // a WINDOW_UPDATE of the connection is worth a frame
)

var (
	errStopped  = errors.New("the server has been stopped")
	errReset    = errors.New("the stream was reset")
	errGone     = errors.New("the connection has ended")
	errFinished = errors.New("the request has been answered")
)

// conn is a connection. It has a half that reads, one that writes, a table of streams, and a timer for all that
// takes too long.
//
// One goroutine reads (serve); it holds mu except while it waits for bytes. All methods, also those of the parts and of
// streams, are called with mu held unless they say otherwise.
type conn struct {
	server *Server
	nc     net.Conn
	tls    *tls.ConnectionState
	ctx    context.Context // parent of every request
	cancel context.CancelCauseFunc

	mu      sync.Mutex // guards the fields below
	in      reader
	out     output
	useless useless
	memory  memory
	life    life
	streams streams
	place   place
}

func (s *Server) newConn(nc net.Conn) *conn {
	base := context.WithValue(context.Background(), http.LocalAddrContextKey, nc.LocalAddr())
	c := &conn{server: s, nc: nc, tls: listen.TLSState(nc)}
	c.ctx, c.cancel = context.WithCancelCause(s.config.ConnContext(base, nc))
	c.memory.loan = s.config.Budget.Loan(budget.Requests)
	c.in.init(c)
	c.out.init(c)
	c.life.conn = c
	c.streams = streams{conn: c, open: map[uint32]*stream{}}
	return c
}

// serve reads until the connection ends. Called without mu.
func (c *conn) serve() {
	c.mu.Lock()
	c.life.start()
	c.fail(c.in.readAll())
	c.releaseBuffers()
	c.mu.Unlock()
}

// releaseBuffers returns what the large buffers of the connection cost. Nobody uses them any more.
func (c *conn) releaseBuffers() {
	if len(c.in.buf) > narrowBytes {
		c.memory.Release(wideBytes)
	}
	c.out.narrow()
}

// abort ends the connection at once. Called without mu.
func (c *conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// fail ends the connection at once.
func (c *conn) fail(err error) {
	if c.out.err == nil {
		c.out.err = err
	}
	if c.life.timer != nil {
		c.life.timer.Stop()
	}
	c.cancel(c.out.err)
	for _, s := range c.streams.open {
		s.close(errGone, false)
	}
	c.streams.pending = nil
	c.out.wakeWriters()
	c.out.space.Broadcast()
	_ = c.nc.Close() // what it still had to send is lost
}
