// Package memberlist has the list of members that a member reports to the clients of the ring: Feed and List at the member, Table at
// the client. Only changes are sent, so that a rolling restart costs a client what changes and not a list for each step.
package memberlist

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// List is the records of the members: id → record. It is immutable; nil is a list that was never sent.
type List map[string]string

// Since returns the responses that change old, the list that was sent before, to l. There is at least one if old is nil, because
// an empty list is news, too.
func (l List) Since(old List) (parts []*peerv1.MembersResponse) {
	var changed [][]byte
	for _, id := range slices.Sorted(maps.Keys(l)) {
		if l[id] != old[id] {
			changed = append(changed, []byte(l[id]))
		}
	}
	var removed []string
	for _, id := range slices.Sorted(maps.Keys(old)) {
		if l[id] == "" {
			removed = append(removed, id)
		}
	}
	for len(changed)+len(removed) > 0 {
		n := min(len(changed), wire.MaxMembersPart)
		k := min(len(removed), wire.MaxMembersPart)
		parts = append(parts, &peerv1.MembersResponse{Changed: changed[:n], Removed: removed[:k], More: true})
		changed, removed = changed[n:], removed[k:]
	}
	if old == nil && parts == nil {
		parts = []*peerv1.MembersResponse{{}}
	}
	if len(parts) > 0 {
		parts[len(parts)-1].More = false
	}
	return parts
}

// Feed has the latest list. The zero Feed has none yet.
type Feed struct {
	mu      sync.Mutex             // guards the rest
	list    List                   // nil before the first one
	encoded map[ring.Member]string // :: member of list → its record
	changed chan struct{}          // closed at the next change; nil while nobody waits for it
}

// Set replaces the list. The directory may have records that cannot be encoded again; they are left out.
func (f *Feed) Set(members []ring.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, encoded := make(List, len(members)), make(map[ring.Member]string, len(members))
	for _, m := range members {
		text, known := f.encoded[m] // most have not changed, and encoding them is most of what a change costs a member
		if !known {
			var err error
			if text, _, err = record.Encode(m); err != nil {
				continue
			}
		}
		next[m.ID], encoded[m] = text, text
	}
	f.encoded = encoded
	if f.list != nil && maps.Equal(f.list, next) {
		return
	}
	f.list = next
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Load returns the list, nil if there is none yet, and a channel that is closed at the next change.
func (f *Feed) Load() (List, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.list, f.changed
}

// Table is the list at a client.
type Table struct {
	members map[string]ring.Member
}

// Apply changes the table by a response. It fails if the member sends what cannot be a list of members; no part of the list is
// then to be used.
func (t *Table) Apply(r *peerv1.MembersResponse) error {
	if t.members == nil {
		t.members = make(map[string]ring.Member)
	}
	for _, value := range r.GetChanged() {
		m, err := record.Read(value)
		if err != nil {
			return err
		}
		t.members[m.ID] = m
	}
	if len(t.members) > record.MaxMembers { //guard:list-of-members-without-limit
		return fmt.Errorf("more than %d members", record.MaxMembers)
	}
	for _, id := range r.GetRemoved() {
		delete(t.members, id)
	}
	return nil
}

// Members returns the members, sorted by id.
func (t *Table) Members() []ring.Member {
	list := make([]ring.Member, 0, len(t.members))
	for _, id := range slices.Sorted(maps.Keys(t.members)) {
		list = append(list, t.members[id])
	}
	return list
}
