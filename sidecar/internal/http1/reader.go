// Package http1 reads HTTP/1 requests as RFC 9112 has them, and rejects everything else: what two readers understand
// differently is two requests to one of them. It is for servers whose clients are not trusted, so that a Reader has a
// limit for everything that a client can make it hold, and asks before it holds more than it was given.
package http1

import (
	"bytes"
	"errors"
	"io"
)

// Malformed is the error of a request that is not valid HTTP/1.1. Its text is for the client.
type Malformed string

func (e Malformed) Error() string { return string(e) }

// Errors of a Reader besides Malformed and those of the connection.
var (
	ErrHeadTooLarge = errors.New("http1: the request line and the header are too large")
	ErrNoMemory     = errors.New("http1: no memory for a larger buffer")
)

// Limits bound what a Reader holds.
type Limits struct {
	// Head is the size of a request line with its header.
	Head int
	// Buffer is the size of the buffer at first; a larger head makes it grow.
	Buffer int
	// Grow is called with the new size before the buffer grows. The buffer stays as it is if it returns false.
	Grow func(size int) bool
}

// Reader reads the requests of one connection. It is not safe for concurrent use.
type Reader struct {
	source io.Reader
	limits Limits
	buf    []byte // [r, w) has not been read
	r, w   int
	pin    int   // buf before it belongs to the head of the current request, and must not move
	lines  []int // ends of the lines of the head
}

// NewReader returns a Reader of source.
func NewReader(source io.Reader, l Limits) *Reader {
	l.Buffer = min(l.Buffer, l.Head)
	return &Reader{source: source, limits: l, buf: make([]byte, l.Buffer)}
}

// Buffered returns how many bytes have arrived that nothing has read.
func (r *Reader) Buffered() int { return r.w - r.r }

// Await waits until there is something to read.
func (r *Reader) Await() error {
	if r.Buffered() > 0 {
		return nil
	}
	r.r, r.w, r.pin = 0, 0, 0
	return r.fill()
}

// Release ends the use of a head and its content, so that a buffer that has grown for it can shrink. It reports whether
// it did.
func (r *Reader) Release() (shrunk bool) {
	r.pin = 0
	if r.Buffered() == 0 {
		r.r, r.w = 0, 0
	}
	if len(r.buf) == r.limits.Buffer || r.Buffered() > r.limits.Buffer {
		return false
	}
	small := make([]byte, r.limits.Buffer)
	r.r, r.w, r.buf = 0, copy(small, r.buf[r.r:r.w]), small
	return true
}

// fill reads once. It moves what has not been read, or makes the buffer grow, if there is no room.
func (r *Reader) fill() error {
	if r.w == len(r.buf) {
		if err := r.makeRoom(); err != nil {
			return err
		}
	}
	for range 100 {
		n, err := r.source.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

func (r *Reader) makeRoom() error {
	if r.r > r.pin {
		r.w = r.pin + copy(r.buf[r.pin:], r.buf[r.r:r.w])
		r.r = r.pin
		return nil
	}
	// A head may fill the buffer up to the limit; the lines of its content need a little more.
	size := min(2*len(r.buf), r.limits.Head+maxTrailerLine)
	if size <= len(r.buf) {
		return ErrHeadTooLarge
	}
	if r.limits.Grow != nil && !r.limits.Grow(size) {
		return ErrNoMemory
	}
	grown := make([]byte, size)
	copy(grown, r.buf[:r.w]) // strings of the head stay in the old one
	r.buf = grown
	return nil
}

// line returns the next line without its end, which must be CR LF. It reads until there is one, or more than limit bytes.
// from is where to begin, and the end is where the next one begins, both relative to what has not been read.
func (r *Reader) line(from, limit int, tooLong error) (line []byte, end int, err error) {
	for searched := from; ; {
		unread := r.buf[r.r:r.w]
		if i := bytes.IndexByte(unread[searched:], '\n'); i >= 0 {
			end = searched + i + 1
			if end > limit {
				return nil, 0, tooLong
			}
			if end-2 < from || unread[end-2] != '\r' { //guard:bare-line-feed-ends-a-line
				return nil, 0, errLineEnd
			}
			return unread[from : end-2], end, nil
		}
		if searched = len(unread); searched >= limit {
			return nil, 0, tooLong
		}
		if err := r.fill(); err != nil {
			return nil, 0, err
		}
	}
}

// ReadHead reads the head of the next request. An error is that of the connection, io.ErrUnexpectedEOF if it ended within
// the head, Malformed, ErrHeadTooLarge, or ErrNoMemory; nothing can be read after one.
func (r *Reader) ReadHead(h *Head) error {
	h.reset()
	if err := r.Await(); err != nil {
		return err
	}
	r.pin = 0
	if err := r.findLines(h); err != nil {
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return r.parseLines(h)
}

// findLines finds the ends of the lines. The buffer may move between them, so that the lines are parsed afterwards; the
// request line is checked first, because a client that speaks another protocol sends no header.
func (r *Reader) findLines(h *Head) error {
	line, end, err := r.line(0, r.limits.Head, ErrHeadTooLarge)
	if err == nil && len(line) == 0 { // one empty line may precede the request line (RFC 9112, 2.2)
		r.r += end
		line, end, err = r.line(0, r.limits.Head, ErrHeadTooLarge)
	}
	if err == nil {
		err = h.parseRequestLine(line)
	}
	r.lines = append(r.lines[:0], end)
	for err == nil {
		line, end, err = r.line(end, r.limits.Head, ErrHeadTooLarge)
		if err == nil && len(line) == 0 {
			return nil
		}
		if r.lines = append(r.lines, end); len(r.lines) > maxFields+1 { //guard:header-with-any-number-of-fields
			return ErrHeadTooLarge
		}
	}
	return err
}

func (r *Reader) parseLines(h *Head) error {
	unread, begin := r.buf[r.r:r.w], 0
	for i, end := range r.lines {
		line, parse := unread[begin:end-2], h.parseField
		if i == 0 {
			parse = h.parseRequestLine
		}
		if err := parse(line); err != nil {
			return err
		}
		begin = end
	}
	r.r += begin + 2 // the empty line
	r.pin = r.r
	return h.finish()
}
