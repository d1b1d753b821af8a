package ring

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Member is a sidecar in the directory.
type Member struct {
	// ID is the node id: not empty, unique on a ring.
	ID string
	// HashKey is what the ring hashes, unique on a ring; Addr when it is empty.
	HashKey string
	// Addr is the advertised host:port of the peer listener.
	Addr string
	// Zone is where the member is, and Version that of its program; the ring does not depend on them.
	Zone, Version string
	// Started is when the sidecar's process started; like Zone, it is for people to read.
	Started time.Time
	// Ring has the sizes that the member is configured with; zero if they are not known. All members need the same.
	Ring Size
	// Leaving: the member is shutting down. It is not on the ring and still serves.
	Leaving bool
}

// Key is the effective hash key: HashKey, or Addr when HashKey is empty.
func (m *Member) Key() string { return cmp.Or(m.HashKey, m.Addr) }

// onRing copies the members that are not Leaving, sorted bytewise by hash key.
func onRing(members []Member) []Member {
	on := make([]Member, 0, len(members))
	for _, m := range members {
		if !m.Leaving { //guard:leaving-member-owns-keys
			on = append(on, m)
		}
	}
	slices.SortFunc(on, func(a, b Member) int { return strings.Compare(a.Key(), b.Key()) })
	return on
}

// checkKeys rejects members without a hash key or with equal ones. members are sorted by hash key.
func checkKeys(members []Member) error {
	for i := range members {
		m := &members[i]
		if m.Key() == "" {
			return fmt.Errorf("ring: member %q has neither a hash key nor an address", m.ID)
		}
		if i > 0 && m.Key() == members[i-1].Key() {
			return fmt.Errorf("ring: members %q and %q have the same hash key %q", members[i-1].ID, m.ID, m.Key())
		}
	}
	return nil
}

// indexByID returns the indices of members in the order of their ids. It rejects empty and duplicate ids.
func indexByID(members []Member) ([]uint32, error) {
	byID := make([]uint32, len(members))
	for i := range byID {
		byID[i] = uint32(i)
	}
	slices.SortFunc(byID, func(a, b uint32) int { return strings.Compare(members[a].ID, members[b].ID) })
	for i := range byID {
		m := &members[byID[i]]
		if m.ID == "" {
			return nil, fmt.Errorf("ring: the member with hash key %q has no id", m.Key())
		}
		if i > 0 && m.ID == members[byID[i-1]].ID {
			other := &members[byID[i-1]]
			return nil, fmt.Errorf("ring: the members with hash keys %q and %q have the same id %q", other.Key(), m.Key(), m.ID)
		}
	}
	return byID, nil
}
