package membership

import "github.com/ringside-cache/ringside/ring"

// choice is who is on the next ring.
type choice struct {
	members []ring.Member
	refused int // listed members that claim what another has
}

// decide chooses the members of the next ring out of self, those that the directory lists, and those that it listed
// once and that are kept because they may still be there. Where two claim the same, self comes before the listed, and
// these before the kept: the address of a pod that died is given to another. The result is empty only when self is
// leaving and nobody else is there; then the ring that is in use should stay.
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

// claims are what may be on a ring once.
type claims struct{ ids, keys, addrs map[string]bool }

// claim reports whether m may be on the ring, and if so takes what it claims.
func (c claims) claim(m ring.Member) bool {
	if m.ID == "" || m.Addr == "" || c.ids[m.ID] || c.keys[m.Key()] || c.addrs[m.Addr] {
		return false
	}
	c.ids[m.ID], c.keys[m.Key()], c.addrs[m.Addr] = true, true, true
	return true
}
