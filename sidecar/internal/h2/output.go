package h2

import (
	"sync"
	"time"
)

// output is what a connection sends. Frames are appended to buf; the goroutine that flushes swaps it with spare and writes without mu,
// so that frames of many streams leave with one write.
type output struct {
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
	table      table
}

func (o *output) init(mu sync.Locker) {
	o.window, o.initial, o.table.size = initialWindow, initialWindow, defaultHPACKTable
	o.buf = make([]byte, 0, narrowBytes)
	o.space = sync.NewCond(mu)
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

// trim drops large buffers.
func (o *output) trim() {
	o.spare, o.large = nil, false
	if !o.flushing && len(o.buf) == 0 && cap(o.buf) > narrowBytes {
		o.buf = nil
	}
}

// widen makes room for large responses if the budget allows it.
func (c *conn) widen() {
	if !c.out.wide && c.memory.take(2*wideBytes) {
		c.out.wide = true
	}
}

func (o *output) narrow(m *memory) {
	if o.wide {
		o.wide = false
		m.release(2 * wideBytes)
	}
}

// flushSoon makes sure that what is in buf will be written, by another goroutine: the caller may have more to append, and
// must not wait for a slow client.
func (c *conn) flushSoon() {
	if c.out.flushing || !c.out.reading || len(c.out.buf) == 0 && !c.out.last || c.out.err != nil {
		return
	}
	c.out.flushing, c.out.since = true, time.Now()
	go func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flush()
	}()
}

// flush writes buf until it is empty. The caller is the only one that does.
func (c *conn) flush() {
	o := &c.out
	for len(o.buf) > 0 && o.err == nil && o.ended.IsZero() {
		out := o.buf
		o.buf, o.spare = o.spare[:0], nil
		if !o.flushing {
			o.flushing, o.since = true, time.Now()
		}
		c.watch()
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
		c.wakeWriters()
	}
	o.flushing = false
	o.space.Broadcast()
	if o.buf == nil {
		o.buf, o.spare = o.spare, nil
	}
	if len(c.streams) == 0 {
		o.narrow(&c.memory)
	}
	c.endOutput()
}

// endOutput closes the sending half after the last frame; the client closes the other one.
func (c *conn) endOutput() {
	if !c.out.last || c.out.err != nil || !c.out.ended.IsZero() {
		return
	}
	c.out.ended = time.Now()
	if closeWrite(c.nc) != nil {
		c.fail(errFinished)
	}
}

// drained waits until all that was appended is written. Only the reading goroutine may call it.
func (c *conn) drained() error {
	for c.out.err == nil && (c.out.flushing || len(c.out.buf) > 0) {
		if c.out.flushing {
			c.out.space.Wait()
		} else {
			c.flush()
		}
	}
	return c.out.err
}

// wakeWriters lets the streams that wait try again, in their order.
func (c *conn) wakeWriters() {
	for _, s := range c.out.waiting {
		s.send.queued = false
		s.wake.Broadcast()
	}
	clear(c.out.waiting)
	c.out.waiting = c.out.waiting[:0]
}

// table knows what the client's HPACK table has: nothing, or the two fields of every gRPC response.
type table struct {
	size    uint32 // of the client's table, at most the default
	smaller bool   // the client has asked for a smaller size and was not told yet that it is used
	filled  bool   // it has the fields of appendGRPCHeader and appendGRPCTrailer
}

// limit takes SETTINGS_HEADER_TABLE_SIZE. A table that is smaller than the default is not used.
func (t *table) limit(size uint32) {
	if size < t.size {
		t.size, t.smaller, t.filled = 0, true, false
	}
}

// begin appends what must precede the fields of a block.
func (t *table) begin(b []byte) []byte {
	if t.smaller {
		t.smaller = false
		b = append(b, 0x20) // the size of the table is 0 (RFC 7541, 6.3)
	}
	return b
}

// Indices of the HPACK tables (RFC 7541, appendix A). The dynamic table begins at 62 with the field that was added last.
const (
	indexStatus200, indexContentType, indexFirstDynamic = 8, 31, 62

	grpcContentType = "application/grpc"
)

// appendGRPCHeader appends the header of a successful gRPC response.
func (t *table) appendGRPCHeader(b []byte, contentType string) []byte {
	b = append(t.begin(b), 0x80|indexStatus200)
	switch {
	case t.filled && contentType == grpcContentType:
		return append(b, 0x80|(indexFirstDynamic+1))
	case t.size > 0 && !t.filled && contentType == grpcContentType:
		return appendString(append(b, 0x40|indexContentType), contentType) // adds it to the table
	}
	return appendField(b, "content-type", contentType)
}

// appendGRPCTrailer appends the trailer of a successful gRPC response, after its header.
func (t *table) appendGRPCTrailer(b []byte, contentType string) []byte {
	switch {
	case t.filled:
		return append(b, 0x80|indexFirstDynamic)
	case t.size > 0 && contentType == grpcContentType:
		t.filled = true
		return appendString(appendString(append(b, 0x40), "grpc-status"), "0")
	}
	return appendField(b, "grpc-status", "0")
}

// appendField appends a field that is not added to the table (RFC 7541, 6.2.2).
func appendField(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, 0), name), value)
}

// appendStatus appends :status, which comes first in a block.
func (t *table) appendStatus(b []byte, status int) []byte {
	b = t.begin(b)
	if status == 200 {
		return append(b, 0x80|indexStatus200)
	}
	return append(b, indexStatus200, 3, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
}

// appendString appends a string literal without Huffman coding (RFC 7541, 5.2).
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), s...)
}
