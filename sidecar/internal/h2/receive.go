package h2

import (
	"os"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/body"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

// receive is the receiving half of a stream: the body, and what the client may send of it.
type receive struct {
	body     body.Body
	window   int64 // bytes that the client may send
	debt     int   // bytes that it has sent and not got back
	trailer  []hpack.HeaderField
	deadline deadline
}

// readData handles a DATA frame. Its bytes count for the windows even where nobody wants them.
func (r *reader) readData(f frame.Header) error {
	c := r.conn
	if f.ID == 0 || f.ID > c.streams.last {
		return frame.CodeProtocol
	}
	if r.window -= f.Length; r.window < 0 {
		return frame.CodeFlowControl
	}
	s := c.streams.open[f.ID]
	switch {
	case s == nil:
		if !c.streams.closed.has(f.ID) {
			c.out.buf = frame.AppendReset(c.out.buf, f.ID, frame.CodeStreamClosed)
		}
	case s.recv.body.Ended():
		s.reset(frame.CodeStreamClosed)
	default:
		if s.recv.window -= int64(f.Length); s.recv.window < 0 {
			s.reset(frame.CodeFlowControl)
		}
	}
	if f.Length == 0 && !f.Has(frame.FlagEndStream) && r.tooUseless() {
		return frame.CodeEnhanceYourCalm
	}
	err := r.readPayload(s, f)
	r.returnWindow(f.Length)
	return err
}

// returnWindow lets the client send n more bytes on the connection: those that came before are charged or gone.
func (r *reader) returnWindow(n int) {
	r.credit += n
	if r.credit >= writeUpdateThreshold {
		r.conn.out.buf = frame.AppendWindowUpdate(r.conn.out.buf, 0, r.credit)
		r.window += r.credit
		r.credit = 0
	}
}

func (r *reader) readPayload(s *stream, f frame.Header) error {
	data, padding := f.Length, 0
	if f.Has(frame.FlagPadded) {
		if f.Length == 0 {
			return frame.CodeFrameSize
		}
		if err := r.need(1); err != nil {
			return err
		}
		padding = int(r.buf[r.from])
		r.from++
		if data -= 1 + padding; data < 0 {
			return frame.CodeProtocol
		}
		if s != nil {
			s.recv.debt += 1 + padding
		}
	}
	if err := r.eachPart(data, func(part []byte, last bool) error {
		if s != nil {
			s.onData(part, last && f.Has(frame.FlagEndStream))
		}
		return nil
	}); err != nil {
		return err
	}
	if padding == 0 {
		return nil
	}
	return r.eachPart(padding, func([]byte, bool) error { return nil })
}

// onData takes a part of the body of s.
func (s *stream) onData(p []byte, end bool) {
	c := s.conn
	if s.ended {
		return // the client may still send the rest; it is not kept
	}
	if end && s.fast && s.recv.body.Total() == 0 && s.answer(p) {
		return
	}
	r := &s.recv
	r.debt += len(p)
	switch r.body.Add(p) {
	case body.ErrTooLarge:
		s.refuse(bodyTooLarge)
		return
	case body.ErrMemory:
		s.refuse(overloaded)
		return
	}
	if end {
		s.onEnd()
		return
	}
	s.setTimeout()
	s.returnWindow()
	if r.body.GRPC() && r.body.HasMessage() && !(s.fast && c.in.nextIsData(s.id)) {
		s.start()
	}
	s.wake.Broadcast()
}

// setTimeout gives each message its time.
func (s *stream) setTimeout() {
	switch {
	case s.waits || !s.recv.body.GRPC():
	case s.recv.body.InMessage():
		s.startTimeout()
	default:
		s.expires = time.Time{} // the next one may come at any time
	}
}

// returnWindow lets the client send more of a message that the handler wants.
func (s *stream) returnWindow() {
	r := &s.recv
	if !r.body.Wanted() || r.body.Ended() || s.ended || r.debt < frame.InitialWindow/4 {
		return
	}
	s.giveWindow()
}

func (s *stream) giveWindow() {
	c := s.conn
	c.out.buf = frame.AppendWindowUpdate(c.out.buf, s.id, s.recv.debt)
	s.recv.window += int64(s.recv.debt)
	s.recv.debt = 0
}

// onEnd handles END_STREAM.
func (s *stream) onEnd() {
	r := &s.recv
	if s.head.Length >= 0 && s.head.Length != r.body.Total() {
		s.reset(frame.CodeProtocol)
		return
	}
	r.body.End()
	if !s.waits {
		s.expires = time.Time{}
	}
	if p, ok := r.body.Whole(); ok && s.fast && s.running == 0 && s.answer(p) {
		return
	}
	s.start()
	s.wake.Broadcast()
}

// nextIsData reports whether the next frame is known to be DATA of a stream.
func (r *reader) nextIsData(id uint32) bool {
	if r.to-r.from < frame.HeaderBytes {
		return false
	}
	f := frame.Parse(r.buf[r.from:])
	return f.Kind == frame.Data && f.ID == id
}

// read is Read of the body. Called without mu.
func (s *stream) read(p []byte) (int, error) {
	c, r := s.conn, &s.recv
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 && !r.body.Ready(len(p)) {
		if r.deadline.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		s.wake.Wait()
	}
	n, err := r.body.Read(p)
	if !r.body.GRPC() && r.debt >= frame.InitialWindow/4 && err == nil && !r.body.Ended() {
		s.giveWindow()
		c.out.flushSoon()
	}
	s.lower(s.base + r.body.Held())
	return n, err
}

// nextMessage lets a grpc.Server read one more message, as the handler is done with all before. Called without mu.
func (s *stream) nextMessage() {
	c, r := s.conn, &s.recv
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.ended {
		return
	}
	r.body.Next()
	s.lower(s.base + r.body.Held())
	s.returnWindow()
	c.out.flushSoon()
	s.wake.Broadcast()
}
