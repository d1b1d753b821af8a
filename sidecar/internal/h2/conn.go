package h2

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

const (
	maxContinuations     = 32       // frames of one header block; ParsedBytes need 8
	writeUpdateThreshold = 16 << 10 // a WINDOW_UPDATE of the connection is worth a frame
)

var (
	errStopped  = errors.New("the server has been stopped")
	errReset    = errors.New("the stream was reset")
	errGone     = errors.New("the connection has ended")
	errTooSlow  = errors.New("the client accepted nothing for too long")
	errFinished = errors.New("the request has been answered")
)

// conn is a connection. One goroutine reads it (serve); it holds mu except while it waits for bytes. All methods are called
// with mu held unless they say otherwise.
type conn struct {
	server *Server
	nc     net.Conn
	tls    *tls.ConnectionState
	ctx    context.Context // parent of every request
	cancel context.CancelFunc
	in     input // of the reading goroutine

	mu       sync.Mutex // guards the fields below
	out      output
	memory   memory
	life     life
	streams  map[uint32]*stream // open ones
	peak     int                // most streams since the map was made
	closed   closedStreams
	last     uint32 // largest stream id of the client
	place    place
	handlers int       // that have not returned
	orphans  int       // of them, those whose stream is closed
	free     []*stream // for new requests
	pending  []*stream // complete requests that wait for memory to run
	useless  useless
}

// input is what the reading goroutine needs.
type input struct {
	buf     []byte // [r:w] was read and not handled
	r, w    int
	decoder header.Decoder
	head    header.Head
	credit  int // of the connection's window, not yet returned to the client
	window  int // bytes that the client may send on all streams
	trim    bool
}

func (s *Server) newConn(nc net.Conn) *conn {
	base := context.WithValue(context.Background(), http.LocalAddrContextKey, nc.LocalAddr())
	c := &conn{server: s, nc: nc, tls: tlsState(nc), streams: map[uint32]*stream{}}
	c.ctx, c.cancel = context.WithCancel(s.config.ConnContext(base, nc))
	c.memory.loan = s.config.Budget.Loan(budget.Requests)
	c.out.init(&c.mu)
	c.in.buf, c.in.window = make([]byte, narrowBytes), frame.InitialWindow
	c.in.decoder = header.NewDecoder(&c.in.head)
	return c
}

// serve reads until the connection ends. Called without mu.
func (c *conn) serve() {
	c.mu.Lock()
	c.startLife()
	c.fail(c.readAll())
	c.releaseBuffers()
	c.mu.Unlock()
}

// releaseBuffers returns what the large buffers of the connection cost. Nobody uses them any more.
func (c *conn) releaseBuffers() {
	if len(c.in.buf) > narrowBytes {
		c.memory.release(wideBytes)
	}
	c.out.narrow(&c.memory)
}

func (c *conn) readAll() error {
	c.out.buf = c.appendSettings(c.out.buf)
	if err := c.readPreface(); err != nil {
		return err
	}
	for {
		if err := c.readFrame(); err != nil {
			return c.ending(err)
		}
		if c.out.full() {
			if err := c.drained(); err != nil {
				return err
			}
		}
	}
}

// ending tells the client if its mistake is why the connection ends.
func (c *conn) ending(err error) error {
	if why, ok := err.(frame.Code); ok { //nolint:errorlint // only this package makes them
		c.server.stats.Failed.Add(1)
		c.goodbye(why)
	}
	return err
}

func (c *conn) appendSettings(b []byte) []byte {
	b = frame.Append(b, 18, frame.Settings, 0, 0)
	b = frame.AppendSetting(b, frame.SettingMaxStreams, c.server.config.MaxStreams)
	b = frame.AppendSetting(b, frame.SettingHeaderList, uint32(max(c.server.config.MaxHeaderBytes, headerlimit.ParsedBytes)))
	return frame.AppendSetting(b, frame.SettingFrameSize, frame.MaxSize)
}

func (c *conn) readPreface() error {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	if err := c.need(len(preface)); err != nil {
		return err
	}
	if string(c.in.buf[c.in.r:c.in.r+len(preface)]) != preface {
		return errors.New("the connection does not begin with the preface of HTTP/2")
	}
	c.in.r += len(preface)
	if err := c.need(frame.HeaderBytes); err != nil {
		return err
	}
	if f := frame.Parse(c.in.buf[c.in.r:]); f.Kind != frame.Settings || f.Has(frame.FlagAck) {
		c.goodbye(frame.CodeProtocol)
		return frame.CodeProtocol
	}
	return nil
}

// need reads until n bytes, which fit into the smallest buffer, can be handled.
func (c *conn) need(n int) error {
	for c.in.w-c.in.r < n {
		if err := c.fill(); err != nil {
			return err
		}
	}
	return nil
}

