// Package ring assigns route keys to members by consistent hashing. The ring is the same, entry for entry, as the one
// that Envoy's RING_HASH load balancer and gRPC's ring_hash_experimental build from the same members, so that a client
// that balances by itself reaches the owner of a key without a hop. DESIGN.md has the sources, proofs and figures.
//
// A Ring never changes: a change of members is a new Ring. The package does no I/O; a Directory finds the members.
package ring

import (
	"iter"
	"math/bits"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Ring is an immutable assignment of route keys to members, safe for concurrent use. A nil Ring is an empty one.
// The members that its methods point to are shared: never modify them.
type Ring struct {
	members []Member // sorted by hash key
	byID    []uint32 // indices in members, sorted by node id
	hashes  []uint64 // ascending; apart from owners, so that a search touches as few cache lines as it can
	owners  []uint32 // owners[i] is the index in members of the owner of hashes[i]
	id      uint64
}

// New builds the ring of members, in whatever order they come. Members that are Leaving are left out. No members make
// an empty ring, which owns nothing. The error says which member is wrong (see Member) or that size is (see Size).
//
// The time is that of sorting the entries: size.Max of them at most.
func New(members []Member, size Size) (*Ring, error) {
	size, err := size.effective()
	if err != nil {
		return nil, err
	}
	r := &Ring{members: onRing(members)}
	if err := checkKeys(r.members); err != nil {
		return nil, err
	}
	if r.byID, err = indexByID(r.members); err != nil {
		return nil, err
	}
	if len(r.members) == 0 {
		return r, nil
	}
	r.hashes, r.owners = sorted(place(r.members, size))
	r.id = identity(r.members, size)
	return r, nil
}

// Owner returns the member that owns routeKey (see RouteKey), nil on an empty ring. It does not allocate.
func (r *Ring) Owner(routeKey string) *Member {
	if r.Len() == 0 {
		return nil
	}
	return &r.members[r.owners[search(r.hashes, Hash(routeKey))]]
}

// Successors yields each member that has an entry (see Size) once, in the order in which it is asked for routeKey: the
// owner, then the member of each next entry of the ring that was not yielded before. Every node of the same ring yields
// the same order; so does gRPC when it passes over members that it cannot connect to (gRFC A42). A caller that stops
// after a few of up to 4096 members causes no allocation.
func (r *Ring) Successors(routeKey string) iter.Seq[*Member] {
	return func(yield func(*Member) bool) { r.walk(routeKey, yield) }
}

func (r *Ring) walk(routeKey string, yield func(*Member) bool) {
	if r.Len() == 0 {
		return
	}
	var onStack [64]uint64 // 4096 members, DefaultSize's Max: the read path asks for a successor and must not allocate
	seen := bitset(onStack[:])
	if len(r.members) > len(onStack)*64 {
		seen = make(bitset, (len(r.members)+63)/64)
	}
	first := search(r.hashes, Hash(routeKey))
	for _, span := range [2][]uint32{r.owners[first:], r.owners[:first]} {
		for _, m := range span {
			if seen.add(m) && !yield(&r.members[m]) {
				return
			}
		}
	}
}

type bitset []uint64

// add reports whether i was new.
func (s bitset) add(i uint32) bool {
	word, bit := &s[i/64], uint64(1)<<(i%64)
	isNew := *word&bit == 0
	*word |= bit
	return isNew
}

// Member returns the member of the ring with the given node id, nil when there is none.
func (r *Ring) Member(id string) *Member {
	if r == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(r.byID, id, func(m uint32, id string) int {
		return strings.Compare(r.members[m].ID, id)
	})
	if !found {
		return nil
	}
	return &r.members[r.byID[i]]
}

// Members returns a copy of the members, sorted by hash key.
func (r *Ring) Members() []Member {
	if r == nil {
		return nil
	}
	return slices.Clone(r.members)
}

// Len is the number of members.
func (r *Ring) Len() int {
	if r == nil {
		return 0
	}
	return len(r.members)
}

// Entries yields the entries of the ring in ascending order: an entry's member owns the hashes up to and including the
// entry's, from that of the entry before. The first entry's member owns those above the last, too.
func (r *Ring) Entries() iter.Seq2[uint64, *Member] {
	return func(yield func(uint64, *Member) bool) {
		if r == nil {
			return
		}
		for i, h := range r.hashes {
			if !yield(h, &r.members[r.owners[i]]) {
				return
			}
		}
	}
}

// ID names the ring: two rings have the same ID when they have the same size and the same members by id, hash key and
// address, on whichever node they were built. It travels on every hop, so that nodes notice that they disagree. The ID
// of an empty ring is 0.
func (r *Ring) ID() uint64 {
	if r == nil {
		return 0
	}
	return r.id
}

// Hash is XXH64 with seed 0, as Envoy and gRPC hash what they route by.
func Hash(s string) uint64 { return xxhash.Sum64String(s) }

// search returns the index of the first hash >= h, or 0 when there is none: the ring is closed. hashes is not empty.
// The comparison is arithmetic because a processor cannot predict it: as a branch it takes 2.5 times as long.
func search(hashes []uint64, h uint64) int {
	i := 0
	for n := len(hashes); n > 0; {
		half := (n + 1) / 2
		_, less := bits.Sub64(hashes[i+half-1], h, 0)
		i += half & -int(less)
		n -= half
	}
	if i == len(hashes) {
		return 0
	}
	return i
}
