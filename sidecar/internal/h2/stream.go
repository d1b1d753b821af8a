package h2

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// stream is a request and its response. mu of its connection guards it, except head, which does not change after it is complete.
type stream struct {
	conn    *conn
	id      uint32
	head    header.Head
	fast    bool      // Fast may answer it
	empty   bool      // it has no body
	recv    receive   // the body
	send    send      // the response
	wake    sync.Cond // signaled when its goroutines should look again
	held    int64     // bytes charged to the connection, of which base do not depend on the body
	base    int64
	inflate int64     // of base: for messages that become larger when they are decompressed
	expires time.Time // when the message in progress must have arrived, or memory for the handler must be there; zero: never
	waits   bool      // in conn.pending
	cancel  context.CancelFunc
	running int  // goroutines of the handler
	ended   bool // no frame is sent or received any more
}

// send is the sending half of a stream.
type send struct {
	window   int64
	begun    bool // the header was sent
	closed   bool // END_STREAM was sent
	queued   bool // in output.waiting
	blocked  time.Time
	err      error
	deadline deadline
}

// refusal is why the server does not pass on a request.
type refusal struct {
	status int
	code   string // of gRPC
	text   string
}

// The statuses of gRPC that the server sends itself.
const (
	grpcDeadlineExceeded, grpcResourceExhausted = "4", "8"
)

var (
	headerTooLarge = refusal{http.StatusRequestHeaderFieldsTooLarge, grpcResourceExhausted,
		"the header of the call exceeds the limit of this listener"}
	bodyTooLarge = refusal{http.StatusRequestEntityTooLarge, grpcResourceExhausted,
		"the message is larger than this method allows"}
	overloaded = refusal{http.StatusTooManyRequests, grpcResourceExhausted,
		"the memory for requests is used up; retry later"}
	tooSlow = refusal{http.StatusRequestTimeout, grpcDeadlineExceeded,
		"the request did not arrive completely in time"}
)

// newStream returns a stream for the header that was read last.
func (c *conn) newStream(id uint32) *stream {
	if len(c.free) == 0 {
		c.free = append(c.free, new(stream))
	}
	last := len(c.free) - 1
	s := c.free[last]
	c.free = c.free[:last]
	fields := s.head.Fields
	s.conn, s.id, s.head = c, id, c.in.head
	c.in.head.Fields = fields[:0]
	s.wake.L = &c.mu
	s.send.window = c.out.initial
	s.recv.init(s.head.GRPC(), c.server.config.MaxBody(s.head.Path))
	c.streams[id] = s
	c.peak = max(c.peak, len(c.streams))
	return s
}

// recycle makes a stream, which no goroutine has seen, available again.
func (c *conn) recycle(s *stream) {
	fields := s.head.Fields
	clear(fields)
	if len(c.free) < maxFree && cap(fields) <= maxFree {
		*s = stream{head: header.Head{Fields: fields[:0]}}
		c.free = append(c.free, s)
	}
}

// maxFree limits what a connection keeps for its next requests.
const maxFree = 16

func (c *conn) onHeaders(f frame.Header) error {
	h := &c.in.head
	if s := c.streams[f.ID]; s != nil {
		return c.onTrailer(s, f)
	}
	if f.ID <= c.last {
		return c.onClosedHeaders(f)
	}
	c.last = f.ID
	if c.life.left {
		c.closed.add(f.ID) // the last GOAWAY says that it is not served
		return nil
	}
	c.life.active = true
	h.CheckRequest()
	switch {
	case h.Wrong:
		c.discard(f.ID, frame.CodeProtocol)
	case len(c.streams)+c.orphans >= int(c.server.config.MaxStreams): //guard:h2-rapid-reset
		c.discard(f.ID, frame.CodeRefusedStream)
	default:
		c.open(f)
	}
	return nil
}

func (c *conn) onClosedHeaders(f frame.Header) error {
	switch {
	case c.closed.has(f.ID) && !f.Has(frame.FlagEndStream):
		return c.resetID(f.ID, frame.CodeProtocol) // it is no trailer
	case c.closed.has(f.ID):
		return nil // the client did not know it yet
	case f.ID == c.last:
		return frame.CodeStreamClosed
	}
	return frame.CodeProtocol
}

// discard resets a request that gets no stream.
func (c *conn) discard(id uint32, why frame.Code) {
	c.closed.add(id)
	c.out.buf = frame.AppendReset(c.out.buf, id, why)
}

