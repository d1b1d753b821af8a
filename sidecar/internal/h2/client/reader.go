package client

import (
	"encoding/binary"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

const (
	maxContinuations = 32       // frames of one header block
	returnedBytes    = 64 << 10 // a WINDOW_UPDATE of the connection is worth a frame
)

// reader is the reading half of a connection. mu of the connection guards it, except that fill reads into buf[to:] without it.
type reader struct {
	conn     *conn
	buf      []byte // [from:to] was read and not handled
	from, to int
	narrow   bool // fill uses a small buffer from now on
	decoder  header.Decoder
	head     response
	credit   int // bytes of the window of the connection that were read and not returned; it cannot be exceeded
}

func (r *reader) init(c *conn) {
	r.conn, r.buf = c, make([]byte, restBytes)
	r.decoder = header.NewFieldDecoder(r.head.add)
}

// readAll reads frames until the connection ends.
func (r *reader) readAll() error {
	settled := false
	for {
		if err := r.need(frame.HeaderBytes); err != nil {
			return err
		}
		f := frame.Parse(r.buf[r.from:])
		if f.Length > frame.MaxSize {
			return frame.CodeFrameSize
		}
		if !settled && (f.Kind != frame.Settings || f.Has(frame.FlagAck)) {
			return frame.CodeProtocol
		}
		r.from += frame.HeaderBytes
		if err := r.handle(f); err != nil {
			return err
		}
		if !settled {
			settled = true
			close(r.conn.settled)
		}
		if r.conn.err != nil {
			return r.conn.err
		}
	}
}

func (r *reader) handle(f frame.Header) error {
	switch f.Kind {
	case frame.Data:
		return r.onData(f)
	case frame.Headers:
		return r.onHeaders(f)
	case frame.Continuation, frame.PushPromise: // CONTINUATION is read by onHeaders
		return frame.CodeProtocol
	case frame.Settings, frame.Ping, frame.Reset, frame.WindowUpdate, frame.GoAway:
		return r.onControl(f)
	}
	return r.eachPart(f.Length, func([]byte, bool) error { return nil })
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

// fill writes what is to be sent, and reads once. It waits for a server that sends without reading.
func (r *reader) fill() error {
	c := r.conn
	c.flush()
	r.resize()
	r.to = copy(r.buf, r.buf[r.from:r.to])
	r.from = 0
	if c.err != nil {
		return c.err
	}
	c.mu.Unlock()
	n, err := c.nc.Read(r.buf[r.to:])
	c.mu.Lock()
	if n > 0 {
		r.to += n
		c.life.heard = true
		return nil
	}
	return err
}

// resize uses a large buffer, if the budget allows it, from when a small one was full until the connection has a rest.
func (r *reader) resize() {
	c := r.conn
	switch {
	case r.from == 0 && r.to < len(r.buf):
	case r.to == len(r.buf) && len(r.buf) == restBytes && c.loan.Grow(wideBytes):
		r.buf = append(make([]byte, 0, wideBytes), r.buf...)[:wideBytes]
	case r.narrow && r.from == r.to && len(r.buf) > restBytes:
		r.buf, r.from, r.to = make([]byte, restBytes), 0, 0
		c.loan.Shrink(0)
	}
	r.narrow = false
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

// onData takes a DATA frame. Its bytes count for the window of the connection even where nobody wants them.
func (r *reader) onData(f frame.Header) error {
	c := r.conn
	if f.ID == 0 || f.ID%2 == 0 || f.ID >= c.next {
		return frame.CodeProtocol
	}
	if s := c.streams[f.ID]; s != nil {
		s.receiving(f.Length)
	}
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
		if s := c.streams[f.ID]; s != nil {
			s.debt += 1 + padding
		}
	}
	err := r.eachPart(data, func(part []byte, last bool) error {
		if s := c.streams[f.ID]; s != nil { // it may end while the frame arrives
			s.onData(part, last && f.Has(frame.FlagEndStream))
		}
		return nil
	})
	if err == nil && padding > 0 {
		err = r.eachPart(padding, func([]byte, bool) error { return nil })
	}
	r.credit += f.Length
	if r.credit >= returnedBytes {
		c.out = frame.AppendWindowUpdate(c.out, 0, r.credit)
		r.credit = 0
	}
	return err
}

// noLimit is the memory of header blocks: package header limits each.
type noLimit struct{}

func (noLimit) Take(int64) bool { return true }
func (noLimit) Release(int64)   {}

// onHeaders reads a header block: HEADERS and its CONTINUATION frames, between which no other frame is allowed.
func (r *reader) onHeaders(f frame.Header) error {
	c := r.conn
	if f.ID%2 == 0 || f.ID >= c.next {
		return frame.CodeProtocol
	}
	r.head.reset(c.client.config.MaxHeaderBytes)
	block := header.NewBlock(r.decoder, noLimit{})
	block.Begin(f)
	err := r.eachPart(f.Length, block.Add)
	for n := 0; err == nil && !block.Complete(); n++ {
		if n == maxContinuations { //guard:continuations-without-end
			return frame.CodeEnhanceYourCalm
		}
		if err = r.need(frame.HeaderBytes); err != nil {
			break
		}
		next := frame.Parse(r.buf[r.from:])
		if next.Kind != frame.Continuation || next.ID != f.ID || next.Length > frame.MaxSize {
			return frame.CodeProtocol
		}
		r.from += frame.HeaderBytes
		next.Flags &= frame.FlagEndHeaders
		block.Begin(next)
		err = r.eachPart(next.Length, block.Add)
	}
	if err != nil {
		return err
	}
	if s := c.streams[f.ID]; s != nil {
		s.onHeaders(&r.head, f.Has(frame.FlagEndStream))
	}
	return nil
}

func (r *reader) onControl(f frame.Header) error {
	if f.Length > restBytes {
		return frame.CodeFrameSize
	}
	if err := r.need(f.Length); err != nil {
		return err
	}
	payload := r.buf[r.from : r.from+f.Length]
	r.from += f.Length
	c := r.conn
	switch f.Kind {
	case frame.Settings:
		return r.onSettings(f, payload)
	case frame.Ping:
		if f.ID != 0 || len(payload) != 8 {
			return frame.CodeProtocol
		}
		if !f.Has(frame.FlagAck) {
			c.out = append(frame.Append(c.out, 8, frame.Ping, frame.FlagAck, 0), payload...)
		}
		return r.await()
	case frame.GoAway:
		if f.ID != 0 || len(payload) < 8 {
			return frame.CodeProtocol
		}
		last := binary.BigEndian.Uint32(payload) & frame.MaxID
		c.mu.Unlock()
		c.client.retire(c) // its lock comes first
		c.mu.Lock()
		c.goAway(last)
		return c.err
	case frame.Reset:
		if len(payload) != 4 || f.ID == 0 || f.ID >= c.next {
			return frame.CodeProtocol
		}
		if s := c.streams[f.ID]; s != nil {
			s.onReset(frame.Code(binary.BigEndian.Uint32(payload)))
		}
		return nil
	}
	return r.onWindowUpdate(f, payload)
}

// await waits until the server reads what it has caused this client to send.
func (r *reader) await() error {
	c := r.conn
	for len(c.out) > maxOut && c.err == nil { //guard:pings-are-answered-without-limit
		s := &stream{conn: c, wake: make(chan struct{}, 1)}
		c.blocked = append(c.blocked, s)
		c.flush()
		c.mu.Unlock()
		<-s.wake
		c.mu.Lock()
	}
	return c.err
}

func (r *reader) onSettings(f frame.Header, payload []byte) error {
	c := r.conn
	switch {
	case f.ID != 0 || f.Has(frame.FlagAck) && len(payload) != 0 || len(payload)%6 != 0:
		return frame.CodeProtocol
	case f.Has(frame.FlagAck):
		return nil
	}
	for ; len(payload) > 0; payload = payload[6:] {
		value := binary.BigEndian.Uint32(payload[2:])
		switch binary.BigEndian.Uint16(payload) {
		case frame.SettingTableSize:
			c.request.limit(value)
		case frame.SettingMaxStreams:
			c.maxStreams = value
		case frame.SettingWindow:
			if value > frame.MaxWindow {
				return frame.CodeFlowControl
			}
			change := int64(value) - c.initial
			c.initial = int64(value)
			for _, s := range c.streams {
				s.window += change
			}
		case frame.SettingFrameSize:
			if value < frame.MaxSize || value > 1<<24-1 {
				return frame.CodeProtocol
			}
		}
	}
	c.wakeBlocked()
	c.out = frame.Append(c.out, 0, frame.Settings, frame.FlagAck, 0)
	return r.await()
}

func (r *reader) onWindowUpdate(f frame.Header, payload []byte) error {
	c := r.conn
	if len(payload) != 4 || f.ID >= c.next && f.ID != 0 {
		return frame.CodeProtocol
	}
	n := int64(binary.BigEndian.Uint32(payload) & frame.MaxID)
	window := &c.window
	if f.ID != 0 {
		s := c.streams[f.ID]
		if s == nil {
			return nil // it has ended
		}
		window = &s.window
	}
	if *window += n; *window > frame.MaxWindow || n == 0 {
		return frame.CodeFlowControl
	}
	c.wakeBlocked()
	return nil
}
