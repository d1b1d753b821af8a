package h2

import (
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// responseBuffer joins small writes of a handler to one frame; larger ones are not copied here.
const responseBuffer = 2 << 10

// response is the http.ResponseWriter of a stream. Only the goroutine of the handler uses it.
type response struct {
	stream   *stream
	header   http.Header
	status   int
	trailers []string // announced with the header
	buf      []byte
	begun    bool // the header was sent
	length   int64
	err      error
}

var _ interface {
	http.ResponseWriter
	http.Flusher
	FlushError() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	EnableFullDuplex() error
} = (*response)(nil)

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		w.stream.sendInformation(status)
		return
	}
	if w.status == 0 {
		w.status = status
		for _, line := range w.header["Trailer"] {
			for name := range strings.SplitSeq(line, ",") {
				w.trailers = append(w.trailers, http.CanonicalHeaderKey(strings.TrimSpace(name)))
			}
		}
	}
}

func (w *response) hasBody() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified && w.stream.head.Method != http.MethodHead
}

// Write implements http.ResponseWriter. It waits while the client accepts nothing.
func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.hasBody() {
		if w.stream.head.Method != http.MethodHead {
			return 0, http.ErrBodyNotAllowed
		}
		w.length += int64(len(p))
		return len(p), nil
	}
	w.length += int64(len(p))
	if len(w.buf)+len(p) <= responseBuffer {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.FlushError(); err != nil {
		return 0, err
	}
	if w.err = w.stream.write(p, false); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what was written. http.ResponseController calls it.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.begin(false)
	if w.err == nil && len(w.buf) > 0 {
		w.err = w.stream.write(w.buf, false)
		w.buf = w.buf[:0]
	}
	return w.err
}

// begin sends the header.
func (w *response) begin(end bool) {
	if w.begun || w.err != nil {
		return
	}
	w.begun = true
	s := w.stream
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if w.err = s.roomFor(0); w.err != nil {
		return
	}
	block := s.conn.out.table.AppendStatus(nil, w.status)
	for name, values := range w.header {
		if !strings.HasPrefix(name, http.TrailerPrefix) && !slices.Contains(w.trailers, name) {
			block = header.AppendValues(block, name, values)
		}
	}
	if _, ok := w.header["Date"]; !ok {
		block = header.AppendField(block, "date", time.Now().UTC().Format(http.TimeFormat))
	}
	s.send.begun, s.send.closed = true, end
	s.conn.out.buf = frame.AppendHeaders(s.conn.out.buf, s.id, block, end)
	s.conn.flushSoon()
}

// finish sends the rest after the handler has returned.
func (w *response) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	trailer := w.trailer()
	if !w.begun && w.header.Get("Content-Length") == "" && (w.hasBody() || w.length > 0) && len(trailer) == 0 {
		w.header.Set("Content-Length", strconv.FormatInt(w.length, 10)) // it is known because nothing was flushed
	}
	end := len(trailer) == 0
	w.begin(end && len(w.buf) == 0)
	if w.err == nil && len(w.buf) > 0 {
		w.err = w.stream.write(w.buf, end)
	}
	if w.err == nil {
		w.err = w.stream.end(trailer)
	}
}

// trailer returns the block of the trailer; empty if there is none.
func (w *response) trailer() (block []byte) {
	for _, name := range w.trailers {
		block = header.AppendValues(block, name, w.header[name])
	}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			block = header.AppendValues(block, name, values)
		}
	}
	return block
}

// SetReadDeadline implements the method that http.ResponseController calls.
func (w *response) SetReadDeadline(at time.Time) error {
	w.stream.setDeadline(&w.stream.recv.deadline, at)
	return nil
}

// SetWriteDeadline implements the method that http.ResponseController calls.
func (w *response) SetWriteDeadline(at time.Time) error {
	w.stream.setDeadline(&w.stream.send.deadline, at)
	return nil
}

// EnableFullDuplex implements the method that http.ResponseController calls: HTTP/2 always is.
func (w *response) EnableFullDuplex() error { return nil }

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

// sendContinue tells the client to send the body that it has announced. Called without mu.
func (s *stream) sendContinue() { s.sendInformation(http.StatusContinue) }

// sendInformation sends a header of status 1xx without fields. Called without mu.
func (s *stream) sendInformation(status int) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.ended && !s.send.begun {
		c.out.buf = frame.AppendHeaders(c.out.buf, s.id, c.out.table.AppendStatus(nil, status), false)
		c.flushSoon()
	}
}

// write sends p, as far as the windows of the client and the buffer of the connection allow, until all is sent. What waits is
// charged. Called without mu.
func (s *stream) write(p []byte, end bool) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) > narrowBytes/2 {
		c.out.large = true
		c.widen()
	}
	waiting := c.server.config.Budget.Loan(budget.Responses)
	defer waiting.Close()
	for len(p) > 0 {
		if n := s.sendable(len(p)); n == 0 && len(p) > frame.MaxSize && waiting.Bytes() == 0 && !waiting.Grow(int64(len(p))) { //guard:h2-unread-response-is-not-charged
			c.server.stats.Refused.Add(1)
			c.reset(s, frame.CodeEnhanceYourCalm)
			c.flushSoon()
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
		c.flushSoon()
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
			c.reset(s, frame.CodeCancel)
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
		c.watch()
		c.flushSoon()
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

// end sends the trailer, or the end of the stream where it was not sent. Called without mu.
func (s *stream) end(trailer []byte) error {
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
	if len(trailer) > 0 {
		c.out.buf = frame.AppendHeaders(c.out.buf, s.id, append(c.out.table.Begin(nil), trailer...), true)
	} else {
		c.out.buf = frame.Append(c.out.buf, 0, frame.Data, frame.FlagEndStream, s.id)
	}
	return nil
}