// open begins a request.
func (c *conn) open(f frame.Header) {
	s := c.newStream(f.ID)
	s.empty = f.Has(frame.FlagEndStream)
	c.place.set(working)
	s.recv.closed = s.empty
	large := s.head.TooLarge()
	s.base = streamBytes
	if !large {
		s.base += int64(s.head.Size)
	}
	switch {
	case !c.charge(s, s.base):
		c.refuse(s, overloaded)
	case large:
		c.server.stats.TooLarge.Add(1)
		c.refuse(s, headerTooLarge)
	case s.empty && s.head.Length > 0:
		c.reset(s, frame.CodeProtocol)
	case s.empty, !s.recv.grpc:
		s.startTimeout()
		c.start(s)
	case c.server.config.Fast != nil && s.head.Plain() && c.server.config.Fast.Match(s.head.Path):
		s.fast = true
		c.watch()
	default:
		s.startTimeout()
		c.watch()
	}
}

// startTimeout begins the time for the arrival of a message.
func (s *stream) startTimeout() {
	if s.expires.IsZero() && !s.recv.closed {
		s.expires = time.Now().Add(s.conn.server.config.MessageTimeout)
	}
}

// onTrailer handles a second header block. It must end the stream.
func (c *conn) onTrailer(s *stream, f frame.Header) error {
	h := &c.in.head
	switch {
	case s.recv.closed:
		return c.resetID(f.ID, frame.CodeStreamClosed)
	case h.Wrong || !h.IsTrailer() || !f.Has(frame.FlagEndStream):
		c.reset(s, frame.CodeProtocol)
	case h.TooLarge() || !c.charge(s, int64(h.Size)):
		c.server.stats.TooLarge.Add(1)
		c.refuse(s, headerTooLarge)
	default:
		s.base += int64(h.Size)
		s.recv.trailer, h.Fields = slices.Clone(h.Fields), h.Fields[:0]
		s.fast = false
		c.onEnd(s)
	}
	return nil
}

// start runs the handler of s, or lets s wait for another request of the connection to end where the budget is used up.
// One handler of each connection needs no budget.
func (c *conn) start(s *stream) {
	if s.running > 0 || s.waits || s.ended {
		return
	}
	if c.handlers > 0 {
		if !c.charge(s, handlerBytes) { //guard:h2-handler-is-not-charged
			s.waits = true
			s.expires = time.Now().Add(c.server.config.MessageTimeout)
			c.pending = append(c.pending, s)
			return
		}
		s.base += handlerBytes
	}
	if s.recv.closed {
		s.expires = time.Time{}
	}
	c.handlers++
	s.running = 1
	c.server.handlers.Add(1)
	c.server.stats.Handled.Add(1)
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(c.ctx)
	c.watch()
	go c.run(requestContext{ctx, s})
}

// startPending runs the next request that waits.
func (c *conn) startPending() {
	for len(c.pending) > 0 && c.out.err == nil {
		s := c.pending[0]
		c.pending = c.pending[1:]
		s.waits = false
		c.start(s)
		if s.waits {
			return
		}
	}
}

// enter and leave count the goroutines of a handler. Called with mu held.
func (c *conn) enter(s *stream) {
	if s.running++; s.running == 1 { // a grpc.Server can start a handler after its client is gone
		c.handlers++
		c.orphans++
	}
}

func (c *conn) leaveHandler(s *stream) {
	if s.running--; s.running > 0 {
		return
	}
	c.handlers--
	c.setPlace()
	if s.ended {
		c.orphans--
		c.lower(s, 0)
	}
	c.startPending()
}

// run calls the handler. Called without mu.
func (c *conn) run(ctx requestContext) {
	s := ctx.stream
	defer c.server.handlers.Done()
	w := &response{stream: s, header: http.Header{}}
	defer func() {
		if p := recover(); p != nil {
			c.panicked(s, p)
		}
		s.cancel()
	}()
	r, err := s.request(ctx)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	} else {
		c.server.config.Handler.ServeHTTP(w, r)
	}
	w.finish()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finish(s)
}

// finish ends a stream whose handler has returned.
func (c *conn) finish(s *stream) {
	if !s.ended {
		c.useless.pay()
		if !s.recv.closed {
			c.out.buf = frame.AppendReset(c.out.buf, s.id, frame.CodeNone) // the client need not send the rest
		}
	}
	c.closeStream(s, errFinished, true)
	c.release(s)
}

