package h2

import (
	"os"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/response"
)

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

var _ response.Stream = (*stream)(nil)

// SetReadDeadline implements response.Stream.
func (s *stream) SetReadDeadline(at time.Time) error {
	s.setDeadline(&s.recv.deadline, at)
	return nil
}

// SetWriteDeadline implements response.Stream.
func (s *stream) SetWriteDeadline(at time.Time) error {
	s.setDeadline(&s.send.deadline, at)
	return nil
}

func (s *stream) setDeadline(d *deadline, at time.Time) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	d.set(at, func() {
		s.conn.mu.Lock()
		defer s.conn.mu.Unlock()
		s.wake.Broadcast()
	})
	s.wake.Broadcast()
}

// SendInformation implements response.Stream.
func (s *stream) SendInformation(status int) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.ended && !s.send.begun {
		c.out.buf = frame.AppendHeaders(c.out.buf, s.id, c.out.table.AppendStatus(nil, status), false)
		c.out.flushSoon()
	}
}

// SendHeader implements response.Stream.
func (s *stream) SendHeader(status int, fields []byte, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.roomFor(0); err != nil {
		return err
	}
	block := c.out.table.AppendStatus(make([]byte, 0, 8+len(fields)), status)
	s.send.begun, s.send.closed = true, end
	c.out.buf = frame.AppendHeaders(c.out.buf, s.id, append(block, fields...), end)
	c.out.flushSoon()
	return nil
}

// SendData sends p, as far as the windows of the client and the buffer of the connection allow, until all is sent. What waits is
// charged.
func (s *stream) SendData(p []byte, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > narrowBytes/2 {
		c.out.large = true
		c.out.widen()
	}
	waiting := c.server.config.Budget.Loan(budget.Responses)
	defer waiting.Close()
	for len(p) > 0 {
		if n := s.sendable(len(p)); n == 0 && len(p) > frame.MaxSize && waiting.Bytes() == 0 && !waiting.Grow(int64(len(p))) { //guard:h2-unread-response-is-not-charged
			c.server.stats.Refused.Add(1)
			s.reset(frame.CodeEnhanceYourCalm)
			c.out.flushSoon()
			return s.send.err
		}
		if err := s.roomFor(len(p)); err != nil {
			return err
		}
		n := s.sendable(len(p))
		flags := byte(0)
		if end && n == len(p) {
			flags, s.send.closed = frame.FlagEndStream, true
		}
		c.out.buf = append(frame.Append(c.out.buf, n, frame.Data, flags, s.id), p[:n]...)
		c.out.window -= int64(n)
		s.send.window -= int64(n)
		p = p[n:]
		c.out.flushSoon()
	}
	return nil
}

// sendable is how many of n bytes can be sent now.
func (s *stream) sendable(n int) int {
	out := &s.conn.out
	return int(max(min(int64(min(n, frame.MaxSize, out.room())), out.window, s.send.window), 0))
}

// roomFor waits until at least one of n bytes can be sent, or a frame without data.
func (s *stream) roomFor(n int) error {
	c := s.conn
	defer s.unblocked()
	for s.send.err == nil && (n > 0 && s.sendable(n) == 0 || c.out.room() == 0) {
		if s.send.deadline.passed() {
			s.reset(frame.CodeCancel)
			return os.ErrDeadlineExceeded
		}
		if s.send.blocked.IsZero() {
			s.send.blocked = time.Now()
			c.place.blocked++
			c.setPlace()
		}
		if !s.send.queued {
			s.send.queued = true
			c.out.waiting = append(c.out.waiting, s)
		}
		c.life.watch()
		c.out.flushSoon()
		s.wake.Wait()
	}
	return s.send.err
}

// unblocked ends what roomFor began.
func (s *stream) unblocked() {
	if !s.send.blocked.IsZero() {
		s.send.blocked = time.Time{}
		s.conn.place.blocked--
		s.conn.setPlace()
	}
}

// SendTrailer implements response.Stream.
func (s *stream) SendTrailer(fields []byte) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.send.closed {
		return s.send.err
	}
	if err := s.roomFor(0); err != nil {
		return err
	}
	s.send.closed = true
	if len(fields) > 0 {
		c.out.buf = frame.AppendHeaders(c.out.buf, s.id, append(c.out.table.Begin(nil), fields...), true)
	} else {
		c.out.buf = frame.Append(c.out.buf, 0, frame.Data, frame.FlagEndStream, s.id)
	}
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
