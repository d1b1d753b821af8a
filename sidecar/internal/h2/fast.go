package h2

import (
	"encoding/binary"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/body"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

// zeros is the room for the header of a frame and the prefix of a message.
const zeros = "\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00"

// answer lets Fast answer the complete request of s, and reports whether it did. A response that is large for the buffer of
// the connection goes to the handler, which sends it in steps.
func (s *stream) answer(p []byte) bool {
	c := s.conn
	if len(p) < body.PrefixBytes || p[0] != 0 || int64(binary.BigEndian.Uint32(p[1:])) != int64(len(p)-body.PrefixBytes) {
		return false // compressed, or not one message
	}
	if c.out.room() < narrowBytes/2 || c.out.large {
		c.out.widen()
	}
	limit := min(int64(c.out.most()/2), c.out.window, s.send.window) - body.PrefixBytes //guard:h2-fast-answer-ignores-windows
	if c.out.room() == 0 || limit < 0 {
		return false // the client does not read; the handler waits for it
	}
	start, table := len(c.out.buf), c.out.table
	b := append(c.out.buf, zeros[:frame.HeaderBytes]...)
	b = c.out.table.AppendGRPCHeader(b, s.head.ContentType)
	frame.Put(b[start:], frame.Headers, frame.FlagEndHeaders, s.id)
	data := len(b)
	b = append(b, zeros...)
	b, ok := c.callFast(Call{s.head.Path, &s.head}, p[body.PrefixBytes:], b, int(limit))
	if !ok {
		c.out.table = table
		return false
	}
	n := len(b) - data - frame.HeaderBytes
	frame.Put(b[data:], frame.Data, 0, s.id)
	binary.BigEndian.PutUint32(b[data+frame.HeaderBytes+1:], uint32(n-body.PrefixBytes))
	trailer := len(b)
	b = append(b, zeros[:frame.HeaderBytes]...)
	b = c.out.table.AppendGRPCTrailer(b, s.head.ContentType)
	frame.Put(b[trailer:], frame.Headers, frame.FlagEndHeaders|frame.FlagEndStream, s.id)
	c.out.buf = b
	c.out.window -= int64(n)
	c.server.stats.Fast.Add(1)
	c.useless.pay()
	s.recv.body.End()
	s.close(errFinished, true)
	c.streams.recycle(s)
	return true
}

// callFast turns a panic into no answer.
func (c *conn) callFast(call Call, message, dst []byte, limit int) (b []byte, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			c.server.config.Defect(p)
			b, ok = dst, false
		}
	}()
	return c.server.config.Fast.Append(c.ctx, call, message, dst, limit)
}
