package h2

import (
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// readHeaders reads a header block: HEADERS and its CONTINUATION frames, between which no other frame is allowed.
func (r *reader) readHeaders(f frame.Header) error {
	c := r.conn
	if f.ID%2 == 0 {
		return frame.CodeProtocol
	}
	r.head.Reset(c.server.config.MaxHeaderBytes)
	block := header.NewBlock(r.decoder, &c.memory)
	defer block.Close()
	err := r.readFragment(&block, f)
	for n := 0; err == nil && !block.Complete(); n++ {
		if n == maxContinuations { //guard:h2-continuation-flood
			c.server.stats.Floods.Add(1)
			return frame.CodeEnhanceYourCalm
		}
		err = r.readContinuation(&block, f.ID)
	}
	if err != nil {
		return err
	}
	if block.SelfDependent() {
		c.streams.last = max(c.streams.last, f.ID)
		return c.streams.reset(f.ID, frame.CodeProtocol)
	}
	return c.streams.onHeaders(f)
}

func (r *reader) readContinuation(block *header.Block, id uint32) error {
	if err := r.need(frame.HeaderBytes); err != nil {
		return err
	}
	f := frame.Parse(r.buf[r.from:])
	switch {
	case f.Kind != frame.Continuation || f.ID != id:
		return frame.CodeProtocol
	case f.Length > frame.MaxSize:
		return frame.CodeFrameSize
	}
	r.from += frame.HeaderBytes
	f.Flags &= frame.FlagEndHeaders
	return r.readFragment(block, f)
}

func (r *reader) readFragment(block *header.Block, f frame.Header) error {
	block.Begin(f)
	err := r.eachPart(f.Length, block.Add)
	switch err {
	case header.ErrTooLarge:
		r.conn.server.stats.TooLarge.Add(1)
	case header.ErrMemory:
		r.conn.server.stats.Refused.Add(1)
	default:
		return err
	}
	return frame.CodeEnhanceYourCalm
}
