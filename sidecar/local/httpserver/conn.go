package httpserver

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/http1"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/ready"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// The memory of a connection beside its goroutine. Each is paid for by the connection; what is larger is taken from the
// budget: see contentStep, wideBytes and api.PrepaidResponse.
const (
	inBytes  = 4 << 10 // of requests that are arriving
	outBytes = 4 << 10 // of responses that are being written
)

// wideBytes is the size of out for the responses to pipelined requests.
const wideBytes = 32 << 10

// maxDrained is how many bytes of content that nobody wants are read so that the connection can be used again.
const maxDrained = 64 << 10

// States of a connection. Only one that waits for a request may be closed by the server.
const (
	waiting = iota
	active
	closed
)

// conn is one connection. Its goroutine owns all fields but state; while it waits in the loop, that is the loop's.
type conn struct {
	server *Server
	net    net.Conn
	caller caller.Caller
	life   life
	place  *listen.Place
	in     *http1.Reader
	out    *[]byte // responses that have not been sent; nil if there are none
	state  atomic.Int32

	head      http1.Head
	content   http1.Content
	continued bool        // the client knows that it should send the content
	buffer    budget.Loan // of in, beyond what the connection has paid for
	loan      budget.Loan // of the content
	wide      budget.Loan // of out, if it has wideBytes

	served   bool          // a request
	timeout  time.Duration // of the wait for the next request
	begun    time.Time     // when the request began to arrive; zero while the connection waits for it
	deadline struct{ read, write time.Time }
	slow     bool // the content has taken too long to arrive
	sending  bool // the client may still be sending

	loop  ready.Conn
	reads int // from the connection, since Ready was called
}

func (s *Server) newConn(c net.Conn) *conn {
	requests := s.config.Budget.Loan(budget.Requests)
	one := &conn{server: s, net: c, caller: s.identify(c), buffer: requests, loan: requests, place: listen.PlaceOf(c)}
	one.wide = s.config.Budget.Loan(budget.Responses)
	one.life = newLife(s.base, c)
	one.in = http1.NewReader((*source)(one), http1.Limits{Head: s.config.MaxHeaderBytes, Buffer: inBytes,
		Grow: func(size int) bool { return one.buffer.Grow(int64(size) - one.buffer.Bytes()) }}) //guard:large-header-without-budget
	return one
}

// serve serves the requests of the connection until one of the sides ends it, or the loop takes it.
func (c *conn) serve() {
	c.timeout = c.server.config.ReadTimeout // of the first request, from the connection on
	c.run(func() bool { return c.await() && c.next() })
}

// run serves the requests after the first one, which first does. It reports whether another may follow.
func (c *conn) run(first func() bool) {
	waits := false
	defer func() {
		if p := recover(); p != nil { //guard:panic-in-watch-ends-process
			c.server.backend.Panic("while serving a connection", p)
		}
		if !waits {
			c.end()
		}
	}()
	for more := first(); more; more = c.await() && c.next() {
		c.timeout, c.served = c.server.config.IdleTimeout, true
		if waits = c.waitInLoop(); waits {
			return
		}
	}
}

// NetConn implements listen.Conns.
func (c *conn) NetConn() net.Conn { return c.net }

// CloseWaiting implements listen.Conns.
func (c *conn) CloseWaiting() {
	if c.state.CompareAndSwap(waiting, closed) {
		go c.net.Close() // with TLS, Close waits for a client that reads nothing
	}
}

func (c *conn) end() {
	defer c.life.cancel()
	c.release()
	_ = c.flush() // fails only if the client has gone
	if c.sending {
		c.place.Stall() // only the client decides how long it takes
		closeLingering(c.net)
	}
	_ = c.net.Close()
	c.loop.Release()
	c.buffer.Close()
	c.server.conns.Remove(c)
}

// await waits until a request begins to arrive. It reports whether one does.
func (c *conn) await() bool {
	c.begun = time.Time{}
	c.place.Wait()
	if err := c.in.Await(); err != nil {
		if isTimeout(err) && !c.served {
			c.refuse(err) // the client has sent nothing at all
		}
		return false
	}
	c.begun = time.Now()
	return true
}

