// Package ring assigns route keys to members by consistent hashing. The ring is the same, entry for entry, as the one
// that Envoy's RING_HASH load balancer and gRPC's ring_hash_experimental build from the same members, so that a client
// that balances by itself reaches the owner of a key without a peer fetch. DESIGN.md has the sources, proofs and figures.
//
// A Ring never changes: a change of members requires a new Ring. The package does no I/O; a Directory lists the members.
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
	hashes  []uint64 // ascending; separate from owners, so that a search touches few cache lines
	owners  []uint32 // owners[i] is the index in members of the owner of hashes[i]
	id      uint64
}

// New builds the ring of members, whose order does not matter. Leaving members are not on the ring. A ring without members
// is empty and owns nothing. The error names the invalid member (see Member) or the invalid size (see Size).
//
// New sorts all entries, at most size.Max.
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

// Owner returns the member that owns routeKey (see package routekey), nil on an empty ring. It does not allocate.
func (r *Ring) Owner(routeKey string) *Member {
	if r.Len() == 0 {
		return nil
	}
	return &r.members[r.owners[search(r.hashes, Hash(routeKey))]]
}

// Successors yields each member that has an entry (see Size) once, in the order of preference for routeKey: the owner, then
// the member of each following entry that was not yielded before. All members with the same ring yield the same order; so
// does gRPC when it skips members that it cannot connect to (gRFC A42). On a ring of up to 4096 members it does not
// allocate.
func (r *Ring) Successors(routeKey string) iter.Seq[*Member] {
	return func(yield func(*Member) bool) { r.walk(routeKey, yield) }
}

func (r *Ring) walk(routeKey string, yield func(*Member) bool) {
	if r.Len() == 0 {
		return
	}
	var onStack [64]uint64 // for 4096 members, DefaultSize's Max: the read path looks up successors and must not allocate
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

// Member returns the member of the ring with the given node id, or nil.
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

// Entries yields the entries of the ring in ascending order of hash. The member of an entry owns the hashes after the
// previous entry up to and including its own. The member of the first entry also owns the hashes after the last one.
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

// ID identifies the ring: rings of the same size with the same members (id, hash key and address) have the same ID. Members
// send it with every peer fetch to detect different rings. The ID of an empty ring is 0.
func (r *Ring) ID() uint64 {
	if r == nil {
		return 0
	}
	return r.id
}

// Hash is XXH64 with seed 0, as Envoy and gRPC hash what they route by.
func Hash(s string) uint64 { return xxhash.Sum64String(s) }

// search returns the index of the first hash >= h, or 0 when there is none: the ring wraps around. hashes is not empty. The
// comparison is arithmetic because a processor cannot predict it: with a branch it takes 2.5 times as long.
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
