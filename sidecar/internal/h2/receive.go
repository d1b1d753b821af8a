package h2

import (
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// receive is the receiving half of a stream: what has arrived of the body and was not read by the handler.
type receive struct {
	grpc       bool
	limit      int64    // of a message, or of the body of a request that is not gRPC
	chunks     [][]byte // the first one from off
	off        int
	buffered   int   // bytes in chunks
	chunkBytes int64 // capacity of chunks
	delivered  int64 // bytes that were read and that a grpc.Server may still hold
	window     int64 // bytes that the client may send
	debt       int   // bytes that it has sent and not got back
	total      int64
	closed     bool // END_STREAM has arrived
	err        error
	arriving   framing
	reading    framing
	allowed    int      // messages that may be read: one more than the handler has asked for
	sizes      [2]int64 // of the last messages that were read, by their number
	trailer    []hpack.HeaderField
	deadline   deadline
}

const chunkBytes, leastChunk = 16 << 10, 256

func (r *receive) init(grpc bool, limit int64) {
	r.grpc, r.limit, r.window, r.allowed = grpc, limit, frame.InitialWindow, 1
}

func (r *receive) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.chunks, r.chunkBytes, r.buffered, r.off = nil, 0, 0, 0
}

// readData handles a DATA frame. Its bytes count for the windows even where nobody wants them.
func (c *conn) readData(f frame.Header) error {
	if f.ID == 0 || f.ID > c.last {
		return frame.CodeProtocol
	}
	if c.in.window -= f.Length; c.in.window < 0 {
		return frame.CodeFlowControl
	}
	s := c.streams[f.ID]
	switch {
	case s == nil:
		if !c.closed.has(f.ID) {
			c.out.buf = frame.AppendReset(c.out.buf, f.ID, frame.CodeStreamClosed)
		}
	case s.recv.closed:
		c.reset(s, frame.CodeStreamClosed)
	default:
		if s.recv.window -= int64(f.Length); s.recv.window < 0 {
			c.reset(s, frame.CodeFlowControl)
		}
	}
	if f.Length == 0 && !f.Has(frame.FlagEndStream) && c.tooUseless() {
		return frame.CodeEnhanceYourCalm
	}
	err := c.readPayload(s, f)
	c.returnWindow(f.Length)
	return err
}

// returnWindow lets the client send n more bytes on the connection: those that came before are charged or gone.
func (c *conn) returnWindow(n int) {
	c.in.credit += n
	if c.in.credit >= writeUpdateThreshold {
		c.out.buf = frame.AppendWindowUpdate(c.out.buf, 0, c.in.credit)
		c.in.window += c.in.credit
		c.in.credit = 0
	}
}

func (c *conn) readPayload(s *stream, f frame.Header) error {
	data, padding := f.Length, 0
	if f.Has(frame.FlagPadded) {
		if f.Length == 0 {
			return frame.CodeFrameSize
		}
		if err := c.need(1); err != nil {
			return err
		}
		padding = int(c.in.buf[c.in.r])
		c.in.r++
		if data -= 1 + padding; data < 0 {
			return frame.CodeProtocol
		}
		if s != nil {
			s.recv.debt += 1 + padding
		}
	}
	if err := c.eachPart(data, func(part []byte, last bool) error {
		if s != nil {
			c.onData(s, part, last && f.Has(frame.FlagEndStream))
		}
		return nil
	}); err != nil {
		return err
	}
	if padding == 0 {
		return nil
	}
	return c.eachPart(padding, func([]byte, bool) error { return nil })
}

// onData takes a part of the body of s.
func (c *conn) onData(s *stream, p []byte, end bool) {
	if s.ended {
		return // the client may still send the rest; it is not kept
	}
	if end && s.fast && s.recv.total == 0 && c.answer(s, p) {
		return
	}
	r := &s.recv
	r.debt += len(p)
	r.total += int64(len(p))
	if why, ok := c.keep(s, p); !ok {
		c.refuse(s, why)
		return
	}
	if end {
		c.onEnd(s)
		return
	}
	s.setTimeout()
	c.returnStreamWindow(s)
	if r.grpc && r.arriving.complete > 0 && !(s.fast && c.nextIsData(s.id)) {
		c.start(s)
	}
	s.wake.Broadcast()
}

// keep keeps a part of a body, or says why not.
func (c *conn) keep(s *stream, p []byte) (why refusal, ok bool) {
	r := &s.recv
	if !r.grpc {
		if r.total > r.limit {
			return bodyTooLarge, false
		}
		return overloaded, c.store(s, p)
	}
	for rest := p; len(rest) > 0; {
		before := r.arriving.complete
		rest = rest[r.arriving.advance(rest):]
		complete := r.arriving.complete > before
		known := complete || r.arriving.have == messagePrefixBytes
		if known && r.arriving.length() > r.limit { //guard:h2-message-without-limit
			return bodyTooLarge, false
		}
		if complete && r.arriving.compressed() && !c.chargeInflated(s) {
			return overloaded, false
		}
	}
	return overloaded, c.store(s, p)
}

// chargeInflated charges what the message that is complete may become when it is decompressed.
func (c *conn) chargeInflated(s *stream) bool {
	n := min(s.recv.limit, inflation*s.recv.arriving.length()) - s.inflate
	if n <= 0 {
		return true
	}
	if !c.charge(s, n) { //guard:h2-decompressed-message-is-not-charged
		return false
	}
	s.inflate += n
	s.base += n
	return true
}