// next serves one request. It reports whether another may follow.
func (c *conn) next() bool {
	err := c.in.ReadHead(&c.head)
	if !c.state.CompareAndSwap(waiting, active) {
		return false
	}
	return c.answer(err)
}

// answer responds to a request whose head has been read with err. It reports whether another one may follow.
func (c *conn) answer(err error) bool {
	defer c.release()
	c.place.Work()
	if err != nil {
		c.refuse(err)
		return false
	}
	keep := c.respond()
	if !keep || c.in.Buffered() == 0 && c.flush() != nil || !c.drain() {
		return false
	}
	c.state.Store(waiting)
	return true
}

// release ends the use of what the request needed.
func (c *conn) release() {
	c.loan.Close() //guard:content-keeps-its-bytes
	if c.in.Release() {
		c.buffer.Close()
	}
}

// respond reads the request, except its content, and writes the response. It reports whether the connection stays open.
func (c *conn) respond() (keep bool) {
	s := c.server
	x := s.contexts.Get().(*httpapi.RequestContext)
	defer s.contexts.Put(x)
	defer x.Recycle()
	c.content, c.continued, c.slow = c.in.Content(&c.head), !c.head.Continue, false
	c.fill(x)
	if c.head.Version == "HTTP/1.1" || c.head.Version == "HTTP/1.0" {
		s.handler.Handle(c.life.ctx, x)
	} else {
		x.Fail(apierror.New(apierror.HTTPVersion, "this listener supports HTTP/1.1"))
		x.Unread = true
	}
	if x.Watch != nil {
		c.serveWatch(x)
		return false
	}
	c.loop.Count(s.handler.IsHit(x))
	keep = !x.Unread && c.mayStay()
	c.sending = !keep && !c.content.Ended() && !c.slow //guard:refusal-lost-to-reset
	return c.write(&x.Response, keep) == nil && keep
}

// fill gives x the request.
func (c *conn) fill(x *httpapi.RequestContext) {
	x.Caller = c.caller
	x.Method, x.Target, x.Host, x.HTTP11 = c.head.Method, c.head.Target, c.head.Host, c.head.HTTP11()
	if !c.content.Ended() {
		x.Content = (*arriving)(c)
	}
	x.ReadHeader(&c.head)
}

// mayStay reports whether another request may follow.
func (c *conn) mayStay() bool {
	return !c.head.Close && !c.life.drains() && c.server.backend.Stopping().Err() == nil && (c.content.Ended() || c.mayDrain())
}

// mayDrain reports whether content that has not been read is known to arrive, and small. After content of a method that
// has none the connection is closed: what else may look at it sees two requests.
func (c *conn) mayDrain() bool {
	left := c.content.Left()
	switch c.head.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
		return false
	}
	return c.continued && left != http1.Chunked && left <= maxDrained //guard:unread-content-becomes-request
}

// drain reads what is left of the content. It reports whether that has worked.
func (c *conn) drain() bool {
	if c.content.Ended() {
		return true
	}
	_, err := io.Copy(io.Discard, &c.content)
	return err == nil
}

// refuse responds to a request that could not be read. The client may still be sending, unless it was too slow.
func (c *conn) refuse(err error) {
	var r httpapi.Response
	e := c.server.readError(err)
	r.Fail(e)
	c.head.Method, c.head.Version = "", "HTTP/1.1"
	c.sending = e.Type != apierror.RequestTimeout
	_ = c.write(&r, false) // fails only if the client has gone
}

// arriving is a conn as the content of its request.
type arriving conn

// Length implements httpapi.Content.
func (a *arriving) Length() int64 { return a.content.Left() }

// Read implements httpapi.Content.
func (a *arriving) Read() ([]byte, *apierror.Error) {
	c := (*conn)(a)
	b, err := c.readContent()
	if err == nil {
		return b, nil
	}
	e := c.server.readError(err)
	c.slow = e.Type == apierror.RequestTimeout
	return nil, e
}

