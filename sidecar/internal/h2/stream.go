package h2

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/response"
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
	expires time.Time // when the message in progress must have arrived, or memory for the handler must be there; zero: never
	waits   bool      // in conn.pending
	cancel  context.CancelCauseFunc
	running int  // goroutines of the handler
	ended   bool // no frame is sent or received any more
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

// startTimeout begins the time for the arrival of a message.
func (s *stream) startTimeout() {
	if s.expires.IsZero() && !s.recv.body.Ended() {
		s.expires = time.Now().Add(s.conn.server.config.MessageTimeout)
		s.conn.life.watch() // the connection may rest
	}
}

// onTrailer handles a second header block. It must end the stream.
func (s *stream) onTrailer(f frame.Header) error {
	c := s.conn
	h := &c.in.head
	switch {
	case s.recv.body.Ended():
		return c.streams.reset(f.ID, frame.CodeStreamClosed)
	case h.Wrong || !h.IsTrailer() || !f.Has(frame.FlagEndStream):
		s.reset(frame.CodeProtocol)
	case h.TooLarge() || !s.Charge(int64(h.Size)):
		c.server.stats.TooLarge.Add(1)
		s.refuse(headerTooLarge)
	default:
		s.base += int64(h.Size)
		s.recv.trailer, h.Fields = slices.Clone(h.Fields), h.Fields[:0]
		s.fast = false
		s.onEnd()
	}
	return nil
}

// start runs the handler of s, or lets s wait for another request of the connection to end where the budget is used up.
// One handler of each connection needs no budget.
func (s *stream) start() {
	c := s.conn
	if s.running > 0 || s.waits || s.ended {
		return
	}
	if c.streams.handlers > 0 {
		if !s.Charge(handlerBytes) { //guard:h2-handler-is-not-charged
			s.waits = true
			s.expires = time.Now().Add(c.server.config.MessageTimeout)
			c.streams.pending = append(c.streams.pending, s)
			return
		}
		s.base += handlerBytes
	}
	if s.recv.body.Ended() {
		s.expires = time.Time{}
	}
	c.streams.handlers++
	s.running = 1
	c.server.handlers.Add(1)
	c.server.stats.Handled.Add(1)
	var ctx context.Context
	ctx, s.cancel = context.WithCancelCause(c.ctx)
	c.life.watch()
	go c.run(requestContext{ctx, s})
}

// count and uncount count the goroutines of a handler.
func (s *stream) count() {
	c := s.conn
	if s.running++; s.running == 1 { // a grpc.Server can start a handler after its client is gone
		c.streams.handlers++
		c.streams.orphans++
	}
}

func (s *stream) uncount() {
	c := s.conn
	if s.running--; s.running > 0 {
		return
	}
	c.streams.handlers--
	c.setPlace()
	if s.ended {
		c.streams.orphans--
		s.lower(0)
	}
	c.streams.startPending()
}

// run calls the handler. Called without mu.
func (c *conn) run(ctx requestContext) {
	s := ctx.stream
	defer c.server.handlers.Done()
	w := response.New(s, s.head.Method)
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
		s.cancel(nil)
	}()
	r, err := s.request(ctx)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
	} else {
		c.server.config.Handler.ServeHTTP(w, r)
	}
	w.Finish()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.finish()
}

// finish ends a stream whose handler has returned.
func (s *stream) finish() {
	c := s.conn
	if !s.ended {
		c.useless.pay()
		if !s.recv.body.Ended() {
			c.out.buf = frame.AppendReset(c.out.buf, s.id, frame.CodeNone) // the client need not send the rest
		}
	}
	s.close(errFinished, true)
	s.release()
}

// release follows the end of ServeHTTP.
func (s *stream) release() {
	c := s.conn
	s.recv.deadline.stop()
	s.send.deadline.stop()
	s.uncount()
	c.out.flushSoon()
}

// panicked answers a request whose handler has panicked.
func (s *stream) panicked(p any) {
	c := s.conn
	if p != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
		c.server.config.Defect(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(frame.CodeInternal)
	s.release()
}

// close ends a stream. Its handler, if one runs, gets err.
func (s *stream) close(err error, byServer bool) {
	c := s.conn
	if s.ended {
		return
	}
	s.ended = true
	delete(c.streams.open, s.id)
	if byServer && !s.recv.body.Ended() {
		c.streams.closed.add(s.id)
	}
	s.recv.body.Fail(err)
	if s.send.err == nil {
		s.send.err = err
	}
	if s.waits {
		s.waits = false
		c.streams.pending = slices.DeleteFunc(c.streams.pending, func(p *stream) bool { return p == s })
	}
	if s.running > 0 {
		c.streams.orphans++
		s.lower(s.base + s.recv.body.Held())
		s.cancel(err) //guard:h2-handler-does-not-know-slow-client
	} else {
		s.lower(0)
	}
	s.wake.Broadcast()
	c.life.closing()
}

// reset ends a stream with an error.
func (s *stream) reset(why frame.Code) { s.end(why, errReset) }

// end ends a stream: the client gets why, and the handler err.
func (s *stream) end(why frame.Code, err error) {
	c := s.conn
	if s.ended {
		return
	}
	c.out.buf = frame.AppendReset(c.out.buf, s.id, why)
	s.close(err, true)
}

// refuse answers a request without its handler, or resets it if the response has begun. Nothing that the client may still
// send for it is kept.
func (s *stream) refuse(why refusal) {
	c := s.conn
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
		s.reset(frame.CodeCancel)
		return
	}
	s.appendRefusal(why)
	if !s.recv.body.Ended() {
		c.out.buf = frame.AppendReset(c.out.buf, s.id, frame.CodeNone)
	}
	s.close(errReset, true)
}

func (s *stream) appendRefusal(why refusal) {
	c := s.conn
	if s.recv.body.GRPC() {
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

// look ends a stream that takes too long.
func (s *stream) look(now time.Time) {
	c := s.conn
	config := &c.server.config
	switch {
	case s.fast && s.running == 0 && s.expires.IsZero():
		s.startTimeout() // its time begins here, so that a fast answer needs no clock
	case !s.expires.IsZero() && !now.Before(s.expires): //guard:h2-slow-message
		if s.waits {
			s.refuse(overloaded)
		} else {
			s.refuse(tooSlow)
		}
	case !s.send.blocked.IsZero() && now.Sub(s.send.blocked) >= config.WriteTimeout: //guard:h2-response-is-not-read
		c.server.stats.WriteTimeouts.Add(1)
		s.end(frame.CodeCancel, ErrSlowClient)
	}
}

// requestContext is the context of a request.
type requestContext struct {
	context.Context
	stream *stream
}

type (
	streamKey  struct{}
	requestKey struct{}
)

// Value implements context.Context.
func (c requestContext) Value(key any) any {
	switch key.(type) {
	case streamKey:
		return c.stream
	case requestKey:
		return c.Context
	}
	return c.Context.Value(key)
}

// Cause returns why the request with this context, or one that is derived from it, has ended: ErrSlowClient, for example.
// The cause of a derived context can be another one: grpc's handler transport cancels its own when it sees that of the
// request end.
func Cause(ctx context.Context) error {
	if request, ok := ctx.Value(requestKey{}).(context.Context); ok {
		return context.Cause(request)
	}
	return context.Cause(ctx)
}
