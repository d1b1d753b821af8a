package peer

import (
	"maps"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/connectivity"
)

// counters of a Pool since its start.
type counters struct {
	fetches, unreachable, refused, connsRefused, silences, broken, disagreements atomic.Int64

	writes, writesUnknown, tells, untold, followed, received, gaps atomic.Int64
}

// Stats is a snapshot of a Pool.
type Stats struct {
	Conns, MaxConns int64 // members with a live connection now, and the bound of members that are connected to
	BreakersOpen    int64 // members whose breaker is open now
	MaxCalls        int64 // bound of fetches and writes under way to one member
	Following       int64 // members whose invalidations come in now

	// Counted since the start.
	Fetches       int64 // those of batches included
	Writes        int64
	Unreachable   int64 // fetches that got no answer, and writes that were not sent
	WritesUnknown int64 // writes that were sent, and of which nobody knows what came of them
	Refused       int64 // fetches and writes refused because of MaxCalls
	ConnsRefused  int64 // calls that found no connection free below MaxConns
	Silences      int64 // times that a member did not answer a ping in time
	BreakerOpened int64
	Disagreements int64 // answers by members whose ring was another
	Published     int64 // invalidations put into the log for those who follow
	Received      int64 // invalidations of members that this one follows
	Gaps          int64 // times that a stream broke, was silent, or had a gap
	Tells         int64 // members told by TellAll, and
	Untold        int64 // members that it could not reach
}

// Stats returns a snapshot. It looks at every peer: it is for a scrape, not for a request.
func (p *Pool) Stats() Stats {
	s := Stats{
		MaxConns:      p.config.MaxConns,
		MaxCalls:      p.config.MaxCalls,
		Fetches:       p.counters.fetches.Load(),
		Unreachable:   p.counters.unreachable.Load(),
		Refused:       p.counters.refused.Load(),
		ConnsRefused:  p.counters.connsRefused.Load(),
		Silences:      p.counters.silences.Load(),
		BreakerOpened: p.counters.broken.Load(),
		Disagreements: p.counters.disagreements.Load(),
		Following:     p.counters.followed.Load(),
		Writes:        p.counters.writes.Load(),
		WritesUnknown: p.counters.writesUnknown.Load(),
		Published:     int64(p.log.published()),
		Received:      p.counters.received.Load(),
		Gaps:          p.counters.gaps.Load(),
		Tells:         p.counters.tells.Load(),
		Untold:        p.counters.untold.Load(),
	}
	for _, other := range p.all() {
		if other.connected() {
			s.Conns++
		}
		if other.broken.Load() {
			s.BreakersOpen++
		}
	}
	return s
}

// all lists the peers, so that they are looked at without the pool's lock.
func (p *Pool) all() []*peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.peers))
}

func (p *peer) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn != nil && p.conn.GetState() == connectivity.Ready
}
