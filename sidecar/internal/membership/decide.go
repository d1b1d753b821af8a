package membership

import "github.com/ringside-cache/ringside/ring"

// choice is the members of the next ring.
type choice struct {
	members []ring.Member
	refused int // listed members with the id, key or address of another
}

// decide chooses the members of the next ring from self, the listed members, and the kept ones: members that the directory
// no longer lists but that may be alive. If two have the same id, key or address, self wins over listed members, and these
// over kept ones, because the address of a dead pod is reused. The result is empty only if self is leaving and there is no
// other member; the ring in use should then stay.
func decide(self ring.Member, leaving bool, listed, kept []ring.Member) choice {
	c := claims{ids: map[string]bool{}, keys: map[string]bool{}, addrs: map[string]bool{}}
	c.claim(self)
	var next choice
	if !leaving {
		next.members = append(next.members, self)
	}
	for _, m := range listed {
		switch {
		case m.Leaving || m.ID == self.ID: //guard:another-member-replaces-self
		case !c.claim(m):
			next.refused++
		default:
			next.members = append(next.members, m)
		}
	}
	for _, m := range kept { //guard:expired-leases-empty-ring
		if c.claim(m) {
			next.members = append(next.members, m)
		}
	}
	return next
}

// claims are the ids, keys and addresses that are used; each may be on a ring only once.
type claims struct{ ids, keys, addrs map[string]bool }

// claim reports whether m may be on the ring, and if so marks its id, key and address as used.
func (c claims) claim(m ring.Member) bool {
	if m.ID == "" || m.Addr == "" || c.ids[m.ID] || c.keys[m.Key()] || c.addrs[m.Addr] {
		return false
	}
	c.ids[m.ID], c.keys[m.Key()], c.addrs[m.Addr] = true, true, true
	return true
}