// store copies p into chunks, which are charged before they are allocated.
func (c *conn) store(s *stream, p []byte) bool {
	r := &s.recv
	for len(p) > 0 {
		last := len(r.chunks) - 1
		if last < 0 || len(r.chunks[last]) == cap(r.chunks[last]) {
			n := min(max(int64(len(p))+r.missing(), leastChunk), chunkBytes)
			if !c.charge(s, n) { //guard:h2-message-is-not-charged
				return false
			}
			r.chunks = append(r.chunks, make([]byte, 0, n))
			r.chunkBytes += n
			last++
		}
		chunk := r.chunks[last]
		n := copy(chunk[len(chunk):cap(chunk)], p)
		r.chunks[last] = chunk[:len(chunk)+n]
		r.buffered += n
		p = p[n:]
	}
	return true
}

// missing is how much is known to follow.
func (r *receive) missing() int64 {
	if !r.grpc {
		return 0
	}
	return r.arriving.left
}

// setTimeout gives each message its time.
func (s *stream) setTimeout() {
	switch {
	case s.waits || !s.recv.grpc:
	case s.recv.arriving.between():
		s.expires = time.Time{} // the next one may come at any time
	default:
		s.startTimeout()
	}
}

// returnStreamWindow lets the client send more of a message that the handler wants.
func (c *conn) returnStreamWindow(s *stream) {
	r := &s.recv
	wanted := r.grpc && r.arriving.complete < r.allowed
	if !wanted || r.closed || s.ended || r.debt < frame.InitialWindow/4 {
		return
	}
	c.giveWindow(s)
}

func (c *conn) giveWindow(s *stream) {
	c.out.buf = frame.AppendWindowUpdate(c.out.buf, s.id, s.recv.debt)
	s.recv.window += int64(s.recv.debt)
	s.recv.debt = 0
}

// onEnd handles END_STREAM.
func (c *conn) onEnd(s *stream) {
	r := &s.recv
	if s.head.Length >= 0 && s.head.Length != r.total {
		c.reset(s, frame.CodeProtocol)
		return
	}
	r.closed = true
	if !s.waits {
		s.expires = time.Time{}
	}
	if s.fast && len(r.chunks) == 1 && s.running == 0 && c.answer(s, r.chunks[0]) {
		return
	}
	c.start(s)
	s.wake.Broadcast()
}

// nextIsData reports whether the next frame is known to be DATA of a stream.
func (c *conn) nextIsData(id uint32) bool {
	if c.in.w-c.in.r < frame.HeaderBytes {
		return false
	}
	f := frame.Parse(c.in.buf[c.in.r:])
	return f.Kind == frame.Data && f.ID == id
}

// ready reports whether a handler that has room for some bytes must not wait. A grpc.Server keeps a buffer of that size for
// each read, so that it gets no small parts of a message.
func (r *receive) ready(room int) bool {
	switch {
	case r.err != nil:
		return true
	case r.buffered > 0 && !r.mayRead():
		return false
	case r.closed:
		return true
	case !r.grpc:
		return r.buffered > 0
	}
	return r.buffered >= room || r.arriving.complete > r.reading.complete
}

// mayRead reports whether the next byte belongs to a message that the handler has asked for, or the one after that.
func (r *receive) mayRead() bool {
	return !r.grpc || !r.reading.between() || r.reading.complete < r.allowed //guard:h2-messages-pile-up-in-grpc
}

// copyTo moves bytes to p.
func (r *receive) copyTo(p []byte) (n int) {
	for n < len(p) && r.buffered > 0 && r.mayRead() {
		part := r.chunks[0][r.off:]
		part = part[:min(len(part), len(p)-n)]
		if r.grpc {
			part = part[:r.reading.advance(part)]
			if r.reading.between() {
				r.sizes[r.reading.complete%2] = r.reading.length() + messagePrefixBytes
			}
		}
		n += copy(p[n:], part)
		r.buffered -= len(part)
		if r.off += len(part); r.off == len(r.chunks[0]) {
			r.chunkBytes -= int64(cap(r.chunks[0]))
			r.chunks[0] = nil
			r.chunks, r.off = r.chunks[1:], 0
		}
	}
	return n
}

// read is Read of the body. Called without mu.
func (s *stream) read(p []byte) (int, error) {
	c, r := s.conn, &s.recv
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 && !r.ready(len(p)) {
		if r.deadline.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		s.wake.Wait()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := r.copyTo(p)
	if r.grpc {
		r.delivered += int64(n) // it is held until the handler has got the message
	} else if r.debt >= frame.InitialWindow/4 && !r.closed {
		c.giveWindow(s)
		c.flushSoon()
	}
	c.lower(s, s.base+r.chunkBytes+r.delivered)
	if r.closed && r.buffered == 0 {
		return n, io.EOF
	}
	return n, nil
}

// nextMessage lets a grpc.Server read one more message, as the handler is done with all before. Called without mu.
func (s *stream) nextMessage() {
	c, r := s.conn, &s.recv
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended {
		return
	}
	r.delivered -= r.sizes[(r.allowed-1)%2]
	r.sizes[(r.allowed-1)%2] = 0
	r.allowed++
	c.lower(s, s.base+r.chunkBytes+r.delivered)
	c.returnStreamWindow(s)
	c.flushSoon()
	s.wake.Broadcast()
}

// body is the body of a request.
type body struct {
	stream    *stream
	request   *http.Request
	announced bool // the client waits for 100 (Continue)
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.announced {
		b.announced = false
		b.stream.sendContinue()
	}
	n, err := b.stream.read(p)
	if err == io.EOF && b.stream.recv.trailer != nil {
		trailer := header.Head{Fields: b.stream.recv.trailer}
		b.request.Trailer = trailer.HTTP()
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.stream.recv.err = errBodyClosed
	b.stream.wake.Broadcast()
	return nil
}

// deadline is one that a handler sets with a http.ResponseController.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(at time.Time, wake func()) {
	d.stop()
	if d.at = at; !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), wake)
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}