// release follows the end of ServeHTTP.
func (c *conn) release(s *stream) {
	s.recv.deadline.stop()
	s.send.deadline.stop()
	c.leaveHandler(s)
	c.flushSoon()
}

// panicked answers a request whose handler has panicked.
func (c *conn) panicked(s *stream, p any) {
	if p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
		c.server.config.Defect(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(s, frame.CodeInternal)
	c.release(s)
}

// closeStream ends a stream. Its handler, if one runs, gets err.
func (c *conn) closeStream(s *stream, err error, byServer bool) {
	if s.ended {
		return
	}
	s.ended = true
	delete(c.streams, s.id)
	if byServer && !s.recv.closed {
		c.closed.add(s.id)
	}
	s.recv.fail(err)
	if s.send.err == nil {
		s.send.err = err
	}
	if s.waits {
		s.waits = false
		c.pending = slices.DeleteFunc(c.pending, func(p *stream) bool { return p == s })
	}
	if s.running > 0 {
		c.orphans++
		c.lower(s, s.base+s.recv.delivered)
		s.cancel()
	} else {
		c.lower(s, 0)
	}
	s.wake.Broadcast()
	c.closing()
}

// reset ends a stream with an error.
func (c *conn) reset(s *stream, why frame.Code) {
	if s.ended {
		return
	}
	c.out.buf = frame.AppendReset(c.out.buf, s.id, why)
	c.closeStream(s, errReset, true)
}

// refuse answers a request without its handler, or resets it if the response has begun. Nothing that the client may still
// send for it is kept.
func (c *conn) refuse(s *stream, why refusal) {
	switch {
	case s.ended:
		return
	case why == overloaded:
		c.server.stats.Refused.Add(1)
	case why == bodyTooLarge:
		c.server.stats.TooLarge.Add(1)
	case why == tooSlow:
		c.server.stats.MessageTimeouts.Add(1)
	}
	if s.send.begun {
		c.reset(s, frame.CodeCancel)
		return
	}
	c.appendRefusal(s, why)
	if !s.recv.closed {
		c.out.buf = frame.AppendReset(c.out.buf, s.id, frame.CodeNone)
	}
	c.closeStream(s, errReset, true)
}

func (c *conn) appendRefusal(s *stream, why refusal) {
	if s.recv.grpc {
		block := header.AppendField(c.out.table.AppendStatus(nil, http.StatusOK), "content-type", header.ContentTypeGRPC)
		block = header.AppendField(header.AppendField(block, "grpc-status", why.code), "grpc-message", why.text)
		c.out.buf = frame.AppendHeaders(c.out.buf, s.id, block, true)
		return
	}
	block := header.AppendField(c.out.table.AppendStatus(nil, why.status), "retry-after", "1")
	contentType, body := c.server.config.Problem(why.status, why.text)
	if int64(len(body)) > min(c.out.window, s.send.window, frame.MaxSize) || s.head.Method == http.MethodHead {
		body = nil
	}
	if len(body) > 0 {
		block = header.AppendField(block, "content-type", contentType)
	}
	c.out.buf = frame.AppendHeaders(c.out.buf, s.id, block, len(body) == 0)
	if len(body) > 0 {
		c.out.window -= int64(len(body))
		c.out.buf = append(frame.Append(c.out.buf, len(body), frame.Data, frame.FlagEndStream, s.id), body...)
	}
}

// lookAtStream ends a stream that takes too long.
func (c *conn) lookAtStream(s *stream, now time.Time) {
	config := &c.server.config
	switch {
	case s.fast && s.running == 0 && s.expires.IsZero():
		s.startTimeout() // its time begins here, so that a fast answer needs no clock
	case !s.expires.IsZero() && !now.Before(s.expires): //guard:h2-slow-message
		if s.waits {
			c.refuse(s, overloaded)
		} else {
			c.refuse(s, tooSlow)
		}
	case !s.send.blocked.IsZero() && now.Sub(s.send.blocked) >= config.WriteTimeout: //guard:h2-response-is-not-read
		c.server.stats.WriteTimeouts.Add(1)
		c.reset(s, frame.CodeCancel)
	}
}

// requestContext is the context of a request.
type requestContext struct {
	context.Context
	stream *stream
}

type streamKey struct{}

// Value implements context.Context.
func (c requestContext) Value(key any) any {
	if _, ok := key.(streamKey); ok {
		return c.stream
	}
	return c.Context.Value(key)
}
