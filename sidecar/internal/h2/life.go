package h2

import (
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// life has what can end a connection besides its client. One timer looks at all of it. mu of the connection guards it.
type life struct {
	conn    *conn
	timer   *time.Timer
	period  time.Duration // between two looks while the connection is busy
	busy    bool          // the timer is set to at most one period
	active  bool          // a request arrived since the last look
	heard   bool          // anything arrived since the last look
	acked   bool          // our SETTINGS
	begun   time.Time
	used    time.Time // when active was seen last
	alive   time.Time // when heard was seen last
	pinged  time.Time // of a PING without its acknowledgement
	end     time.Time // when MaxAge begins, or shortly before the client's certificate expires
	latest  time.Time // when the client's certificate expires
	leaving time.Time // of the first GOAWAY
	left    bool      // the second GOAWAY was sent
	stuck   int       // out.writes at the last look, if a write was going on
}

// goAwayWait is how long a client has to acknowledge the first GOAWAY, after which it opens no more streams.
const goAwayWait = time.Second

func (l *life) start() {
	c := l.conn
	config, now := &c.server.config, time.Now()
	l.begun, l.used, l.alive, l.stuck = now, now, now, -1
	l.period = min(config.MessageTimeout, config.WriteTimeout, config.PingTimeout, 4*time.Second) / 4
	if config.MaxAge > 0 {
		l.end = now.Add(config.MaxAge*9/10 + rand.N(config.MaxAge/5+1)) // not all connections at once
	}
	if c.tls != nil {
		life := listen.LifeOf(now, c.tls)
		l.latest = life.End
		if l.end.IsZero() || life.Drain.Before(l.end) {
			l.end = life.Drain //guard:h2-connection-outlives-certificate
		}
	}
	l.busy = true
	l.timer = time.AfterFunc(l.period, l.look)
	if c.server.isDraining() {
		l.leave(now)
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// watch makes the timer look at the connection soon.
func (l *life) watch() {
	if !l.busy && l.timer != nil {
		l.busy = true
		l.timer.Reset(l.period)
	}
}

// look closes what takes too long. Called without mu.
func (l *life) look() {
	c := l.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.err != nil {
		return
	}
	now := time.Now()
	if err := l.check(now); err != nil {
		c.fail(err)
		return
	}
	for _, s := range c.streams.open {
		s.look(now)
	}
	c.setPlace()
	l.closing()
	c.out.flushSoon()
	l.setTimer(now)
}

// check says why the connection must end, or asks its client to leave or for a sign of life.
func (l *life) check(now time.Time) error {
	c := l.conn
	config := &c.server.config
	if l.active || len(c.streams.open) > 0 {
		l.used = now
	}
	if l.heard {
		l.alive = now
	}
	switch {
	case !l.acked && now.Sub(l.begun) >= config.MessageTimeout: // also of a preface that does not come
		return frame.CodeSettingsTimeout
	case c.out.flushing && l.stuck == c.out.writes && now.Sub(c.out.since) >= config.WriteTimeout: //guard:h2-connection-that-reads-nothing
		c.server.stats.WriteTimeouts.Add(1)
		return ErrSlowClient
	case !c.out.ended.IsZero() && now.Sub(c.out.ended) >= goAwayWait:
		return errFinished
	case !l.leaving.IsZero() && now.Sub(l.leaving) >= config.MaxAgeGrace && !c.server.isDraining():
		return errStopped
	case !l.latest.IsZero() && !now.Before(l.latest): //guard:h2-stream-outlives-certificate
		return errStopped
	case !l.pinged.IsZero() && l.alive.Before(l.pinged) && now.Sub(l.pinged) >= config.PingTimeout:
		return errGone
	}
	l.stuck = c.out.writes
	if l.leaving.IsZero() && l.alive.After(l.pinged) {
		l.pinged = time.Time{} // a sign of life is as good as the acknowledgement
	}
	if l.leaving.IsZero() && (!l.end.IsZero() && !now.Before(l.end) ||
		config.IdleTimeout > 0 && len(c.streams.open) == 0 && now.Sub(l.used) >= config.IdleTimeout) {
		l.leave(now)
	}
	if l.pinged.IsZero() && now.Sub(l.alive) >= config.PingInterval {
		l.ping(now)
	}
	return nil
}

// setTimer chooses the time of the next look: soon while something is going on.
func (l *life) setTimer(now time.Time) {
	c := l.conn
	config := &c.server.config
	l.busy = l.active || l.heard || !c.streams.rest() || c.out.flushing || !l.acked || !l.leaving.IsZero() || !l.pinged.IsZero()
	l.active, l.heard = false, false
	if l.busy {
		l.timer.Reset(l.period)
		return
	}
	c.out.trim()
	c.out.narrow()
	c.streams.trim()
	if c.out.reading && len(c.in.buf) > narrowBytes {
		c.in.trim = true
		_ = c.nc.SetReadDeadline(now) // interrupts the reading; if it fails, the buffer stays large
	}
	next := l.alive.Add(config.PingInterval)
	if config.IdleTimeout > 0 && l.used.Add(config.IdleTimeout).Before(next) {
		next = l.used.Add(config.IdleTimeout)
	}
	if !l.end.IsZero() && l.end.Before(next) {
		next = l.end
	}
	l.timer.Reset(max(next.Sub(now), time.Millisecond))
}

func (l *life) ping(now time.Time) {
	l.pinged = now
	l.conn.out.buf = append(frame.Append(l.conn.out.buf, 8, frame.Ping, 0, 0), make([]byte, 8)...)
}

// drain asks the client to reconnect and lets its requests end. Called without mu.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.err == nil && c.life.timer != nil {
		c.life.leave(time.Now())
		c.out.flushSoon()
	}
}

// leave sends the first GOAWAY, which names no stream: requests that are on their way are still served. The client
// acknowledges the PING after it has seen it.
func (l *life) leave(now time.Time) {
	if !l.leaving.IsZero() {
		return
	}
	l.leaving = now
	l.conn.out.buf = frame.AppendGoAway(l.conn.out.buf, frame.MaxID, frame.CodeNone)
	l.ping(now)
	l.busy = false
	l.watch()
}

// closing sends the second GOAWAY when the client knows the first, and closes the connection after its last request.
func (l *life) closing() {
	c := l.conn
	if l.leaving.IsZero() {
		return
	}
	if !l.left && (l.pinged.IsZero() || time.Since(l.leaving) >= goAwayWait) {
		l.left = true
		c.out.buf = frame.AppendGoAway(c.out.buf, c.streams.last, frame.CodeNone)
	}
	if l.left && len(c.streams.open) == 0 {
		c.out.last = true // closes it after the write
		c.out.flushSoon()
	}
}

// goodbye tells the client which mistake ends the connection, and waits a little until it knows: closing a connection with
// unread bytes would discard the message.
func (c *conn) goodbye(why frame.Code) {
	c.out.buf = frame.AppendGoAway(c.out.buf, c.streams.last, why)
	if c.out.drained() != nil {
		return
	}
	c.mu.Unlock()
	defer c.mu.Lock()
	if closeWrite(c.nc) != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(goodbyeWait)) != nil {
		return
	}
	for read := 0; read < goodbyeBytes; {
		n, err := c.nc.Read(c.in.buf)
		if err != nil {
			return
		}
		read += n
	}
}

// goodbyeWait and goodbyeBytes limit what is read after an error.
const goodbyeWait, goodbyeBytes = 500 * time.Millisecond, 1 << 20
