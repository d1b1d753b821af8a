package ring

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// Size limits the number of entries of a ring. Every member, and every Envoy and gRPC client that balances by the ring,
// must have the same Size. A field that is 0 stands for that of DefaultSize.
type Size struct {
	// Min and Max are entries: 1 <= Min <= Max <= MaxSize. The ring gets the least multiple of the number of members
	// that is at least Min, plus or minus one because of float64 rounding, and at most Max. Keep Max above Min plus
	// the number of members, or a change moves many keys between members that stay. With more than Max members, some
	// own nothing. DESIGN.md has figures for the choice.
	Min uint64 `json:"min"`
	Max uint64 `json:"max"`
}

// MaxSize is the largest Size.Max: Envoy's limit of maximum_ring_size and grpc-go's limit of maxRingSize.
const MaxSize = 8 << 20

// DefaultSize is gRPC's default. Envoy's own default maximum is MaxSize, but gRPC clients cap at 4096 (gRFC A42).
func DefaultSize() Size { return Size{Min: 1024, Max: 4096} }

func (s Size) effective() (Size, error) {
	def := DefaultSize()
	s = Size{Min: cmp.Or(s.Min, def.Min), Max: cmp.Or(s.Max, def.Max)}
	if s.Max > MaxSize {
		return Size{}, fmt.Errorf("ring: maximum size %d is above %d entries", s.Max, MaxSize)
	}
	if s.Min > s.Max {
		return Size{}, fmt.Errorf("ring: minimum size %d is above the maximum size %d", s.Min, s.Max)
	}
	return s, nil
}

type entry struct {
	hash  uint64
	owner uint32
}

// sorted returns the hashes and owners of entries, in ascending order of hash. Envoy and grpc-go leave the order of equal
// hashes undefined; here it is that of the hash keys, so that all members agree.
func sorted(entries []entry) (hashes []uint64, owners []uint32) {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.owner, b.owner))
	})
	hashes, owners = make([]uint64, len(entries)), make([]uint32, len(entries))
	for i, e := range entries {
		hashes[i], owners[i] = e.hash, e.owner
	}
	return hashes, owners
}

// place returns the entries of at least one member; members are sorted by hash key. It repeats each step of Envoy's
// Ring::Ring (ring_hash_lb.cc) and grpc-go's newRing (balancer/ringhash/ring.go) for members of equal weight. The rounding
// of each step decides which member gets one entry more than another, so no step may be omitted or merged.
func place(members []Member, size Size) []entry {
	weight := 1 / float64(len(members))
	scale := min(math.Ceil(weight*float64(size.Min))/weight, float64(size.Max))
	entries := make([]entry, 0, int(math.Ceil(scale))+1)
	var current, target float64
	var name []byte
	for m := range members {
		// The conversion prevents a fused multiply-add (Go specification, "Floating-point operators"), which would make
		// the ring of an arm64 node differ from that of an amd64 one.
		target += float64(scale * weight)
		name = append(append(name[:0], members[m].Key()...), '_')
		name = slices.Grow(name, len("18446744073709551615"))
		for i := uint64(0); current < target; i++ {
			hash := xxhash.Sum64(strconv.AppendUint(name, i, 10))
			entries = append(entries, entry{hash: hash, owner: uint32(m)})
			current++
		}
	}
	return entries
}

// identity hashes the members and the size. The length of each string is included, so that different sets have different
// identities.
func identity(members []Member, size Size) uint64 {
	buf := binary.AppendUvarint(nil, size.Min)
	buf = binary.AppendUvarint(buf, size.Max)
	for i := range members {
		m := &members[i]
		for _, s := range [...]string{m.ID, m.Key(), m.Addr} {
			buf = append(binary.AppendUvarint(buf, uint64(len(s))), s...) //guard:different-members-same-ring-id
		}
	}
	return xxhash.Sum64(buf)
}
