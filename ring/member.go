package ring

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Member is one sidecar as the directory lists it.
type Member struct {
	// ID is the node id: not empty, and unique on a ring.
	ID string
	// HashKey is what the ring hashes, unique on a ring; Addr when it is empty.
	HashKey string
	// Addr is the advertised host:port of the peer listener.
	Addr string
	// Zone and Version are for people to read; the ring does not depend on them.
	Zone, Version string
	// Started is when the sidecar's process started; like Zone, it is for people to read.
	Started time.Time
	// Leaving: the member has said goodbye. It is off the ring but still serves.
	Leaving bool
}

// Key is the hash key in effect: HashKey, or Addr when that is empty.
func (m *Member) Key() string { return cmp.Or(m.HashKey, m.Addr) }

// onRing copies the members that are not Leaving, sorted bytewise by hash key.
func onRing(members []Member) []Member {
	on := make([]Member, 0, len(members))
	for _, m := range members {
		if !m.Leaving {
			on = append(on, m)
		}
	}
	slices.SortFunc(on, func(a, b Member) int { return cmp.Compare(a.Key(), b.Key()) })
	return on
}

// indexByID refuses what would make a ring ambiguous. members are sorted by hash key.
func indexByID(members []Member) (map[string]*Member, error) {
	byID := make(map[string]*Member, len(members))
	for i := range members {
		m := &members[i]
		switch {
		case m.ID == "":
			return nil, fmt.Errorf("ring: member at %q has no id", m.Addr)
		case m.Key() == "":
			return nil, fmt.Errorf("ring: member %q has neither a hash key nor an address", m.ID)
		case i > 0 && m.Key() == members[i-1].Key():
			return nil, fmt.Errorf("ring: members %q and %q have the same hash key %q", members[i-1].ID, m.ID, m.Key())
		}
		if other := byID[m.ID]; other != nil {
			return nil, fmt.Errorf("ring: members at %q and %q have the same id %q", other.Addr, m.Addr, m.ID)
		}
		byID[m.ID] = m
	}
	return byID, nil
}