// fill reads once. Before, it writes what is to be sent: the responses to all that was read before.
func (c *conn) fill() error {
	c.in.w = copy(c.in.buf, c.in.buf[c.in.r:c.in.w])
	c.in.r = 0
	if c.in.w == 0 {
		c.trimInput()
	}
	if !c.out.flushing {
		c.flush()
	}
	c.setPlace()
	if c.out.err != nil {
		return c.out.err
	}
	c.out.reading = true
	c.mu.Unlock()
	n, err := c.nc.Read(c.in.buf[c.in.w:])
	c.mu.Lock()
	c.out.reading = false
	if n > 0 {
		c.in.w += n
		c.life.heard = true
		if c.in.w == len(c.in.buf) {
			c.widenInput()
		}
		return nil
	}
	if err != nil && c.trimming(err) {
		return nil
	}
	return err
}

// trimming reports whether setTimer has interrupted the reading so that it uses a smaller buffer from now on.
func (c *conn) trimming(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !c.in.trim {
		return false
	}
	c.in.trim = false
	return c.nc.SetReadDeadline(time.Time{}) == nil
}

// widenInput makes the buffer larger if the budget allows it.
func (c *conn) widenInput() {
	if len(c.in.buf) == narrowBytes && c.memory.take(wideBytes) {
		c.in.buf = append(make([]byte, 0, wideBytes), c.in.buf...)[:wideBytes]
	}
}

// trimInput returns a large buffer while the client is waiting for nothing.
func (c *conn) trimInput() {
	if len(c.in.buf) > narrowBytes && !c.life.busy {
		c.in.buf = make([]byte, narrowBytes)
		c.memory.release(wideBytes)
	}
}

// readFrame reads and handles one frame, or the part of a DATA frame that has arrived.
func (c *conn) readFrame() error {
	if err := c.need(frame.HeaderBytes); err != nil {
		return err
	}
	f := frame.Parse(c.in.buf[c.in.r:])
	if f.Length > frame.MaxSize {
		return frame.CodeFrameSize
	}
	c.in.r += frame.HeaderBytes
	switch f.Kind {
	case frame.Data:
		return c.readData(f)
	case frame.Headers:
		return c.readHeaders(f)
	case frame.Continuation, frame.PushPromise: // CONTINUATION is read by readHeaders
		return frame.CodeProtocol
	case frame.Settings, frame.Ping, frame.Reset, frame.WindowUpdate, frame.Priority:
		return c.readControl(f)
	}
	return c.skip(f)
}

// skip passes over frames that have no effect: GOAWAY of a client, and unknown types.
func (c *conn) skip(f frame.Header) error {
	switch {
	case c.tooUseless():
		return frame.CodeEnhanceYourCalm
	case f.Kind == frame.GoAway && f.ID != 0:
		return frame.CodeProtocol
	case f.Kind == frame.GoAway && f.Length < 8:
		return frame.CodeFrameSize
	}
	return c.eachPart(f.Length, func([]byte, bool) error { return nil })
}

// eachPart passes the n bytes that follow to handle, in one part if they fit into the buffer.
func (c *conn) eachPart(n int, handle func(part []byte, last bool) error) error {
	if n <= len(c.in.buf) {
		if err := c.need(n); err != nil {
			return err
		}
	}
	for {
		part := c.in.buf[c.in.r:min(c.in.w, c.in.r+n)]
		n -= len(part)
		c.in.r += len(part)
		if len(part) > 0 || n == 0 {
			if err := handle(part, n == 0); err != nil || n == 0 {
				return err
			}
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

func (c *conn) readControl(f frame.Header) error {
	if f.Length > narrowBytes {
		return frame.CodeFrameSize
	}
	if err := c.need(f.Length); err != nil {
		return err
	}
	payload := c.in.buf[c.in.r : c.in.r+f.Length]
	c.in.r += f.Length
	if f.Kind != frame.WindowUpdate && c.tooUseless() {
		return frame.CodeEnhanceYourCalm
	}
	switch f.Kind {
	case frame.Settings:
		return c.onSettings(f, payload)
	case frame.Ping:
		return c.onPing(f, payload)
	case frame.Reset:
		return c.onReset(f)
	case frame.WindowUpdate:
		return c.onWindowUpdate(f, payload)
	}
	return c.onPriority(f, payload)
}

func (c *conn) onSettings(f frame.Header, payload []byte) error {
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
		if err := c.onSetting(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])); err != nil {
			return err
		}
	}
	c.out.buf = frame.Append(c.out.buf, 0, frame.Settings, frame.FlagAck, 0)
	return nil
}

func (c *conn) onSetting(id uint16, value uint32) error {
	switch id {
	case frame.SettingTableSize:
		c.out.table.Limit(value)
	case frame.SettingEnablePush:
		if value > 1 {
			return frame.CodeProtocol
		}
	case frame.SettingWindow:
		return c.onInitialWindow(value)
	case frame.SettingFrameSize:
		if value < frame.MaxSize || value > 1<<24-1 {
			return frame.CodeProtocol
		}
	}
	return nil // the others limit what this server does not do
}