func (c *conn) readContent() ([]byte, error) {
	if !c.continued {
		c.continued = true
		if err := c.send([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return nil, err
		}
	}
	c.place.Stall()
	defer c.place.Work()
	return readContent(&c.content, int(c.content.Left()), c.server.handler.MaxBodyBytes, &c.loan)
}

// source is a conn as the connection that its Reader reads from: with a deadline, and after all responses have been sent.
type source conn

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	c := (*conn)(s)
	if err := c.flush(); err != nil {
		return 0, err
	}
	if err := c.limitRead(); err != nil {
		return 0, err
	}
	c.reads++
	return c.net.Read(p)
}

// limitRead sets the deadline for the next request, or for the rest of one that has begun to arrive.
func (c *conn) limitRead() error {
	at := c.begun.Add(c.server.config.ReadTimeout) // of the whole request
	if c.begun.IsZero() {
		at = listen.Soon(c.deadline.read, c.timeout)
	}
	at = c.life.limit(at)
	if at.Equal(c.deadline.read) {
		return nil
	}
	c.deadline.read = at
	return c.net.SetReadDeadline(at)
}

// flush sends the responses that have been written.
func (c *conn) flush() error {
	if c.out == nil {
		return nil
	}
	out := c.out
	n, err := c.writeNow(*out)
	if errors.Is(err, listen.ErrWouldBlock) { // the goroutine of the connection writes the rest
		*out = append((*out)[:0], (*out)[n:]...)
		return err
	}
	c.out = nil
	c.server.recycle(out)
	c.wide.Close()
	return err
}

// recycle keeps a buffer of responses, unless a very large header has made it grow.
func (s *Server) recycle(out *[]byte) {
	switch *out = (*out)[:0]; {
	case cap(*out) <= 2*outBytes:
		s.buffers.Put(out)
	case cap(*out) == wideBytes:
		s.wideBuffers.Put(out)
	}
}

// widen makes room for the responses to requests that have arrived already, so that they leave with one write. It reports
// whether there is enough for a body of the given size with its header.
func (c *conn) widen(body int) bool {
	if cap(*c.out) >= wideBytes || body > outBytes || c.in.Buffered() == 0 || !c.wide.Grow(wideBytes) { //guard:pipelined-responses-without-budget
		return false
	}
	wide := c.server.wideBuffers.Get().(*[]byte)
	*wide = append(*wide, *c.out...)
	c.server.recycle(c.out)
	c.out = wide
	return true
}

// send sends b after the responses that have been written.
func (c *conn) send(b []byte) error {
	if err := c.flush(); err != nil {
		return err
	}
	_, err := c.writeNow(b)
	return err
}

// writeNow writes to the connection. A client that does not read is disconnected.
func (c *conn) writeNow(b []byte) (int, error) {
	if len(b) > outBytes { // less fits into the kernel's buffer, unless the client has not read for long
		c.place.Stall()
		defer c.place.Work()
	}
	if at := c.life.limit(listen.Soon(c.deadline.write, c.server.config.WriteTimeout)); !at.Equal(c.deadline.write) {
		c.deadline.write = at
		if err := c.net.SetWriteDeadline(at); err != nil {
			return 0, err
		}
	}
	return c.net.Write(b)
}

// write writes a response. A small one is sent together with those to the requests that have arrived already.
func (c *conn) write(r *httpapi.Response, keep bool) error {
	if c.out != nil && cap(*c.out)-len(*c.out) < len(r.Body)+outBytes/4 && !c.widen(len(r.Body)) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if c.out == nil {
		c.out = c.server.buffers.Get().(*[]byte)
	}
	*c.out = c.appendHead(*c.out, r, keep)
	body := r.Body
	if c.head.Method == "HEAD" || !hasBody(r.Status) {
		body = nil
	}
	if room := cap(*c.out) - len(*c.out); len(body) > room {
		*c.out = append(*c.out, body[:max(room, 0)]...)
		return c.send(body[max(room, 0):])
	}
	*c.out = append(*c.out, body...)
	return nil
}
