package membership

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/printable"
)

// published puts the ring and the leaving members together, for those who get the ring from this sidecar.
type published struct {
	use func([]ring.Member)

	mu      sync.Mutex // guards the rest, and the order of calls of use
	listed  bool       // there was a list; until then the ring is this sidecar alone
	ring    *ring.Ring
	leaving []ring.Member
}

func (p *published) useRing(r *ring.Ring) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring = r
	p.useLocked()
}

func (p *published) useList(members []ring.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listed = true
	p.leaving = nil
	for _, m := range members {
		if m.Leaving {
			p.leaving = append(p.leaving, m)
		}
	}
	p.useLocked()
}

// useLocked publishes nothing before the first list: a sidecar that was just restarted knows only itself, and those who get the
// ring from it may still have the whole one from its predecessor.
func (p *published) useLocked() {
	if !p.listed || p.ring == nil {
		return
	}
	members := p.ring.Members()
	for _, m := range p.leaving {
		if p.ring.Member(m.ID) == nil {
			members = append(members, m)
		}
	}
	p.use(members)
}

// ClientStats is where a client gets its lists from.
type ClientStats struct {
	From      string // address of the member that sends it lists; empty while there is none
	Members   int    // in the last one
	Lists     int64
	Losses    int64 // streams that ended, and attempts without one
	LastError string
	// ContactAge is the time since there was such a member, or since the start; 0 while there is one.
	ContactAge time.Duration
}

// lists counts the lists of a client.
type lists struct {
	mu       sync.Mutex // guards the rest
	stats    ClientStats
	since    time.Time // when From became empty
	reported bool      // the present outage is in the log
}

// ClientStats returns a snapshot; ok is false while this sidecar is a member, or gets its ring by xDS.
func (m *Members) ClientStats() (s ClientStats, ok bool) {
	if !m.client.Load() || m.directory.client != nil {
		return s, false
	}
	m.lists.mu.Lock()
	defer m.lists.mu.Unlock()
	s = m.lists.stats
	if s.From == "" {
		s.ContactAge = time.Since(m.lists.since)
	}
	return s, true
}

// Promotions counts how often this sidecar, a client, became a member.
func (m *Members) Promotions() int64 { return m.promotions.Load() }

// received records a list.
func (m *Members) received(from string, members int) {
	l := &m.lists
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reported {
		m.log.Info("got the list of members from " + from)
	}
	l.stats.From, l.stats.Members, l.stats.LastError, l.reported = from, members, "", false
	l.stats.Lists++
}

// lost records that a member sends no lists any more, and logs the first reason of an outage.
func (m *Members) lost(err error) {
	l := &m.lists
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stats.From != "" {
		l.since = time.Now()
	}
	l.stats.From, l.stats.LastError = "", printable.Text(err.Error())
	l.stats.Losses++
	if !l.reported && l.stats.Losses > 1 { // members restart
		l.reported = true
		m.log.Warn("no list of members at present; the last one stays in use", zap.Error(err))
	}
}

// gate is closed until it opens once.
type gate struct {
	once   *sync.Once
	opened chan struct{}
}

func newGate() gate { return gate{new(sync.Once), make(chan struct{})} }

func (g gate) open() {
	if g.once != nil {
		g.once.Do(func() { close(g.opened) })
	}
}

func (g gate) isOpen() bool {
	select {
	case <-g.opened:
		return true
	default:
		return false
	}
}

// wait reports whether it opened before ctx was done.
func (g gate) wait(ctx context.Context) bool {
	select {
	case <-g.opened:
		return true
	case <-ctx.Done():
		return false
	}
}