// onInitialWindow changes the windows of all open streams; they may become negative (RFC 9113, 6.9.2).
func (c *conn) onInitialWindow(value uint32) error {
	if value > frame.MaxWindow {
		return frame.CodeFlowControl
	}
	change := int64(value) - c.out.initial
	c.out.initial = int64(value)
	for _, s := range c.streams {
		if s.send.window += change; s.send.window > frame.MaxWindow {
			return frame.CodeFlowControl
		}
		s.wake.Broadcast()
	}
	return nil
}

func (c *conn) onPing(f frame.Header, payload []byte) error {
	switch {
	case f.ID != 0:
		return frame.CodeProtocol
	case len(payload) != 8:
		return frame.CodeFrameSize
	case f.Has(frame.FlagAck):
		c.life.pinged = time.Time{}
		c.closing()
		return nil
	}
	c.out.buf = append(frame.Append(c.out.buf, 8, frame.Ping, frame.FlagAck, 0), payload...)
	return nil
}

func (c *conn) onPriority(f frame.Header, payload []byte) error {
	if f.ID == 0 {
		return frame.CodeProtocol
	}
	if len(payload) != 5 {
		return c.resetID(f.ID, frame.CodeFrameSize)
	}
	return c.checkDependency(f.ID, payload)
}

// checkDependency checks the part of PRIORITY that is not obsolete: a stream must not depend on itself.
func (c *conn) checkDependency(id uint32, payload []byte) error {
	if binary.BigEndian.Uint32(payload)&frame.MaxID == id {
		return c.resetID(id, frame.CodeProtocol)
	}
	return nil
}

// resetID resets a stream, open or not.
func (c *conn) resetID(id uint32, why frame.Code) error {
	if s := c.streams[id]; s != nil {
		s.reset(why)
		return nil
	}
	c.out.buf = frame.AppendReset(c.out.buf, id, why)
	return nil
}

func (c *conn) onReset(f frame.Header) error {
	switch {
	case f.ID == 0 || f.ID > c.last:
		return frame.CodeProtocol
	case f.Length != 4:
		return frame.CodeFrameSize
	}
	if s := c.streams[f.ID]; s != nil {
		s.close(errReset, false)
	}
	c.closed.remove(f.ID) // the client knows it, too
	return nil
}

func (c *conn) onWindowUpdate(f frame.Header, payload []byte) error {
	if len(payload) != 4 {
		return frame.CodeFrameSize
	}
	n := int64(binary.BigEndian.Uint32(payload) & frame.MaxID)
	if f.ID == 0 {
		return c.widenWindow(n)
	}
	if f.ID > c.last {
		return frame.CodeProtocol
	}
	if n == 0 {
		return c.resetID(f.ID, frame.CodeProtocol) // also of a stream that has ended
	}
	s := c.streams[f.ID]
	if s == nil {
		return nil // it may have been sent before the client saw the end of the stream
	}
	if s.send.window += n; s.send.window > frame.MaxWindow {
		s.reset(frame.CodeFlowControl)
	}
	s.wake.Broadcast()
	return nil
}

func (c *conn) widenWindow(n int64) error {
	if n == 0 {
		return frame.CodeProtocol
	}
	if c.out.window += n; c.out.window > frame.MaxWindow {
		return frame.CodeFlowControl
	}
	c.wakeWriters()
	return nil
}

// tooUseless counts a frame of no use, and reports a flood.
func (c *conn) tooUseless() bool {
	flood := c.useless.flood()
	if flood {
		c.server.stats.Floods.Add(1)
	}
	return flood
}

// abort ends the connection at once. Called without mu.
func (c *conn) abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// fail ends the connection at once.
func (c *conn) fail(err error) {
	if c.out.err == nil {
		c.out.err = err
	}
	if c.life.timer != nil {
		c.life.timer.Stop()
	}
	c.cancel()
	for _, s := range c.streams {
		s.close(errGone, false)
	}
	c.pending = nil
	c.wakeWriters()
	c.out.space.Broadcast()
	_ = c.nc.Close() // what it still had to send is lost
}

// closedStreams are the ids of the last streams that this server closed while the client could still send on them: frames for
// them can be on their way.
type closedStreams struct {
	ids  [32]uint32
	next int
}

func (s *closedStreams) add(id uint32) {
	s.ids[s.next] = id
	s.next = (s.next + 1) % len(s.ids)
}

func (s *closedStreams) remove(id uint32) {
	if i := slices.Index(s.ids[:], id); i >= 0 {
		s.ids[i] = 0
	}
}

func (s *closedStreams) has(id uint32) bool { return slices.Contains(s.ids[:], id) }
