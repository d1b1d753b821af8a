package h2

import (
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

// readHeaders reads a header block: HEADERS and its CONTINUATION frames, between which no other frame is allowed.
func (r *reader) readHeaders(f frame.Header) error {
	c := r.conn
	if f.ID%2 == 0 {
		return frame.CodeProtocol
	}
	r.head.Reset(c.server.config.MaxHeaderBytes)
	block := block{conn: c}
	defer block.close()
	err := block.read(f)
	for n := 0; err == nil && !block.complete; n++ {
		if n == maxContinuations { //guard:h2-continuation-flood
			c.server.stats.Floods.Add(1)
			return frame.CodeEnhanceYourCalm
		}
		err = block.readContinuation(f.ID)
	}
	if err != nil {
		return err
	}
	if block.selfDependent {
		c.streams.last = max(c.streams.last, f.ID)
		return c.streams.reset(f.ID, frame.CodeProtocol)
	}
	return c.streams.onHeaders(f)
}

// block is a header block that is being read.
type block struct {
	conn          *conn
	bytes         []byte // what did not arrive in one piece
	charged       int64
	complete      bool
	selfDependent bool
}

func (b *block) close() { b.conn.memory.release(b.charged) }

func (b *block) readContinuation(id uint32) error {
	c := b.conn
	if err := c.in.need(frame.HeaderBytes); err != nil {
		return err
	}
	f := frame.Parse(c.in.buf[c.in.from:])
	switch {
	case f.Kind != frame.Continuation || f.ID != id:
		return frame.CodeProtocol
	case f.Length > frame.MaxSize:
		return frame.CodeFrameSize
	}
	c.in.from += frame.HeaderBytes
	f.Flags &= frame.FlagEndHeaders
	return b.read(f)
}

func (b *block) read(f frame.Header) error {
	whole := len(b.bytes) == 0 && f.Has(frame.FlagEndHeaders)
	start := len(b.bytes)
	if err := b.conn.in.eachPart(f.Length, func(part []byte, last bool) error {
		if whole && last && len(b.bytes) == 0 {
			return b.decode(f, part) // from the buffer of the connection, without a copy
		}
		whole = false
		return b.keep(part)
	}); err != nil || whole {
		b.complete = true
		return err
	}
	fragment, err := b.fragment(f, b.bytes[start:])
	if err != nil {
		return err
	}
	b.bytes = append(b.bytes[:start], fragment...)
	if f.Has(frame.FlagEndHeaders) {
		b.complete = true
		return b.conn.in.decoder.Decode(b.bytes)
	}
	return nil
}

// keep keeps a part of a block. Its memory is charged like that of a message.
func (b *block) keep(part []byte) error {
	n := len(b.bytes) + len(part)
	if n > headerlimit.ParsedBytes {
		b.conn.server.stats.TooLarge.Add(1)
		return frame.CodeEnhanceYourCalm
	}
	if grown := max(n, 2*cap(b.bytes), 1<<10); n > cap(b.bytes) {
		if !b.conn.memory.take(int64(grown - cap(b.bytes))) {
			b.conn.server.stats.Refused.Add(1)
			return frame.CodeEnhanceYourCalm // the state of the compression would be lost
		}
		b.charged += int64(grown - cap(b.bytes))
		b.bytes = append(make([]byte, 0, grown), b.bytes...)
	}
	b.bytes = append(b.bytes, part...)
	return nil
}

func (b *block) decode(f frame.Header, payload []byte) error {
	fragment, err := b.fragment(f, payload)
	if err != nil {
		return err
	}
	return b.conn.in.decoder.Decode(fragment)
}

// fragment returns the part of the payload that belongs to the block.
func (b *block) fragment(f frame.Header, payload []byte) ([]byte, error) {
	payload, err := f.Unpad(payload)
	if err != nil || !f.Has(frame.FlagPriority) {
		return payload, err
	}
	if len(payload) < 5 {
		return nil, frame.CodeFrameSize
	}
	b.selfDependent = frame.Parse(append([]byte{0, 0, 0, 0, 0}, payload[:4]...)).ID == f.ID
	return payload[5:], nil
}
