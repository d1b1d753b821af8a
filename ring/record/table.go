package record

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/ring"
)

// Table has the valid records of the directory by id. They may conflict with each other.
type Table struct {
	prefix string // of the keys
	listed map[string]listed
	bad    map[string]struct{} // :: id → its record was rejected
	reject func(*Rejection)
}

type listed struct {
	member   ring.Member
	revision int64 // at which it was written
}

// NewTable returns an empty table of the keys with a prefix. reject is called with each rejected record.
func NewTable(prefix string, reject func(*Rejection)) *Table {
	return &Table{prefix: prefix, listed: make(map[string]listed), bad: make(map[string]struct{}), reject: reject}
}

// Put adds or rejects a record. A rejected record also removes the earlier record of the same key, as it did in etcd.
func (t *Table) Put(key string, value []byte, revision int64) {
	id := strings.TrimPrefix(key, t.prefix)
	m, rejected := parse(id, value)
	if _, known := t.listed[id]; rejected == nil && !known && len(t.listed) >= MaxMembers { //guard:directory-without-limit
		rejected = &Rejection{Reason: TooMany, id: id, detail: "the directory is full"}
	}
	if rejected != nil {
		delete(t.listed, id)
		t.bad[id] = struct{}{}
		t.reject(rejected)
		return
	}
	delete(t.bad, id)
	t.listed[id] = listed{m, revision}
}

// Delete removes the record of key.
func (t *Table) Delete(key string) {
	id := strings.TrimPrefix(key, t.prefix)
	delete(t.listed, id)
	delete(t.bad, id)
}

// Keys is the number of keys, those of rejected records included.
func (t *Table) Keys() int { return len(t.listed) + len(t.bad) }

// Len is the number of records.
func (t *Table) Len() int { return len(t.listed) }

// Leaving reports whether the record of key is marked as leaving.
func (t *Table) Leaving(key string) bool {
	return t.listed[strings.TrimPrefix(key, t.prefix)].member.Leaving
}

// Members returns the members, sorted by id, without duplicates. Of two members with the same hash key or address, the one
// written later wins: a new pod may get the address of a dead one whose lease has not expired. All members see the same
// revisions and therefore choose the same one. Leaving members do not conflict with others.
func (t *Table) Members() []ring.Member {
	latestFirst := slices.SortedFunc(maps.Values(t.listed), func(a, b listed) int {
		return cmp.Or(cmp.Compare(b.revision, a.revision), cmp.Compare(a.member.ID, b.member.ID))
	})
	members := make([]ring.Member, 0, len(latestFirst))
	keys, addrs := make(map[string]string, len(latestFirst)), make(map[string]string, len(latestFirst))
	for _, l := range latestFirst {
		m := l.member
		if !m.Leaving {
			if other := cmp.Or(keys[m.Key()], addrs[m.Addr]); other != "" {
				t.reject(&Rejection{Reason: Duplicate, id: m.ID, detail: "same hash key or address as " + other})
				continue
			}
			keys[m.Key()], addrs[m.Addr] = m.ID, m.ID
		}
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b ring.Member) int { return cmp.Compare(a.ID, b.ID) })
	return members
}
