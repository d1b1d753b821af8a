package peer

import (
	"slices"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// maxWalk limits how many members after the owner are candidates for the successor when breakers are open.
const maxWalk = 4

// Route implements kv.Peers. It allocates the route key only.
func (p *Pool) Route(dataset, key string) kv.Route {
	v := p.view.Load()
	rk := routeKey(dataset, key)
	owner := v.cur.Owner(rk)
	switch {
	case owner == nil:
		return kv.Route{}
	case owner.ID == p.config.Self:
		return kv.Route{Previous: p.previous(v, rk)}
	}
	o := v.peers[owner.ID]
	return kv.Route{Owner: o, Successor: p.successor(v, rk), OwnerDown: o.open.Load()}
}

// zoneRing returns the ring of the members of a zone. Only members of the zone use it, so that its size needs no setting.
func zoneRing(all *ring.Ring, zone string) *ring.Ring {
	r, err := ring.New(slices.DeleteFunc(all.Members(), func(m ring.Member) bool { return m.Zone != zone }), ring.Size{})
	if err != nil {
		return nil // a subset of the members of a ring is valid
	}
	return r
}

// ZoneOwner implements kv.Peers.
func (p *Pool) ZoneOwner(dataset, key string) (m kv.Peer, self bool) {
	v := p.view.Load()
	owner := p.zoneOwner(v, routeKey(dataset, key))
	switch {
	case owner == nil:
		return nil, false
	case owner.ID == p.config.Self:
		return nil, true
	}
	if next := v.peers[owner.ID]; !next.open.Load() { //guard:dead-zone-owner-is-asked
		return next, false
	}
	return nil, false
}

// zoneOwner returns the owner of a key among the members of this zone; nil if there are no zones, or the owner is in this one.
func (p *Pool) zoneOwner(v *view, rk string) *ring.Member {
	if v.zone.Len() == 0 || v.cur.Owner(rk).Zone == p.config.Zone { //guard:keys-of-this-zone-are-fetched-twice
		return nil
	}
	return v.zone.Owner(rk)
}

// successor skips members whose breaker is open, as gRPC's ring_hash skips members that it cannot connect to (gRFC A42). For
// a moment two sidecars may choose differently; otherwise each of them would load the key.
func (p *Pool) successor(v *view, rk string) kv.Peer {
	var first *peer
	position := 0
	for m := range v.cur.Successors(rk) {
		if position++; position == 1 {
			continue // the owner
		}
		if m.ID == p.config.Self {
			return nil
		}
		next := v.peers[m.ID]
		if !next.open.Load() { //guard:successor-of-dead-member-dead
			return next
		}
		if first == nil {
			first = next
		}
		if position > maxWalk {
			break
		}
	}
	return orNil(first)
}

// relays is how many successors of a hot key answer fetches of it for the owner. With ten thousand members each has 1000 a second.
const relays = 4

// Relay implements kv.Peers. The members choose among the first successors, each the same one every time; with zones, among those of
// their own zone.
func (p *Pool) Relay(dataset, key string) kv.Peer {
	v := p.view.Load()
	rk := routeKey(dataset, key)
	first := v.cur.Owner(rk)
	if first == nil || first.ID == p.config.Self { // since Route was called
		return nil
	}
	owner, walk := v.peers[first.ID], v.cur
	if p.config.Zones {
		walk = v.zone //guard:hot-keys-cross-zones
	}
	list, position := make([]*peer, 0, relays), 0
	for m := range walk.Successors(rk) {
		switch {
		case m.ID == p.config.Self: //guard:relay-of-a-key-asks-another-one
			return nil
		case m.ID == owner.member.ID:
			continue
		}
		if next := v.peers[m.ID]; !next.open.Load() {
			list = append(list, next)
		}
		if position++; position == relays {
			break
		}
	}
	if len(list) == 0 || owner.open.Load() || !owner.willBeSubscribed() {
		return nil
	}
	owner.relayedAt.Store(int64(p.now()))
	return list[p.spread%uint64(len(list))]
}

// willBeSubscribed reports whether this member receives the invalidations of p now, and goes on for longer than copies live. If it
// does not, the next fetch must go to p itself: its answer renews the subscription.
func (p *peer) willBeSubscribed() bool {
	o := p.stream.Load()
	life := max(time.Duration(p.pool.vigil.copies.Load()), kv.HotCopyTTL)
	return o != nil && o.epoch.Load() != 0 && p.pool.now()-time.Duration(p.answeredAt.Load())+life < p.pool.config.SubscriptionIdle //guard:relayed-copy-without-invalidations
}

// previous returns the member that owned, on the previous ring, a key that this member owns now.
func (p *Pool) previous(v *view, rk string) kv.Peer {
	if v.prev == nil || time.Since(v.changed) > p.config.WarmUp {
		return nil
	}
	m := v.prev.Owner(rk)
	if m == nil || m.ID == p.config.Self {
		return nil
	}
	return orNil(v.peers[m.ID])
}

// orNil keeps a nil *peer from becoming an interface that is not nil.
func orNil(p *peer) kv.Peer {
	if p == nil {
		return nil
	}
	return p
}

func routeKey(dataset, key string) string {
	var buf [256]byte
	return string(routekey.Append(buf[:0], dataset, key))
}
