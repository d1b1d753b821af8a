package peer

import (
	"maps"
	"slices"
	"sync/atomic"
)

// counters of a Pool since its start; subscriptions is the present number.
type counters struct {
	unreachable, refused, connsRefused              atomic.Int64
	pingTimeouts, breakersOpened, disagreements     atomic.Int64
	broadcastsFailed, subscriptions, received, gaps atomic.Int64
	merged                                          atomic.Int64
	sameZone, otherZone                             atomic.Int64
}

// Stats is a snapshot of a Pool.
type Stats struct {
	Conns, MaxConns int64 // members with a live connection, and the limit of connected members
	BreakersOpen    int64 // members whose breaker is open
	MaxCalls        int64 // limit of running fetches and writes to one member
	Subscriptions   int64 // members whose invalidations are being received

	// Counted since the start.
	Unreachable      int64 // fetches without an answer, and writes that were not sent
	Refused          int64 // fetches and writes refused because of MaxCalls
	ConnsRefused     int64 // calls refused because of MaxConns
	PingTimeouts     int64 // pings by the failure detector without an answer in time
	BreakersOpened   int64
	Disagreements    int64 // answers by members with another ring
	Published        int64 // invalidations written to the log for subscribers
	Received         int64 // invalidations received by subscriptions
	Gaps             int64 // times that a stream broke, was silent, or had a gap
	BroadcastsFailed int64 // members not reached by Broadcast
	SameZone         int64 // keys that members of this one's zone were asked for; 0 without Config.Zone
	OtherZone        int64 // … and members of other zones
	Merged           int64 // lists of invalidations beyond the quota of their member, which expired whole datasets
}

// Stats returns a snapshot. It looks at every peer: call it for a scrape, not for a request.
func (p *Pool) Stats() Stats {
	s := Stats{
		MaxConns:         p.config.MaxConns,
		MaxCalls:         p.config.MaxCalls,
		Subscriptions:    p.counters.subscriptions.Load(),
		Unreachable:      p.counters.unreachable.Load(),
		Refused:          p.counters.refused.Load(),
		ConnsRefused:     p.counters.connsRefused.Load(),
		PingTimeouts:     p.counters.pingTimeouts.Load(),
		BreakersOpened:   p.counters.breakersOpened.Load(),
		Disagreements:    p.counters.disagreements.Load(),
		Published:        int64(p.log.Published()),
		Received:         p.counters.received.Load(),
		Gaps:             p.counters.gaps.Load(),
		BroadcastsFailed: p.counters.broadcastsFailed.Load(),
		SameZone:         p.counters.sameZone.Load(),
		OtherZone:        p.counters.otherZone.Load(),
		Merged:           p.counters.merged.Load(),
	}
	for _, other := range p.all() {
		if other.connected() {
			s.Conns++
		}
		if other.open.Load() {
			s.BreakersOpen++
		}
	}
	return s
}

// all lists the open peers, so that the caller reads them without the pool's lock.
func (p *Pool) all() []*peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.peers))
}

func (p *peer) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn != nil && p.conn.Connected()
}
