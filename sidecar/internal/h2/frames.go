package h2

import (
	"encoding/binary"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

// readFrame reads and handles one frame, or the part of a DATA frame that has arrived.
func (r *reader) readFrame() error {
	if err := r.need(frame.HeaderBytes); err != nil {
		return err
	}
	f := frame.Parse(r.buf[r.from:])
	if f.Length > frame.MaxSize {
		return frame.CodeFrameSize
	}
	r.from += frame.HeaderBytes
	switch f.Kind {
	case frame.Data:
		return r.readData(f)
	case frame.Headers:
		return r.readHeaders(f)
	case frame.Continuation, frame.PushPromise: // CONTINUATION is read by readHeaders
		return frame.CodeProtocol
	case frame.Settings, frame.Ping, frame.Reset, frame.WindowUpdate, frame.Priority:
		return r.readControl(f)
	}
	return r.skip(f)
}

// skip passes over frames that have no effect: GOAWAY of a client, and unknown types.
func (r *reader) skip(f frame.Header) error {
	switch {
	case r.tooUseless():
		return frame.CodeEnhanceYourCalm
	case f.Kind == frame.GoAway && f.ID != 0:
		return frame.CodeProtocol
	case f.Kind == frame.GoAway && f.Length < 8:
		return frame.CodeFrameSize
	}
	return r.eachPart(f.Length, func([]byte, bool) error { return nil })
}

func (r *reader) readControl(f frame.Header) error {
	if f.Length > narrowBytes {
		return frame.CodeFrameSize
	}
	if err := r.need(f.Length); err != nil {
		return err
	}
	payload := r.buf[r.from : r.from+f.Length]
	r.from += f.Length
	if f.Kind != frame.WindowUpdate && r.tooUseless() {
		return frame.CodeEnhanceYourCalm
	}
	switch f.Kind {
	case frame.Settings:
		return r.onSettings(f, payload)
	case frame.Ping:
		return r.onPing(f, payload)
	case frame.Reset:
		return r.onReset(f)
	case frame.WindowUpdate:
		return r.onWindowUpdate(f, payload)
	}
	return r.onPriority(f, payload)
}

func (c *conn) appendSettings(b []byte) []byte {
	b = frame.Append(b, 18, frame.Settings, 0, 0)
	b = frame.AppendSetting(b, frame.SettingMaxStreams, c.server.config.MaxStreams)
	b = frame.AppendSetting(b, frame.SettingHeaderList, uint32(max(c.server.config.MaxHeaderBytes, headerlimit.ParsedBytes)))
	return frame.AppendSetting(b, frame.SettingFrameSize, frame.MaxSize)
}

func (r *reader) onSettings(f frame.Header, payload []byte) error {
	c := r.conn
	switch {
	case f.ID != 0:
		return frame.CodeProtocol
	case f.Has(frame.FlagAck) && len(payload) != 0, len(payload)%6 != 0:
		return frame.CodeFrameSize
	case f.Has(frame.FlagAck):
		c.life.acked = true
		return nil
	}
	for ; len(payload) > 0; payload = payload[6:] {
		if err := r.onSetting(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])); err != nil {
			return err
		}
	}
	c.out.buf = frame.Append(c.out.buf, 0, frame.Settings, frame.FlagAck, 0)
	return nil
}

func (r *reader) onSetting(id uint16, value uint32) error {
	switch id {
	case frame.SettingTableSize:
		r.conn.out.table.Limit(value)
	case frame.SettingEnablePush:
		if value > 1 {
			return frame.CodeProtocol
		}
	case frame.SettingWindow:
		return r.onInitialWindow(value)
	case frame.SettingFrameSize:
		if value < frame.MaxSize || value > 1<<24-1 {
			return frame.CodeProtocol
		}
	}
	return nil // the others limit what this server does not do
}

// onInitialWindow changes the windows of all open streams; they may become negative (RFC 9113, 6.9.2).
func (r *reader) onInitialWindow(value uint32) error {
	c := r.conn
	if value > frame.MaxWindow {
		return frame.CodeFlowControl
	}
	change := int64(value) - c.out.initial
	c.out.initial = int64(value)
	for _, s := range c.streams.open {
		if s.send.window += change; s.send.window > frame.MaxWindow {
			return frame.CodeFlowControl
		}
		s.wake.Broadcast()
	}
	return nil
}

func (r *reader) onPing(f frame.Header, payload []byte) error {
	c := r.conn
	switch {
	case f.ID != 0:
		return frame.CodeProtocol
	case len(payload) != 8:
		return frame.CodeFrameSize
	case f.Has(frame.FlagAck):
		c.life.pinged = time.Time{}
		c.life.closing()
		return nil
	}
	c.out.buf = append(frame.Append(c.out.buf, 8, frame.Ping, frame.FlagAck, 0), payload...)
	return nil
}

func (r *reader) onPriority(f frame.Header, payload []byte) error {
	if f.ID == 0 {
		return frame.CodeProtocol
	}
	if len(payload) != 5 {
		return r.conn.streams.reset(f.ID, frame.CodeFrameSize)
	}
	return r.checkDependency(f.ID, payload)
}

// checkDependency checks the part of PRIORITY that is not obsolete: a stream must not depend on itself.
func (r *reader) checkDependency(id uint32, payload []byte) error {
	if binary.BigEndian.Uint32(payload)&frame.MaxID == id {
		return r.conn.streams.reset(id, frame.CodeProtocol)
	}
	return nil
}

func (r *reader) onReset(f frame.Header) error {
	c := r.conn
	switch {
	case f.ID == 0 || f.ID > c.streams.last:
		return frame.CodeProtocol
	case f.Length != 4:
		return frame.CodeFrameSize
	}
	if s := c.streams.open[f.ID]; s != nil {
		s.close(errReset, false)
	}
	c.streams.closed.remove(f.ID) // the client knows it, too
	return nil
}

func (r *reader) onWindowUpdate(f frame.Header, payload []byte) error {
	c := r.conn
	if len(payload) != 4 {
		return frame.CodeFrameSize
	}
	n := int64(binary.BigEndian.Uint32(payload) & frame.MaxID)
	if f.ID == 0 {
		return c.out.widenWindow(n)
	}
	if f.ID > c.streams.last {
		return frame.CodeProtocol
	}
	if n == 0 {
		return c.streams.reset(f.ID, frame.CodeProtocol) // also of a stream that has ended
	}
	s := c.streams.open[f.ID]
	if s == nil {
		return nil // it may have been sent before the client saw the end of the stream
	}
	if s.send.window += n; s.send.window > frame.MaxWindow {
		s.reset(frame.CodeFlowControl)
	}
	s.wake.Broadcast()
	return nil
}
