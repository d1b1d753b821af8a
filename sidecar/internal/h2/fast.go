package h2

import "encoding/binary"

// zeros is the room for the header of a frame and the prefix of a message.
const zeros = "\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00"

// answer lets Fast answer the complete request of s, and reports whether it did. A response that is large for the buffer of
// the connection goes to the handler, which sends it in steps.
func (c *conn) answer(s *stream, p []byte) bool {
	if len(p) < messagePrefixBytes || p[0] != 0 || int64(binary.BigEndian.Uint32(p[1:])) != int64(len(p)-messagePrefixBytes) {
		return false // compressed, or not one message
	}
	if c.out.room() < narrowBytes/2 || c.out.large {
		c.widen()
	}
	limit := min(int64(c.out.most()/2), c.out.window, s.send.window) - messagePrefixBytes //guard:h2-fast-answer-ignores-windows
	if c.out.room() == 0 || limit < 0 {
		return false // the client does not read; the handler waits for it
	}
	start, table := len(c.out.buf), c.out.table
	b := append(c.out.buf, zeros[:frameHeaderBytes]...)
	b = c.out.table.appendGRPCHeader(b, s.head.content)
	putFrame(b[start:], frameHeaders, flagEndHeaders, s.id)
	data := len(b)
	b = append(b, zeros...)
	b, ok := c.callFast(s.head.path, p[messagePrefixBytes:], b, int(limit))
	if !ok {
		c.out.table = table
		return false
	}
	n := len(b) - data - frameHeaderBytes
	putFrame(b[data:], frameData, 0, s.id)
	binary.BigEndian.PutUint32(b[data+frameHeaderBytes+1:], uint32(n-messagePrefixBytes))
	trailer := len(b)
	b = append(b, zeros[:frameHeaderBytes]...)
	b = c.out.table.appendGRPCTrailer(b, s.head.content)
	putFrame(b[trailer:], frameHeaders, flagEndHeaders|flagEndStream, s.id)
	c.out.buf = b
	c.out.window -= int64(n)
	c.server.stats.Fast.Add(1)
	c.useless.frames = max(c.useless.frames-usefulRequest, 0)
	s.recv.closed = true
	c.closeStream(s, errFinished, true)
	c.recycle(s)
	return true
}

// putFrame puts the header of a frame before its payload, which is the rest of b.
func putFrame(b []byte, kind, flags byte, id uint32) {
	n := len(b) - frameHeaderBytes
	b[0], b[1], b[2], b[3], b[4] = byte(n>>16), byte(n>>8), byte(n), kind, flags
	binary.BigEndian.PutUint32(b[5:], id)
}

// callFast turns a panic into no answer.
func (c *conn) callFast(path string, message, dst []byte, limit int) (b []byte, ok bool) {
	defer func() {
		if p := recover(); p != nil {
			c.server.config.Defect(p)
			b, ok = dst, false
		}
	}()
	return c.server.config.Fast.Append(c.ctx, path, message, dst, limit)
}
