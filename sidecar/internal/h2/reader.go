package h2

import (
	"errors"
	"os"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// reader is the reading half of a connection: what has arrived and was not handled. mu of the connection guards it, except
// that fill reads into buf[to:] without it.
type reader struct {
	conn     *conn
	buf      []byte // [from:to] was read and not handled
	from, to int
	decoder  header.Decoder
	head     header.Head
	credit   int  // of the connection's window, not yet returned to the client
	window   int  // bytes that the client may send on all streams
	trim     bool // fill uses a small buffer from now on
}

func (r *reader) init(c *conn) {
	r.conn, r.buf, r.window = c, make([]byte, narrowBytes), frame.InitialWindow
	r.decoder = header.NewDecoder(&r.head)
}

func (r *reader) readAll() error {
	c := r.conn
	c.out.buf = c.appendSettings(c.out.buf)
	if err := r.readPreface(); err != nil {
		return err
	}
	for {
		if err := r.readFrame(); err != nil {
			return r.ending(err)
		}
		if c.out.full() {
			if err := c.out.drained(); err != nil {
				return err
			}
		}
	}
}

// ending tells the client if its mistake is why the connection ends.
func (r *reader) ending(err error) error {
	if why, ok := err.(frame.Code); ok { //nolint:errorlint // only this package makes them
		r.conn.server.stats.Failed.Add(1)
		r.conn.goodbye(why)
	}
	return err
}

func (r *reader) readPreface() error {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	if err := r.need(len(preface)); err != nil {
		return err
	}
	if string(r.buf[r.from:r.from+len(preface)]) != preface {
		return errors.New("the connection does not begin with the preface of HTTP/2")
	}
	r.from += len(preface)
	if err := r.need(frame.HeaderBytes); err != nil {
		return err
	}
	if f := frame.Parse(r.buf[r.from:]); f.Kind != frame.Settings || f.Has(frame.FlagAck) {
		r.conn.goodbye(frame.CodeProtocol)
		return frame.CodeProtocol
	}
	return nil
}

// need reads until n bytes, which fit into the smallest buffer, can be handled.
func (r *reader) need(n int) error {
	for r.to-r.from < n {
		if err := r.fill(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads once. Before, it writes what is to be sent: the responses to all that was read before.
func (r *reader) fill() error {
	c := r.conn
	r.to = copy(r.buf, r.buf[r.from:r.to])
	r.from = 0
	if r.to == 0 {
		r.trimBuffer()
	}
	if !c.out.flushing {
		c.out.flush()
	}
	c.setPlace()
	if c.out.err != nil {
		return c.out.err
	}
	c.out.reading = true
	c.mu.Unlock()
	n, err := c.nc.Read(r.buf[r.to:])
	c.mu.Lock()
	c.out.reading = false
	if n > 0 {
		r.to += n
		c.life.heard = true
		if r.to == len(r.buf) {
			r.widen()
		}
		return nil
	}
	if err != nil && r.trimming(err) {
		return nil
	}
	return err
}

// trimming reports whether setTimer has interrupted the reading so that it uses a smaller buffer from now on.
func (r *reader) trimming(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !r.trim {
		return false
	}
	r.trim = false
	return r.conn.nc.SetReadDeadline(time.Time{}) == nil
}

// widen makes the buffer larger if the budget allows it.
func (r *reader) widen() {
	if len(r.buf) == narrowBytes && r.conn.memory.Take(wideBytes) {
		r.buf = append(make([]byte, 0, wideBytes), r.buf...)[:wideBytes]
	}
}

// trimBuffer returns a large buffer while the client is waiting for nothing.
func (r *reader) trimBuffer() {
	if len(r.buf) > narrowBytes && !r.conn.life.busy {
		r.buf = make([]byte, narrowBytes)
		r.conn.memory.Release(wideBytes)
	}
}

// eachPart passes the n bytes that follow to handle, in one part if they fit into the buffer.
func (r *reader) eachPart(n int, handle func(part []byte, last bool) error) error {
	if n <= len(r.buf) {
		if err := r.need(n); err != nil {
			return err
		}
	}
	for {
		part := r.buf[r.from:min(r.to, r.from+n)]
		n -= len(part)
		r.from += len(part)
		if len(part) > 0 || n == 0 {
			if err := handle(part, n == 0); err != nil || n == 0 {
				return err
			}
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}
