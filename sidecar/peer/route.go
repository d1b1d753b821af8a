package peer

import (
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// maxWalk bounds how many members after the owner are considered as successor when breakers are open.
const maxWalk = 4

// Route implements cache.Peers. It takes one allocation: the route key.
func (p *Pool) Route(dataset, key string) cache.Route {
	v := p.view.Load()
	rk := routeKey(dataset, key)
	owner := v.cur.Owner(rk)
	switch {
	case owner == nil:
		return cache.Route{}
	case owner.ID == p.config.Self:
		return cache.Route{Previous: p.previous(v, rk)}
	}
	return cache.Route{Owner: v.peers[owner.ID], Successor: p.successor(v, rk)}
}

// successor passes over members whose breaker is open, as gRPC's ring_hash passes over those that it cannot connect to
// (gRFC A42). Two sidecars may see that differently for a moment; the other choice would be a load by each of them.
func (p *Pool) successor(v *view, rk string) cache.Peer {
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
		if !next.broken.Load() { //guard:successor-dead-member-dead-too
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

// previous returns who owned, under the ring before this one, a key that is this member's now.
func (p *Pool) previous(v *view, rk string) cache.Peer {
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
func orNil(p *peer) cache.Peer {
	if p == nil {
		return nil
	}
	return p
}

func routeKey(dataset, key string) string {
	var buf [256]byte
	return string(ring.AppendRouteKey(buf[:0], dataset, key))
}
