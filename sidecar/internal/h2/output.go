package h2

import (
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// output is the writing half of a connection. mu of the connection guards it. Frames are appended to buf; the goroutine that
// flushes swaps it with spare and writes without mu, so that frames of many streams leave with one write.
type output struct {
	conn       *conn
	buf, spare []byte
	wide       bool // the buffers may have wideBytes, which are charged
	large      bool // responses needed that lately
	flushing   bool // a goroutine writes
	reading    bool // the reading goroutine waits for bytes; otherwise it is going to flush
	last       bool // nothing follows what is in buf
	ended      time.Time
	since      time.Time  // when the current write began
	writes     int        // complete ones
	err        error      // why the connection has ended
	space      *sync.Cond // signaled after each write; the reading goroutine waits for it
	window     int64      // bytes that the client accepts on all streams
	initial    int64      // window of a new stream
	waiting    []*stream  // that wait for the window or for room in buf
	table      header.Encoder
}

func (o *output) init(c *conn) {
	o.conn = c
	o.window, o.initial, o.table = frame.InitialWindow, frame.InitialWindow, header.NewEncoder()
	o.buf = make([]byte, 0, narrowBytes)
	o.space = sync.NewCond(&c.mu)
}

// room is how many bytes of responses may be appended to buf.
func (o *output) room() int {
	return max(o.most()-len(o.buf), 0)
}

func (o *output) most() int {
	if o.wide {
		return wideBytes
	}
	return narrowBytes
}

// full reports whether the reading goroutine must wait: it appends only what clients have caused it to.
func (o *output) full() bool { return len(o.buf) >= wideBytes }

// trim drops the buffers of a connection that rests.
func (o *output) trim() {
	o.spare, o.large = nil, false
	if !o.flushing && len(o.buf) == 0 {
		o.buf = nil
	}
}

// widen makes room for large responses if the budget allows it.
func (o *output) widen() {
	if !o.wide && o.conn.memory.Take(2*wideBytes) {
		o.wide = true
	}
}

func (o *output) narrow() {
	if o.wide {
		o.wide = false
		o.conn.memory.Release(2 * wideBytes)
	}
}

// flushSoon makes sure that what is in buf will be written, by another goroutine: the caller may have more to append, and
// must not wait for a slow client.
func (o *output) flushSoon() {
	if o.flushing || !o.reading || len(o.buf) == 0 && !o.last || o.err != nil {
		return
	}
	o.flushing, o.since = true, time.Now()
	go func() {
		o.conn.mu.Lock()
		defer o.conn.mu.Unlock()
		o.flush()
	}()
}

// flush writes buf until it is empty. The caller is the only one that does.
func (o *output) flush() {
	c := o.conn
	for len(o.buf) > 0 && o.err == nil && o.ended.IsZero() {
		out := o.buf
		o.buf, o.spare = o.spare[:0], nil
		if !o.flushing {
			o.flushing, o.since = true, time.Now()
		}
		c.life.watch()
		c.mu.Unlock()
		_, err := c.nc.Write(out)
		c.mu.Lock()
		o.writes++
		o.since = time.Time{}
		if cap(out) <= 2*wideBytes {
			o.spare = out[:0]
		}
		if err != nil {
			c.fail(err)
		}
		o.flushing = false
		o.space.Broadcast()
		o.wakeWriters()
	}
	o.flushing = false
	o.space.Broadcast()
	if o.buf == nil {
		o.buf, o.spare = o.spare, nil
	}
	if len(c.streams.open) == 0 {
		o.narrow()
	}
	o.finish()
}

// finish closes the sending half after the last frame; the client closes the other one.
func (o *output) finish() {
	if !o.last || o.err != nil || !o.ended.IsZero() {
		return
	}
	o.ended = time.Now()
	if closeWrite(o.conn.nc) != nil {
		o.conn.fail(errFinished)
	}
}

// drained waits until all that was appended is written. Only the reading goroutine may call it.
func (o *output) drained() error {
	for o.err == nil && (o.flushing || len(o.buf) > 0) {
		if o.flushing {
			o.space.Wait()
		} else {
			o.flush()
		}
	}
	return o.err
}

// wakeWriters lets the streams that wait try again, in their order.
func (o *output) wakeWriters() {
	for _, s := range o.waiting {
		s.send.queued = false
		s.wake.Broadcast()
	}
	clear(o.waiting)
	o.waiting = o.waiting[:0]
}

// widenWindow takes WINDOW_UPDATE of the connection.
func (o *output) widenWindow(n int64) error {
	if n == 0 {
		return frame.CodeProtocol
	}
	if o.window += n; o.window > frame.MaxWindow {
		return frame.CodeFlowControl
	}
	o.wakeWriters()
	return nil
}
