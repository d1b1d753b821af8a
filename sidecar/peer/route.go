package peer

import (
	"time"

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
	return kv.Route{Owner: v.peers[owner.ID], Successor: p.successor(v, rk)}
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
