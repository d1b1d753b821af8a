package etcd

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/ring"
)

// table is what the directory lists: the acceptable records by id, whatever they say of each other.
type table struct {
	prefix string // of the keys
	listed map[string]listed
	refuse func(*refusal)
}

type listed struct {
	member   ring.Member
	revision int64 // at which it was written
}

func newTable(prefix string, refuse func(*refusal)) *table {
	return &table{prefix: prefix, listed: make(map[string]listed), refuse: refuse}
}

// put takes a record in, or refuses it; then an earlier record of the same key is gone, too, as it is from etcd.
func (t *table) put(key string, value []byte, revision int64) {
	id := strings.TrimPrefix(key, t.prefix)
	m, refused := parse(id, value)
	if _, known := t.listed[id]; refused == nil && !known && len(t.listed) >= maxMembers { //guard:directory-without-bound
		refused = &refusal{reason: TooMany, id: id, detail: "the directory is full"}
	}
	if refused != nil {
		delete(t.listed, id)
		t.refuse(refused)
		return
	}
	t.listed[id] = listed{m, revision}
}

func (t *table) delete(key string) { delete(t.listed, strings.TrimPrefix(key, t.prefix)) }

// leaving reports whether the record of key says goodbye.
func (t *table) leaving(key string) bool {
	return t.listed[strings.TrimPrefix(key, t.prefix)].member.Leaving
}

// members returns the members, sorted by id, without duplicates: of two that publish the same hash key or address, the
// later one has it, for an address is given to a new pod while the lease of a dead one still runs. Everybody sees the
// same revisions, and so chooses alike. Who is leaving is in nobody's way.
func (t *table) members() []ring.Member {
	latestFirst := slices.SortedFunc(maps.Values(t.listed), func(a, b listed) int {
		return cmp.Or(cmp.Compare(b.revision, a.revision), cmp.Compare(a.member.ID, b.member.ID))
	})
	members := make([]ring.Member, 0, len(latestFirst))
	keys, addrs := make(map[string]string, len(latestFirst)), make(map[string]string, len(latestFirst))
	for _, l := range latestFirst {
		m := l.member
		if !m.Leaving {
			if other := cmp.Or(keys[m.Key()], addrs[m.Addr]); other != "" {
				t.refuse(&refusal{reason: Duplicate, id: m.ID, detail: "same hash key or address as " + other})
				continue
			}
			keys[m.Key()], addrs[m.Addr] = m.ID, m.ID
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b ring.Member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}
