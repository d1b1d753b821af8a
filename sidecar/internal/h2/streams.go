package h2

import (
	"slices"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// streams are those of a connection, and the handlers that run for them. mu of the connection guards it.
type streams struct {
	conn     *conn
	open     map[uint32]*stream
	peak     int // most streams since the map was made
	closed   closedStreams
	last     uint32    // largest stream id of the client
	handlers int       // that have not returned
	orphans  int       // of them, those whose stream is closed
	free     []*stream // for new requests
	pending  []*stream // complete requests that wait for memory to run
}

// add returns a stream for the header that was read last.
func (t *streams) add(id uint32) *stream {
	c := t.conn
	if len(t.free) == 0 {
		t.free = append(t.free, new(stream))
	}
	last := len(t.free) - 1
	s := t.free[last]
	t.free = t.free[:last]
	fields := s.head.Fields
	s.conn, s.id, s.head = c, id, c.in.head
	c.in.head.Fields = fields[:0]
	s.wake.L = &c.mu
	s.send.window = c.out.initial
	s.recv.window = frame.InitialWindow
	s.recv.body.Init(s, s.head.GRPC(), c.server.config.MaxBody(s.head.Path))
	t.open[id] = s
	t.peak = max(t.peak, len(t.open))
	return s
}

// recycle makes a stream, which no goroutine has seen, available again.
func (t *streams) recycle(s *stream) {
	fields := s.head.Fields
	clear(fields)
	if len(t.free) < maxFree && cap(fields) <= maxFree {
		*s = stream{head: header.Head{Fields: fields[:0]}}
		t.free = append(t.free, s)
	}
}

// maxFree limits what a connection keeps for its next requests.
const maxFree = 16

// onHeaders handles the header block that was read last.
func (t *streams) onHeaders(f frame.Header) error {
	c := t.conn
	h := &c.in.head
	if s := t.open[f.ID]; s != nil {
		return s.onTrailer(f)
	}
	if f.ID <= t.last {
		return t.onClosedHeaders(f)
	}
	t.last = f.ID
	if c.life.left {
		t.closed.add(f.ID) // the last GOAWAY says that it is not served
		return nil
	}
	c.life.active = true
	h.CheckRequest()
	switch {
	case h.Wrong:
		t.discard(f.ID, frame.CodeProtocol)
	case len(t.open)+t.orphans >= int(c.server.config.MaxStreams): //guard:h2-rapid-reset
		t.discard(f.ID, frame.CodeRefusedStream)
	default:
		t.begin(f)
	}
	return nil
}

func (t *streams) onClosedHeaders(f frame.Header) error {
	switch {
	case t.closed.has(f.ID) && !f.Has(frame.FlagEndStream):
		return t.reset(f.ID, frame.CodeProtocol) // it is no trailer
	case t.closed.has(f.ID):
		return nil // the client did not know it yet
	case f.ID == t.last:
		return frame.CodeStreamClosed
	}
	return frame.CodeProtocol
}

// discard resets a request that gets no stream.
func (t *streams) discard(id uint32, why frame.Code) {
	t.closed.add(id)
	t.conn.out.buf = frame.AppendReset(t.conn.out.buf, id, why)
}

// begin begins a request.
func (t *streams) begin(f frame.Header) {
	c := t.conn
	s := t.add(f.ID)
	s.empty = f.Has(frame.FlagEndStream)
	c.place.set(working)
	if s.empty {
		s.recv.body.End()
	}
	large := s.head.TooLarge()
	s.base = streamBytes
	if !large {
		s.base += int64(s.head.Size)
	}
	switch {
	case !s.Charge(s.base):
		s.refuse(overloaded)
	case large:
		c.server.stats.TooLarge.Add(1)
		s.refuse(headerTooLarge)
	case s.empty && s.head.Length > 0:
		s.reset(frame.CodeProtocol)
	case s.empty, !s.recv.body.GRPC():
		s.startTimeout()
		s.start()
	case c.server.config.Fast != nil && s.head.Plain() && c.server.config.Fast.Match(s.head.Path):
		s.fast = true
		c.life.watch()
	default:
		s.startTimeout()
		c.life.watch()
	}
}

// startPending runs the next request that waits.
func (t *streams) startPending() {
	for len(t.pending) > 0 && t.conn.out.err == nil {
		s := t.pending[0]
		t.pending = t.pending[1:]
		s.waits = false
		s.start()
		if s.waits {
			return
		}
	}
}

// reset resets a stream, open or not.
func (t *streams) reset(id uint32, why frame.Code) error {
	if s := t.open[id]; s != nil {
		s.reset(why)
		return nil
	}
	t.conn.out.buf = frame.AppendReset(t.conn.out.buf, id, why)
	return nil
}

// rest reports whether no time limit of a stream is running: its handler works, or waits for news to send.
func (t *streams) rest() bool {
	for _, s := range t.open {
		if s.running == 0 || s.waits || !s.expires.IsZero() || !s.send.blocked.IsZero() { //guard:h2-slow-stream-rests
			return false
		}
	}
	return true
}

// trim gives back what a busy time has left.
func (t *streams) trim() {
	if len(t.open) == 0 && t.peak > 64 {
		t.open, t.peak = map[uint32]*stream{}, 0
	}
	t.free = nil
	t.pending = nil // it is empty: a pending stream is open
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
