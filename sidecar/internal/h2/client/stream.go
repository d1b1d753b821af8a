package client

import (
	"context"
	"encoding/binary"
	"io"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

const (
	prefixBytes = 5        // before each message: a flag and the length
	firstBytes  = 16 << 10 // kept of a message before more has arrived: a server may announce what it does not send
)

// stream is a call. mu of its connection guards it, except wake.
type stream struct {
	conn  *conn
	id    uint32
	unary bool
	limit int           // of a message
	wake  chan struct{} // has room for one signal

	window      int64  // bytes that the server accepts
	recv        int    // bytes that the server may send
	debt        int    // bytes that it has sent, that were used, and that it did not get back
	buf         []byte // bytes that have arrived and were not used; it begins with a prefix
	begun       bool   // the header has arrived
	done        bool   // it has ended
	unprocessed bool   // the server has not seen it
	err         error  // how it has ended
}

// signal lets the caller look again.
func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wait waits for a signal or the end of ctx, which ends the stream. Called with mu held, which it releases meanwhile.
func (s *stream) wait(ctx context.Context) {
	c := s.conn
	c.mu.Unlock()
	select {
	case <-s.wake:
		c.mu.Lock()
	case <-ctx.Done():
		c.mu.Lock()
		s.cancel(ctx)
	}
}

// cancel ends the stream because ctx has ended.
func (s *stream) cancel(ctx context.Context) {
	s.reset(frame.CodeCancel, status.FromContextError(ctx.Err()).Err()) //guard:canceled-call-runs-on
}

// reset tells the server that the stream has ended.
func (s *stream) reset(why frame.Code, err error) {
	c := s.conn
	if s.done {
		return
	}
	if s.id != 0 {
		c.out = frame.AppendReset(c.out, s.id, why)
		c.flush()
	}
	s.finish(err)
}

// finish ends the stream.
func (s *stream) finish(err error) {
	c := s.conn
	if s.done {
		return
	}
	s.done, s.err = true, err
	if s.id != 0 {
		delete(c.streams, s.id)
		if len(c.blocked) > 0 {
			c.wakeBlocked() // one of them may wait for its place
		}
	}
	s.signal()
	c.closeUnused()
}

// open begins a stream, and sends a message with which the request ends. It waits for the server to accept it.
func (s *stream) open(ctx context.Context, method string, message []byte) {
	c := s.conn
	for !s.done && (c.err != nil || c.goingAway || int64(len(c.streams)) >= int64(c.maxStreams) || len(c.out) >= maxOut) {
		if c.err != nil || c.goingAway || c.next > frame.MaxID {
			s.unprocessed = true
			s.finish(status.Error(codes.Unavailable, "the connection is closing"))
			return
		}
		s.block(ctx)
	}
	if s.done {
		return
	}
	s.id, s.window, s.recv = c.next, c.initial, frame.InitialWindow
	c.next += 2
	c.streams[s.id] = s
	c.life.calls = true
	c.out = c.request.append(ctx, c.out, s.id, method)
	s.send(ctx, message)
}

// block waits for the connection.
func (s *stream) block(ctx context.Context) {
	c := s.conn
	c.blocked = append(c.blocked, s)
	c.flush()
	s.wait(ctx)
	c.blocked = slices.DeleteFunc(c.blocked, func(b *stream) bool { return b == s })
}

// send sends a message, as far as the windows of the server allow, until all is sent.
func (s *stream) send(ctx context.Context, message []byte) {
	c := s.conn
	var prefix [prefixBytes]byte
	binary.BigEndian.PutUint32(prefix[1:], uint32(len(message)))
	head := prefix[:]
	for left := len(head) + len(message); left > 0 && !s.done; {
		n := int(min(int64(min(left, frame.MaxSize, maxOut-len(c.out))), c.window, s.window))
		if n < len(head) || n <= 0 {
			s.block(ctx)
			continue
		}
		left -= n
		flags := byte(0)
		if left == 0 {
			flags = frame.FlagEndStream
		}
		c.out = append(frame.Append(c.out, n, frame.Data, flags, s.id), head...)
		n -= len(head)
		c.out, message = append(c.out, message[:n]...), message[n:]
		c.window -= int64(n + len(head))
		s.window -= int64(n + len(head))
		head = nil
	}
	c.flush()
}

// receiving takes n bytes of the window.
func (s *stream) receiving(n int) {
	if s.recv -= n; s.recv < 0 { //guard:server-ignores-window-of-stream
		s.reset(frame.CodeFlowControl, status.Error(codes.Internal, "the server exceeds the flow-control window"))
	} else if !s.begun {
		s.reset(frame.CodeProtocol, status.Error(codes.Internal, "the response has no header"))
	}
}

// onData takes a part of the response.
func (s *stream) onData(p []byte, end bool) {
	if need := len(s.buf) + len(p); need > cap(s.buf) {
		s.buf = append(make([]byte, 0, max(min(s.size(), firstBytes), need, 2*cap(s.buf))), s.buf...)
	}
	s.buf = append(s.buf, p...)
	if err := s.invalid(); err != nil {
		s.reset(frame.CodeCancel, err)
		return
	}
	switch {
	case end: // gRPC ends with a trailer
		s.finish(status.Error(codes.Internal, "the response has no trailer"))
	case s.unary:
		s.giveWindow()
	default:
		s.signal()
	}
}

// size is the size of the message at the begin of buf with its prefix, or of the prefix.
func (s *stream) size() int {
	if len(s.buf) < prefixBytes {
		return prefixBytes
	}
	return prefixBytes + int(binary.BigEndian.Uint32(s.buf[1:]))
}

// invalid returns what is wrong with the message at the begin of buf; nil if nothing is.
func (s *stream) invalid() error {
	if len(s.buf) < prefixBytes {
		return nil
	}
	size := int64(binary.BigEndian.Uint32(s.buf[1:]))
	switch {
	case s.buf[0] != 0:
		return status.Error(codes.Internal, "the response is compressed, or has an unknown flag")
	case size > int64(s.limit): //guard:response-exceeds-its-limit
		return status.Errorf(codes.ResourceExhausted, "the response has a message of %d bytes; at most %d are accepted", size, s.limit)
	case s.unary && int64(len(s.buf)) > prefixBytes+size: //guard:unary-response-has-many-messages
		return status.Error(codes.Internal, "the response has more than one message")
	}
	return nil
}

// giveWindow lets the server send the rest of a message that its caller waits for, and what the caller has used.
func (s *stream) giveWindow() {
	c := s.conn
	more := max(s.size()-len(s.buf)-s.recv, 0)
	if s.debt >= frame.InitialWindow/4 {
		more = max(more, min(s.debt, frame.InitialWindow-s.recv))
	}
	if more <= 0 || s.done {
		return
	}
	c.out = frame.AppendWindowUpdate(c.out, s.id, more)
	s.recv += more
	s.debt = max(s.debt-more, 0)
	c.flush()
}

// onHeaders takes a header, or the trailer.
func (s *stream) onHeaders(h *response, end bool) {
	switch {
	case h.wrong():
		s.reset(frame.CodeProtocol, status.Error(codes.Internal, "the header of the response is malformed or too large"))
	case end && s.begun:
		s.finish(h.trailer())
	case end:
		s.finish(h.only())
	case s.begun:
		s.reset(frame.CodeProtocol, status.Error(codes.Internal, "the response has a second header"))
	case h.informational():
	default:
		if err := h.header(); err != nil {
			s.reset(frame.CodeCancel, err)
		}
		s.begun = true
	}
}

// onReset takes RST_STREAM.
func (s *stream) onReset(why frame.Code) {
	code := codes.Internal
	switch why {
	case frame.CodeRefusedStream:
		s.unprocessed = true //guard:refused-call-fails
		code = codes.Unavailable
	case frame.CodeCancel:
		code = codes.Canceled
	case frame.CodeEnhanceYourCalm:
		code = codes.ResourceExhausted
	}
	s.finish(status.Errorf(code, "the server has reset the call: %v", why))
}

// message takes the message of a unary response that has ended.
func (s *stream) message() ([]byte, error) {
	if s.err == nil && (len(s.buf) < prefixBytes || len(s.buf) < s.size()) {
		s.err = status.Error(codes.Internal, "the response has no message")
	}
	if s.err != nil {
		return nil, s.err
	}
	return s.buf[prefixBytes:], nil
}

// next waits for the next message of a stream. Called without mu.
func (s *stream) next(ctx context.Context) ([]byte, error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := s.invalid(); err != nil {
			s.reset(frame.CodeCancel, err)
			return nil, err
		}
		n := s.size()
		switch {
		case len(s.buf) >= n: // n is at least the size of a prefix
			return s.take(n), nil
		case s.done && s.err != nil:
			return nil, s.err
		case s.done && len(s.buf) > 0:
			return nil, status.Error(codes.Internal, "the response ends within a message")
		case s.done:
			return nil, io.EOF
		}
		s.giveWindow()
		s.wait(ctx)
	}
}

// take takes a message of n bytes with its prefix.
func (s *stream) take(n int) []byte {
	message := slices.Clone(s.buf[prefixBytes:n])
	s.buf = append(s.buf[:0], s.buf[n:]...)
	if cap(s.buf) > narrowBytes && len(s.buf) == 0 {
		s.buf = nil
	}
	s.debt += n
	return message
}
